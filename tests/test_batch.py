from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects import batch
from napari_defects.io import write_micrograph

RECIPE = {
    "fit_lattice": {"crystal": "WSe2"},
    "predict": {"model": "none"},
    "average": {"species": ["V_Se"], "rounds": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    for k in range(2):
        image, _ = nd.simulate("WSe2", field_of_view_nm=4.0, pixel_size_nm=0.03, defects={"V_Se": 4}, seed=k)
        write_micrograph(image, place / f"image{k}.tif")
    (place / "broken.dm4").write_bytes(b"nothing")
    (place / "notes.txt").write_text("not an image")
    return place


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, batch.run_batch([folder], out, RECIPE, workers=0)


def test_the_good_are_done_and_the_broken_is_named(done):
    out, summary = done
    assert summary["status"].tolist() == ["failed", "done", "done"]
    assert summary["file"].tolist() == ["broken.dm4", "image0.tif", "image1.tif"]
    assert "damaged" in summary["error"][0]
    assert (out / "image0" / "defects.csv").is_file()
    assert not (out / "broken").exists()
    assert nd.read_table(out / "summary.csv")["status"].tolist() == summary["status"].tolist()
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_tables_are_joined(done):
    out, summary = done
    atoms = pd.read_parquet(out / "tables" / "atoms")
    assert atoms.groupby("image", observed=True).size().to_dict() == {
        "image0": summary["columns"][1], "image1": summary["columns"][2],
    }  # fmt: skip
    assert len(pd.read_parquet(out / "tables" / "defects")) == summary["defects"].sum()


def test_it_goes_on_where_it_stopped(done, folder, tmp_path):
    out, _ = done
    shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "image1")
    seen = []
    again = batch.run_batch([folder], tmp_path / "out", RECIPE, workers=0, progress=lambda *p: seen.append(p))
    assert again["status"].tolist() == ["failed", "kept", "done"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    other = RECIPE | {"count": {"confidence": 0.9}}
    assert batch.run_batch([folder / "image0.tif"], tmp_path / "out", other, workers=0)["status"].tolist() == ["done"]


def test_processes_give_the_same(done, folder, tmp_path):
    out, _ = done
    summary = batch.run_batch([folder / "image0.tif"], tmp_path / "out", RECIPE, workers=1)
    assert summary["status"].tolist() == ["done"], summary["error"][0]
    for name in ("defects.csv", "strain.csv", "averages/V_Se_sites.csv"):
        assert (tmp_path / "out" / "image0" / name).read_bytes() == (out / "image0" / name).read_bytes()


def test_files_of_one_name_get_their_own_folders(tmp_path):
    files = [tmp_path / "a" / "x.tif", tmp_path / "b" / "x.tif", tmp_path / "a" / "x.dm4", tmp_path / "y.tif"]
    folders = batch._folders(files, tmp_path)
    assert sorted(folders) == sorted(files)
    assert len(set(folders.values())) == 4
    assert folders[tmp_path / "y.tif"] == tmp_path / "y"


def test_nothing_to_do_and_nowhere_to_write(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image"):
        batch.run_batch([tmp_path / "empty"], tmp_path / "out")
    np.save(tmp_path / "a.npy", np.eye(64))
    with pytest.raises(OSError, match="proc"):
        batch.run_batch([tmp_path / "a.npy"], "/proc/out", workers=0)


class Looks:
    """Stands for the event that ends a watch: writes what comes next into a file between two looks."""

    def __init__(self, file, contents):
        self.file, self.contents = file, list(contents)

    def is_set(self):
        return not self.contents

    def wait(self, seconds):
        if content := self.contents.pop(0):
            self.file.write_bytes(content)


def test_watch_waits_until_a_file_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_analyze_one", lambda file, folder, recipe: Path(file).read_bytes())
    (tmp_path / "in").mkdir()
    stop = Looks(tmp_path / "in" / "a.npy", [b"1", b"12", b"123", None, None, None, b"1234", None, None, None])
    assert list(batch.watch(tmp_path / "in", tmp_path / "out", stop=stop)) == [b"123", b"1234"]
    with pytest.raises(FileNotFoundError, match="no folder"):
        next(batch.watch(tmp_path / "nowhere", tmp_path / "out"))
