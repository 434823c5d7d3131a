"""Signature to form: one field per keyword, with the default, the unit and the words of the step itself."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSlider, FloatSpinBox, LineEdit, Widget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QFormLayout, QLabel, QWidget

from napari_defects.docstrings import numpydoc

UNITS = {
    "_e_per_A2": "e/Å²", "_keV": "keV", "_mrad": "mrad", "_nm2": "nm²", "_nm": "nm", "_pm": "pm", "_um": "µm",
    "_mm": "mm", "_px": "px", "_deg": "°", "_rad": "rad", "_min": "min", "_s": "s", "_frames": "frames",
}  # fmt: skip
_STEPS = {"nm": 0.001, "pm": 1.0, "mrad": 0.5, "keV": 5.0, "°": 1.0, "e/Å²": 1000.0, "min": 1.0, "nm²": 1.0}
_MOST = {
    "nm": 1e4,
    "nm²": 1e9,
    "pm": 1e5,
    "mrad": 500.0,
    "keV": 1000.0,
    "°": 360.0,
    "px": 65536,
    "frames": 1e6,
    "min": 1e5,
}
"""No field goes beyond what its unit can mean."""
_AUTO, _NONE = "auto", "none"
_FRACTION = re.compile(r"probability|confidence|fraction|score|threshold|overlap$")
_SIGNED = re.compile(r"^(C\d|phi)|_deg$|offset|shear|tilt|drift")


LABEL_PX = 108
"""Labels of all forms are at least this wide, so that fields line up from form to form."""
NUMBER_PX = 50
"""What the number beside a slider needs; the rest is the slider's."""


class Form(QWidget):
    """Fields, one a row, with their labels lined up.

    Parameters
    ----------
    fields : iterable of magicgui widgets
        What they hold now is what `reset` goes back to.
    """

    def __init__(self, fields: Iterable[Widget]):
        super().__init__()
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.fields = {widget.name: widget for widget in fields}
        for widget in self.fields.values():
            label = QLabel("" if isinstance(widget, CheckBox) else widget.label)
            label.setMinimumWidth(LABEL_PX)
            label.setToolTip(widget.tooltip or "")
            layout.addRow(label, widget.native)
            for number in widget.native.findChildren(QAbstractSpinBox):
                number.setStyleSheet(f"min-width: {NUMBER_PX}px; max-width: {NUMBER_PX}px; padding: 0; margin: 0")
        self.defaults = self.values()

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        only: Iterable[str] | None = None,
        hide: Iterable[str] = (),
        choices: Mapping[str, Iterable[str]] | None = None,
    ) -> Form:
        """Make a form for the scalar keywords of a function (or a dataclass); ``None`` defaults read "auto".

        Parameters
        ----------
        function : callable
            Its signature gives the fields and their defaults, its numpydoc the tooltips.
        only : iterable of str, optional
            Keep these, in this order.
        hide : iterable of str
            Leave these out.
        choices : mapping of str to sequence, optional
            Choices of string keywords.
        """
        fields = fields_of(function, hide, choices or {})
        return cls(fields.values() if only is None else [fields[name] for name in only if name in fields])

    def __iter__(self) -> Iterator[Widget]:
        """Iterate over the fields."""
        return iter(self.fields.values())

    def __getitem__(self, name: str) -> Widget:
        """Return the field of one keyword."""
        return self.fields[name]

    def values(self) -> dict[str, Any]:
        """Return the keywords as they stand; None where a field reads "auto"."""
        return {name: value_of(widget) for name, widget in self.fields.items()}

    def fill(self, values: Mapping[str, Any]) -> None:
        """Set those fields that are named; others stay."""
        for name, value in values.items():
            if name in self.fields:
                set_value(self.fields[name], value)

    def reset(self) -> None:
        """Every field back to the step's default."""
        self.fill(self.defaults)

    def show_row(self, name: str, shown: bool) -> None:
        """Show or hide a field with its label."""
        native = self.fields[name].native
        for part in (native, self.layout().labelForField(native)):
            part.setVisible(shown)


def path_field(**keywords: Any) -> FileEdit:
    """Return the field of a file or a folder, with as much room for the path as there is."""
    field = FileEdit(**keywords)
    field.choose_btn.text = "…"
    field.choose_btn.native.setFixedWidth(32)
    return field


