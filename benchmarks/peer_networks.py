"""A network of this package beside AtomAI's Segmentor, trained on the same pairs for the same time of one core.

    python benchmarks/peer_networks.py [--minutes 3] [--pairs 300] [--speed]

Both learn from the same simulated images of WSe2 (0.02 nm per pixel) and are asked the same: the class with the highest
mean probability within 0.05 nm of each known site, of images that neither has seen. Class-aware micro-F1 of the
defects, and pixels per second of prediction, both on one thread. Needs `pip install atomai`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from napari_defects import Micrograph, Training, load_model, predict, train
from napari_defects.networks import RECIPES
from napari_defects.networks.models import Model
from napari_defects.networks.preparation import draw_targets
from napari_defects.networks.validation import mean_around
from napari_defects.simulation import Conditions, training_pairs

PIXEL_NM, SIDE = 0.02, 256
CLASSES = RECIPES["wse2-te"].classes[:10]
HOSTS = ("W", "Se2")
DOSES = (8.7e4, 2e4, 1e4, 6e3, 3e3)
FIELD = replace(
    Conditions.for_crystal("WSe2"), pixel_size_nm=(PIXEL_NM, PIXEL_NM), pixel_aspect=0.0, empty=0.0, edged=0.0,
    source_fwhm_nm=(0.07, 0.10), defocus_nm=1.5, twofold_nm=1.0, coma_nm=10.0, threefold_nm=10.0,
    dose_e_per_A2=(2e3, 2e5),
)  # fmt: skip


def micro_f1(said: np.ndarray, true: np.ndarray) -> float:
    right = ((said == true) & ~np.isin(true, HOSTS)).sum()
    return float(2 * right / ((~np.isin(true, HOSTS)).sum() + (~np.isin(said, [*HOSTS, "background"])).sum()))


def at_sites(maps: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    at = table[["y_nm", "x_nm"]].to_numpy(float) / PIXEL_NM
    return np.asarray(CLASSES)[mean_around(maps, at, 0.05 / PIXEL_NM).argmax(axis=1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of CPU time to train, for each")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--speed", action="store_true", help="of prediction alone, untrained")
    options = parser.parse_args()
    try:
        import atomai
    except ImportError as error:
        raise SystemExit(f"AtomAI is not here ({error}); pip install atomai, to compare.") from None
    torch.set_num_threads(1)
    if options.speed:
        speed(load_model("wse2-te"), atomai.models.Segmentor("Unet", nb_classes=len(CLASSES)))
        return
    pairs = list(training_pairs("WSe2", n=options.pairs, shape=(SIDE, SIDE), seed=5, conditions=FIELD))
    settings = Training(crystal="WSe2", pixel_size_nm=PIXEL_NM, images=options.pairs, held_back=8, patience=10**6)

    def mine(steps: int) -> Model:
        return train(pairs, classes=CLASSES, options=replace(settings, steps=steps, validate_every=max(steps // 8, 1)))

    images = np.stack([_scaled(m.data) for m, _ in pairs])
    masks = np.stack([draw_targets(t, CLASSES, shape=(SIDE, SIDE), pixel_size_nm=PIXEL_NM, stem=1, radius_nm=0.07)
                      for _, t in pairs])  # fmt: skip

    def other(cycles: int) -> object:
        common = {
            "loss": "ce",
            "plot_training_history": False,
            "print_loss": 10**6,
            "batch_size": 8,
            "memory_alloc": 64,
        }
        segmentor = atomai.models.Segmentor("Unet", nb_classes=len(CLASSES))
        segmentor.fit(images[8:], masks[8:], images[:8], masks[:8], training_cycles=cycles, **common)
        return segmentor

    ours, theirs = (_trained(name, make, options.minutes) for name, make in (("this package", mine), ("AtomAI", other)))

    print(f"{'dose e/A^2':>12}{'this package':>14}{'AtomAI':>9}")
    for dose in DOSES:
        fields = replace(FIELD, dose_e_per_A2=(dose, dose), pristine=0.0)
        said: list[list[np.ndarray]] = [[], [], []]
        for micrograph, table in training_pairs("WSe2", n=6, shape=(SIDE, SIDE), seed=99, conditions=fields):
            said[0].append(table["species"].to_numpy(str))
            said[1].append(at_sites(predict(micrograph, ours).data, table))
            probabilities = theirs.predict(_scaled(micrograph.data), refine=False, verbose=False)[0][0]
            said[2].append(at_sites(np.moveaxis(np.asarray(probabilities), -1, 0), table))
        true, mine, other = (np.concatenate(part) for part in said)
        print(f"{dose:12.2g}{micro_f1(mine, true):14.4f}{micro_f1(other, true):9.4f}")

    speed(ours, theirs)


def _trained(name: str, make: Callable[[int], Any], minutes: float) -> Any:
    """Train for `minutes` of CPU time, and say for how many steps: as many as two short trainings foretell."""
    seconds = []
    for steps in (4, 16):
        began = time.process_time()
        make(steps)
        seconds.append(time.process_time() - began)
    each = (seconds[1] - seconds[0]) / 12
    steps = max(8, int((60 * minutes - seconds[0]) / each))
    began = time.process_time()
    result = make(steps)
    print(f"{name}: {steps} steps in {(time.process_time() - began) / 60:.1f} minutes of CPU", flush=True)
    return result


def speed(ours: Model, theirs: object) -> None:
    """Print pixels per second of CPU of both, by turns, the best of three."""
    big = Micrograph(np.random.default_rng(0).poisson(20, (1024, 1024)).astype(np.float32), PIXEL_NM)
    works = (lambda: predict(big, ours), lambda: theirs.predict(_scaled(big.data), refine=False, verbose=False))  # type: ignore[attr-defined]
    seconds = np.full((4, 2), np.inf)
    for turn in range(4):  # the first warms up
        for k, work in enumerate(works):
            began = time.process_time()
            work()
            seconds[turn, k] = time.process_time() - began
    mine, other = 1024**2 / seconds[1:].min(0) / 1e6
    print(f"prediction, Mpx per CPU second: this package {mine:.2f}, AtomAI {other:.2f} ({mine / other:.1f} x)")


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """To 0 to 1, which is AtomAI's own way."""
    pixels = np.asarray(pixels, np.float32)
    return (pixels - pixels.min()) / np.ptp(pixels)


if __name__ == "__main__":
    main()
