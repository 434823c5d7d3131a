from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects import tables
from napari_defects.recipes import Recipe
from napari_defects.widgets._exclusion import paint
from napari_defects.widgets._layers import about, micrograph_of
from napari_defects.widgets._points import table_of
from napari_defects.widgets.analyze import Analyze


@pytest.fixture
def no_network(monkeypatch: Any) -> None:
    monkeypatch.setattr("napari_defects.pipeline.model_for", lambda crystal: None)


@pytest.mark.usefixtures("no_network")
def test_analyze_fills_lines_and_layers_and_gives_the_tables_of_the_script(
    viewer: ViewerModel, finish: Callable[..., Any]
) -> None:
    widget = finish(Analyze(viewer))
    assert widget.status.text().startswith("✓ Done"), widget.status.text()
    assert {name: state for name, state in widget.lines.state.items() if state != "✓"} == {"segment": "·"}
    assert widget.lines.text("segment") == "not needed"
    assert "columns" in widget.lines.text("localize")
    names = {layer.name for layer in viewer.layers}
    assert {"wse2", "atoms · wse2", "defects · wse2", "strain · wse2", "displacement · wse2"} <= names
    assert not viewer.layers["atoms · wse2"].visible, "the picture is not covered"
    assert viewer.layers["defects · wse2"].visible
    namespace: dict[str, Any] = {}
    script = widget.python().replace("nd.read_micrograph('IMAGE', pixel_size_nm=0.025)", "micrograph")
    exec(
        script.replace('results.write("results")\n', ""),
        {"micrograph": micrograph_of(viewer.layers["wse2"])},
        namespace,
    )
    results = namespace["results"]
    for name, kind in (("atoms", "strain"), ("defects", "defects")):
        ours, theirs = table_of(viewer.layers[f"{name} · wse2"]), getattr(results, kind)
        pd.testing.assert_frame_equal(ours, tables.check(theirs, kind), check_exact=True)
    assert Recipe.from_toml(about(viewer.layers["defects · wse2"])["made"]["recipe"]).crystal == "WSe2"


@pytest.mark.usefixtures("no_network")
def test_the_image_is_deleted_meanwhile(viewer: ViewerModel, finish: Callable[..., Any]) -> None:
    from napari_defects.widgets._layers import image_layer
    from napari_defects.widgets._viewer import upsert

    def start() -> None:
        widget.run()
        micrograph = micrograph_of(viewer.layers["wse2"])
        viewer.layers.remove("wse2")
        upsert(viewer, image_layer(micrograph, "wse2"))

    widget = Analyze(viewer)
    finish(widget, start)
    assert [layer.name for layer in viewer.layers] == ["wse2"]
    assert "has left the viewer" in widget.status.text()
    assert "…" not in widget.lines.state.values()


def test_what_is_shown_is_of_the_image_chosen(wse2: tuple[nd.Micrograph, Any], viewer: ViewerModel, qtbot: Any) -> None:
    from napari_defects.widgets._layers import image_layer
    from napari_defects.widgets._picks import Source
    from napari_defects.widgets._telling import Telling
    from napari_defects.widgets._viewer import upsert

    quick = {"predict": {"model": "none"}, "average": {"radius_nm": 0.6, "rounds": 1}}
    results = nd.analyze(wse2[0], {"fit_lattice": {"crystal": "WSe2"}, **quick})
    other = upsert(viewer, image_layer(results.micrograph, "other"))
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    image = widget.pickers["image"].value = widget._image = viewer.layers["wse2"]
    widget.job = type("Job", (), {"cancelled": False, "running": False})()
    widget.lines.reset()
    telling = Telling(Source(results.micrograph, "wse2", {}), results.recipe, (None, None), widget._stepped)
    telling("assign_sites", results.sites)
    telling("classify", results.defects)
    telling("average", results.averages)
    paint(viewer, image).data_setitem(tuple(np.indices((240, 240)).reshape(2, -1)), 1)
    telling("count", results.counts)
    n = len(results.defects)
    assert widget.lines.text("count") == f"0 defects, {n} left out"
    shown = (widget.lines, widget.legend, widget.gallery, widget.export_button)
    assert not any(one.isHidden() for one in shown)
    widget.pickers["image"].value = other
    assert all(one.isHidden() for one in shown)
    widget.pickers["image"].value = image
    assert not any(one.isHidden() for one in shown)