def fields_of(
    function: Callable[..., Any], hide: Iterable[str] = (), choices: Mapping[str, Iterable[str]] | None = None
) -> dict[str, Widget]:
    """Return a field for every keyword of a function that a form can hold."""
    words, fields = numpydoc(function), {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty and name not in set(hide):
            kind, tooltip = words.get(name, ("", ""))
            options = (choices or {}).get(name) or _options(kind, str(parameter.annotation))
            if (widget := field(name, parameter.default, str(parameter.annotation), options)) is not None:
                widget.tooltip = " ".join(filter(None, (tooltip, _default_words(name, parameter.default))))
                fields[name] = widget
    return fields


def set_value(widget: Widget, value: Any) -> None:
    """Set a field; None is what it shows as "auto"."""
    widget.value = ("" if isinstance(widget, LineEdit) else 0) if value is None else value


def value_of(widget: Widget) -> Any:
    """Return the keyword a field stands for."""
    if getattr(widget, "optional", False) and not widget.value:
        return None
    return int(widget.value) if getattr(widget, "whole", False) else widget.value


def field(name: str, default: Any, annotation: str, options: Iterable[str] = ()) -> Widget | None:
    """Return a field for one keyword, or None for what a form cannot hold (arrays, callbacks, mappings)."""
    label, unit = split_unit(name)
    common = {"name": name, "label": label}
    choices = list(options)
    if isinstance(default, bool):
        return CheckBox(value=default, name=name, text=label, label="")
    if choices and (isinstance(default, str) or default is None):
        return ComboBox(value=default if default in choices else choices[0], choices=choices, **common)
    if isinstance(default, str):
        return LineEdit(value=default, **common)
    kinds = {k.strip() for k in re.split(r"[|,\[\]]", annotation)}
    if default is None and "str" in kinds and not kinds & {"float", "int"}:
        widget = LineEdit(value="", **common)
        widget.native.setPlaceholderText(_AUTO)
        widget.optional = True
        return widget
    if default is None:
        if not kinds & {"float", "int"} or kinds & {"Mapping", "Sequence", "Callable"}:
            return None
        widget = _number(0, unit, common, whole="float" not in kinds)
        widget.native.setSpecialValueText(_AUTO)
        widget.optional = True
        return widget
    if not isinstance(default, int | float):
        return None
    whole = isinstance(default, int)
    if not whole and _FRACTION.search(name) and 0 <= default <= 1:
        return FloatSlider(value=default, min=0.0, max=1.0, step=0.01, **common)
    return _number(default, unit, common, whole=whole, signed=default < 0 or bool(_SIGNED.search(name)))


def _number(default: float, unit: str, common: dict[str, Any], *, whole: bool, signed: bool = False) -> FloatSpinBox:
    step = 1 if whole else 10.0 ** _order(abs(default) / 5) if default else _STEPS.get(unit, 0.01)
    widget = FloatSpinBox(
        value=default, min=-_MOST.get(unit, 1e6) if signed else 0, max=_MOST.get(unit, 1e12), step=step, **common
    )
    widget.native.setDecimals(0 if whole or step >= 10 else max(1, 1 - _order(step)))
    widget.value = default
    widget.whole = whole
    if unit:
        widget.native.setSuffix(f" {unit}")
        if default == 0 and not whole and not signed:
            widget.native.setSpecialValueText(_NONE)
    return widget


def _default_words(name: str, default: Any) -> str:
    """Say what the default is, where the field itself does not."""
    if isinstance(default, bool):
        return f"(default: {'yes' if default else 'no'})"
    if not isinstance(default, int | float):
        return ""
    return f"(default: {default:g} {split_unit(name)[1]}".rstrip() + ")"


def _order(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])


def split_unit(name: str) -> tuple[str, str]:
    """Split ``pixel_size_nm`` into the words of its label and its unit."""
    for suffix, unit in UNITS.items():
        if name.endswith(suffix) and name != suffix.strip("_"):
            name = name.removesuffix(suffix)
            return name.replace("_", " "), unit
    return name.replace("_", " "), ""


def _options(kind: str, annotation: str) -> list[str]:
    """Choices written as ``{"a", "b"}`` in the docstring or ``Literal["a", "b"]`` in the signature."""
    found = re.search(r"\{(.*?)\}", kind) or re.search(r"Literal\[(.*?)\]", annotation)
    return re.findall(r"[\"']([^\"']+)[\"']", found.group(1)) if found else []


def nested(function: Callable[..., Any]) -> dict[str, type]:
    """Keywords whose default is a dataclass (a microscope, a scan), with their types: each is a form of its own."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: type(p.default) for p in parameters if dataclasses.is_dataclass(p.default)}
