from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.cells.examples import true_cells
from napari_defects.cells.kinds import cells_of, frame_of, kinds_of, number_of, pair_of
from napari_defects.simulation import Scan


def test_six_kinds_for_any_mx2_and_a_sentence_for_others() -> None:
    assert kinds_of("MoTe2") == ("perfect", "V_Te", "V2_Te", "V_Mo", "V_Te+V_Mo", "V2_Te+V_Mo")
    assert pair_of("WS2") == ("W", "S")
    assert number_of(np.array([2]), np.array([1]))[0] == kinds_of("WSe2").index("V2_Se+V_W")
    with pytest.raises(ValueError, match="MX2 such as MoTe2"):
        kinds_of("graphene")


def test_cells_hold_what_was_planted() -> None:
    planted = {"V_Te": 4, "V2_Te": 3, "V_Mo": 2}
    _, sites = nd.simulate("MoTe2", field_of_view_nm=5.0, pixel_size_nm=0.03, defects=planted, seed=2)
    cells = true_cells(sites, nd.MOTE2)
    assert cells.index.is_unique
    missing = {name: int((sites["species"] == name).sum()) for name in planted}
    kinds = np.bincount(cells["kind"], minlength=6)
    assert kinds[0] > 150
    assert kinds[3:].sum() <= missing["V_Mo"]
    assert kinds[1:].sum() >= sum(missing.values()) - 4, "some lie in cells cut by the border"


@pytest.mark.parametrize("angle", [0.0, 37.0, 190.0])
def test_the_frame_is_the_rotation_of_the_lattice(angle: float) -> None:
    _, sites = nd.simulate("MoTe2", field_of_view_nm=3.0, pixel_size_nm=0.03, scan=Scan(rotation_deg=angle), seed=1)
    frame = frame_of(cells_of(sites, nd.MOTE2), nd.MOTE2)
    np.testing.assert_allclose(frame, Scan(rotation_deg=angle).rotation(), atol=1e-6)


def test_too_few_cells_are_told() -> None:
    _, sites = nd.simulate("MoTe2", field_of_view_nm=3.0, pixel_size_nm=0.03, seed=1)
    cells = cells_of(sites, nd.MOTE2)
    with pytest.raises(ValueError, match="complete unit cell"):
        frame_of(cells.head(3), nd.MOTE2)
    one_row = cells[cells.index.get_level_values("j") == cells.index.get_level_values("j")[20]]
    with pytest.raises(ValueError, match=r"one line|complete unit cell"):
        frame_of(one_row, nd.MOTE2)