def test_nothing_has_stopped_where_nothing_has_started(viewer: ViewerModel, qtbot: Any) -> None:
    viewer.add_image(viewer.layers["wse2"].data, name="raw")
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    widget.pickers["image"].value = viewer.layers["raw"]
    widget.run()
    assert "no pixel size" in widget.status.text()
    assert set(widget.lines.state.values()) == {"·"}


def test_a_script_says_what_is_not_in_it(viewer: ViewerModel, qtbot: Any, tmp_path: Path) -> None:
    from napari_defects.io import write_micrograph
    from napari_defects.widgets._files import read
    from napari_defects.widgets._points import table_layer
    from napari_defects.widgets._viewer import upsert

    def said(layer: Any) -> str:
        widget.pickers["image"].value = layer
        widget.copy_python()
        return str(widget.status.text())

    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    image = viewer.layers["wse2"]
    assert "came from no file" in said(image)
    for layer in read(write_micrograph(micrograph_of(image), tmp_path / "scan.tif")):
        scan = upsert(viewer, layer)
    assert said(scan) == "Copied: the script makes the same tables."
    defects = pd.DataFrame(micrograph_of(image).metadata["defects"]).head(3).assign(method="manual")
    upsert(viewer, table_layer(defects, "defects", "defects · scan", image="scan"))
    scan.data = scan.data[:100]
    assert "the crop" in said(scan)
    assert "3 defects set by hand" in said(scan)
    assert "RGB" in said(viewer.add_image(np.zeros((20, 20, 3)), rgb=True))
    viewer.layers.clear()
    widget.copy_python()
    assert "no image" in widget.status.text()


@pytest.mark.usefixtures("no_network")
def test_cancel_marks_the_line_and_stops_the_layers(viewer: ViewerModel, qtbot: Any) -> None:
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    widget.run()
    qtbot.waitUntil(lambda: "…" in widget.lines.state.values(), timeout=60_000)
    widget.cancel()
    assert "…" not in widget.lines.state.values()
    qtbot.waitUntil(lambda: not widget.job.running, timeout=60_000)
    qtbot.wait(50)
    assert [layer.name for layer in viewer.layers] == ["wse2"]


def test_a_recipe_survives_saving_and_loading(viewer: ViewerModel, qtbot: Any, tmp_path: Path) -> None:
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    widget.fill({"crystal": "MoS2", "average": {"radius_nm": 0.7}, "classify": {"method": "intensities"}})
    recipe = widget.recipe()
    assert recipe.steps == {
        "fit_lattice": {"crystal": "MoS2"}, "average": {"radius_nm": 0.7}, "classify": {"method": "intensities"},
    }  # fmt: skip
    widget.save_recipe(str(tmp_path / "r.toml"))
    widget.pickers["crystal"].value = "WSe2"
    widget.reset()
    assert widget.recipe().steps == {"fit_lattice": {"crystal": "WSe2"}}
    widget.load_recipe(str(tmp_path / "r.toml"))
    assert widget.recipe().steps == recipe.steps


def test_a_recipe_that_is_none(viewer: ViewerModel, qtbot: Any, tmp_path: Path, notifications: list[Any]) -> None:
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    (tmp_path / "r.toml").write_text("[average]\nradius = 3\n")
    widget.load_recipe(str(tmp_path / "r.toml"))
    assert "radius_nm" in str(notifications[-1].message)


def test_a_wrong_scale_can_be_mended_with_a_click(qtbot: Any, wse2: tuple[nd.Micrograph, Any]) -> None:
    from napari_defects.widgets._layers import image_layer, scale_nm
    from napari_defects.widgets._steps import Made
    from napari_defects.widgets._viewer import upsert

    viewer = ViewerModel()
    upsert(viewer, image_layer(wse2[0].with_pixel_size(0.0258), "off", crystal="WSe2"))
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    widget.run()
    widget._stepped("calibrate", Made([], "0.0258 nm a pixel", "lattice says 0.0250, 3.2 % off", (0.025, 0.025)))
    assert "use lattice" in widget.lines.text("calibrate")
    widget.cancel()
    widget.run = lambda: None  # type: ignore[method-assign]
    widget.lines.link_clicked.emit()
    assert scale_nm(viewer.layers["off"])[0] == pytest.approx(0.025)


