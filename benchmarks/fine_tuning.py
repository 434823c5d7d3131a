"""A network fine-tuned to a microscope it does not know: before and after, on twins and on images of that microscope.

    python benchmarks/fine_tuning.py [--minutes 10] [--angles 40 120]

Simulated WSe2 at 5e4 e/Å^2 on a detector whose angles no training of the shipped network saw. What a user would run is

    napari-defects train --match IMAGE --start wse2-te --detector-mrad 40 120 --minutes 10 -o mine
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
from robustness import AMOUNTS

import napari_defects as nd
from napari_defects.learning.tuning import compared, fine_tune
from napari_defects.networks import load_model
from napari_defects.simulation import Detector, Microscope, Scan, Surface

PIXEL_NM = 0.016


def image(seed: int, microscope: Microscope) -> tuple[nd.Micrograph, pd.DataFrame]:
    """Simulate an image of that microscope, and what is where."""
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=7.5, pixel_size_nm=PIXEL_NM, defects=AMOUNTS, microscope=microscope,
        scan=Scan(rotation_deg=33, jitter_pm=4, drift_pm_per_line=(0.2, 0.1)), detector=Detector(gain=80, offset=900),
        surface=Surface(contamination=0.3), dose_e_per_A2=5e4, seed=seed,
    )  # fmt: skip
    place = {f"{axis}_nm": sites[f"{axis}_nm"].fillna(sites[f"{axis}_ideal_nm"]) for axis in "yx"}
    return micrograph, sites[["species"]].assign(**place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--angles", type=float, nargs=2, default=(40.0, 120.0), metavar=("INNER", "OUTER"))
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate")
    options = parser.parse_args()
    microscope = Microscope(80, 25.2, *options.angles, source_fwhm_nm=0.08)
    before, work = load_model("wse2-te"), time.process_time()
    known = Microscope(80, 25.2, *options.angles)
    tuned = fine_tune(
        image(0, microscope)[0], before, minutes=options.minutes, microscope=known, seed=3, workers=options.workers
    )
    print(f"{tuned.card['steps']} steps, {time.process_time() - work:.0f} s of CPU in this process")
    ((_, rows),) = tuned.card["tests"].items()
    print("on twins held back\n" + pd.DataFrame(rows)[["class", "n", "f1 before", "f1 after"]].to_string(index=False))
    for seed in (11, 12):
        rows = compared({"before": before, "after": tuned}, [image(seed, microscope)], nd.WSE2)
        print(f"another image of that microscope, seed {seed}")
        print(pd.DataFrame(rows)[["class", "n", "f1 before", "f1 after"]].to_string(index=False))


if __name__ == "__main__":
    main()
