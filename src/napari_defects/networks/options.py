"""The options of a training, each with its default and its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..checks import check_fields, check_range
from ..micrograph import check_pixel_size


@dataclass(frozen=True)
class Training:
    """How to train.

    Parameters
    ----------
    crystal : str
        Formula of the crystal the pairs show; empty for any.
    pixel_size_nm : float
        Pixel size the network works at.
    steps : int
        Batches to train on.
    minutes : float, optional
        End earlier, after this time; the learning rate then follows the clock.
    kind, channels, levels, stem
        The network, as for `Network`.
    batch, crop_px : int
        Crops per step, and their side in pixels of the model.
    learning_rate, weight_decay : float
        Of AdamW, after a warm-up and on a half cosine to zero.
    average : float
        Decay of the running average of the weights, which is what is kept.
    disc_radius_nm : float
        Every column is drawn as a disc this large.
    balance : float
        A class weighs as its frequency to the power ``-balance`` in the loss. The maps are
        corrected for it afterwards, so that they stay probabilities.
    odds : dict
        How many times as frequent a class is expected to be in the images to come as in the pairs,
        e.g. ``{"Te_Se": 2.0}``; 1 for classes left out. The maps are corrected for it, too.
    images : int
        Pairs held in memory at a time.
    images_per_step : float
        New pairs taken from the source per step; once `images` are held, each in place of the oldest.
    held_back : int
        Pairs set aside for validation: the first of the source.
    validate_every : int
        Steps between validations.
    patience : int
        End after so many validations without a better score.
    checkpoint : path, optional
        File to resume from where it exists, and to write at each validation and when interrupted.
    start : path, optional
        Model file whose weights to start from: fine-tuning.
    """

    crystal: str = ""
    pixel_size_nm: float = 0.02
    steps: int = 6000
    minutes: float | None = None
    kind: str = "residual"
    channels: int = 32
    levels: int = 3
    stem: int = 2
    batch: int = 16
    crop_px: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    average: float = 0.998
    disc_radius_nm: float = 0.07
    balance: float = 0.5
    odds: Mapping[str, float] = field(default_factory=dict)
    images: int = 512
    images_per_step: float = 0.4
    held_back: int = 24
    validate_every: int = 500
    patience: int = 12
    checkpoint: str | Path | None = None
    start: str | Path | None = None

    def __post_init__(self) -> None:
        check_pixel_size(self.pixel_size_nm)
        for name, low, high in (
            ("steps", 1, 10**7), ("batch", 1, 1024), ("crop_px", 32, 2048), ("images", 1, 10**5),
            ("held_back", 1, 10**4), ("validate_every", 1, 10**7), ("patience", 1, 10**6),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high, whole=True)
        check_fields(self, ("learning_rate", "disc_radius_nm"), 0, 1, above=True)
        check_fields(self, ("balance", "weight_decay"), 0, 1)
        check_range("average", self.average, 0, 1, below=True)
        check_range("images_per_step", self.images_per_step, 0, 1e3)
        if self.minutes is not None:
            check_range("minutes", self.minutes, 0, above=True, hint="or None")
        for species, value in self.odds.items():
            check_range("odds", value, 0, above=True, hint=f"for {species}")
