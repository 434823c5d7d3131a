"""The drawn image against a direct sum, and its column intensities against multislice."""

from __future__ import annotations

import numpy as np
import pytest

from napari_defects import get_crystal
from napari_defects.simulation.probe import Aberrations, Microscope
from napari_defects.simulation.render import render
from napari_defects.simulation.scattering import amplitudes

ABERRATED = Microscope(aberrations=Aberrations(C12_nm=2, phi12_deg=30, C21_nm=20))


def column_intensities(crystal: str, microscope: Microscope, columns: dict[str, tuple[str, tuple[str, ...]]]) -> dict:
    """Image value on the column in the middle of a lattice, for each ``name: (sublattice, occupants)``."""
    host = get_crystal(crystal)
    cells = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 2), -1).reshape(-1, 1, 2)
    places = ((cells + host.fractions) @ host.vectors_nm).reshape(-1, 2) / 0.02
    result = {}
    for name, (sublattice, occupants) in columns.items():
        k = [s.name for s in host.sublattices].index(sublattice)
        middle = int(np.flatnonzero((cells == 0).all(axis=(1, 2)))[0]) * len(host.sublattices) + k
        content = [tuple(sorted(s.column)) for s in host.sublattices] * len(cells)
        content[middle] = occupants
        shifted = places - places[middle] + 40
        image = render(shifted, amplitudes(tuple(content), microscope), microscope, (81, 81), (0.02, 0.02))
        result[name] = float(image[40, 40])
    return result


WSE2 = {
    "W": ("W", ("W",)), "Se2": ("Se", ("Se", "Se")), "V_Se": ("Se", ("Se",)), "V2_Se": ("Se", ()),
    "Te_Se": ("Se", ("Se", "Te")), "Te2_Se": ("Se", ("Te", "Te")), "V_W": ("W", ()), "Se_W": ("W", ("Se",)),
    "Te2_W": ("W", ("Te", "Te")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("convergence_mrad", "expected"),
    [
        (30, {"Se2": 0.785, "V_Se": 0.365, "V2_Se": 0.050, "Te_Se": 1.13, "Te2_Se": 1.49, "V_W": 0.03, "Se_W": 0.35,
              "Te2_W": 1.48}),
        (25, {"Se2": 0.769, "V_Se": 0.357, "V2_Se": 0.045, "Te_Se": 1.11, "Te2_Se": 1.49, "V_W": 0.03, "Se_W": 0.35,
              "Te2_W": 1.48}),
    ],
)  # fmt: skip
def test_columns_of_wse2_as_in_multislice(convergence_mrad: float, expected: dict[str, float]) -> None:
    found = column_intensities("WSe2", Microscope(convergence_mrad=convergence_mrad), WSE2)
    for species, ratio in expected.items():
        assert found[species] / found["W"] == pytest.approx(ratio, rel=0.045, abs=0.02), species
    if convergence_mrad == 30:
        assert found["W"] == pytest.approx(0.031, rel=0.15)


def test_columns_of_mote2_as_in_multislice() -> None:
    microscope = Microscope(convergence_mrad=27, detector_inner_mrad=70, detector_outer_mrad=278)
    columns = {"Mo": ("Mo", ("Mo",)), "Te2": ("Te", ("Te", "Te")), "V_Te": ("Te", ("Te",)), "V_Mo": ("Mo", ())}
    found = column_intensities("MoTe2", microscope, columns)
    for species, ratio in {"Te2": 2.96, "V_Te": 1.32, "V_Mo": 0.08}.items():
        assert found[species] / found["Mo"] == pytest.approx(ratio, rel=0.03, abs=0.02), species


def test_silicon_in_graphene_as_in_multislice() -> None:
    microscope = Microscope(60, 31, 86, 200)
    found = column_intensities("graphene", microscope, {"C": ("A", ("C",)), "Si": ("A", ("Si",))})
    assert found["Si"] / found["C"] == pytest.approx(4.55, rel=0.02)
    assert found["C"] == pytest.approx(3.7e-4, rel=0.02)


@pytest.mark.parametrize("pixel_nm", [(0.011, 0.011), (0.02, 0.022), (0.04, 0.038)])
def test_a_fine_image_sampled_is_the_coarse_image(pixel_nm: tuple[float, float]) -> None:
    """Drawing at sub-pixel positions is exact, whatever the pixel."""
    rng = np.random.default_rng(0)
    places_nm = rng.uniform(0.4, 1.6, (12, 2))
    weights = amplitudes((("W",),) * 12, ABERRATED)
    reference = np.array(
        [[render((places_nm - (y, x)) / 0.006 + 200, weights, ABERRATED, (400, 400), (0.006, 0.006))[200, 200]
          for x in (0.0, 13 * pixel_nm[1])] for y in (9 * pixel_nm[0], 21 * pixel_nm[0])]
    )  # fmt: skip
    image = render(places_nm / pixel_nm, weights, ABERRATED, (64, 64), pixel_nm)
    np.testing.assert_allclose(image[[9, 21]][:, [0, 13]], reference, atol=1e-3 * image.max())


def test_total_is_the_cross_section() -> None:
    place = np.array([[100.3, 99.8]])
    image = render(place, amplitudes((("W",),), Microscope()), Microscope(), (200, 200), (0.02, 0.02))
    assert image.sum() * 0.02**2 * 100 == pytest.approx(0.0485, rel=0.02)


def test_line_jitter_moves_lines() -> None:
    rng = np.random.default_rng(1)
    places, weights = rng.uniform(-20, 84, (60, 2)), amplitudes((("W",),) * 60, Microscope())
    still = render(places, weights, Microscope(), (64, 64), (0.02, 0.02))
    moved = render(places, weights, Microscope(), (64, 64), (0.02, 0.02), row_shift_px=np.arange(64) % 3 - 1.0)
    for row in range(64):
        shift = row % 3 - 1
        np.testing.assert_allclose(moved[row, 2:-2], np.roll(still[row], shift)[2:-2], atol=1e-4 * still.max())
