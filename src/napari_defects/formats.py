"""Readers of the image formats: what each microscope or program writes, as `Signal`.

Calibrations are taken as they are written, in whatever unit.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from .micrograph import PIXEL_SIZE_RANGE_NM

log = logging.getLogger(__name__)

LAZY_BYTES = 2**30
"""Files larger than this stay on disk and are read frame by frame."""

_NM = {"m": 1e9, "cm": 1e7, "mm": 1e6, "um": 1e3, "nm": 1.0, "pm": 1e-3, "å": 0.1}
_NM |= {name: _NM[unit] for name, unit in {
    "meter": "m", "metre": "m", "µm": "um", "μm": "um", "micron": "um", "micrometer": "um", "micrometre": "um",
    "nanometer": "nm", "nanometre": "nm", "picometer": "pm", "picometre": "pm", "a": "å", "ang": "å", "angstrom": "å",
}.items()}  # fmt: skip
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "min": 60.0, "h": 3600.0}


class Signal(NamedTuple):
    """One image or movie of a file; data (y, x) or (frame, y, x)."""

    name: str
    data: Any
    pixel_size_nm: float | tuple[float, float] | None = None
    frame_interval_s: float | None = None
    metadata: Mapping[str, Any] = {}


class Refused(ValueError):
    """A file that is whole, but not something to analyse."""


def read_signals(path: Path) -> list[Signal]:
    """All images of a file, named apart; ValueError or FileNotFoundError in one sentence where there are none."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    if path.is_dir():
        return [_folder(path)]
    if suffix not in READERS:
        known = ", ".join(name[1:] for name in READERS)
        raise ValueError(f"{path.name}: {suffix or 'no suffix'} is not an image format known here: {known}.")
    try:
        signals = READERS[suffix](path, path.stat().st_size > LAZY_BYTES)
    except (Refused, PermissionError):
        raise
    except Exception as error:  # readers of damaged files raise anything: KeyError, struct.error, MemoryError ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path.name} cannot be read as {suffix[1:]}; is the file damaged? ({reason})") from error
    if not signals:
        raise ValueError(f"{path.name} holds no image, only spectra or diffraction patterns.")
    seen: dict[str, int] = {}
    for s in signals:
        seen[s.name] = seen.get(s.name, 0) + 1
    unique = (f"{s.name} ({i})" if seen[s.name] > 1 else s.name for i, s in enumerate(signals))
    return [s._replace(name=name) for s, name in zip(signals, unique, strict=True)]


def _rosetta(plugin: str, **options: Any) -> Callable[[Path, bool], list[Signal]]:
    """Reader of the images in a file through a plugin of rosettasciio."""

    def read(path: Path, lazy: bool) -> list[Signal]:
        reader = importlib.import_module(f"rsciio.{plugin}").file_reader
        signals = []
        for number, content in enumerate(reader(str(path), lazy=lazy, **options)):
            axes = content["axes"]
            image = [k for k, axis in enumerate(axes) if not axis.get("navigate")]
            if len(image) == len(axes) == 3:
                image = [k for k in image if str(axes[k].get("name")).lower() in ("y", "x")]
            image = [0, 1] if len(axes) == 2 and not image else image
            if len(image) != 2 or len(axes) > 3 or content["data"].dtype.kind not in "biufV":
                continue
            stack = [k for k in range(len(axes)) if k not in image]
            data = content["data"].transpose(stack + image)
            if data.dtype.names:  # colour pictures come as records
                data = _grey(np.stack([data[c] for c in data.dtype.names], -1), path.name)
            general = content["metadata"].get("General", {})
            name = str(general.get("title") or f"channel {number}").strip()
            scales = [(axes[k].get("scale"), axes[k].get("units")) for k in image]
            interval = _seconds(axes[stack[0]].get("scale"), axes[stack[0]].get("units")) if stack else None
            known = {"instrument": content["metadata"].get("Acquisition_instrument", {})}
            signals.append(Signal(name, data, _pixel_size(scales, path.name), interval, known))
        return signals

    return read


