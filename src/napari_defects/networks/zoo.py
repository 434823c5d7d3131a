"""The shipped models, and what a model file says of itself: read and checked without torch."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from ..crystals import Crystal, get_crystal
from ..micrograph import check_pixel_size
from .family import FAMILY, is_member

WEIGHTS = Path(__file__).parent / "weights"
FORMAT = 1
_MAPS = {"channels": (4, 128), "levels": (2, 5), "stem": (1, 4), "inputs": (1, 2)}
LIMITS = {
    "residual": _MAPS,
    "plain": _MAPS,
    "patches": {"channels": (4, 64), "inputs": (1, 4), "side_px": (8, 64)},
    "resnet18": {"channels": (4, 64), "inputs": (1, 2), "side_px": (32, 224)},
    "mobilenet": {"blocks": (3, 19), "hidden": (16, 1024)},
}
TASKS = {"residual": "maps", "plain": "maps", "patches": "cells", "resnet18": "cells", "mobilenet": "boxes"}
FIRST = {"maps": "background", "cells": "perfect", "boxes": "background"}
MAX_HEADER_BYTES = 4_000_000
MAX_CLASSES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,39}")


def read_header(path: str | Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, Any]]:
    """Tensors and description of a model file, without reading its weights.

    Parameters
    ----------
    path : path
        A safetensors file written by `Model.save`.

    Returns
    -------
    tensors : dict
        Name to (dtype, shape).
    about : dict
        ``architecture``, ``classes``, ``pixel_size_nm``, ``crystal``, ``sha256`` and ``card``, checked.

    Raises
    ------
    ValueError
        If the file is not a model of this package, is damaged, or asks for something out of bounds.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length).decode("utf-8"))
        about = json.loads(header.pop("__metadata__")["napari_defects"])
        tensors = {str(k): (str(v["dtype"]), tuple(int(n) for n in v["shape"])) for k, v in header.items()}
        if 8 + length + sum(_size(*tensor) for tensor in tensors.values()) != path.stat().st_size:
            raise ValueError("its length is not what its header says")
        return tensors, _checked(about)
    except OSError as error:
        raise ValueError(f"model file {str(path)!r} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{str(path)!r} is not a model of napari-defects or is damaged ({_why(error)}); "
            "give a file written by Model.save(), or the name of a shipped model."
        ) from None


def list_models(task: str | None = "maps") -> list[dict[str, Any]]:
    """Cards of the shipped models: ``name``, ``crystal``, ``classes``, ``pixel_size_nm``, ``path`` and more.

    Parameters
    ----------
    task : {"maps", "cells", "boxes"}, optional
        Class maps, kinds of unit cells, or boxes around cells; None for all.
    """
    rows = []
    for path in sorted(WEIGHTS.glob("*.safetensors"), key=lambda path: path.stem):
        about = read_header(path)[1]
        facts = {key: about[key] for key in ("crystal", "classes", "pixel_size_nm", "architecture", "sha256")}
        row = {"name": path.stem, "task": TASKS[about["architecture"]["kind"]], **facts}
        if task in (None, row["task"]):
            rows.append({**row, "path": str(path), "card": about["card"]})
    return rows


def model_for(crystal: str | Crystal, task: str = "maps") -> str | None:
    """Name of the (first) shipped model for a crystal and task, as `load_model` takes it; None where there is none.

    Where there is none for the crystal alone, that of its family: ``"mx2:MoS2"``.
    """
    crystal = get_crystal(crystal)
    names = {row["crystal"]: row["name"] for row in reversed(list_models(task))}
    if crystal.name not in names and FAMILY in names and is_member(crystal):
        return f"{names[FAMILY]}:{crystal.name}"
    return names.get(crystal.name)


def model_path(name_or_path: str | Path) -> Path:
    """File of a shipped model, or of one given by its path.

    Raises
    ------
    ValueError
        If there is neither a shipped model nor a file of that name.
    """
    shipped = WEIGHTS / f"{name_or_path}.safetensors"
    if _NAME.fullmatch(str(name_or_path)) and shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(p.stem for p in sorted(WEIGHTS.glob("*.safetensors"))) or "none"
        raise ValueError(f"`model` must be a shipped model ({names}) or a model file, got {str(name_or_path)!r}.")
    return path


def check_classes(classes: Any, first: str = "background") -> tuple[str, ...]:
    """Class names as a tuple, `first` in front; raises ValueError otherwise."""
    names = tuple(classes) if isinstance(classes, (list, tuple)) else ()
    ok = 2 <= len(names) <= MAX_CLASSES and all(isinstance(n, str) and _NAME.fullmatch(n) for n in names)
    if not ok or names[0] != first or len(set(names)) != len(names):
        raise ValueError(
            f"`classes` must be 2 to {MAX_CLASSES} different names, {first!r} first, got {str(classes)[:80]}."
        )
    return names


def check_architecture(architecture: Any) -> dict[str, Any]:
    """Return a copy of an architecture's parameters; raises ValueError when they are out of bounds."""
    kind = architecture.get("kind") if isinstance(architecture, dict) else None
    if not isinstance(kind, str) or kind not in LIMITS:
        raise ValueError(f"`kind` must be one of {', '.join(LIMITS)}, got {str(kind)[:40]!r}.")
    limits = LIMITS[kind]
    if TASKS[kind] == "maps":
        architecture = {"inputs": 1, **architecture}  # the first models do not say
    if set(architecture) != {"kind", *limits}:
        raise ValueError(f"the architecture must give kind, {', '.join(limits)}, got {str(architecture)[:80]}.")
    for key, (low, high) in limits.items():
        value = architecture[key]
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"`{key}` must be a whole number from {low} to {high}, got {str(value)[:40]}.")
    return dict(architecture)


def _checked(about: Any) -> dict[str, Any]:
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']} is not known; update napari-defects")
    texts = {key: str(about[key])[:64] for key in ("crystal", "sha256")}
    if not isinstance(about["card"], dict):
        raise ValueError("its card is not a mapping")
    pixel_size_nm = about["pixel_size_nm"]
    if not isinstance(pixel_size_nm, (int, float)):
        raise ValueError("its pixel size is not a number")
    architecture = check_architecture(about["architecture"])
    return {
        "architecture": architecture,
        "classes": check_classes(about["classes"], FIRST[TASKS[architecture["kind"]]]),
        "pixel_size_nm": check_pixel_size(pixel_size_nm),
        "card": about["card"],
        **texts,
    }


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    if dtype not in ("F32", "F16"):
        raise ValueError(f"tensors of type {dtype[:20]}")
    if any(n < 0 for n in shape):
        raise ValueError("a negative shape")
    return math.prod(shape) * (4 if dtype == "F32" else 2)


def _why(error: Exception) -> str:
    if isinstance(error, (KeyError, TypeError, AttributeError)):
        return f"its header lacks or misuses {error}"
    return str(error).splitlines()[0].rstrip(".")[:160] if str(error) else type(error).__name__
