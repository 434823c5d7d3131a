"""What comes from outside is not trusted: no network, no pickle, no paths in names, no formulas in tables."""

from __future__ import annotations

import json
import pickle
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.averages.files import write_averages
from napari_defects.io import write_micrograph
from napari_defects.saving import file_name

SOURCE = Path(nd.__file__).parent


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **keywords):
        raise AssertionError(f"a network connection was tried: {args}")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("offline")
def test_a_whole_analysis_with_a_shipped_network_opens_no_connection(tmp_path):
    image, _ = nd.simulate("WSe2", field_of_view_nm=4.0, defects={"V_Se": 0.05}, seed=2)
    path = write_micrograph(image, tmp_path / "image.tif")
    results = nd.analyze(nd.read_micrograph(path), "WSe2")
    results.write(tmp_path / "out")
    assert results.maps is not None, "the network ran"
    assert (tmp_path / "out" / "defects.csv").is_file()


def test_no_code_of_ours_unpickles_or_talks_to_the_network():
    forbidden = re.compile(
        r"^\s*(import|from) (pickle|dill|joblib|cloudpickle|requests|urllib\.request|http\.client|ftplib)\b"
        r"|allow_pickle=True|torch\.load\(|read_pickle|pickle\.loads?\(|shell=True|os\.system\(",
        re.M,
    )
    found = {
        str(path.relative_to(SOURCE)): match.group()
        for path in SOURCE.rglob("*.py")
        if (match := forbidden.search(path.read_text("utf-8"))) and "weights_only=True" not in path.read_text("utf-8")
    }
    assert not found


class _Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_pickle_in_disguise_is_refused_and_does_not_run(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"image{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([_Bomb()], object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises((ValueError, OSError)):
        nd.load_model(str(path)) if suffix == ".safetensors" else nd.read_micrograph(path)
    assert not (tmp_path / "exploded").exists()


def test_shipped_weights_are_safetensors_with_plain_metadata():
    weights = [*SOURCE.rglob("*.safetensors")]
    assert weights
    for path in weights:
        head = path.read_bytes()[:8]
        size = int.from_bytes(head, "little")
        with path.open("rb") as file:
            json.loads(file.read(8 + size)[8:])
    assert not [p for p in SOURCE.rglob("*") if p.suffix in (".pkl", ".pt", ".pth", ".joblib")]
    assert not [p for p in weights if zipfile.is_zipfile(p)]


@pytest.mark.parametrize("species", ["../../evil", "/etc/evil", "..\\evil", "a\0b"])
def test_names_from_tables_do_not_leave_the_folder(results, tmp_path, species):
    one = next(iter(results.averages.values()))
    (tmp_path / "in").mkdir()
    write_averages({species: one}, tmp_path / "in")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert len(list((tmp_path / "in").iterdir())) == 6


@pytest.mark.parametrize("words", ["..", ".", "", " ", "a/../b", "C:\\x", "-rf", "x" * 400, "nul\0"])
def test_file_names_are_plain(words):
    name = file_name(words)
    assert name
    assert Path(name).name == name
    assert len(name) <= 100
    assert "\0" not in name


def test_formulas_are_quoted_and_come_back(tmp_path):
    table = pd.DataFrame({"species": ["=1+1", "+A1", "-2", "@x", "\tx", "V_Se", "'=x"], "=name": range(7)})
    for suffix in (".csv", ".xlsx"):
        path = nd.write_table(table, tmp_path / f"t{suffix}")
        pd.testing.assert_frame_equal(nd.read_table(path), table, check_dtype=False)
    for line in (tmp_path / "t.csv").read_text("utf-8").splitlines():
        for cell in line.split(","):
            assert not cell.strip('"').startswith(("=", "+", "-", "@", "\t"))


def test_a_huge_array_announced_in_a_header_is_refused(tmp_path):
    path = tmp_path / "bomb.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**7, 10**7)})
    with pytest.raises((ValueError, OSError)):
        nd.read_micrograph(path)


def test_importing_everything_opens_no_connection():
    code = (
        "import socket; socket.socket.connect = lambda *a: (_ for _ in ()).throw(SystemExit('network'));"
        "import napari_defects as nd; nd.analyze; nd.predict; nd.simulate"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
