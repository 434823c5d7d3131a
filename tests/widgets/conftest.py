"""A small simulated image, what is true of it, and a way to run a widget to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

import napari_defects as nd
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._viewer import upsert


@pytest.fixture(scope="session")
def wse2() -> tuple[nd.Micrograph, Any]:
    """WSe2 with vacancies and Te, 6 nm wide, and its true sites."""
    defects = {"V_Se": 8, "Te_Se": 10, "V2_Se": 3}
    return nd.simulate("WSe2", field_of_view_nm=6.0, pixel_size_nm=0.025, defects=defects, seed=4)


@pytest.fixture(scope="session")
def measured(wse2: tuple[nd.Micrograph, Any]) -> tuple[Any, nd.Lattice]:
    """Sites as they are measured, and their lattice."""
    atoms = nd.locate(wse2[0])
    lattice = nd.fit_lattice(atoms, "WSe2")
    return nd.assign_sites(atoms, lattice), lattice


@pytest.fixture(scope="session")
def maps(wse2: tuple[nd.Micrograph, Any]) -> nd.Maps:
    """Class maps as a perfect network would give them."""
    micrograph, truth = wse2
    classes = ("background", "W", "Se2", "V_Se", "V2_Se", "Te_Se")
    y, x = np.indices(micrograph.shape_yx) * 0.025
    data = np.zeros((len(classes), *micrograph.shape_yx), np.float32)
    for row in truth.itertuples():
        place = (row.y_ideal_nm, row.x_ideal_nm)
        disc = (y - place[0]) ** 2 + (x - place[1]) ** 2 < 0.07**2
        data[classes.index(row.species), disc] = 0.9
    data[0] = 1 - data.sum(0)
    return nd.Maps(data, classes, 0.025)


@pytest.fixture
def viewer(wse2: tuple[nd.Micrograph, Any]) -> ViewerModel:
    """A viewer without a window that shows the image."""
    model = ViewerModel()
    upsert(model, image_layer(wse2[0], "wse2", crystal="WSe2"))
    return model


@pytest.fixture
def finish(qtbot: Any) -> Callable[[Any], Any]:
    """Run a widget and wait for what comes of it."""

    def finish(widget: Any, start: Callable[[], Any] | None = None) -> Any:
        qtbot.addWidget(widget)
        (start or widget.run)()
        if widget.job is not None:
            qtbot.waitUntil(lambda: not widget.job.running, timeout=120_000)
            qtbot.wait(20)
        return widget

    return finish


@pytest.fixture(autouse=True)
def notifications() -> Iterator[list[Any]]:
    """Collect what napari told the user."""
    notification_manager.records.clear()
    yield notification_manager.records
    notification_manager.records.clear()


@pytest.fixture(autouse=True)
def cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep maps where no other test, and no user, has any."""
    monkeypatch.setattr("napari_defects.widgets._cache.folder", lambda: tmp_path / "maps")


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    """Wait for threads that a closed widget left behind, as napari does when its window closes."""
    yield
    from superqt.utils import WorkerBase

    WorkerBase.await_workers(60_000)
