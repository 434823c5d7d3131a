"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import napari_defects as nd


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real and multislice images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no folder of real images at {folder}; set NAPARI_DEFECTS_SHARED")
    return folder


@pytest.fixture
def noise_image() -> Callable[..., nd.Micrograph]:
    """Make a micrograph of noise: `noise_image(shape, pixel_size_nm)`."""

    def make(shape: tuple[int, ...] = (64, 48), pixel_size_nm: float | None = 0.02) -> nd.Micrograph:
        return nd.Micrograph(np.random.default_rng(0).normal(100, 10, shape).astype(np.float32), pixel_size_nm)

    return make


@pytest.fixture(scope="session")
def wse2() -> nd.Micrograph:
    """A small simulated WSe2 monolayer with vacancies; its truth is in the metadata."""
    amounts = {"V_Se": 0.04, "V2_Se": 0.01, "V_W": 0.01}
    return nd.simulate("WSe2", field_of_view_nm=6.0, pixel_size_nm=0.025, defects=amounts, seed=11)[0]


@pytest.fixture(scope="session")
def results(wse2: nd.Micrograph) -> nd.Results:
    """All steps, without a network, on `wse2`."""
    return nd.analyze(wse2, {"fit_lattice": {"crystal": "WSe2"}, "predict": {"model": "none"}})
