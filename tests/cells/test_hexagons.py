from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import napari_defects as nd
from napari_defects.cells.hexagons import ALPHA, BETA, boxes_around, hexagon_size, true_hexagons, unit_cells
from napari_defects.cells.kinds import cells_of
from napari_defects.cells.patches import CELL_SIZE

A = nd.MOTE2.a_nm


def overlap(first, second):
    """Intersection over union of each box with each other."""
    return box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()


@pytest.fixture(scope="module")
def cells():
    _, sites = nd.simulate("MoTe2", field_of_view_nm=4.0, pixel_size_nm=0.03, seed=1)
    return cells_of(sites, nd.MOTE2)


def test_two_unit_cells_cut_from_each_hexagon_are_those_of_the_crystal(cells) -> None:
    middles = true_hexagons(cells, nd.MOTE2)
    true = boxes_around(0.5 * (cells[["y_M", "x_M"]].to_numpy() + cells[["y_X", "x_X"]].to_numpy()), A * CELL_SIZE)
    cut = unit_cells(boxes_around(middles, A * hexagon_size()))
    assert len(cut) == 2 * len(middles) > 100
    best = overlap(cut, true).max(1)
    assert best.min() > 0.9, "alpha and beta put them a hair beside the bond's middle"
    found = overlap(true, cut).max(1)
    assert (found > 0.9).mean() > 0.85, "only cells at the border lie in no hexagon"


def test_alpha_and_beta_of_the_paper_are_the_best(cells) -> None:
    middles = true_hexagons(cells, nd.MOTE2)
    true = boxes_around(0.5 * (cells[["y_M", "x_M"]].to_numpy() + cells[["y_X", "x_X"]].to_numpy()), A * CELL_SIZE)

    def mean(alpha: float, beta: float) -> float:
        cut = unit_cells(boxes_around(middles, A * hexagon_size()), alpha, beta)
        return float(overlap(cut[::7], true).max(1).mean())

    best = mean(ALPHA, BETA)
    assert best > max(mean(0.55, 0.5), mean(0.75, 0.5), mean(0.65, 0.4), mean(0.65, 0.6))


def test_alpha_and_beta_are_shares() -> None:
    with pytest.raises(ValueError, match="`alpha`"):
        unit_cells(np.array([[0.0, 0, 2, 2]]), 1.2, 0.5)
