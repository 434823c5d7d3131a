"""The pairs of a training: prepared once, held in memory, cropped and varied for each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter

from ..micrograph import Micrograph
from .family import FAMILY, hint
from .options import Training
from .preparation import draw_targets, prepare


class Example(NamedTuple):
    """A prepared image, its targets, and for validation the table of what is in it and its dose."""

    image: npt.NDArray[np.float16]
    target: npt.NDArray[np.uint8]
    table: pd.DataFrame
    dose_e_per_A2: float
    pixel_size_nm: float
    hint: float | None = None

    def planes(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Stack (part of) the image with what else the network is shown: (input, y, x)."""
        planes = [pixels] if self.hint is None else [pixels, np.full_like(pixels, self.hint)]
        return np.stack(planes).astype(np.float32)


class Examples:
    """A window of `options.images` pairs that moves over the source as training goes on.

    Parameters
    ----------
    pairs : iterator of (Micrograph, DataFrame)
    classes : tuple of str
    options : Training
    seed : int
    """

    def __init__(
        self, pairs: Iterator[tuple[Micrograph, pd.DataFrame]], classes: tuple[str, ...], options: Training, seed: int
    ) -> None:
        self._pairs, self.classes, self.options, self.seed = pairs, classes, options, seed
        self.doses: list[float] = []
        self.held_back = self._take(options.held_back)
        self._window = self._take(min(options.images, 64))
        self._first = self._taken = len(self._window)
        if not self._window:
            raise ValueError(
                f"`pairs` gave {len(self.held_back)} pair(s), all held back for validation; give more, "
                f"or lower `held_back` from {options.held_back}."
            )

    @property
    def dose_range(self) -> list[float]:
        """Lowest and highest dose seen in e/Å^2; empty when the pairs do not say."""
        known = [d for d in self.doses if np.isfinite(d)]
        return [float(f"{min(known):.3g}"), float(f"{max(known):.3g}")] if known else []

    def class_weights(self, balance: float) -> npt.NDArray[np.float32]:
        """Weight of each class in the loss, 1 on average over the pixels."""
        counts = sum(np.bincount(e.target.ravel(), minlength=len(self.classes)) for e in self._window)
        frequency = np.maximum(counts / np.sum(counts), 1e-5)
        weights = frequency**-balance
        return np.asarray(weights / np.sum(weights * frequency), np.float32)

    def batch(self, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Crops for a step: images (batch, input, y, x) and targets (batch, y / stem, x / stem)."""
        options, rng = self.options, np.random.default_rng((self.seed, step))
        due = self._first + int((step + 1) * options.images_per_step)
        for example in self._take(max(0, due - self._taken)):
            if len(self._window) >= options.images:
                self._window.pop(0)
            self._window.append(example)
            self._taken += 1
        side = options.crop_px // options.stem
        images = []
        targets = np.empty((options.batch, side, side), np.int64)
        for k, index in enumerate(rng.integers(len(self._window), size=options.batch)):
            example = self._window[index]
            crop, targets[k] = _crop(example, options.crop_px, options.stem, rng)
            images.append(example.planes(crop))
        return np.stack(images), targets

    def _take(self, n: int) -> list[Example]:
        examples = []
        for _ in range(n):
            pair = next(self._pairs, None)
            if pair is None:
                break
            examples.append(self._prepared(*pair))
        return examples

    def _prepared(self, micrograph: Micrograph, table: pd.DataFrame) -> Example:
        options = self.options
        if not isinstance(micrograph, Micrograph) or micrograph.is_movie:
            raise TypeError("`pairs` must give (Micrograph, table) of single frames; take a movie's frames one by one.")
        image = prepare(micrograph, options.pixel_size_nm)
        image = image[: image.shape[0] // options.stem * options.stem, : image.shape[1] // options.stem * options.stem]
        target = draw_targets(
            table, self.classes, shape=(image.shape[0], image.shape[1]), pixel_size_nm=options.pixel_size_nm,
            stem=options.stem, radius_nm=options.disc_radius_nm,
        )  # fmt: skip
        dose = _dose(micrograph.metadata)
        self.doses.append(dose)
        kept = table[["y_nm", "x_nm", "species"]].dropna()
        shown = hint(_simulated(micrograph.metadata)["crystal"]) if options.crystal == FAMILY else None
        return Example(image.astype(np.float16), target, kept, dose, options.pixel_size_nm, shown)


def _simulated(metadata: Any) -> Any:
    """Return what is known of how an image was made."""
    return metadata.get("simulation", metadata)


def _dose(metadata: Any) -> float:
    try:
        return float(_simulated(metadata)["dose_e_per_A2"])
    except (KeyError, TypeError, ValueError):
        return float("nan")


def _crop(
    example: Example, crop_px: int, stem: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Cut a random crop, turned and mirrored; now and then with more blur, more noise, a few hot pixels."""
    image, target = example.image, example.target
    short = [max(0, crop_px - n) for n in image.shape]
    if any(short):
        image = np.pad(image, [(0, n) for n in short], mode="symmetric")
        target = np.pad(target, [(0, -(-n // stem)) for n in short], mode="symmetric")
    y, x = (int(rng.integers((n - crop_px) // stem + 1)) for n in image.shape)
    side = crop_px // stem
    crop = image[y * stem : y * stem + crop_px, x * stem : x * stem + crop_px].astype(np.float32)
    truth = target[y : y + side, x : x + side]
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    crop, truth = np.rot90(crop, turns), np.rot90(truth, turns)
    if mirror:
        crop, truth = crop[:, ::-1], truth[:, ::-1]
    if rng.random() < 0.2:
        crop = gaussian_filter(crop, rng.uniform(0.3, 1.5))
    if rng.random() < 0.3:
        crop = crop + np.float32(rng.uniform(0, 0.5)) * rng.standard_normal(crop.shape, np.float32)
    if rng.random() < 0.3:
        crop = np.array(crop)
        n = int(rng.integers(1, 5))
        crop[rng.integers(crop_px, size=n), rng.integers(crop_px, size=n)] = rng.uniform(2, 10, n)
    return crop, truth
