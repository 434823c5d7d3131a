"""Files: what microscopes and other programs write, read as `Micrograph` and tables; tables written.

Calibrations are taken as they are written, in whatever unit. They are often some percent wrong: the
lattice is the better ruler (`calibrate`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import tables
from .checks import check_choice
from .formats import read_signals
from .micrograph import Micrograph, check_pixel_size
from .saving import writing

log = logging.getLogger(__name__)


def read_micrograph(
    path: str | os.PathLike[str],
    *,
    pixel_size_nm: float | tuple[float, float] | None = None,
    channel: str | int | None = None,
) -> Micrograph:
    """Read an image or a movie.

    Parameters
    ----------
    path : str or path
        A dm3, dm4, emd, ser, mrc, hspy, tif, npy, png, jpg, mp4, avi or gif file; or a folder with the frames of a
        movie, in natural order (2 before 10). Frames whose number is missing stay blank (NaN).
    pixel_size_nm : float or (float, float), optional
        Side of a pixel, or a pair ``(y, x)``; instead of what the file says.
    channel : str or int, optional
        Name or index of the signal, where the file holds several (see `channels`); the first by default.

    Returns
    -------
    Micrograph
        Its `pixel_size_nm` is None where neither the file nor the caller gives one. `metadata` has
        ``file``, ``channel`` and what the file says about the instrument.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, is a colour picture, or has no such channel.
    """
    if pixel_size_nm is not None:
        pixel_size_nm = check_pixel_size(pixel_size_nm)
    path = Path(path)
    signals = read_signals(path)
    signal = signals[_choose(channel, [s.name for s in signals])]
    if channel is None and len(signals) > 1:
        log.info("%s: reading %r of %s.", path.name, signal.name, ", ".join(repr(s.name) for s in signals))
    metadata = {"file": path.name, "channel": signal.name, **signal.metadata}
    size = signal.pixel_size_nm if pixel_size_nm is None else pixel_size_nm
    try:
        return Micrograph(signal.data, size, signal.frame_interval_s, metadata)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path.name}: {error}") from None


def channels(path: str | os.PathLike[str]) -> list[str]:
    """Names of the images in a file, in the order in which `read_micrograph` counts them."""
    return [s.name for s in read_signals(Path(path))]


def write_micrograph(micrograph: Micrograph, path: str | os.PathLike[str]) -> Path:
    """Write an image or a movie as a TIFF that ImageJ and `read_micrograph` open with its scale.

    Integers of more than 16 bit and float64 become float32, as ImageJ's format requires; a name that ends in
    ``.ome.tif`` makes an OME-TIFF, which keeps them.
    """
    import tifffile

    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"`path` must end in .tif, got {path.name!r}.")
    data = np.asarray(micrograph.data)
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        with writing(path) as temporary:
            tifffile.imwrite(temporary, data.astype(data.dtype.newbyteorder("=")), ome=True, metadata=_ome(micrograph))
        return path
    data = data.astype(data.dtype if data.dtype in (np.uint8, np.uint16, np.float32) else np.float32)
    options: dict[str, Any] = {"metadata": {"axes": "TYX" if micrograph.is_movie else "YX"}}
    if micrograph.frame_interval_s is not None:
        options["metadata"]["finterval"] = micrograph.frame_interval_s
    if micrograph.pixel_size_nm is not None:
        y_nm, x_nm = micrograph.pixel_size_yx_nm
        options["metadata"]["unit"] = "nm"
        options["resolution"] = (1 / x_nm, 1 / y_nm)
    with writing(path) as temporary:
        tifffile.imwrite(temporary, data.astype(data.dtype.newbyteorder("=")), imagej=True, **options)
    return path


def write_stack(
    data: Any, names: Sequence[str], pixel_size_nm: float | tuple[float, float], path: str | os.PathLike[str]
) -> Path:
    """Write named images (name, [frame,] y, x), such as the maps of a network, as the channels of an OME-TIFF."""
    import tifffile

    path = Path(path)
    y_nm, x_nm = np.broadcast_to(pixel_size_nm, 2).tolist()
    about = {"axes": "CTYX" if data.ndim == 4 else "CYX", "Channel": {"Name": list(names)}}
    about |= {"PhysicalSizeY": y_nm, "PhysicalSizeX": x_nm, "PhysicalSizeYUnit": "nm", "PhysicalSizeXUnit": "nm"}
    with writing(path) as temporary:
        tifffile.imwrite(temporary, data, ome=True, compression="zlib", metadata=about)
    return path


def _ome(micrograph: Micrograph) -> dict[str, Any]:
    known: dict[str, Any] = {"axes": "TYX" if micrograph.is_movie else "YX"}
    if micrograph.pixel_size_nm is not None:
        y_nm, x_nm = (float(side) for side in micrograph.pixel_size_yx_nm)
        known |= {"PhysicalSizeY": y_nm, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": x_nm, "PhysicalSizeXUnit": "nm"}
    if micrograph.frame_interval_s is not None:
        known |= {"TimeIncrement": micrograph.frame_interval_s, "TimeIncrementUnit": "s"}
    return known


def _choose(channel: str | int | None, names: list[str]) -> int:
    if channel is None:
        return 0
    if isinstance(channel, int) and not isinstance(channel, bool) and 0 <= channel < len(names):
        return channel
    lower = [name.lower() for name in names]
    if isinstance(channel, str) and channel.lower() in lower:
        return lower.index(channel.lower())
    if isinstance(channel, str) and channel.isdigit():
        return _choose(int(channel), names)
    known = ", ".join(f"{i} {name!r}" for i, name in enumerate(names))
    raise ValueError(f"`channel` must be one of {known}; got {channel!r}.")


def read_table(path: str | os.PathLike[str], kind: str | None = None) -> pd.DataFrame:
    """Read a table written by `write_table`, or any csv, parquet or xlsx.

    Parameters
    ----------
    path : str or path
    kind : {"atoms", "sites", "defects", "strain", "tracks", "counts"}, optional
        Check the columns and their types (`tables.check`).

    Raises
    ------
    FileNotFoundError, ValueError
    """
    if kind is not None:
        check_choice("kind", kind, tables.TABLES)
    path = Path(path)
    suffix = _table_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}.")
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        elif suffix == ".xlsx":
            table = pd.read_excel(path)
        else:
            table = pd.read_csv(path, engine="pyarrow")
    except PermissionError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} cannot be read as a table: {' '.join(str(error).split())[:200]}") from error
    table = _map_text(table, lambda text: text[1:] if re.match(r"'+[=+\-@\t\r]", text) else text)
    try:
        return table if kind is None else tables.check(table, kind)
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}") from None


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a table as csv, parquet or xlsx, by the suffix of `path`; all of it or nothing.

    Text that a spreadsheet would take for a formula is quoted by a leading ``'`` (csv, xlsx), which
    `read_table` takes off again.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    suffix = _table_suffix(path)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"`table` must be a DataFrame, got {type(table).__name__}.")
    with writing(path) as temporary:
        if suffix == ".parquet":
            plain = table.copy(deep=False)
            plain.attrs = {k: v for k, v in table.attrs.items() if _is_json(v)}
            plain.to_parquet(temporary, index=False)
        else:
            safe = spreadsheet_safe(table)
            _write_csv(safe, temporary) if suffix == ".csv" else safe.to_excel(temporary, index=False)
    return path


def _table_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".xlsx"):
        raise ValueError(f"a table must be a csv, parquet or xlsx file, got {path.name!r}.")
    return suffix


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """Quote text that a spreadsheet would take for a formula by a leading ``'``."""
    return _map_text(table, lambda text: f"'{text}" if re.match(r"'*[=+\-@\t\r]", text) else text)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    """As `DataFrame.to_csv` does, ten times as fast: every number in the fewest digits that give it back."""
    import pyarrow as pa
    from pyarrow import csv

    plain = table.copy(deep=False)
    plain.attrs = {}
    for name, column in table.items():
        if column.dtype.kind == "f" and (np.isnan(column) | (column % 1 == 0)).all():
            plain[name] = column.map(repr, na_action="ignore").astype(object)  # or they would come back as integers
    try:
        body = pa.Table.from_pandas(plain, preserve_index=False)
        with open(path, "wb") as file:
            file.write(table.head(0).to_csv(index=False).encode())
            csv.write_csv(body, file, csv.WriteOptions(include_header=False, quoting_style="none"))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError):  # mixed, or to be quoted
        table.to_csv(path, index=False)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _map_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    result = table.copy(deep=False)
    for name in table.columns:
        if table[name].dtype.kind not in "biufM":
            result[name] = [change(v) if isinstance(v, str) else v for v in table[name]]
    return result.rename(columns=lambda name: change(name) if isinstance(name, str) else name)
