"""A simulated dataset of a million columns through `batch`: time, memory, and whether the concentrations are right.

    python benchmarks/dataset.py [--columns 1e6] [--workers 2] [--out DIR] [--seed 0]
    python benchmarks/dataset.py --coverage 20 --columns 3e4       # how often 95 % intervals hold the truth
    python benchmarks/dataset.py --rare 8                          # images with many of the rare defects
    python benchmarks/dataset.py --scaling 16                      # one worker beside two
    python benchmarks/dataset.py --watch 6                         # from a written image to its tables

WSe2 with the proportions of Lee et al. (2021): of 5.7 defects in 100 columns 86.6 % are Te, 12.5 % Se vacancies, 0.8 %
Se on W, 0.08 % W vacancies; doses, probes, drift and dirt differ from image to image. Calibration images with the same
conditions, other seeds and more of the rare defects give the confusion from which the counts are unfolded.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

import napari_defects as nd
from napari_defects.batch import Dataset, run_batch, watch
from napari_defects.evaluation.scoring import confusion, outcomes
from napari_defects.io import read_table, write_micrograph, write_table
from napari_defects.statistics import unfold

SIDE_PX = 1024
LEE = {"Te_Se": 0.085, "Te2_Se": 0.0135, "V_Se": 0.0125, "V2_Se": 0.00175, "Se_W": 0.0009, "V_W": 0.00009}
"""Fraction of each defect's sublattice."""
RICH = {**LEE, "V_Se": 0.03, "V2_Se": 0.02, "Te2_Se": 0.03, "Se_W": 0.03, "V_W": 0.03}
RECIPE = {"fit_lattice": {"crystal": "WSe2"}, "average": {"species": ["V_Se"], "rounds": 1}}
PLAIN = {"fit_lattice": {"crystal": "WSe2"}, "average": {"species": []}}
"""Where only counts are wanted."""


def draw(job: tuple[str, int, bool]) -> float:
    """Simulate and write one image with its truth; its number of columns."""
    folder, seed, rich = job
    rng = np.random.default_rng([17, seed, rich])
    microscope = nd.Microscope(
        energy_keV=80.0, convergence_mrad=float(rng.uniform(24, 31)), detector_inner_mrad=60.0,
        detector_outer_mrad=200.0, source_fwhm_nm=float(rng.uniform(0.07, 0.11)),
        aberrations=nd.Aberrations(C12_nm=float(rng.uniform(0, 1.5)), C21_nm=float(rng.uniform(0, 15))),
    )  # fmt: skip
    pixel = float(rng.uniform(0.018, 0.0215))
    scan = nd.Scan(
        rotation_deg=float(rng.uniform(0, 360)), jitter_pm=float(rng.uniform(0, 6)),
        wander_pm=float(rng.uniform(0, 30)),
        drift_pm_per_line=(float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.4, 0.4))),
    )  # fmt: skip
    image, sites = nd.simulate(
        "WSe2", field_of_view_nm=SIDE_PX * pixel, pixel_size_nm=pixel, defects=RICH if rich else LEE,
        microscope=microscope, scan=scan, surface=nd.Surface(contamination=float(rng.uniform(0, 0.3))),
        dose_e_per_A2=float(np.exp(rng.uniform(np.log(2e4), np.log(1.2e5)))), seed=int(rng.integers(2**31)),
    )  # fmt: skip
    write_micrograph(image, Path(folder) / f"scan{seed:04d}.tif")
    place = Path(folder) / "truth"
    write_table(pd.DataFrame(image.metadata["defects"]), place / f"scan{seed:04d}.parquet")
    return float(len(sites))