@pytest.mark.usefixtures("no_network")
def test_script_command_line_and_widget_write_the_same_bytes(
    wse2: tuple[nd.Micrograph, Any], finish: Callable[..., Any], tmp_path: Path
) -> None:
    from napari_defects.cli import app
    from napari_defects.io import write_micrograph
    from napari_defects.widgets._files import read
    from napari_defects.widgets._viewer import upsert
    from napari_defects.widgets.count import Count

    path = write_micrograph(wse2[0], tmp_path / "scan.tif")
    viewer = ViewerModel()
    for layer in read(path):
        upsert(viewer, layer)
    widget = Analyze(viewer)
    widget.fill({"crystal": "WSe2", "average": {"radius_nm": 0.6}, "classify": {"min_probability": 0.6}})
    finish(widget)
    Count(viewer).export(tmp_path / "widget")
    widget.save_recipe(str(tmp_path / "recipe.toml"))
    (tmp_path / "script.py").write_text(widget.python())
    exec(widget.python().replace('"results"', repr(str(tmp_path / "script"))), {})
    arguments = ["analyze", str(path), "--recipe", str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "cli")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    names = [f"{name}.csv" for name in ("atoms", "sites", "defects", "counts", "strain")]
    names += [f"averages/{p.name}" for p in sorted((tmp_path / "cli" / "averages").iterdir())]
    assert len(names) >= 8
    for name in names:
        script, cli, ours = ((tmp_path / door / name).read_bytes() for door in ("script", "cli", "widget"))
        assert script == cli, name
        assert script == ours, name


@pytest.mark.usefixtures("no_network")
def test_a_recipe_runs_on_files_and_names_the_one_that_fails(
    wse2: tuple[nd.Micrograph, Any], viewer: ViewerModel, finish: Callable[..., Any], tmp_path: Path
) -> None:
    from napari_defects.io import write_micrograph

    good = write_micrograph(wse2[0], tmp_path / "good.tif")
    (tmp_path / "bad.tif").write_bytes(b"not a tif")
    widget = Analyze(viewer)
    widget.fill({"average": {"radius_nm": 0.6}})
    finish(widget, lambda: widget.run_on_files([str(good), str(tmp_path / "bad.tif")], str(tmp_path / "out")))
    assert "1 of 2 files analysed" in widget.status.text()
    assert "bad.tif" in widget.status.text()
    status = {widget.files.item(row, 0).text(): widget.files.item(row, 1).text() for row in range(2)}
    assert status == {"bad.tif": "failed", "good.tif": "done"}
    assert (tmp_path / "out" / "summary.csv").is_file()
    row = next(r for r in range(2) if widget.files.item(r, 0).text() == "good.tif")
    widget.files.open(row)
    assert {"good", "atoms · good", "defects · good"} <= {layer.name for layer in viewer.layers}
    written = nd.read_table(tmp_path / "out" / "good" / "defects.csv", "defects")
    pd.testing.assert_frame_equal(table_of(viewer.layers["defects · good"]), tables.check(written, "defects"))


def test_parameters_come_back_with_the_layer(viewer: ViewerModel, finish: Callable[..., Any]) -> None:
    from napari_defects.widgets._layers import image_layer
    from napari_defects.widgets._viewer import upsert
    from napari_defects.widgets.localize import Localize

    upsert(viewer, image_layer(micrograph_of(viewer.layers["wse2"]), "other"))
    widget = Localize(viewer)
    widget.pickers["image"].value = viewer.layers["wse2"]
    widget.fill({"assign_sites": {"max_offset_nm": 0.07}})
    finish(widget)
    again = Localize(viewer)
    again.pickers["image"].value = viewer.layers["other"]
    again.reset()
    assert again.parameters["assign_sites"]["max_offset_nm"] != 0.07
    again.pickers["image"].value = viewer.layers["wse2"]
    assert again.parameters["assign_sites"]["max_offset_nm"] == 0.07
    assert again.pickers["crystal"].value == "WSe2"
