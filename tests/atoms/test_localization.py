"""Columns are found where they are, with errors that are true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import columns
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.atoms import bound, candidates, residual

SHAPE = (256, 256)
SIGMA = columns.SIGMA_NM / columns.PIXEL_NM


def located(image: np.ndarray, **options: object) -> tuple[np.ndarray, object]:
    atoms = nd.locate(nd.Micrograph(image, columns.PIXEL_NM), **options)
    return atoms[["y_nm", "x_nm"]].to_numpy() / columns.PIXEL_NM, atoms


def compare(
    found: np.ndarray, truth: np.ndarray, radius_px: float = 5.0
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Index of the nearest truth, errors, recall and precision, away from the border."""
    distance, near = cKDTree(truth).query(found)
    good = distance < radius_px
    recall = np.isin(np.flatnonzero(columns.inner(truth, SHAPE)), near[good]).mean()
    return near, found - truth[near], float(recall), float(good[columns.inner(found, SHAPE)].mean())


@pytest.mark.parametrize(("gain", "offset", "dtype"), [(1, 0, "f4"), (37.0, 1500, ">u2"), (0.004, -3.0, ">f8")])
def test_all_columns_in_any_unit(gain: float, offset: float, dtype: str) -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    vacancy = 60 + int(np.argmax(columns.inner(yx[60:], SHAPE) & (amplitude[60:] < 1)))
    amplitude[vacancy] = 0.3
    counts = np.random.default_rng(1).poisson(columns.draw(SHAPE, yx, 50 * amplitude, SIGMA, 5.0))
    found, atoms = located((counts * gain + offset).astype(dtype))
    near, _, recall, precision = compare(found, yx)
    assert recall == 1
    assert precision == 1
    assert vacancy in near
    kept = columns.inner(found, SHAPE)
    np.testing.assert_allclose(np.median(atoms["amplitude"][kept] / amplitude[near][kept]), 50 * gain, rtol=0.05)
    np.testing.assert_allclose(np.median(atoms["background"][kept]), 5 * gain + offset, atol=3 * gain)
    np.testing.assert_allclose(atoms["sigma_nm"].iloc[0], columns.SIGMA_NM, rtol=0.02)


@pytest.mark.parametrize("peak", [5, 50])
def test_errors_are_true(peak: int) -> None:
    shape = (512, 512)
    yx, amplitude = columns.honeycomb(shape)
    image = np.random.default_rng(2).poisson(columns.draw(shape, yx, peak * amplitude, SIGMA, 0.1 * peak))
    found, atoms = located(image)
    distance, near = cKDTree(yx).query(found)
    inner = columns.inner(found, shape)
    assert (distance[inner] < 6).mean() > 0.995
    assert np.isin(np.flatnonzero(columns.inner(yx, shape)), near[distance < 6]).mean() > (0.99 if peak > 5 else 0.97)
    pull = ((found - yx[near]) * columns.PIXEL_NM / atoms[["y_err_nm", "x_err_nm"]].to_numpy())[inner & (distance < 6)]
    assert 0.92 < pull.std() < 1.09
    off = (atoms["amplitude"] - peak * amplitude[near]) / atoms["amplitude_err"]
    assert 0.85 < off[inner].std() < 1.25


def test_tails_of_columns_outside_the_image_do_no_harm() -> None:
    yx, amplitude = columns.honeycomb(SHAPE, margin_nm=0.6)
    image = np.random.default_rng(0).poisson(columns.draw(SHAPE, yx, 3000 * amplitude, SIGMA, 300.0))
    found, atoms = located(image)
    near = cKDTree(yx).query(found)[1]
    pull = (found - yx[near]) * columns.PIXEL_NM / atoms[["y_err_nm", "x_err_nm"]].to_numpy()
    assert np.isfinite(pull).all()
    rim = columns.inner(found, SHAPE, 12) & ~columns.inner(found, SHAPE, 35)
    assert pull[rim].std() < 1.6  # without those outside it is above 10


