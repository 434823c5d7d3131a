from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import pytest

from napari_defects.docstrings import declared, default_of, numpydoc
from napari_defects.widgets._forms import Form, split_unit, value_of
from napari_defects.widgets._steps import Panel
from napari_defects.widgets.analyze import Analyze
from napari_defects.widgets.average import Average
from napari_defects.widgets.classify import Classify
from napari_defects.widgets.count import Count
from napari_defects.widgets.localize import Localize
from napari_defects.widgets.segment import Segment
from napari_defects.widgets.simulate import Simulate
from napari_defects.widgets.strain import StrainMap
from napari_defects.widgets.train import Train

PANELS = (Analyze, Average, Classify, Count, Localize, Segment, Simulate, StrainMap, Train)
STEPS = sorted({step for panel in PANELS for step in panel.steps})


def step(
    image: Any,
    *,
    radius_nm: float = 0.5,
    sigma_nm: float | None = None,
    rounds: int = 3,
    count: int | None = None,
    min_probability: float = 0.25,
    rotation: bool = False,
    method: str = "maps",
    fit: Literal["none", "affine"] = "affine",
    name: str | None = None,
    table: Any = None,
    progress: Any = None,
) -> None:
    """Do something.

    Parameters
    ----------
    image : array
    radius_nm : float
        How far
        to look.
    method : {"cells", "maps"}
        - ``maps``: by maps.
    sigma_nm, count : float, optional
        Measured when None.

    Returns
    -------
    None
        Nothing at all.
    """


@pytest.fixture
def form(qtbot: Any) -> Form:
    made = Form.of(step, hide=("progress",))
    qtbot.addWidget(made)
    return made


def test_every_scalar_keyword_has_a_field_with_its_default(form: Form) -> None:
    given = {
        n: p.default for n, p in inspect.signature(step).parameters.items() if n not in ("image", "table", "progress")
    }
    assert form.values() == given


def test_units_tooltips_and_choices_come_from_the_signature_and_the_docstring(form: Form) -> None:
    assert form["radius_nm"].native.text() == "0.50 nm"
    assert form["radius_nm"].label == "radius"
    assert form["radius_nm"].tooltip == "How far to look. (default: 0.5 nm)"
    assert form["sigma_nm"].tooltip == form["count"].tooltip == "Measured when None."
    assert form["method"].choices == ("cells", "maps")
    assert form["fit"].choices == ("none", "affine")
    assert form["sigma_nm"].native.text() == "auto"
    assert (form["min_probability"].min, form["min_probability"].max) == (0.0, 1.0)


def test_values_keep_their_types_and_reset_restores_the_defaults(form: Form) -> None:
    before = form.values()
    form.fill({"rounds": 7, "sigma_nm": 0.0513, "count": 2, "rotation": True, "name": "x", "unknown": 1})
    values = form.values()
    assert (values["rounds"], values["sigma_nm"], values["count"], values["name"]) == (7, 0.0513, 2, "x")
    assert isinstance(values["rounds"], int)
    assert isinstance(values["radius_nm"], float)
    form.fill({"sigma_nm": None})
    assert value_of(form["sigma_nm"]) is None
    form.reset()
    assert form.values() == before


def test_only_chooses_and_orders(qtbot: Any) -> None:
    made = Form.of(step, only=("rounds", "radius_nm"))
    qtbot.addWidget(made)
    assert [widget.name for widget in made] == ["rounds", "radius_nm"]


@dataclass(frozen=True)
class Probe:
    """A probe.

    Parameters
    ----------
    C10_nm : float
        Minus the defocus.
    energy_keV : float
    """

    C10_nm: float = 0.0
    energy_keV: float = 80.0


def test_a_dataclass_is_a_form_too_and_aberrations_may_be_negative(qtbot: Any) -> None:
    made = Form.of(Probe)
    qtbot.addWidget(made)
    made.fill({"C10_nm": -3.5})
    assert Probe(**made.values()) == Probe(-3.5, 80.0)
    assert made["energy_keV"].native.text() == "80 keV"


@pytest.mark.parametrize("path", STEPS)
def test_the_twin_read_from_the_source_is_like_the_function(path: str) -> None:
    module, _, name = path.rpartition(".")
    real, twin = getattr(import_module(f"napari_defects.{module}"), name), declared(path)
    assert inspect.getdoc(twin) == inspect.getdoc(real)
    ours, theirs = inspect.signature(twin).parameters, inspect.signature(real).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


@pytest.mark.parametrize("panel", PANELS)
def test_main_keywords_are_keywords_of_the_steps_and_documented(panel: type[Panel]) -> None:
    words = {name: text for path in panel.steps for name, (_, text) in numpydoc(declared(path)).items()}
    assert set(panel.main) <= set(words)
    assert all(words[name] or name in ("seed", "steps") for name in panel.main)


def test_units_are_split_from_names() -> None:
    assert split_unit("dose_e_per_A2") == ("dose", "e/Å²")
    assert split_unit("pixel_size_nm") == ("pixel size", "nm")
    assert split_unit("neighbors") == ("neighbors", "")
    assert default_of("deformation.strain", "neighbors") == 6
