"""What a step's signature and numpydoc say, without loading what the step needs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def numpydoc(function: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """Type and description of every parameter in a numpydoc docstring."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}$|\Z)", inspect.getdoc(function) or "", re.S | re.M)
    words: dict[str, tuple[str, str]] = {}
    for entry in re.split(r"\n(?=\w)", section.group(1)) if section else ():
        head, _, body = entry.partition("\n")
        names, _, kind = head.partition(":")
        text = " ".join(inspect.cleandoc(body).split()).replace("``", "").replace("`", "")
        words |= {name.strip(" *"): (kind.strip(), text) for name in names.split(",")}
    return words


def declared(path: str) -> Callable[..., Any]:
    """Return a function of this package by ``module.function``, as a hollow twin that has its signature and docstring.

    Read from the source, because loading the module may take seconds (torch) while a window waits. Where a default is
    more than a plain value, the function itself is loaded.
    """
    module, _, name = path.rpartition(".")
    spec = importlib.util.find_spec(f"napari_defects.{module}")
    try:
        tree = ast.parse(Path(str(spec and spec.origin)).read_text(encoding="utf-8"))
        twin = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
        twin.body, twin.decorator_list = [ast.Expr(ast.Constant(ast.get_docstring(twin) or ""))], []
        names: dict[str, Any] = {}
        exec(f"from __future__ import annotations\n{ast.unparse(twin)}", names)  # our own source, without its body
    except (OSError, StopIteration, NameError):
        return getattr(importlib.import_module(f"napari_defects.{module}"), name)  # type: ignore[no-any-return]
    return names[name]  # type: ignore[no-any-return]


def default_of(path: str, name: str) -> Any:
    """Return the default of one keyword of a step."""
    return inspect.signature(declared(path)).parameters[name].default
