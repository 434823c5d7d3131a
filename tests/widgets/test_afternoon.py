"""The whole afternoon in a real window, by the script that takes the pictures of the documentation.

The pictures are left in the folder that ``NAPARI_DEFECTS_PICTURES`` names, for looking at.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManager
from PIL import Image

import napari_defects as nd
from napari_defects.learning.labels import read_labels

SCRIPT = Path(__file__).parents[2] / "docs" / "make_screenshots.py"


@pytest.fixture
def screenshots() -> Any:
    spec = importlib.util.spec_from_file_location("make_screenshots", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_from_the_menu_to_a_table_and_a_figure(
    screenshots: Any, make_napari_viewer: Callable[..., Any], tmp_path: Path, notifications: list[Any]
) -> None:
    PluginManager.instance().discover()
    viewer = make_napari_viewer(show=True)
    pictures = Path(os.environ.get("NAPARI_DEFECTS_PICTURES", tmp_path / "pictures"))
    day = screenshots.Afternoon(pictures, viewer)
    path = screenshots.scan(tmp_path / "scan.tif", field_of_view_nm=5.0)
    out = tmp_path / "out"
    screenshots.play(day, path, out, average={"radius_nm": 0.6}, model="auto")

    fewest = ["drop scan.tif", "Plugins → napari-defects → Analyze", "Run"]
    assert day.clicks == [*fewest, "Export all", "All tables as csv…", "the dialog's Choose"]
    assert {p.stem for p in (out / "at once").glob("*.csv")} == {"atoms", "sites", "defects", "strain", "counts"}
    assert not [str(n.message) for n in notifications if n.severity >= "warning"]
    tables = {p.stem: nd.read_table(p) for p in (out / "tables").glob("*.csv")}
    assert set(tables) == {"atoms", "sites", "defects", "strain", "counts"}
    assert 0 < tables["counts"]["count"].sum() < len(tables["defects"]), "the painted corner is left out"
    corrections = nd.read_table(out / "corrections.csv")
    assert sorted(corrections["verdict"]) == ["accepted", "no defect", "renamed"]
    by_hand = tables["defects"][tables["defects"]["method"] == "manual"]
    assert len(by_hand) == 2
    assert list((out / "tables" / "averages").glob("*.tif"))
    assert (out / "tables" / "left_out.tif").is_file()
    assert (out / "counts.pdf").read_bytes().startswith(b"%PDF")
    assert "nd.analyze(" in (out / "script.py").read_text("utf-8")
    ((_, labels),) = read_labels(out / "labelled")
    assert set(by_hand["species"]) <= set(labels["species"])
    assert np.asarray(Image.open(out / "strain.png").convert("L"), float).std() > 10
    for name in ("raw", "analyze", "review", "count", "average", "strain"):
        picture = np.asarray(Image.open(pictures / f"{name}.png").convert("L"), float)
        assert picture.std() > 20, name