def _tiff(path: Path, lazy: bool) -> list[Signal]:
    """TIFF with the calibration of ImageJ, OME or, failing these, of the makers known to rosettasciio."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        ome = _ome(tif.ome_metadata) if tif.is_ome else []
        signals = []
        for number, series in enumerate(tif.series):
            axes, data = series.axes, series.asarray(out="memmap" if lazy else None)
            if "Y" not in axes or "X" not in axes:
                continue
            if axes.endswith("S"):  # samples: red, green, blue
                data, axes = _grey(data, path.name), axes[:-1]
            names, size, interval = [path.stem if number == 0 else f"{path.stem} {number}"], None, None
            if number < len(ome):
                ome_names, size, interval = ome[number]
                names = ome_names or names
            elif tif.imagej_metadata is not None:
                size, interval = _imagej(tif, path.name)
            elif number == 0 and not tif.is_shaped:
                size = next((s.pixel_size_nm for s in _rosetta("tiff")(path, True)), None)
            order = [axes.index(a) for a in axes if a not in "CYX"] + [axes.index(a) for a in "CYX" if a in axes]
            data = data.transpose(order)
            data = data if "C" in axes else data[..., None, :, :]
            data = data.reshape(-1, *data.shape[-3:])
            for c in range(data.shape[1]):
                one = data[:, c] if data.shape[0] > 1 else data[0, c]
                name = names[c] if len(names) == data.shape[1] else f"{names[0]} {c}"
                signals.append(Signal(name, one, size, interval))
    return signals


def _imagej(tif: Any, name: str) -> tuple[Any, float | None]:
    known, tags = tif.imagej_metadata, tif.pages[0].tags
    unit = str(known.get("unit", "")).encode("ascii", "backslashreplace").decode("unicode_escape")
    size = None
    if unit and "XResolution" in tags and "YResolution" in tags:
        (ny, dy), (nx, dx) = tags["YResolution"].value, tags["XResolution"].value
        if min(ny, nx) > 0:
            size = _pixel_size([(dy / ny, unit), (dx / nx, unit)], name)
    interval = known.get("finterval") or (1 / known["fps"] if known.get("fps") else None)
    return size, _seconds(interval, known.get("tunit", "s"))


def _ome(xml: str) -> list[tuple[list[str], Any, float | None]]:
    """Channel names, pixel size and frame interval of every image of an OME-XML header."""
    found = []
    for pixels in (e for e in ElementTree.fromstring(xml).iter() if e.tag.endswith("}Pixels")):
        get = pixels.attrib.get
        scales = [(get(f"PhysicalSize{a}"), get(f"PhysicalSize{a}Unit", "µm")) for a in "YX"]
        names = [c.attrib.get("Name", "") for c in pixels if c.tag.endswith("}Channel")]
        interval = _seconds(get("TimeIncrement"), get("TimeIncrementUnit", "s"))
        found.append((names if all(names) else [], _pixel_size(scales, "OME header"), interval))
    return found


def _npy(path: Path, lazy: bool) -> list[Signal]:
    return [Signal(path.stem, np.load(path, mmap_mode="r" if lazy else None, allow_pickle=False))]


def _picture(path: Path, lazy: bool) -> list[Signal]:
    import imageio.v3 as iio

    return [Signal(path.stem, _grey(iio.imread(path), path.name))]


def _movie(path: Path, lazy: bool) -> list[Signal]:
    import imageio.v3 as iio

    known = iio.immeta(path)
    interval = 1 / known["fps"] if known.get("fps") else float(known.get("duration") or 0) / 1000 or None
    colored, frames = False, []
    for frame in iio.imiter(path):
        rgb = frame[..., :3].astype(np.float32) if frame.ndim == 3 else frame[..., None]
        colored |= bool((np.ptp(rgb, -1) > 0.05 * rgb.max()).any())
        frames.append(np.rint(rgb @ np.array([0.299, 0.587, 0.114], np.float32)) if rgb.shape[-1] == 3 else rgb[..., 0])
    data = np.stack(frames).astype(np.uint8)
    if colored:
        log.warning("%s is in false colour: its luminance is used, not the detector's signal.", path.name)
    lossy = path.suffix.lower() != ".gif"
    if lossy:
        log.warning(
            "%s is compressed with losses, which change heights and move atoms; measure on the original.", path.name
        )
    known = {"lossy": lossy, "false_colour": colored}
    return [Signal(path.stem, data if len(data) > 1 else data[0], None, interval, known)]


def _folder(path: Path) -> Signal:
    """Read the images of a folder, in natural order, as a movie; frames whose number is missing are blank (NaN)."""
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in READERS), key=lambda f: _natural(f.stem))
    kinds = sorted({f.suffix.lower() for f in files})
    if len(kinds) != 1:
        found = f"holds files of {len(kinds)} kinds ({', '.join(kinds)})" if kinds else "holds no image"
        raise Refused(f"the folder {path.name} {found}; give a folder with the frames of one movie, or one file.")
    frames = [read_signals(f)[0] for f in files]
    shape = tuple(frames[0].data.shape)
    if odd := next(
        (f.name for f, s in zip(files, frames, strict=True) if s.data.shape != shape or s.data.ndim != 2), None
    ):
        raise Refused(f"{odd} in {path.name} is no frame of {' x '.join(map(str, shape))} px as the first one is.")
    digits = [re.findall(r"\d+", f.stem) for f in files]
    numbers = [int(d[-1]) for d in digits if d]
    steps = np.diff(numbers)
    if len(numbers) < len(files) or (steps < 1).any() or numbers[-1] - numbers[0] >= 2 * len(files):
        numbers = list(range(len(files)))
    data = np.full((numbers[-1] - numbers[0] + 1, *shape), np.nan, np.float32)
    for number, frame in zip(numbers, frames, strict=True):
        data[number - numbers[0]] = frame.data
    if missing := len(data) - len(files):
        log.warning("%s: %d of %d frames are missing; they stay blank.", path.name, missing, len(data))
    return Signal(path.name, data, frames[0].pixel_size_nm, None, {"first_frame": numbers[0], **frames[0].metadata})


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _grey(pixels: Any, name: str) -> Any:
    """One channel of a picture whose channels are the same, else refuse it."""
    if pixels.ndim < 3 or pixels.shape[-1] not in (2, 3, 4):
        return pixels
    if pixels.shape[-1] > 2 and np.ptp(pixels[..., :3], -1).any():
        raise Refused(f"{name} is a colour picture; export it in grey, or give the microscope's own file.")
    return pixels[..., 0]


READERS: dict[str, Callable[[Path, bool], list[Signal]]] = {
    ".dm3": _rosetta("digitalmicrograph"), ".dm4": _rosetta("digitalmicrograph"),
    ".emd": _rosetta("emd", select_type="images"), ".ser": _rosetta("tia"), ".mrc": _rosetta("mrc"),
    ".hspy": _rosetta("hspy"), ".tif": _tiff, ".tiff": _tiff, ".npy": _npy,
    ".png": _picture, ".jpg": _picture, ".jpeg": _picture, ".mp4": _movie, ".avi": _movie, ".gif": _movie,
}  # fmt: skip


# ------------------------------------------------------------------------------------ calibration


def _pixel_size(scales: Sequence[tuple[Any, Any]], name: str) -> float | tuple[float, float] | None:
    """Pixel size in nm from (scale, unit) along y and x; None, with a warning, where it cannot be one."""
    sizes = []
    for scale, unit in scales:
        word = str(unit).strip().lower()
        factor = _NM.get(word, _NM.get(word.rstrip("s")))
        if scale is None or factor is None:
            if re.match(r"(1/|.*\^-1|.*⁻¹|m?rad)", word):
                log.warning("%s is calibrated in %s, as a diffraction pattern is; its scale is not used.", name, unit)
            return None
        sizes.append(abs(float(scale)) * factor)
    low, high = PIXEL_SIZE_RANGE_NM
    if not all(low <= size <= high for size in sizes):
        if not all(size in (0.0, 1.0) for size in sizes):  # what files say that know nothing
            log.warning("%s: a pixel of %.4g nm is not atomic resolution; its scale is not used.", name, sizes[-1])
        return None
    y_nm, x_nm = sizes
    return x_nm if abs(y_nm / x_nm - 1) < 1e-4 else (y_nm, x_nm)


def _seconds(interval: Any, unit: Any) -> float | None:
    factor = _SECONDS.get(str(unit).strip().lower())
    seconds = float(interval) * factor if interval and factor else 0.0
    return seconds if 0 < seconds < float("inf") else None