def test_an_empty_site_and_a_hole_stay_empty() -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    gone = (np.linalg.norm(yx - 128, axis=1) < 60) | (np.arange(len(yx)) == np.argmax(columns.inner(yx, SHAPE)))
    image = np.random.default_rng(0).poisson(columns.draw(SHAPE, yx[~gone], 50 * amplitude[~gone], SIGMA, 5.0))
    found, _ = located(image)
    _, _, recall, precision = compare(found, yx[~gone])
    assert (recall, precision) == (1, 1)


def test_a_lone_sulfur_beside_tungsten_is_found() -> None:
    kinds = {"V_S": 20, "V2_S": 10}
    image, _ = nd.simulate("WS2", field_of_view_nm=6, pixel_size_nm=0.02, dose_e_per_A2=3e5, defects=kinds, seed=1)
    truth = image.metadata["defects"]
    truth = truth[columns.inner(truth[["y_nm", "x_nm"]].to_numpy() / 0.02, image.shape_yx)]
    maps = nd.predict(image, nd.load_model("mx2", "WS2"))
    found = nd.locate(image, maps=maps)[["y_nm", "x_nm"]]
    near = cKDTree(found).query(truth[["y_nm", "x_nm"]])[0] < 0.07
    assert near[truth["species"] == "V_S"].mean() > 0.9
    assert near[truth["species"] == "V2_S"].mean() < 0.1


def test_maps_guide_but_do_not_forbid() -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    image = np.random.default_rng(0).poisson(columns.draw(SHAPE, yx, 3.5 * amplitude, SIGMA, 0.35))
    inner = np.flatnonzero(columns.inner(yx, SHAPE))
    dopant, empty = inner[5], inner[9]
    known = np.arange(len(yx)) != dopant
    likely = np.clip(columns.draw(SHAPE, yx[known], np.ones(known.sum()), 0.6 * SIGMA, 0.0), 0, 1)
    image = image + np.random.default_rng(1).poisson(columns.draw(SHAPE, yx[[dopant]], np.full(1, 20.0), SIGMA, 0.0))
    vacancy = columns.draw(SHAPE, yx[[empty]], np.ones(1), 0.6 * SIGMA, 0.0)
    likely = likely * (1 - vacancy)
    maps = nd.Maps(np.stack([1 - likely - vacancy, likely, vacancy]), ("background", "W", "V_W"), columns.PIXEL_NM)
    plain, _ = located(image)
    guided, atoms = located(image, maps=maps)
    recall = [compare(found, yx)[2] for found in (plain, guided)]
    assert recall[1] >= recall[0]
    assert recall[1] > 0.97
    assert cKDTree(guided).query(yx[dopant])[0] < 5
    assert ((atoms["score"] >= 0) & (atoms["score"] <= 1)).all()


def test_bumps_of_dirt_between_columns_are_none_where_maps_see_the_rest() -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    inner = yx[columns.inner(yx, SHAPE)]
    near = cKDTree(inner).query_ball_tree(cKDTree(inner), 1.2 * np.sort(cKDTree(inner).query(inner, k=2)[0][:, 1])[0])
    three = [inner[k] for k in near if len(k) == 4]
    hollow = np.array([2 * p[0] - p[1] for p in three[:6]]) if len(three) else np.zeros((0, 2))
    hollow = hollow[cKDTree(yx).query(hollow)[0] > 10]
    assert len(hollow) >= 3
    strength = np.where(np.arange(len(hollow)) == 0, 400.0, 110.0)  # one bright: an atom that lies on the crystal
    expected = columns.draw(SHAPE, yx, 400 * amplitude, SIGMA, 40.0) + columns.draw(SHAPE, hollow, strength, SIGMA, 0.0)
    image = np.random.default_rng(0).poisson(expected)
    likely = np.clip(columns.draw(SHAPE, yx, np.ones(len(yx)), 0.6 * SIGMA, 0.0), 0, 1)
    maps = nd.Maps(np.stack([1 - likely, likely]), ("background", "W"), columns.PIXEL_NM)
    blank = nd.Maps(np.stack([np.ones(SHAPE), np.zeros(SHAPE)]), ("background", "W"), columns.PIXEL_NM)
    seen = [cKDTree(located(image, maps=m)[0]).query(hollow)[0] < 3 for m in (maps, blank, None)]
    assert seen[0].tolist() == [True] + [False] * (len(hollow) - 1)
    assert seen[1].all()  # maps that see nothing are not believed
    assert seen[2].all()


