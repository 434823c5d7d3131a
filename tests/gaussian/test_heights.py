"""Heights of columns at known places."""

from __future__ import annotations

import numpy as np

from napari_defects.gaussian import Heights

SIGMA = 3.0


def field(background: float, apart: float = 1.0, tilt: float = 0.002) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts expected of overlapping columns above a tilted background; some columns are missing."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:96, :80].astype(float)
    places = [(8.0 + apart * (9 * i + (j % 2) * 4), 6.0 + apart * 8 * j) for i in range(9) for j in range(10)]
    points = np.array([p for p in places if max(p) < 82])
    points = points + rng.uniform(-0.5, 0.5, points.shape)
    truth = rng.uniform(1, 3, len(points)) * (rng.random(len(points)) > 0.1)
    bumps = [np.exp(-0.5 * ((y - v) ** 2 + (x - u) ** 2) / SIGMA**2) for v, u in points]
    return np.tensordot(truth, bumps, 1) + background * (1 + tilt * (3 * y - 2 * x)), points, truth


def test_heights_of_overlapping_columns_above_a_background() -> None:
    image, points, truth = field(5.0)
    found = Heights(image, points, np.full(len(points), SIGMA))(1e-5)
    inside = points[:, 1] < 68
    np.testing.assert_allclose(found[inside], truth[inside], atol=0.03)
    np.testing.assert_allclose(found, truth, atol=0.1)  # half cut off by the border


def test_pixels_that_are_not_square() -> None:
    image, points, truth = field(5.0)
    squeezed = image.reshape(96, 40, 2).mean(2)
    found = Heights(squeezed, (points - (0, 0.5)) / (1, 2), np.full(len(points), SIGMA), 2.0)(1e-5)
    inside = points[:, 1] < 68
    np.testing.assert_allclose(found[inside], truth[inside], atol=0.1)


def test_pixels_count_as_much_as_they_tell() -> None:
    """The scatter over many counts is that of Poisson likelihood, less than that of plain least squares."""
    expected, points, truth = field(0.2, apart=1.5, tilt=0.0)
    rng, scale, inside = np.random.default_rng(5), 20.0, points[:, 1] < 68
    counted = [rng.poisson(scale * expected).astype(float) for _ in range(40)]
    found = np.array([Heights(c, points, np.full(len(points), SIGMA))(3.0) for c in counted])
    scatter = found.std(0)[inside & (truth > 0)].mean()
    y, x = np.mgrid[:96, :80]
    design = np.array([np.exp(-0.5 * ((y - v) ** 2 + (x - u) ** 2) / SIGMA**2).ravel() for v, u in points]).T
    design = np.column_stack([design, np.ones(y.size), y.ravel(), x.ravel()])
    plain = np.linalg.pinv(design)[: len(points)]
    least_squares = np.sqrt((plain**2 * scale * expected.ravel()).sum(1))[inside & (truth > 0)].mean()
    weighed = np.linalg.inv(design.T @ (design / (scale * expected.ravel())[:, None]))
    bound = np.sqrt(np.diag(weighed)[: len(points)])[inside & (truth > 0)].mean()
    assert bound < 0.98 * least_squares
    assert 0.9 * bound < scatter < 1.02 * bound  # a stiff background is better known than a free one
    assert np.abs(found.mean(0) / scale - truth)[inside].max() < 0.6 * bound / scale  # of forty: four errors of a mean


def test_nothing_to_measure_is_no_trouble() -> None:
    for image in (np.zeros((40, 40)), np.full((40, 40), 7.0)):
        found = Heights(image, np.array([(12.0, 14.0), (25.0, 24.0)]), np.full(2, SIGMA))(1.0)
        np.testing.assert_allclose(found, 0, atol=1e-3)


def test_errors_of_columns_alone_are_their_scatter() -> None:
    """With pixels as they are, and (wide columns) with binned ones."""
    rng, places = np.random.default_rng(7), np.array([(40.0, 40.0), (40.0, 120.0), (120.0, 40.0), (120.0, 120.0)])
    y, x = np.mgrid[:160, :160]
    for sigma in (1.6, 6.0):
        bumps = [40 * np.exp(-0.5 * ((y - v) ** 2 + (x - u) ** 2) / sigma**2) for v, u in places]
        counted = [
            Heights(rng.poisson(4 + np.sum(bumps, 0)).astype(float), places, np.full(4, sigma)) for _ in range(40)
        ]
        scatter = np.std([heights(10.0) for heights in counted], axis=0).mean()
        stated = np.mean([heights.errors for heights in counted])
        assert 0.85 < scatter / stated < 1.2
