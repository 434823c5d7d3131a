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
