"""Pixels with their calibration: one type for every image, one for every stack of class maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import check_range, check_type

Progress = Callable[[int, int], None]
"""``progress(done, total)``; to cancel a step, raise from it."""

FloatArray = npt.NDArray[np.floating[Any]]

MIN_SIDE_PX = 32
PIXEL_SIZE_RANGE_NM = (5e-4, 0.5)


@dataclass(frozen=True, eq=False)
class Micrograph:
    """An image, or a movie, with the size of its pixels.

    Parameters
    ----------
    data : array, shape (y, x) or (frame, y, x)
        Intensities in any unit and any real dtype; numpy or dask. Masked pixels are NaN.
    pixel_size_nm : float or (float, float), optional
        Side of a pixel in nm; a pair ``(y, x)`` where pixels are not square. ``None`` when the
        file does not say: steps that need it raise and say how to give one.
    frame_interval_s : float, optional
        Time between frames of a movie.
    metadata : mapping, optional
        Whatever else is known (file name, channel, energy, ...).

    Raises
    ------
    TypeError
        If `data` is not a numeric array.
    ValueError
        If `data` is empty, has the wrong number of dimensions or is RGB, if `pixel_size_nm`
        cannot be that of an atomic-resolution image, or `frame_interval_s` is not positive.
    """

    data: Any
    pixel_size_nm: float | tuple[float, float] | None = None
    frame_interval_s: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = self.data if hasattr(self.data, "dtype") else np.asarray(self.data)
        shape = tuple(data.shape)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"`data` must be real numbers, got dtype {data.dtype}; convert it first, e.g. numpy.abs().")
        if data.ndim == 3 and data.shape[-1] in (3, 4) and data.shape[0] > 4:
            raise ValueError(
                f"`data` of shape {shape} looks like an RGB picture; give one channel, "
                "e.g. data.mean(axis=-1), or the microscope's own file."
            )
        if data.ndim not in (2, 3):
            raise ValueError(f"`data` must be (y, x) or (frame, y, x), got shape {shape}.")
        if 0 in data.shape:
            raise ValueError(f"`data` is empty: its shape is {shape}.")
        if isinstance(data, np.ma.MaskedArray):
            masked = np.ma.is_masked(data)
            data = np.ma.filled(data.astype(np.result_type(data, np.float32)), np.nan) if masked else data.data
        object.__setattr__(self, "data", data)
        if self.pixel_size_nm is not None:
            object.__setattr__(self, "pixel_size_nm", check_pixel_size(self.pixel_size_nm))
        if self.frame_interval_s is not None:
            check_range("frame_interval_s", self.frame_interval_s, 0, above=True)

    @property
    def is_movie(self) -> bool:
        """Whether `data` has a frame axis."""
        return bool(self.data.ndim == 3)

    @property
    def n_frames(self) -> int:
        """Number of frames; 1 for a still."""
        return int(self.data.shape[0]) if self.is_movie else 1

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return int(self.data.shape[-2]), int(self.data.shape[-1])

    @property
    def pixel_size_yx_nm(self) -> FloatArray:
        """Pixel size as ``array([y, x])``; raises ValueError when it is not known."""
        if self.pixel_size_nm is None:
            raise ValueError(
                "`pixel_size_nm` is not known for this image; pass pixel_size_nm=... (--pixel-size-nm) when "
                "reading it, or measure it on the lattice with calibrate(micrograph, crystal) (--calibrate)."
            )
        return np.broadcast_to(np.asarray(self.pixel_size_nm, float), (2,)).copy()

    @property
    def extent_nm(self) -> FloatArray:
        """Height and width of the field of view in nm."""
        return np.asarray(self.pixel_size_yx_nm * np.asarray(self.shape_yx))

    def frame(self, index: int = 0) -> npt.NDArray[np.float32]:
        """One frame as native float32, shape (y, x).

        Raises
        ------
        IndexError
            If there is no such frame.
        ValueError
            If the frame cannot be analysed: not finite, constant, or smaller than 32 pixels.
        """
        if not 0 <= index < self.n_frames:
            raise IndexError(f"`index` must be 0 to {self.n_frames - 1}, got {index}.")
        raw = np.asarray(self.data[index] if self.is_movie else self.data)
        with np.errstate(over="ignore"):  # refused below
            pixels = raw.astype(np.float32)
        if min(pixels.shape) < MIN_SIDE_PX:
            raise ValueError(
                f"the image is {pixels.shape[0]} x {pixels.shape[1]} px; at least {MIN_SIDE_PX} px a side is needed."
            )
        bad = int(pixels.size - np.count_nonzero(np.isfinite(pixels)))
        if bad and np.isfinite(raw).all():
            raise ValueError(
                f"frame {index} has values up to {np.abs(raw).max():.3g}, which overflow float32; divide them first."
            )
        if bad:
            raise ValueError(
                f"frame {index} has {bad} NaN or infinite pixel(s); crop or fill them first, e.g. numpy.nan_to_num."
            )
        if float(pixels.min()) == float(pixels.max()):
            raise ValueError(f"frame {index} is constant (every pixel is {pixels.flat[0]:g}); is it the right channel?")
        return pixels

    def frames(self) -> Iterator[npt.NDArray[np.float32]]:
        """Iterate over `frame`."""
        return (self.frame(i) for i in range(self.n_frames))

    def seen_frames(self) -> list[int]:
        """Numbers of the frames that are not blank: that have two different pixels, or more.

        Raises
        ------
        ValueError
            If all are.
        """
        frames = (np.asarray(frame) for frame in (self.data if self.is_movie else [self.data]))
        seen = [n for n, one in enumerate(frames) if np.isfinite(one).any() and np.nanmin(one) < np.nanmax(one)]
        if not seen:
            raise ValueError("every frame is blank; is it the right channel?")
        return seen

    def with_pixel_size(self, pixel_size_nm: float | tuple[float, float]) -> Micrograph:
        """Return the same image with another calibration."""
        return replace(self, pixel_size_nm=pixel_size_nm)


@dataclass(frozen=True, eq=False)
class Maps:
    """Class probabilities per pixel, as a network gives them.

    Parameters
    ----------
    data : ndarray, shape (class, y, x) or (class, frame, y, x)
        Probabilities, summing to 1 over the first axis.
    classes : tuple of str
        Name of each map; the first is ``"background"``.
    pixel_size_nm : float or (float, float)
        Pixel size; maps lie on the pixels of the micrograph they were predicted from.
    spread : ndarray, shape (y, x) or (frame, y, x), optional
        How much the members of an ensemble disagree: standard deviation of the probability, the largest of all classes.
    taught : tuple of str
        Classes that were learned from columns named in an image.
    """

    data: Any
    classes: tuple[str, ...]
    pixel_size_nm: float | tuple[float, float]
    spread: Any = None
    taught: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.data.ndim not in (3, 4):
            raise ValueError(f"`data` must be (class, y, x) or (class, frame, y, x), got shape {self.data.shape}.")
        if len(self.classes) != self.data.shape[0]:
            raise ValueError(f"`classes` has {len(self.classes)} names for {self.data.shape[0]} maps.")
        object.__setattr__(self, "pixel_size_nm", check_pixel_size(self.pixel_size_nm))

    def __getitem__(self, name: str) -> Any:
        """Return the map of one class: (y, x) or (frame, y, x)."""
        if name not in self.classes:
            raise KeyError(f"no map of class {name!r}; there are {', '.join(self.classes)}.")
        return self.data[self.classes.index(name)]

    def frame(self, index: int = 0) -> FloatArray:
        """Return the maps of one frame, shape (class, y, x)."""
        return np.asarray(self.data if self.data.ndim == 3 else self.data[:, index])


def check_micrograph(micrograph: Any, name: str = "micrograph") -> None:
    """Raise TypeError unless `micrograph` is one."""
    check_type(
        name,
        micrograph,
        Micrograph,
        "read_micrograph() reads a file, Micrograph(data, pixel_size_nm=...) takes an array",
    )


def check_pixel_size(pixel_size_nm: float | tuple[float, float]) -> float | tuple[float, float]:
    """Return `pixel_size_nm` as float or pair, or raise ValueError if it cannot be atomic resolution."""
    try:
        sizes = np.asarray(pixel_size_nm, float)
    except (TypeError, ValueError):
        raise TypeError(f"`pixel_size_nm` must be a number or a pair (y, x), got {pixel_size_nm!r}.") from None
    if sizes.shape not in ((), (2,)):
        raise ValueError(f"`pixel_size_nm` must be a number or a pair (y, x), got {pixel_size_nm!r}.")
    low, high = PIXEL_SIZE_RANGE_NM
    if not np.all((sizes >= low) & (sizes <= high)):
        raise ValueError(
            f"`pixel_size_nm` must be {low} to {high} nm for an atomic-resolution image, got {pixel_size_nm}; "
            "is it in another unit (pm, angstrom)?"
        )
    return float(sizes) if sizes.ndim == 0 else (float(sizes[0]), float(sizes[1]))
