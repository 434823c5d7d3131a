"""Discover: the gallery, the names, and what goes to the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._tables_out import export
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.discover import Discover
from napari_defects.widgets.review import Review


@pytest.fixture(scope="module")
def doped() -> tuple[nd.Micrograph, Any, nd.Lattice]:
    image, _ = nd.simulate(
        "WSe2", field_of_view_nm=6.0, pixel_size_nm=0.025, defects={"Ge_W": 15, "V_Se": 8}, dose_e_per_A2=1e5, seed=5
    )
    atoms = nd.locate(image)
    lattice = nd.fit_lattice(atoms, "WSe2")
    return image, nd.assign_sites(atoms, lattice), lattice


@pytest.fixture
def discovered(doped: Any, finish: Any) -> Discover:
    image, sites, lattice = doped
    viewer = ViewerModel()
    upsert(viewer, image_layer(image, "doped", crystal="WSe2"))
    upsert(viewer, table_layer(sites, "sites", "atoms · doped", image="doped", crystal="WSe2", lattice=lattice))
    return finish(Discover(viewer))


def test_the_gallery_has_a_row_for_the_dopant(discovered: Discover) -> None:
    assert len(discovered.gallery.fields) == 1
    layer = discovered.viewer.layers["discovered · doped"]
    assert 9 <= len(layer.data) <= 15
    assert set(layer.features["species"]) == {"darker_W"}
    assert "in 1 group" in discovered.status.text()
    discovered.gallery.fields[0].setText("Ti_W")
    discovered.gallery.fields[0].editingFinished.emit()
    assert set(discovered.viewer.layers["discovered · doped"].features["species"]) == {"Ti_W"}
    discovered.show_cluster(0)


def test_what_is_discovered_is_no_table_of_defects(discovered: Discover, qtbot: Any, tmp_path: Path) -> None:
    viewer, layer = discovered.viewer, discovered.viewer.layers["discovered · doped"]
    defects = layer.features.head(2).assign(species="V_Se")
    upsert(viewer, table_layer(defects, "defects", "defects · doped", image="doped"))
    discovered.gallery.fields[0].setText("Ti_W")
    discovered.add_to_training()
    viewer.layers.move(viewer.layers.index("defects · doped"), 0)
    widget = Review(viewer)
    qtbot.addWidget(widget)
    assert widget.layer.name == "defects · doped"
    export(viewer, "doped", tmp_path)
    assert set(nd.read_table(tmp_path / "defects.csv")["species"]) == {"V_Se"}
    assert len(nd.read_table(tmp_path / "novelties.csv")) == len(layer.data)


def test_named_groups_become_labels(discovered: Discover, notifications: list[Any]) -> None:
    assert discovered.add_to_training() is None
    assert "Give a group a name first" in str(notifications[-1].message)
    discovered.gallery.fields[0].setText("titanium")
    assert discovered.add_to_training() is None
    assert "species on the site W" in str(notifications[-1].message)
    discovered.gallery.fields[0].setText("Ti_W")
    layer = discovered.add_to_training()
    assert layer.name == "labels · doped"
    assert discovered.status.text().startswith("✓"), "the name was mended"
    assert set(layer.features["species"]) == {"Ti_W"}
    assert set(layer.features["method"]) == {"manual"}


def test_nothing_new_is_said_so(finish: Any) -> None:
    image, _ = nd.simulate("WSe2", field_of_view_nm=5.0, pixel_size_nm=0.025, dose_e_per_A2=2e4, seed=6)
    atoms = nd.locate(image)
    lattice = nd.fit_lattice(atoms, "WSe2")
    sites = nd.assign_sites(atoms, lattice)
    viewer = ViewerModel()
    upsert(viewer, image_layer(image, "clean", crystal="WSe2"))
    upsert(viewer, table_layer(sites, "sites", "atoms · clean", image="clean", crystal="WSe2", lattice=lattice))
    widget = finish(Discover(viewer))
    assert "Nothing" in widget.status.text()
    assert not widget.gallery.fields
