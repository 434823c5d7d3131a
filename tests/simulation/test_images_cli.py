"""Presets and engines on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects.cli import app


def test_a_preset_sets_the_pixel_size(tmp_path: Path) -> None:
    out = tmp_path / "image.tif"
    made = CliRunner().invoke(
        app, ["simulate", "WSe2", "-o", str(out), "--preset", "Lee 2020", "--field-of-view-nm", "3"]
    )
    assert made.exit_code == 0, made.output
    assert nd.read_micrograph(out).pixel_size_nm == pytest.approx(0.0207)


@pytest.mark.parametrize("option", [["--preset", "Nobody 1999"], ["--engine", "slow"]])
def test_nonsense_is_refused(tmp_path: Path, option: list[str]) -> None:
    made = CliRunner().invoke(app, ["simulate", "WSe2", "-o", str(tmp_path / "image.tif"), *option])
    assert made.exit_code != 0
    assert not list(tmp_path.iterdir())
