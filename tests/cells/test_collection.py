from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from napari_defects.cells import Collection, crops, kinds_of, profile, references

PLACE = {"called": "perfect", "crystal": "MoTe2", "source": "image", "frame": 0}


def rows(*species: str) -> pd.DataFrame:
    return pd.DataFrame({"species": species, "y_nm": np.arange(len(species)) + 1.0, "x_nm": 2.0, **PLACE})


@pytest.fixture
def pictures(mote2: Any) -> Any:
    return crops(*mote2, "MoTe2", np.array([[-5, -5], [-4, -5], [-4, -6]]))


def test_a_collection_grows_and_is_read_back(pictures: Any, tmp_path: Path) -> None:
    Collection(tmp_path / "c").add(pictures[:2], rows("perfect", "V_Te"))
    again = Collection(tmp_path / "c")
    again.add(pictures[2:], rows("V_Mo").assign(y_nm=9.0))
    assert Collection(tmp_path / "c").table["species"].tolist() == ["perfect", "V_Te", "V_Mo"]
    np.testing.assert_array_equal(Collection(tmp_path / "c").pictures(), pictures)
    again.add(pictures[:1], rows("V2_Te"))
    assert Collection(tmp_path / "c").table["species"].tolist() == ["V_Te", "V_Mo", "V2_Te"], "replaced"
    assert Collection(tmp_path / "c").table["picture"].is_unique
    examples = again.examples("MoTe2", {"kind": "patches", "inputs": 2, "side_px": 20}, 14)
    assert examples.pictures.shape == (3, 2, 20, 20)
    beside = again.examples("MoTe2", {"kind": "patches", "inputs": 4, "side_px": 20}, 14).pictures
    np.testing.assert_array_equal(beside[:, :2], examples.pictures)
    np.testing.assert_array_equal(beside[0, 2:], beside[1, 2:])  # the typical cell of the same image
    assert [kinds_of("MoTe2")[k] for k in examples.kinds] == ["V_Te", "V_Mo", "V2_Te"]


def test_bad_collections_are_told(pictures: Any, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "c")
    with pytest.raises(ValueError, match="no kind of cell"):
        collection.add(pictures[:1], rows("Te_Te"))
    with pytest.raises(ValueError, match="one a row"):
        collection.add(pictures[:2], rows("perfect"))
    assert not (tmp_path / "c").exists(), "nothing is written of what is refused"
    collection.add(pictures[:1], rows("perfect"))
    table = tmp_path / "c" / "cells.csv"
    table.write_text(table.read_text().replace("pictures/000001.tif", "../../secret.tif"))
    with pytest.raises(ValueError, match="outside the collection"):
        Collection(tmp_path / "c").pictures()
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no collection of cells"):
        Collection(tmp_path / "c")


def test_a_cell_that_is_not_there(mote2: Any) -> None:
    with pytest.raises(ValueError, match="not among the sites"):
        crops(*mote2, "MoTe2", np.array([[99, 99]]))


def test_references_differ_where_atoms_are_missing() -> None:
    lines = {kind: profile(picture, "MoTe2") for kind, picture in references("MoTe2").items()}
    assert list(lines) == list(kinds_of("MoTe2"))
    distance, perfect = lines["perfect"]
    metal, chalcogen = abs(distance).argmin(), abs(distance - 0.2032).argmin()
    assert lines["V_Mo"][1][metal] < perfect[metal] - 0.5
    assert lines["V2_Te"][1][chalcogen] < lines["V_Te"][1][chalcogen] < perfect[chalcogen]
    assert lines["V_Te"][1][metal] == pytest.approx(perfect[metal], abs=0.15)
