"""How the site is made: `make docs`."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

os.environ["QT_QPA_PLATFORM"] = "offscreen"  # forms are asked for their fields; nothing is shown

project = "napari-defects"
author = "napari-defects developers"
release = version = importlib.metadata.version("napari-defects")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = "napari-defects"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"


def parsed(directive: SphinxDirective, lines: list[str], source: str) -> list[nodes.Node]:
    """Parse lines of reStructuredText within a page of Markdown."""
    node = nodes.section()
    node.document = directive.state.document
    directive.state.nested_parse(StringList(["````{eval-rst}", *lines, "````"], source=f"<{source}>"), 0, node)
    return node.children


class Widget(SphinxDirective):
    """``widget`` with ``module:Class``: what a widget takes, calls and asks, from the class and the steps it names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        module, _, name = self.arguments[0].partition(":")
        widget = getattr(importlib.import_module(f"napari_defects.widgets.{module}"), name)
        return parsed(self, rst(widget), self.arguments[0])


def rst(widget: Any) -> list[str]:
    """Return what the class of a widget says of itself, as reStructuredText."""
    from napari_defects.docstrings import declared
    from napari_defects.widgets._forms import fields_of, split_unit

    lines = [f"*{widget.help}*", ""]
    takes = [
        pick.label + (" (optional)" if getattr(pick, "optional", False) else "") for pick in widget.inputs.values()
    ]
    steps = ", ".join(f":func:`napari_defects.{path.rpartition('.')[2]}`" for path in widget.steps)
    for word, text in (("Takes", ", ".join(takes)), ("Runs", steps), ("Leads on to", widget.follow or "")):
        lines += [f":{word}: {text}"] if text else []
    rows = []
    for path in widget.steps:
        step = declared(path)
        for field in fields_of(step, ("progress", *widget.hide)).values():
            default = inspect.signature(step).parameters[field.name].default
            place = "on top" if field.name in widget.main else "folded"
            name, unit = split_unit(field.name)
            shown = "auto" if default is None else default if isinstance(default, str) else f"{default} {unit}".strip()
            rows.append((name, shown, place, field.tooltip))
    if rows:
        lines += ["", ".. list-table::", "   :header-rows: 1", "   :widths: 20 14 12 54", ""]
        for row in (("field", "default", "place", "meaning"), *rows):
            for k, text in enumerate(row):
                words = str(text or "").partition("(default")[0].replace(". - ", ". ")
                lines.append(f"   {'*' if k == 0 else ' '} - {words.strip()}")
    return [*lines, ""]


class Api(SphinxDirective):
    """``api``: every public name with its docstring, functions first."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        return parsed(self, api(), "api")


def api() -> list[str]:
    """Return directives for every public name, as reStructuredText."""
    package = importlib.import_module("napari_defects")
    public = {name: getattr(package, name) for name in package.__all__}
    kinds: dict[str, list[str]] = {"function": [], "class": []}
    for name, thing in sorted(public.items()):
        if inspect.isclass(thing):
            kinds["class"] += [f".. autoclass:: napari_defects.{name}", "   :members:", ""]
        elif callable(thing):
            kinds["function"] += [f".. autofunction:: napari_defects.{name}", ""]
    modules: list[str] = []
    for name in (
        "interop",
        "learning.labels",
        "learning.annotations",
        "batch",
        "statistics.pairs",
        "statistics.pooling",
        "statistics.order",
        "statistics.neighbors",
    ):
        modules += [f".. automodule:: napari_defects.{name}", "   :members:", ""]
    parts = {"Functions": kinds["function"], "Types": kinds["class"], "Modules": modules}
    return [line for title, lines in parts.items() for line in (f".. rubric:: {title}", "", *lines)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("widget", Widget)
    app.add_directive("api", Api)
    return {"parallel_read_safe": True}
