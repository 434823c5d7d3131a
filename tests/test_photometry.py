"""Heights relative to the host: at the border, and under dirt."""

from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.intensities import photometry
from napari_defects.simulation import Surface


def host_heights(surface: Surface, dose: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative heights of the columns of a perfect crystal, and how far each is from the border in nm."""
    image, _ = nd.simulate(
        "WSe2", field_of_view_nm=6.0, pixel_size_nm=0.02, dose_e_per_A2=dose, surface=surface, seed=seed
    )
    atoms = nd.locate(image)
    measured = photometry.relative_heights(image, nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2")))
    measured = measured.dropna(subset=["relative_height"])
    at = photometry.measuring_points(measured)
    return measured["relative_height"].to_numpy(), np.minimum(at, image.extent_nm - at).min(1)


def test_columns_at_the_border_are_as_high_as_others() -> None:
    heights, away = host_heights(Surface(), 2e4, 4)
    border = away < 0.15
    assert border.sum() > 30
    assert heights[border].mean() == pytest.approx(1, abs=0.03)
    assert heights[border].std() < 1.5 * heights[~border].std()


def test_the_background_is_as_fine_as_dirt_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    dirty = [host_heights(Surface(contamination=2.0), 8.7e4, 5)[0].std()]
    clean = [host_heights(Surface(), 3e3, 5)[0].std()]
    monkeypatch.setattr(photometry, "STIFFNESSES", (10.0,))
    dirty += [host_heights(Surface(contamination=2.0), 8.7e4, 5)[0].std()]
    clean += [host_heights(Surface(), 3e3, 5)[0].std()]
    assert dirty[0] < 0.8 * dirty[1]
    assert clean[0] == pytest.approx(clean[1], rel=0.05)
