"""One channel or two: where ResNet-18 for cells loses V_Te, as 2DIP-Net reports of one channel.

    python benchmarks/cell_channels.py

Trains both for a minute each on twenty images of one microscope and little noise, with pictures as they are cut from
the normalized image and with each stretched to its own range, and tests them on unseen images of other noise and blur.
"""

from __future__ import annotations

import os
from dataclasses import fields, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import napari_defects as nd
from napari_defects.cells.examples import Examples, simulated
from napari_defects.cells.recipes import ENDINGS
from napari_defects.cells.training import Fitting, fit, logits_of
from napari_defects.simulation import Conditions

CALM = {f.name: 0.0 for f in fields(Conditions) if isinstance(f.default, float) and f.name != "pristine"}
NARROW = Conditions(
    **(CALM | {"read_noise": 0.1}), defect_fraction=(0.05, 0.3),
    dose_e_per_A2=(5e4, 1e5), pixel_size_nm=(0.012, 0.02), energies_keV=(80.0,),
    convergence_mrad=(27.0, 27.01), detector_inner_mrad=(70.0, 70.1), detector_outer_mrad=(278.0, 278.1),
    source_fwhm_nm=(0.06, 0.061), focal_spread_nm=(0.0, 0.01), source_tail=(0.0, 0.01),
)  # fmt: skip
TESTS = {
    "the same conditions": NARROW,
    "1e4 e/A^2": replace(NARROW, dose_e_per_A2=(1e4, 1.1e4), read_noise=0.3),
    "source 0.11 nm": replace(NARROW, source_fwhm_nm=(0.11, 0.111), defocus_nm=3.0),
    "contamination": replace(NARROW, dirty=1.0, contamination=2.0),
}


def stretched(examples: Examples) -> Examples:
    """Return pictures each stretched to its own range, as crops saved for viewing are."""
    pictures = examples.pictures.astype(np.float32)
    low, high = pictures.min((2, 3), keepdims=True), pictures.max((2, 3), keepdims=True)
    return replace(examples, pictures=((pictures - low) / (high - low + 1e-6) * 4 - 2).astype(np.float16))


def main() -> None:
    for ending in ("cells-halves", "cells-whole"):
        recipe = ENDINGS[ending]

        def images(n: int, seed: int, conditions: Conditions, recipe=recipe) -> Examples:
            view = {"px_per_a": recipe.px_per_a, "n_images": n, "seed": seed, "conditions": conditions}
            return simulated(nd.MOTE2, recipe.architecture, **view)

        taught, held_back = images(20, 1, NARROW), images(4, 2, NARROW)
        tests = {name: images(6, 900_100 + k, c) for k, (name, c) in enumerate(TESTS.items())}
        for how, look in (("as cut", lambda e: e), ("each stretched", stretched)):
            network, _ = fit(recipe.architecture, 6, look(taught), look(held_back), Fitting(220, 64))
            for name, test in tests.items():
                said = logits_of(network, look(test).pictures).argmax(1)
                recall = [float(np.mean(said[test.kinds == k] == k)) for k in range(6)]
                print(f"{ending:14}{how:16}{name:22} V_Te {recall[1]:.3f}, mean {np.mean(recall):.3f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
