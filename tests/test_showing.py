"""Where an image shows the specimen, and where not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import ndimage

import napari_defects as nd
from napari_defects.intensities.showing import in_sight

PIXEL_NM = 0.025
Pixels = npt.NDArray[np.floating]


@pytest.fixture(scope="module")
def scene() -> tuple[Pixels, nd.Micrograph]:
    """Pixels from 0 to 255 of a perfect crystal."""
    image, _ = nd.simulate("WSe2", field_of_view_nm=7, pixel_size_nm=PIXEL_NM, dose_e_per_A2=8.7e4, seed=3)
    low, high = np.percentile(image.data, (0.1, 99.9))
    pixels = np.clip((image.data - low) / (high - low), 0, 1) * 255
    return np.round(pixels), image


def places(*yx_px: tuple[int, int]) -> pd.DataFrame:
    y, x = PIXEL_NM * np.array(yx_px, float).T
    return pd.DataFrame({"frame": 0, "y_nm": y, "x_nm": x})


def with_bar(pixels: Pixels) -> Pixels:
    """A bar of 2 nm, and something like letters above it."""
    drawn = pixels.copy()
    drawn[250:256, 20:100] = 255
    for x in (40, 50, 60):
        drawn[232:244, x : x + 2] = 255
    return drawn


def turned(pixels: Pixels) -> Pixels:
    return np.asarray(np.round(ndimage.rotate(pixels, 45, reshape=False, order=1)))


@pytest.mark.parametrize(
    ("change", "hidden", "seen"),
    [
        (with_bar, [(253, 50), (246, 50), (235, 41)], [(253, 140), (200, 50), (100, 100)]),
        (turned, [(2, 2), (277, 277)], [(140, 140), (140, 10)]),
        (lambda p: np.where(np.arange(len(p))[:, None] < 200, p, 7.0), [(198, 50), (240, 50)], [(180, 50)]),
    ],
)
def test_what_is_drawn_padded_or_blank_is_hidden(
    scene: tuple[Pixels, nd.Micrograph],
    change: Callable[[Pixels], Pixels],
    hidden: list[tuple[int, int]],
    seen: list[tuple[int, int]],
) -> None:
    image = nd.Micrograph(change(scene[0]).astype(np.uint8), PIXEL_NM)
    assert not in_sight(image, places(*hidden)).any()
    assert in_sight(image, places(*seen)).all()


def test_neither_clipped_columns_nor_empty_pixels_hide_anything(scene: tuple[Pixels, nd.Micrograph]) -> None:
    clipped = np.minimum(2 * scene[0], 255)  # every tungsten column is white in its middle
    sparse = np.random.default_rng(0).poisson(scene[0] / 255 * 0.5)  # one electron in eight pixels
    assert np.mean(clipped == 255) > 0.1
    assert np.mean(sparse == 0) > 0.8
    everywhere = places(*[(y, x) for y in range(10, 270, 9) for x in range(10, 270, 9)])
    sparse[:40, :40] = 0  # a hole
    everywhere = everywhere[(everywhere[["y_nm", "x_nm"]] > 50 * PIXEL_NM).any(axis=1)]
    for pixels in (clipped, sparse):
        assert in_sight(nd.Micrograph(pixels.astype(np.uint16), PIXEL_NM), everywhere).all()


def test_a_scale_bar_is_no_defect(scene: tuple[Pixels, nd.Micrograph], caplog: pytest.LogCaptureFixture) -> None:
    results = nd.analyze(nd.Micrograph(with_bar(scene[0]).astype(np.uint8), PIXEL_NM), "WSe2", averages=False)
    assert results.defects.empty
    assert "scale bar" in caplog.text


def test_a_scale_bar_on_graphene_is_no_foreign_atom() -> None:
    image, _ = nd.simulate("graphene", field_of_view_nm=4, pixel_size_nm=0.015, dose_e_per_A2=3e6, seed=1)
    pixels = image.data.astype(float)
    pixels[230:236, 20:100] = pixels.max()
    results = nd.analyze(nd.Micrograph(pixels, 0.015), "graphene", averages=False)
    assert results.defects.empty
