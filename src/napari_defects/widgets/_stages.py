"""The stages of the simulator as forms: a dataclass (a microscope) becomes sliders, filled and read as the object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from magicgui.widgets import FloatSlider

from napari_defects.docstrings import numpydoc
from napari_defects.widgets._forms import Form, fields_of, set_value, split_unit, value_of
from napari_defects.widgets._frame import fold

_RANGES = {
    "energy_keV": (30, 300, 5), "convergence_mrad": (10, 50, 0.1), "detector_inner_mrad": (20, 150, 1),
    "detector_outer_mrad": (60, 400, 1), "source_fwhm_nm": (0, 0.25, 0.001), "focal_spread_nm": (0, 10, 0.1),
    "source_tail": (0, 1, 0.01), "C10_nm": (-20, 20, 0.1), "C12_nm": (0, 20, 0.1), "C21_nm": (0, 300, 1),
    "C23_nm": (0, 300, 1), "C30_um": (-10, 10, 0.1), "rotation_deg": (-180, 180, 0.1), "drift_y": (-5, 5, 0.01),
    "drift_x": (-5, 5, 0.01), "wander_pm": (0, 200, 1), "wander_cycles": (0.2, 8, 0.1), "jitter_pm": (0, 50, 0.1),
    "jitter_memory": (0, 0.99, 0.01), "tremor_pm": (0, 50, 0.1), "tremor_nm": (0.05, 5, 0.05),
    "flyback_pm": (0, 200, 1), "flyback_nm": (0.1, 5, 0.1), "current_variation": (0, 0.5, 0.01),
    "read_noise_e": (0, 20, 0.1), "pulse_spread": (0, 1, 0.01), "line_noise_e": (0, 5, 0.05),
    "flicker_e": (0, 20, 0.05), "flicker_memory": (0, 0.95, 0.01), "afterglow": (0, 0.9, 0.01),
    "hot_pixels": (0, 0.05, 0.0005), "contamination": (0, 3, 0.01), "contamination_scale_nm": (0.5, 10, 0.1),
    "speckle": (0, 1, 0.005), "speckle_scale_nm": (0.05, 0.5, 0.01), "patch": (0, 3, 0.01),
    "patch_radius_nm": (0.2, 5, 0.1), "gradient": (0, 2, 0.01), "hole_radius_nm": (0.2, 3, 0.05),
    "grain_deg": (0, 60, 0.5),
}  # fmt: skip


class Stage:
    """The form of a stage, with those of the dataclasses in it (a microscope's aberrations)."""

    def __init__(self, kind: type):
        self.kind = kind
        words = numpydoc(kind)
        fields = fields_of(kind)
        for field in dataclasses.fields(kind):
            if isinstance(field.default, tuple):  # (y, x)
                for axis, value in zip("yx", field.default, strict=True):
                    name = f"{field.name.partition('_')[0]}_{axis}"
                    fields[name] = _slider(name, value, words.get(field.name, ("", ""))[1], split_unit(field.name)[1])
        for name, widget in fields.items():
            if name in _RANGES and not isinstance(widget, FloatSlider):
                fields[name] = _slider(name, widget.value, widget.tooltip, split_unit(name)[1])
        self.form = Form(fields.values())
        parts: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(kind)}
        self.children = {
            name: Stage(part)
            for name, part in parts.items()
            if isinstance(part, type) and dataclasses.is_dataclass(part)
        }

    def build(self) -> Any:
        """Return the object the fields describe."""
        values = self.form.values()
        for field in dataclasses.fields(self.kind):
            if isinstance(field.default, tuple):
                short = field.name.partition("_")[0]
                values[field.name] = tuple(values.pop(f"{short}_{axis}") for axis in "yx")
        return self.kind(**values, **{name: child.build() for name, child in self.children.items()})

    def fill(self, stage: Any) -> None:
        """Show an object; sliders grow to hold what it has."""
        for name, widget in self.form.fields.items():
            axis = "yx".find(name[-1]) if name[-2:] in ("_y", "_x") else -1
            if axis >= 0:
                value = next(getattr(stage, f.name)[axis] for f in dataclasses.fields(stage)
                             if f.name.startswith(name[:-2]))  # fmt: skip
            else:
                value = getattr(stage, name)
            if isinstance(widget, FloatSlider) and value is not None:
                widget.max, widget.min = max(widget.max, value), min(widget.min, value)
            if value_of(widget) != value:
                set_value(widget, value)
        for name, child in self.children.items():
            child.fill(getattr(stage, name))

    def changed(self, callback: Callable[..., Any]) -> None:
        """Call back when a field changes."""
        for widget in self.form:
            widget.changed.connect(callback)
        for child in self.children.values():
            child.changed(callback)

    def fold_into(self, layout: Any, place: int, name: str) -> None:
        """Put the folded form into a layout."""
        group = fold(name.capitalize())
        group.addWidget(self.form)
        layout.insertWidget(place, group)
        for inner, child in self.children.items():
            child.fold_into(layout, layout.indexOf(group) + 1, inner)


def _slider(name: str, value: float, tooltip: str, unit: str) -> FloatSlider:
    low, high, step = _RANGES[name]
    label = f"{split_unit(name)[0].replace('_', ' ')}{f' ({unit})' if unit else ''}"
    return FloatSlider(
        name=name, label=label, value=value, min=min(low, value), max=max(high, value), step=step, tooltip=tooltip
    )
