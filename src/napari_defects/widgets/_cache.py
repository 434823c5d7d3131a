"""Class maps of earlier predictions, kept on disk: the same image needs no second prediction by the same network.

The setting `cache` says how many megabytes; what was not used for longest goes first. Files that cannot be read, or
written, are as good as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from napari_defects import __version__
from napari_defects.micrograph import Maps, Micrograph
from napari_defects.widgets._settings import setting

log = logging.getLogger(__name__)


def remembered(micrograph: Micrograph, weights: dict[str, Any], how: dict[str, Any], make: Callable[[], Maps]) -> Maps:
    """Return maps made before from the same image, weights (name to tensor) and parameters, or else make them."""
    limit = 1_000_000 * int(setting("cache", 512))
    if limit <= 0 or not isinstance(micrograph.data, np.ndarray):
        return make()
    path = folder() / f"{_key(micrograph, weights, how)}.safetensors"
    maps = _read(path)
    if maps is None:
        maps = make()
        _write(maps, path, limit)
    return maps


def folder() -> Path:
    """Return where the maps are."""
    return Path(platformdirs.user_cache_dir("napari-defects")) / "maps"


def _key(micrograph: Micrograph, weights: dict[str, Any], how: dict[str, Any]) -> str:
    key = hashlib.sha256()
    about = [__version__, micrograph.data.shape, str(micrograph.data.dtype), micrograph.pixel_size_nm, how]
    key.update(json.dumps(about, default=str, sort_keys=True).encode())
    key.update(np.ascontiguousarray(micrograph.data).data)
    for name in sorted(weights):
        key.update(name.encode() + weights[name].detach().cpu().float().numpy().tobytes())
    return key.hexdigest()[:32]


def _read(path: Path) -> Maps | None:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        os.utime(path)
        taught = tuple(about.get("taught", ()))
        return Maps(arrays["data"], about["classes"], about["pixel_size_nm"], arrays.get("spread"), taught)
    except FileNotFoundError:
        return None
    except Exception as error:  # of whatever a damaged file has in store
        log.info("%s cannot be read: %s", path, error)
        return None


def _write(maps: Maps, path: Path, limit: int) -> None:
    from safetensors.numpy import save_file

    arrays = {"data": np.ascontiguousarray(maps.data)}
    if maps.spread is not None:
        arrays["spread"] = np.ascontiguousarray(maps.spread)
    size = sum(array.nbytes for array in arrays.values())
    if size > limit:
        return
    half = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, limit - size)
        pixel = maps.pixel_size_nm
        save_file(
            arrays,
            half,
            {"about": json.dumps({"classes": maps.classes, "taught": maps.taught, "pixel_size_nm": pixel})},
        )
        half.replace(path)
    except OSError as error:
        log.info("maps are not kept: %s", error)
        with suppress(OSError):
            half.unlink()


def _make_room(where: Path, left: int) -> None:
    """Delete the maps not used for longest until no more than `left` bytes are taken."""
    files = sorted(((f.stat().st_mtime, f.stat().st_size, f) for f in where.glob("*")), reverse=True)
    for _, size, file in files:
        left -= size
        if left < 0:
            file.unlink(missing_ok=True)
