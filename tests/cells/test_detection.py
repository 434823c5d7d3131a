from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects import tables
from napari_defects.cells.detection import calibrated, defects_among, detect_cells
from napari_defects.cells.examples import true_cells
from napari_defects.cells.kinds import kinds_of


def agreement(cells: pd.DataFrame, sites: pd.DataFrame) -> float:
    truth = true_cells(sites, nd.MOTE2)["kind"].map(dict(enumerate(kinds_of("MoTe2"))))
    said = cells.set_index(["frame", "i", "j"])["species"].reindex(truth.index)
    return float((said == truth).mean())


def test_every_cell_of_a_turned_crystal_is_named(mote2: Any) -> None:
    micrograph, sites = mote2
    cells = detect_cells(micrograph, sites=sites)
    tables.check(cells, "cells")
    assert len(cells) == len(true_cells(sites, nd.MOTE2))
    assert agreement(cells, sites) > 0.98
    assert cells["rotation_deg"].to_numpy() == pytest.approx(21.0, abs=0.1)
    assert cells[[f"p_{kind}" for kind in kinds_of("MoTe2")]].sum(axis=1).to_numpy() == pytest.approx(1.0)


@pytest.mark.parametrize("model", ["mote2-cells", "mote2-cells-halves"])
def test_boxes_find_the_same_cells(mote2: Any, model: str) -> None:
    micrograph, sites = mote2
    cells = detect_cells(micrograph, model, sites=sites, boxes="mote2-boxes")
    every = detect_cells(micrograph, model, sites=sites)
    assert set(cells["method"]) == {"boxes"}
    assert len(cells) > 0.9 * len(every), "those at the border lie in no whole hexagon"
    assert not cells.duplicated(["i", "j"]).any()
    both = cells.merge(every, on=["i", "j"], suffixes=("", "_lattice"))
    assert np.hypot(both["y_nm"] - both["y_nm_lattice"], both["x_nm"] - both["x_nm_lattice"]).median() < 0.02
    assert (both["species"] == both["species_lattice"]).mean() > 0.97


def test_defects_of_cells_sit_on_their_sites(mote2: Any) -> None:
    micrograph, sites = mote2
    defects = nd.classify(micrograph, sites, method="cells")
    assert set(defects["method"]) == {"cells"}
    truth = micrograph.metadata["defects"]
    one = defects[~defects["species"].str.contains(r"\+")]
    for row in one.itertuples():
        near = truth[np.hypot(truth["y_nm"] - row.y_nm, truth["x_nm"] - row.x_nm) < 0.06]
        assert near["species"].tolist() == [row.species]
    assert set(one.loc[one["species"] == "V_Mo", "sublattice"]) == {"Mo"}
    fewer = nd.classify(micrograph, sites, method="cells", min_probability=1.0)
    assert len(fewer) == 0, "nothing is certain"


def test_both_vacancies_of_a_cell_make_one_defect(mote2: Any) -> None:
    micrograph, sites = mote2
    cells = detect_cells(micrograph, sites=sites)
    cells.loc[0, ["species", "probability"]] = ["V_Te+V_Mo", 0.9]
    i, j = cells.loc[0, ["i", "j"]]
    found = defects_among(cells, sites, 0.5)
    row = found[(found["i"] == i) & (found["j"] == j)].iloc[0]
    own = sites[(sites["i"] == i) & (sites["j"] == j)]
    middle = own[["y_ideal_nm", "x_ideal_nm"]].mean().to_numpy()
    assert row[["y_nm", "x_nm"]].to_numpy(float) == pytest.approx(middle, abs=0.02)


def test_a_movie_has_cells_in_every_frame() -> None:
    movie, sites = nd.simulate(
        "MoTe2", field_of_view_nm=3.0, pixel_size_nm=0.025, frames=2, defects={"V2_Te": 3}, seed=1
    )
    cells = detect_cells(movie, sites=sites)
    assert set(cells["frame"]) == {0, 1}
    assert cells["cell"].is_unique
    assert agreement(cells, sites) > 0.97


def test_shares_of_the_image_are_learned() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(4000) < 0.02).astype(int)
    height = np.where(truth == 1, 1.0, 0.0) + rng.normal(0, 0.35, 4000)
    logits = np.column_stack([np.zeros(4000), (height - 0.5) / 0.35**2])
    shares = np.array([0.5, 0.5])
    plain, adapted = calibrated(logits, shares, rounds=1), calibrated(logits, shares)
    assert plain.sum(0)[1] > 1.5 * adapted.sum(0)[1]
    assert adapted.sum(0)[1] == pytest.approx(truth.sum(), rel=0.3)
    assert (adapted.argmax(1) == truth).mean() > (plain.argmax(1) == truth).mean()
    assert calibrated(np.zeros((0, 2)), shares).shape == (0, 2)


def test_bad_input_is_one_sentence(mote2: Any) -> None:
    micrograph, sites = mote2
    for message, arguments in (
        ("none for cells is shipped for WTe2", {"crystal": "WTe2"}),
        ("MX2 such as MoTe2", {"crystal": "graphene"}),
        ("names cells of MoTe2, not of WSe2", {"model": "mote2-cells", "crystal": "WSe2"}),
        ("must be one for cells, got one for maps", {"model": "wse2-te", "crystal": "WSe2"}),
        ("`boxes` must be one for boxes", {"sites": sites, "boxes": "mote2-cells"}),
        ("`min_score`", {"sites": sites, "min_score": 2.0}),
        ("`alpha`", {"sites": sites, "boxes": "mote2-boxes", "alpha": 0.0}),
        ("`crystal` must be given", {}),
    ):
        with pytest.raises(ValueError, match=message):
            detect_cells(micrograph, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got one for cells"):
        nd.predict(micrograph, "mote2-cells")


@pytest.mark.parametrize("name", ["mote2_mid", "mote2_low"])
def test_multislice(shared: Any, name: str) -> None:
    import json

    import tifffile

    folder = shared / "checks" / "multislice"
    images = json.loads((folder / "manifest.json").read_text())["images"]
    pixel = next(image["params"]["pixel_size_nm"] for image in images if image["name"] == name)
    micrograph = nd.Micrograph(tifffile.imread(folder / f"{name}.tif")[:500, :500], pixel)
    atoms = nd.locate(micrograph)
    defects = nd.classify(micrograph, nd.assign_sites(atoms, nd.fit_lattice(atoms, "MoTe2")), method="cells")
    truth = pd.read_csv(folder / f"{name}_defects.csv")
    truth[["y_nm", "x_nm"]] = truth[["y_px", "x_px"]] * pixel
    inner = truth[((truth[["y_nm", "x_nm"]] > 0.3) & (truth[["y_nm", "x_nm"]] < 500 * pixel - 0.3)).all(axis=1)]
    names = {"VTe": "V_Te", "VTe2": "V2_Te", "VMo": "V_Mo"}
    right = [
        any(names[row.type] in species for species in defects.loc[
            np.hypot(defects["y_nm"] - row.y_nm, defects["x_nm"] - row.x_nm) < 0.13, "species"])
        for row in inner.itertuples()
    ]  # fmt: skip
    assert np.mean(right) > 0.93