def make(folder: Path, n: int, first: int, rich: bool, workers: int) -> float:
    """Simulate `n` images; their number of columns."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        return sum(pool.map(draw, [(str(folder), first + k, rich) for k in range(n)]))


def compared(dataset: Dataset, truth: Path, border_nm: float = 0.25) -> pd.DataFrame:
    """Outcomes of all images."""
    found = []
    for image, defects in dataset.each("defects"):
        sites = read_table(dataset.folder / image / "sites.csv")
        extent = sites[["y_ideal_nm", "x_ideal_nm"]].max().to_numpy(float)
        true = read_table(truth / f"{image}.parquet")
        found.append(outcomes(defects, true, radius_nm=0.1, border_nm=border_nm, extent_nm=extent))
    return pd.concat(found, ignore_index=True)


def corrected(dataset: Dataset, calibration: tuple[pd.DataFrame, int], confidence: float) -> pd.DataFrame:
    """Pooled counts, unfolded."""
    counts = dataset.counts()
    counts = counts[counts["species"].isin(calibration[0].index)]
    return unfold(counts, calibration[0], host_sites=calibration[1], confidence=confidence).set_index("species")


def calibrate(work: Path, n: int, first: int, workers: int) -> tuple[pd.DataFrame, int]:
    """Confusion of images of known truth, and their host sites."""
    columns = make(work / "calibration", n, first, True, workers)
    run_batch([work / "calibration"], work / "calibrated", PLAIN, workers=workers, report=False)
    result = compared(Dataset(work / "calibrated"), work / "calibration" / "truth")
    return confusion(result), int(columns - (result["truth"] != "(none)").sum())


def whole(given: argparse.Namespace, work: Path) -> None:
    per_image = 2 * (SIDE_PX * 0.0197) ** 2 / nd.WSE2.cell_area_nm2
    n = max(2, round(given.columns / per_image))
    start = time.perf_counter()
    columns = make(work / "images", n, 1000 * given.seed, False, given.workers)
    print(
        f"{n} images of {SIDE_PX} x {SIDE_PX}, {columns:,.0f} columns: simulated in {time.perf_counter() - start:.0f} s"
    )
    calibration = calibrate(work, max(4, n // 12), 500_000 + given.seed, given.workers)
    start = time.perf_counter()
    summary = run_batch([work / "images"], work / "dataset", RECIPE, workers=given.workers)
    wall = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    atoms = float(pd.to_numeric(summary["columns"]).sum())
    print(f"batch, {given.workers} workers: {wall / 60:.1f} min (asked 20), {atoms / wall:,.0f} columns/s, "
          f"{n * SIDE_PX**2 / wall / 1e6:.2f} Mpx/s, peak {peak:.2f} GiB a worker (asked 3)")  # fmt: skip
    dataset = Dataset(work / "dataset")
    result = compared(dataset, work / "images" / "truth")
    counts = corrected(dataset, calibration, 0.99)
    true = pd.concat([read_table(p)["species"] for p in sorted((work / "images" / "truth").glob("*.parquet"))])
    print(
        f"\n{'species':8}{'true':>8}{'recall':>9}{'precision':>11}{'% true':>9}{'% unfolded, 99 % interval':>34}  holds"
    )
    for species, number in true.value_counts().items():
        own, said = result[result["truth"] == species], result[result["said"] == species]
        right = int((own["said"] == species).sum())
        fraction = 200 * number / columns
        best, low, high = (100 * counts[f"corrected_fraction{e}"].get(species, 0.0) for e in ("", "_low", "_high"))
        words = f"{best:.4f} ({low:.4f} to {high:.4f})"
        print(f"{species:8}{number:8d}{right / max(len(own), 1):9.4f}{right / max(len(said), 1):11.4f}{fraction:9.4f}"
              f"{words:>34}  {'yes' if low <= fraction <= high else 'NO'}")  # fmt: skip


def coverage(given: argparse.Namespace, work: Path) -> None:
    per_image = 2 * (SIDE_PX * 0.0197) ** 2 / nd.WSE2.cell_area_nm2
    n = max(2, round(given.columns / per_image))
    calibration = calibrate(work, 6, 700_000, given.workers)
    covered = []
    for number in range(given.coverage):
        folder = work / f"images{number}"
        columns = make(folder, n, 10_000 + 100 * number, False, given.workers)
        run_batch([folder], work / f"dataset{number}", PLAIN, workers=given.workers, report=False)
        counts = corrected(Dataset(work / f"dataset{number}"), calibration, 0.95)
        true = pd.concat([read_table(p)["species"] for p in (folder / "truth").glob("*.parquet")]).value_counts()
        for species in LEE:
            low, high = (counts[f"corrected_fraction_{e}"].get(species, 0.0) for e in ("low", "high"))
            covered.append((species, low <= 2 * true.get(species, 0) / columns <= high))
        print(
            f"dataset {number}: {columns:,.0f} columns, missed {[s for s, c in covered[-len(LEE) :] if not c]}",
            flush=True,
        )
        shutil.rmtree(folder)
    table = pd.DataFrame(covered, columns=["species", "covered"]).groupby("species")["covered"].mean()
    print(table.to_string(float_format="{:.2f}".format))
    print(f"all: {np.mean([c for _, c in covered]):.3f} of 95 % intervals hold the truth (asked 0.90 to 1.00)")


def rare(given: argparse.Namespace, work: Path) -> None:
    """Recall of all species where the rare ones are many."""
    table, _ = calibrate(work, given.rare, 900_000, given.workers)
    print(table.assign(recall=[table.at[s, s] / table.loc[s].sum() if s in table else np.nan for s in table.index])
          .to_string(float_format="{:.4f}".format))  # fmt: skip


def scaling(given: argparse.Namespace, work: Path) -> None:
    """Few and many images on one worker and on two: the cost of an image, of starting, and the gain."""
    few, many = max(given.scaling // 4, 2), given.scaling
    make(work / "images", many, 0, False, given.workers)
    images = sorted((work / "images").glob("*.tif"))
    seconds: dict[int, list[float]] = {}
    for workers in (1, 2):
        for n in (few, many):
            start = time.perf_counter()
            run_batch(images[:n], work / f"{n}by{workers}", PLAIN, workers=workers, averages=False, report=False)
            seconds.setdefault(workers, []).append(time.perf_counter() - start)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(
                f"{n} images, {workers} worker(s): {seconds[workers][-1]:.1f} s, peak {peak:.2f} GiB a worker",
                flush=True,
            )
    each = {workers: (large - small) / (many - few) for workers, (small, large) in seconds.items()}
    start_s, gain = seconds[1][0] - few * each[1], each[1] / each[2]
    print(f"{each[1]:.2f} s an image, {start_s:.1f} s to start; two workers {gain:.2f} times one (asked 1.8), "
          f"{seconds[1][1] / seconds[2][1]:.2f} times with the start of so short a run")  # fmt: skip


def watched(given: argparse.Namespace, work: Path) -> None:
    """Images that come one after the other while a watch runs: seconds until their tables are there."""
    make(work / "made", given.watch, 0, False, given.workers)
    (work / "in").mkdir()
    steps = {"fit_lattice": {"crystal": "WSe2"}}
    came, seconds = watch(work / "in", work / "out", steps), []
    for image in sorted((work / "made").glob("*.tif")):
        shutil.copyfile(image, work / "in" / image.name)
        cpu = time.process_time()
        row = next(came)
        seconds.append(row["latency_s"])
        log = (Path(row["folder"]) / "log.txt").read_text().splitlines()
        steps_s = ", ".join(line for line in log if line.endswith(" s"))
        print(f"{image.name}: {seconds[-1]:.2f} s to the tables, {time.process_time() - cpu:.2f} s of CPU; {steps_s}")
    came.close()
    print(f"warm: median {np.median(seconds[1:]):.2f} s, largest {max(seconds[1:]):.2f} s (asked 5)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=float, default=1e6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", type=int, default=0, metavar="N")
    parser.add_argument("--rare", type=int, default=0, metavar="N")
    parser.add_argument("--scaling", type=int, default=0, metavar="N")
    parser.add_argument("--watch", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    jobs = {scaling: given.scaling, coverage: given.coverage, watched: given.watch, rare: given.rare}
    job = next((one for one, asked in jobs.items() if asked), whole)
    if given.out is not None:
        job(given, given.out)
        return
    with tempfile.TemporaryDirectory() as name:
        job(given, Path(name))


if __name__ == "__main__":
    main()
