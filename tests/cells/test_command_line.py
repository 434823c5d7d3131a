from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects.cells import NoiseRange, estimated_range, noise_sweep
from napari_defects.cells.examples import simulated
from napari_defects.cells.recipes import ENDINGS
from napari_defects.cli import app
from napari_defects.io import write_micrograph, write_table


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_cells_of_a_file(mote2: Any, tmp_path: Path) -> None:
    micrograph, sites = mote2
    write_micrograph(micrograph, tmp_path / "image.tif")
    write_table(sites, tmp_path / "sites.csv")
    done = run("cells", tmp_path / "image.tif", "--crystal", "MoTe2", "--sites", tmp_path / "sites.csv", "-o",
               tmp_path / "cells.csv")  # fmt: skip
    assert done.exit_code == 0, done.output
    cells = nd.read_table(tmp_path / "cells.csv", "cells")
    assert (cells["species"] == "perfect").mean() > 0.8
    assert isinstance(cells, pd.DataFrame)


def test_models_tell_what_they_are_for_and_doors_are_guarded(tmp_path: Path) -> None:
    listed = run("models").output
    assert {"mote2-cells", "mote2-boxes", "wse2-te"} <= set(listed.split())
    for words, message in (
        (("noise-sweep", "--lambdas", "many"), "`--lambdas` must be numbers"),
        (("noise-sweep", "--crystal", "graphene"), "MX2"),
        (("train", "mote2-cells", "--workers", "2", "-o", tmp_path / "m"), "do not apply"),
        (("train", "mote2-boxes", "--labels", tmp_path, "-o", tmp_path / "m"), "`labels` teach"),
    ):
        done = run(*words)
        assert done.exit_code == 2, done.output
        assert message in done.output


def test_noise_is_estimated_and_swept() -> None:
    micrograph, _ = nd.simulate("MoTe2", field_of_view_nm=4.0, pixel_size_nm=0.015, dose_e_per_A2=3e4, seed=1)
    low, high = estimated_range(micrograph, "MoTe2").dose_e_per_A2
    assert low * 1.5 == pytest.approx(3e4, rel=0.4)
    assert high > low
    recipe: Any = ENDINGS["cells"]
    tests = {"same": simulated(nd.MOTE2, recipe.architecture, px_per_a=14, n_images=2, seed=9)}
    table = noise_sweep("MoTe2", [NoiseRange("only", (low, high), 0.3)], tests, images=2, steps=3)
    assert table["trained"].tolist() == ["only"]
    assert 0 <= table["accuracy"].iloc[0] <= 1