def test_a_movie_has_its_frames() -> None:
    yx, amplitude = columns.honeycomb((128, 160))
    clean = columns.draw((128, 160), yx, 80 * amplitude, SIGMA, 8.0)
    movie = np.random.default_rng(0).poisson(np.stack([clean, clean, clean[::-1]]))
    calls: list[tuple[int, int]] = []
    atoms = nd.locate(nd.Micrograph(movie, columns.PIXEL_NM), progress=lambda done, total: calls.append((done, total)))
    assert sorted(atoms["frame"].unique()) == [0, 1, 2]
    assert calls[-1] == (3, 3)
    alone = nd.locate(nd.Micrograph(movie[1], columns.PIXEL_NM))
    np.testing.assert_array_equal(atoms.loc[atoms["frame"] == 1, "y_nm"], alone["y_nm"])
    left = residual(nd.Micrograph(movie, columns.PIXEL_NM), atoms)
    assert left.data.shape == movie.shape
    assert np.std(left.data[:, 20:-20, 20:-20]) == pytest.approx(1, abs=0.08)


def test_pixels_need_not_be_square() -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    shape, wide = (256, 200), yx / (1.0, 1.28)
    image = np.random.default_rng(0).poisson(columns.draw(shape, wide, 50 * amplitude, SIGMA, 5.0, aspect=1.28))
    atoms = nd.locate(nd.Micrograph(image, (columns.PIXEL_NM, 1.28 * columns.PIXEL_NM)))
    found = atoms[["y_nm", "x_nm"]].to_numpy() / columns.PIXEL_NM
    near, _, recall, precision = compare(found, yx)
    assert (recall, precision) == (1, 1)
    pull = (found - yx[near]) * columns.PIXEL_NM / atoms[["y_err_nm", "x_err_nm"]].to_numpy()
    assert 0.8 < pull[columns.inner(found, SHAPE)].std() < 1.2


def test_noise_alone_is_not_believed(noise_image: Callable[..., nd.Micrograph]) -> None:
    atoms = nd.locate(noise_image((128, 128)))
    assert (atoms["score"] > 0.8).sum() <= 2


@pytest.mark.parametrize("shape", [(32, 32), (33, 90)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    yx, amplitude = columns.honeycomb(shape)
    atoms = nd.locate(nd.Micrograph(columns.draw(shape, yx, 100 * amplitude, SIGMA, 10.0), columns.PIXEL_NM))
    assert list(atoms.columns[:4]) == ["frame", "y_nm", "x_nm", "y_err_nm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column_sigma_nm": -1.0}, "`column_sigma_nm` must be 0.005 or more"),
        ({"min_separation_nm": 50.0}, "`min_separation_nm` must be 0.005 or more"),
        ({"shape": "square"}, "`shape` must be one of round, elliptical, measured"),
        ({"maps": nd.Maps(np.zeros((2, 8, 8)), ("background", "W"), 0.02)}, "`maps` are 8 x 8 px but the image is"),
    ],
)
def test_nonsense_is_refused(
    options: dict[str, object], message: str, noise_image: Callable[..., nd.Micrograph]
) -> None:
    with pytest.raises(ValueError, match=message):
        nd.locate(noise_image(), **options)
    with pytest.raises(ValueError, match="`pixel_size_nm` is not known"):
        nd.locate(noise_image(pixel_size_nm=None))


