from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

MANIFEST = PluginManifest.from_distribution("napari-defects")
TITLES = [w.display_name for w in MANIFEST.contributions.widgets or ()]
STEPS = {"Analyze", "Simulate", "Train", "Segment", "Localize", "Classify", "Review", "Average", "Strain"}
SAMPLES = [s.key for s in MANIFEST.contributions.sample_data or ()]


def test_the_entry_point_leads_to_the_file_in_the_package() -> None:
    (point,) = (e for e in entry_points(group="napari.manifest") if e.name == "napari-defects")
    assert point.value == "napari_defects:napari.yaml"
    link = Path(__file__).parents[1] / "napari.yaml"
    assert link.is_symlink()
    assert link.resolve() == link.parent / "src" / "napari_defects" / "napari.yaml"


def test_one_widget_per_step_named_alike_in_the_manifest_and_in_the_class() -> None:
    widgets = {w.command: w.display_name for w in MANIFEST.contributions.widgets or ()}
    assert set(TITLES) >= STEPS
    assert len(set(TITLES)) == len(TITLES)
    for command, title in widgets.items():
        assert _target(command).title == title
    assert MANIFEST.display_name == MANIFEST.name, "else a widget can be opened twice"


def test_every_widget_leads_on_to_one_that_exists() -> None:
    for widget in MANIFEST.contributions.widgets or ():
        assert _target(widget.command).follow in (None, *TITLES)


def test_every_widget_has_its_page() -> None:
    docs = Path(__file__).parents[1] / "docs"
    listed = (docs / "napari.md").read_text("utf-8")
    for widget in MANIFEST.contributions.widgets or ():
        name = widget.command.removeprefix("napari-defects.")
        page = (docs / "widgets" / f"{name}.md").read_text("utf-8")
        assert page.startswith(f"# {widget.display_name}\n"), name
        assert f"widgets/{name}\n" in listed, name


def test_every_command_can_be_imported() -> None:
    for command in MANIFEST.contributions.commands or ():
        assert callable(_target(command.id)), command.id


def test_menus_hold_every_step_and_only_commands_that_exist() -> None:
    from napari._app_model.constants import MenuId

    known = {c.id for c in MANIFEST.contributions.commands or ()}
    menus = MANIFEST.contributions.menus or {}
    assert set(menus) <= {str(m) for m in MenuId.contributables()}
    placed = {item.command for items in menus.values() for item in items}
    assert placed <= known
    assert {w.command for w in MANIFEST.contributions.widgets or ()} <= placed


def test_no_sample_key_is_a_command_and_patterns_are_files_we_read() -> None:
    assert not set(SAMPLES) & {c.id for c in MANIFEST.contributions.commands or ()}
    assert len(SAMPLES) >= 3
    from napari_defects.formats import READERS

    for reader in MANIFEST.contributions.readers or ():
        images = {p.removeprefix("*") for p in reader.filename_patterns} - {".csv", ".parquet"}
        assert images <= set(READERS)


@pytest.mark.parametrize("key", SAMPLES)
def test_samples_open_in_nm_and_are_the_same_each_time(key: str) -> None:
    (command,) = (s.command for s in MANIFEST.contributions.sample_data or () if s.key == key)
    layers: list[Any] = _target(command)()
    image, keywords, kind = layers[0]
    assert kind == "image"
    assert keywords["scale"][-1] < 0.05
    assert str(keywords["units"][-1]) == "nm"
    assert np.isfinite(image).all()
    assert all(not k["visible"] for _, k, _ in layers[1:]), "the truth is hidden"
    if key == "wse2_te":
        np.testing.assert_array_equal(_target(command)()[0][0], image)


def test_napari_finds_the_plugin() -> None:
    manager = PluginManager.instance()
    manager.discover()
    assert "napari-defects" in manager
    assert {w.display_name for w in manager.iter_widgets() if w.plugin_name == "napari-defects"} == set(TITLES)
    readers = {r.command for r in manager.iter_compatible_readers(["image.dm4"])}
    assert "napari-defects.read" in readers


def test_the_device_is_a_setting(tmp_path: Path) -> None:
    from napari_defects.widgets._settings import device

    assert device() is None, "auto"
    configuration = (MANIFEST.contributions.configurations or {})["compute"]
    assert configuration.properties["device"].default == "auto"


def _target(command_id: str) -> Any:
    (command,) = (c for c in MANIFEST.contributions.commands or () if c.id == command_id)
    module, _, name = str(command.python_name).partition(":")
    return getattr(import_module(module), name)
