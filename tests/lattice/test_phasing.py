import numpy as np
import pytest

from napari_defects.crystals import GRAPHENE, WSE2
from napari_defects.lattice import calibrate
from napari_defects.lattice.phasing import Field, Host, find_host, measure_pixel, refine_host
from napari_defects.micrograph import Micrograph

PIXEL = 0.012


def sheet(turn_deg=17.0, *, scale=1.0, side=192, dose=8.0, seed=0, shear=0.0, silicon=True):
    """Graphene at a dose at which an atom has `dose` counts at its peak over a background of 4."""
    turn = np.deg2rad(turn_deg)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    vectors = GRAPHENE.vectors_nm @ rotation * scale @ np.array([[1.0, shear], [0.0, 1.0]])
    host = Host(GRAPHENE, np.array([0.07, 0.11]), vectors)
    y, x = np.indices((side, side)) * PIXEL
    image = np.full((side, side), 4.0)
    sites = host.sites_within(np.array([side, side]) * PIXEL, margin_nm=0.3)[1]
    for n, (sy, sx) in enumerate(sites):
        tall = 6 * dose if silicon and n == len(sites) // 2 else dose
        image += tall * np.exp(-0.5 * ((y - sy) ** 2 + (x - sx) ** 2) / 0.06**2)
    return Micrograph(np.random.default_rng(seed).poisson(image).astype(np.float32), PIXEL), host


def off_site_pm(found, host):
    """Distance of the found sites to the true ones."""
    extent = np.array([2.2, 2.2])
    true, mine = host.sites_within(extent)[1], found.sites_within(extent, margin_nm=0.1)[1]
    return 1e3 * np.median(np.linalg.norm(true[:, None] - mine, axis=-1).min(1))


@pytest.mark.parametrize("turn_deg", [0.0, 17.0, 45.0])
@pytest.mark.parametrize("dose", [3.0, 8.0])
def test_the_lattice_is_found_at_doses_that_hide_single_atoms(turn_deg, dose):
    micrograph, host = sheet(turn_deg, dose=dose)
    found = find_host(micrograph, "graphene")
    assert off_site_pm(found, host) < {3.0: 6, 8.0: 4}[dose]
    assert found.scale == pytest.approx(1, abs=0.004)


def test_shear_is_followed():
    micrograph, host = sheet(shear=0.04)
    assert off_site_pm(find_host(micrograph, "graphene"), host) < 5


def test_its_error_is_the_scatter_of_repeated_images():
    corner = []
    for seed in range(12):
        micrograph, host = sheet(dose=3.0, seed=seed, side=128)
        found = refine_host(Field.of(micrograph), host)
        corner.append(found.origin_nm + 4 * found.vectors_nm.sum(0))
    assert 1e3 * np.std(corner, axis=0).max() < 8
    assert found.residual_pm < 8


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5])
def test_the_pixel_size_is_measured_whatever_is_stated(scale):
    micrograph, _ = sheet(scale=scale, dose=4.0)
    assert measure_pixel(Micrograph(micrograph.data), "graphene") == pytest.approx(PIXEL / scale, rel=0.004)
    calibrated = calibrate(micrograph, "graphene")
    assert calibrated.pixel_size_nm == pytest.approx(PIXEL / scale, rel=0.004)
    assert calibrated.metadata["stated_pixel_size_nm"] == PIXEL


def test_noise_and_other_crystals_have_no_lattice():
    noise = Micrograph(np.random.default_rng(1).normal(100, 10, (192, 192)).astype(np.float32), PIXEL)
    with pytest.raises(ValueError, match="no lattice of graphene found"):
        find_host(noise, GRAPHENE)
    with pytest.raises(ValueError, match="no lattice of graphene found"):
        measure_pixel(noise, GRAPHENE)
    assert Host(WSE2, np.zeros(2), 1.1 * WSE2.vectors_nm).scale == pytest.approx(1.1)
