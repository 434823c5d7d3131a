from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.cells.examples import prepared, sites_nm, true_cells
from napari_defects.cells.kinds import frame_of
from napari_defects.cells.patches import CELL_SIZE, cut, middle_to_sites, turns, upright
from napari_defects.simulation import Detector, Scan

SITES = {"kind": "patches", "channels": 4, "inputs": 2, "side_px": 21}
HALVES = {"kind": "resnet18", "channels": 4, "inputs": 2, "side_px": 32}


def image(angle: float):
    micrograph, sites = nd.simulate(
        "MoTe2", field_of_view_nm=4.0, pixel_size_nm=0.02, scan=Scan(rotation_deg=angle), shot_noise=False,
        detector=Detector(read_noise_e=0), defects={"V2_Te": 3, "V_Mo": 3}, seed=5,
    )  # fmt: skip
    return micrograph, true_cells(sites, nd.MOTE2)


@pytest.mark.parametrize("angle", [0.0, 73.0])
def test_windows_hold_their_column_in_the_middle_at_any_rotation(angle: float) -> None:
    micrograph, cells = image(angle)
    pixels, pixel_nm, frame = prepared(micrograph, frame_of(cells, nd.MOTE2), nd.MOTE2, 14)
    pictures = cut(pixels, sites_nm(cells) / pixel_nm, frame, SITES)
    assert pictures.shape == (len(cells), 2, 21, 21)
    middle = pictures[:, :, 10, 10]
    inner = ((sites_nm(cells).mean(1) > 0.5) & (sites_nm(cells).mean(1) < 3.5)).all(1)
    kinds = cells["kind"].to_numpy()
    perfect = pictures[inner & (kinds == 0)]
    assert (perfect[:, 1].reshape(len(perfect), -1).argmax(1) == 220).mean() > 0.95, "Te2 is the brightest"
    assert middle[kinds == 2, 1].max() < 0 < middle[inner & (kinds == 0), 1].min()
    assert middle[kinds == 3, 0].max() < middle[inner & (kinds == 0), 0].min()


def test_a_turned_crystal_gives_the_same_pictures() -> None:
    means = []
    for angle in (10.0, 250.0):
        micrograph, cells = image(angle)
        pixels, pixel_nm, frame = prepared(micrograph, frame_of(cells, nd.MOTE2), nd.MOTE2, 14)
        places = sites_nm(cells)
        inner = ((places.mean(1) > 0.6) & (places.mean(1) < 3.4)).all(1) & (cells["kind"].to_numpy() == 0)
        means.append([cut(pixels, places[inner] / pixel_nm, frame, a).mean(0) for a in (SITES, HALVES)])
    for first, second in zip(*means, strict=True):
        assert np.abs(first - second).max() < 0.15 * np.ptp(first)


def test_halves_show_metal_left_and_chalcogen_right() -> None:
    micrograph, cells = image(25.0)
    pixels, pixel_nm, frame = prepared(micrograph, frame_of(cells, nd.MOTE2), nd.MOTE2, 20)
    pictures = cut(pixels, sites_nm(cells) / pixel_nm, frame, HALVES).mean(0)
    rows = [np.unravel_index(half.argmax(), half.shape) for half in pictures]
    assert rows[0][0] > 16 > rows[1][0], "metal below the middle, chalcogen above"
    assert all(abs(column - 15.5) < 5 for _, column in rows)
    whole = cut(pixels, sites_nm(cells) / pixel_nm, frame, {**HALVES, "inputs": 1}, CELL_SIZE).mean(0)
    np.testing.assert_allclose(whole[0].mean(), pictures.mean(), atol=0.02)


def test_the_six_turns_leave_the_lattice_as_it_is() -> None:
    metal, chalcogen = middle_to_sites(nd.MOTE2)
    assert np.linalg.norm(chalcogen - metal) == pytest.approx(1 / np.sqrt(3))
    around = np.array([chalcogen - metal]) @ np.array(turns())[0]
    neighbors = np.concatenate([(chalcogen - metal)[None] @ g for g in turns()])
    assert len(np.unique(neighbors.round(6), axis=0)) == 3
    np.testing.assert_allclose(around[0], chalcogen - metal)


def test_an_upright_image_says_where_its_points_are() -> None:
    micrograph, cells = image(40.0)
    pixels, pixel_nm, frame = prepared(micrograph, frame_of(cells, nd.MOTE2), nd.MOTE2, 20)
    turned, matrix, origin = upright(pixels, frame, 20.0, (np.array(pixels.shape) - 1) / 2)
    places = sites_nm(cells)[:, 1] / pixel_nm
    inner = ((places > 20) & (places < np.array(pixels.shape) - 20)).all(1) & (cells["kind"].to_numpy() == 0)
    seen = (places[inner] - origin) @ np.linalg.inv(matrix)
    rows, columns = np.rint(seen).astype(int).T
    assert turned[rows, columns].min() > 1.0, "Te2 columns are bright there, too"
    rows_of_cells = np.sort(seen[:, 0]) / (20 * np.sqrt(3) / 2)
    assert np.std(rows_of_cells - rows_of_cells[0] - np.rint(rows_of_cells - rows_of_cells[0])) < 0.1, (
        "in straight rows"
    )
