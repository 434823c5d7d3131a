"""How often a verdict given with a probability is right: the reliability of `classify` with maps.

    python benchmarks/reliability.py [--images N] [--figure docs/images/reliability.png]

Simulated WSe2 at five doses under conditions as a training image draws them, seeds that no training saw, optics as
after a good alignment. At every site the likeliest defect and its probability are compared with what is there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from robustness import AMOUNTS, PIXEL_NM, SIDE
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.crystals import get_crystal
from napari_defects.simulation import Conditions, Detector, Surface
from napari_defects.simulation.bench import Bench
from napari_defects.simulation.conditions import draw_contrast, draw_microscope, draw_scan
from napari_defects.simulation.truth import true_defects

DOSES = (3e3, 6e3, 1e4, 2e4, 8.7e4)
EDGES = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)
ALIGNED = replace(
    Conditions.for_crystal("WSe2"), defocus_nm=1.5, twofold_nm=1.0, coma_nm=10.0, threefold_nm=10.0, spherical_um=0.5,
    source_fwhm_nm=(0.06, 0.105), focal_spread_nm=(0.0, 2.0), source_tail=(0.0, 0.15), drift=0.04, wander_pm=40.0,
)  # fmt: skip


def verdicts(dose: float, seed: int) -> pd.DataFrame:
    """Probability of the likeliest defect at each site of one image, and whether it is there."""
    rng, crystal = np.random.default_rng([seed, 31]), get_crystal("WSe2")
    shape, pixel = (SIDE, SIDE), (PIXEL_NM, PIXEL_NM)
    amounts = {species: share * rng.uniform(0.3, 1.5) for species, share in AMOUNTS.items()}
    bench = Bench(
        crystal, shape, pixel, draw_microscope(ALIGNED, rng), draw_scan(ALIGNED, shape, PIXEL_NM, rng),
        Surface(contamination=rng.uniform(0, 0.6)), dose, draw_contrast(ALIGNED, crystal, tuple(amounts), rng),
    )  # fmt: skip
    scene = next(bench.scenes(amounts, rng, disorder_pm=2.0))
    image = nd.Micrograph(Detector(gain=100.0, read_noise_e=0.1).read(scene.expected_e, rng), PIXEL_NM)
    truth = true_defects(scene)
    maps = nd.predict(image, "wse2-te")
    atoms = nd.locate(image, maps=maps)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, crystal))
    found = nd.classify(image, sites, maps=maps, min_probability=0)
    at = found[["y_nm", "x_nm"]].to_numpy()
    distance, which = cKDTree(truth[["y_nm", "x_nm"]]).query(at)
    right = (distance < 0.1) & (truth["species"].to_numpy(object)[which] == found["species"].to_numpy(object))
    inner = np.all((at > 0.25) & (at < image.extent_nm - 0.25), axis=1)
    return pd.DataFrame({"dose": dose, "p": found["probability"], "right": right})[inner]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3, help="at each dose")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    parts = []
    for dose in DOSES:
        for seed in range(options.images):
            try:
                parts.append(verdicts(dose, seed))
            except ValueError as error:
                print(f"dose {dose:g}, image {seed}: {error}")
    table = pd.concat(parts)
    table["bin"] = pd.cut(table["p"], EDGES, include_lowest=True)
    rows = table.groupby("bin", observed=True).agg(n=("p", "size"), said=("p", "mean"), right=("right", "mean"))
    rows["err"] = np.sqrt((rows["right"] * (1 - rows["right"])).clip(1e-4) / rows["n"])
    print(rows.round(4).to_string())
    print(
        f"expected calibration error {float((rows['n'] * (rows['said'] - rows['right']).abs()).sum() / len(table)):.4f}"
    )
    sure = table[table["p"] >= 0.5]
    print(f"of the {len(sure)} defects called: said {sure['p'].mean():.3f}, right {sure['right'].mean():.3f}")
    if options.figure:
        from napari_defects import figures

        figure, ax = figures.new(80, 75)
        ax.plot([0, 1], [0, 1], color="0.7", lw=1)
        ax.errorbar(rows["said"], rows["right"], rows["err"], fmt="o-", color="tab:blue", ms=4, capsize=2)
        ax.set(xlabel="probability said", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        figures.save(figure, options.figure)


if __name__ == "__main__":
    main()
