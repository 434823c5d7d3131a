"""Dark dopants that nobody named: how many are called dark, and how many true vacancies are called so.

    python benchmarks/dopants.py

Simulated WSe2 with 3 % of the W replaced by something that scatters 0.1 to 0.5 as much, beside a few empty W sites, at
three doses, without and with a patch of dirt; classified by intensities alone. Exchanged sublattices are
left out, and said.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from reliability import ALIGNED
from robustness import PIXEL_NM, SIDE
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.crystals import get_crystal
from napari_defects.simulation import Detector, Surface
from napari_defects.simulation.bench import Bench
from napari_defects.simulation.conditions import draw_contrast, draw_microscope, draw_scan
from napari_defects.simulation.scattering import cross_section_A2
from napari_defects.simulation.truth import true_sites

RATIOS, DOSES, PATCHES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5), (5e3, 1.5e4, 6e4), (0.0, 1.5)
BORDER_NM = 0.25


def verdicts(seed: int, ratio: float, dose: float, patch: float) -> pd.DataFrame:
    """Columns `truth` and `said` of every W site of one image."""
    rng, crystal, shape = np.random.default_rng([seed, 99]), get_crystal("WSe2"), (SIDE, SIDE)
    microscope = draw_microscope(ALIGNED, rng)
    contrast = draw_contrast(ALIGNED, crystal, ("V_W", "V_Se"), rng)
    host = cross_section_A2(("W",), microscope) * contrast["W"]
    contrast["Ti"] = ratio * host / cross_section_A2(("Ti",), microscope)
    surface = Surface(contamination=0.5 * rng.random(), patch=patch, patch_radius_nm=2.0)
    scan = draw_scan(ALIGNED, shape, PIXEL_NM, rng)
    bench = Bench(crystal, shape, (PIXEL_NM, PIXEL_NM), microscope, scan, surface, dose, contrast)
    scene = next(bench.scenes({"Ti_W": 0.03, "V_W": 0.006, "V_Se": 0.01}, rng, disorder_pm=3.0))
    image = nd.Micrograph(Detector(gain=100.0, read_noise_e=0.1).read(scene.expected_e, rng), PIXEL_NM)
    atoms = nd.locate(image)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, crystal))
    found = nd.classify(image, sites, method="intensities")
    keys = ["i", "j", "sublattice"]
    said = dict(zip(found[keys].itertuples(index=False, name=None), found["species"], strict=True))
    known = true_sites(scene)
    places = known[["y_nm", "x_nm"]].fillna(known[["y_ideal_nm", "x_ideal_nm"]].set_axis(["y_nm", "x_nm"], axis=1))
    metal = sites[sites["sublattice"] == "W"]
    at = metal[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    metal = metal[((at > BORDER_NM) & (at < image.extent_nm - BORDER_NM)).all(1)]
    which = cKDTree(places.to_numpy(float)).query(metal[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float))[1]
    names = [said.get(key, "W") for key in metal[keys].itertuples(index=False, name=None)]
    return pd.DataFrame({"truth": known["species"].to_numpy(str)[which], "said": names})


def main() -> None:
    print(
        f"{'of W':>6}{'patch':>7}{'dopants':>9}{'dark':>7}{'V_W':>6}{'W':>6}{'empty':>8}{'dark':>7}{'V_W':>6}{'W':>6}"
    )
    parts, seed = [], 0
    for ratio in RATIOS:
        for patch in PATCHES:
            images = []
            for dose in DOSES:
                seed += 1
                try:
                    table = verdicts(seed, ratio, dose, patch)
                except ValueError as error:
                    print(f"image {seed}: {error}")
                    continue
                if (table["truth"] == "Se2").mean() < 0.5:
                    images.append(table)
                else:
                    print(f"image {seed}: sublattices exchanged")
            rows = pd.concat(images)
            counts = pd.crosstab(rows["truth"], rows["said"]).reindex(
                index=["Ti_W", "V_W"], columns=["darker_W", "V_W", "W"], fill_value=0
            )
            dopants, empty = counts.to_numpy()
            words = (f"{dopants.sum():9}", *(f"{n:6}" for n in dopants), f"{empty.sum():8}", *(f"{n:6}" for n in empty))
            print(f"{ratio:6.2f}{patch:7.1f}{''.join(words)}", flush=True)
            parts.append(rows)
    table = pd.concat(parts)
    true, dark, empty = table["truth"] == "Ti_W", table["said"] == "darker_W", table["truth"] == "V_W"
    f1 = 2 * (true & dark).sum() / (true.sum() + dark.sum())
    print(f"\ndarker_W: F1 {f1:.3f}; V_W: recall {(table['said'] == 'V_W')[empty].mean():.3f} of {empty.sum()}")


if __name__ == "__main__":
    main()