def test_real_image_with_titanium(shared: Path) -> None:
    micrograph = nd.read_micrograph(shared / "data" / "wse2_ti" / "1028_ADF2_25.dm4", pixel_size_nm=0.0388)
    labels = pd.read_csv(shared / "data" / "wse2_ti" / "labels_25.csv")
    truth = labels[["y_px", "x_px"]].to_numpy(float)
    found = nd.locate(micrograph)[["y_nm", "x_nm"]].to_numpy() / 0.0388
    near, far = cKDTree(truth).query(found)[0], cKDTree(found).query(truth)[0]
    inner = [columns.inner(p, micrograph.shape_yx, 1 / 0.0388) for p in (found, truth)]
    assert (near[inner[0]] < 0.08 / 0.0388).mean() > 0.985
    assert (far[inner[1]] < 0.08 / 0.0388).mean() > 0.99


def test_candidates_follow_the_threshold_and_the_bound_is_below_the_errors() -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    micrograph = nd.Micrograph(
        np.random.default_rng(4).poisson(columns.draw(SHAPE, yx, 50 * amplitude, SIGMA, 5.0)), columns.PIXEL_NM
    )
    found = candidates(micrograph)
    numbers = [len(found.above(t)) for t in (1.0, 3.5, 12.0, 60.0)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == 0
    assert compare(found.above(3.5) / columns.PIXEL_NM, yx)[2] > 0.9  # the fit finds the rest
    atoms = nd.locate(micrograph)
    limit, truth = bound(micrograph, atoms), nd.cramer_rao(
        yx * columns.PIXEL_NM, 50 * amplitude, columns.SIGMA_NM, pixel_size_nm=columns.PIXEL_NM, background=5.0
    )  # fmt: skip
    inner = columns.inner(atoms[["y_nm", "x_nm"]].to_numpy() / columns.PIXEL_NM, SHAPE)
    near = cKDTree(yx).query(atoms[["y_nm", "x_nm"]].to_numpy() / columns.PIXEL_NM)[1]
    np.testing.assert_allclose(np.median(limit[inner] / truth[near[inner], :2]), 1, atol=0.04)
    with pytest.raises(ValueError, match="`threshold` must be above 0 and at most 100"):
        nd.locate(micrograph, threshold=-1)


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    micrograph, _ = nd.simulate("WSe2", field_of_view_nm=13.0, pixel_size_nm=0.02, dose_e_per_A2=8e4, seed=3)
    whole = nd.locate(micrograph)
    monkeypatch.setattr("napari_defects.atoms.blocks._LARGEST", 400)
    monkeypatch.setattr("napari_defects.atoms.blocks._SIDE", 330)
    seen: list[tuple[int, int]] = []
    pieces = nd.locate(micrograph, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert len(pieces) == len(whole)
    distance, near = cKDTree(whole[["y_nm", "x_nm"]]).query(pieces[["y_nm", "x_nm"]])
    assert len(np.unique(near)) == len(whole)
    inside = ((pieces[["y_nm", "x_nm"]] > 0.5) & (pieces[["y_nm", "x_nm"]] < 12.5)).all(axis=1)
    assert distance[inside].max() < 0.3 * pieces["y_err_nm"].median()


@pytest.mark.parametrize(("shape", "gain"), [("elliptical", 0.02), ("measured", 0.3)])
def test_an_astigmatic_probe_fits_better_as_such(shape: Any, gain: float) -> None:
    blurred = nd.Microscope(aberrations=nd.Aberrations(C12_nm=2.5, phi12_deg=30))
    micrograph, _ = nd.simulate(
        "WSe2", field_of_view_nm=5.0, pixel_size_nm=0.015, dose_e_per_A2=2e6, seed=3, microscope=blurred
    )
    plain, shaped = nd.locate(micrograph), nd.locate(micrograph, shape=shape)
    assert plain["misfit"].median() > 1.1
    assert shaped["misfit"].median() < plain["misfit"].median() - gain
    assert residual(micrograph, shaped).data.std() < residual(micrograph, plain).data.std()
