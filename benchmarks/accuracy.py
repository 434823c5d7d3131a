"""Accuracy on images with known truth: multislice images, and a real doped monolayer with labels.

python benchmarks/accuracy.py [--shared FOLDER] [--low-dose] [--only PREFIX]

Every image goes through calibrate (wse2_ti only), predict (where a model is shipped), locate, fit_lattice,
assign_sites, classify. Micro-F1 counts a defect as right when it is within 0.1 nm (0.2 nm in graphene) of a true one
and of its species; truth within 0.25 nm of the border does not count. The images are for measuring, never for tuning.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.crystals import species_label
from napari_defects.networks import model_for

CRYSTALS = {"wsete": "WSe2", "mote2": "MoTe2", "graphene": "graphene"}
BORDER_NM = 0.25


def pairs(found: np.ndarray, truth: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Match found and true points one to one within `radius`, as many and as near as possible: both indices."""
    if not len(found) or not len(truth):
        return np.zeros(0, int), np.zeros(0, int)
    distance = cKDTree(found).sparse_distance_matrix(cKDTree(truth), radius).toarray()
    near = (distance > 0) & (distance <= radius)
    rows, columns = near.any(1).nonzero()[0], near.any(0).nonzero()[0]
    cost = np.where(near, distance, 1e3 * radius)[np.ix_(rows, columns)]
    a, b = linear_sum_assignment(cost)
    good = cost[a, b] <= radius
    return rows[a[good]], columns[b[good]]


def f1(found: pd.DataFrame, truth: pd.DataFrame, radius: float, extent: np.ndarray) -> dict[str, float]:
    """Precision and recall of detection, class-aware micro-F1 and lowest recall of a class, the border left out."""
    at = [table[["y_nm", "x_nm"]].to_numpy(float).reshape(-1, 2) for table in (found, truth)]
    a, b = pairs(*at, radius)
    inner = [((p > BORDER_NM) & (p < extent - BORDER_NM)).all(1) for p in at]
    keep_found, keep_truth = inner[0].copy(), inner[1]
    keep_found[a] = keep_truth[b]
    counted = keep_truth[b]
    named = np.zeros(len(truth), bool)
    named[b] = found["species"].to_numpy(object)[a] == truth["species"].to_numpy(object)[b]
    right, of_class = (
        named[keep_truth].sum(),
        pd.Series(named[keep_truth]).groupby(truth["species"].to_numpy()[keep_truth]),
    )
    n_found, n_truth = max(keep_found.sum(), 1), max(keep_truth.sum(), 1)
    return {
        "precision": counted.sum() / n_found,
        "recall": counted.sum() / n_truth,
        "micro_f1": 2 * right / (n_found + n_truth),
        "lowest": float(of_class.mean().min()) if right else 0.0,
        "n": int(keep_truth.sum()),
    }


def table_of(path: Path, pixel_nm: float, kind: str) -> pd.DataFrame:
    """Truth in nm with the column `species`."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return pd.DataFrame(
        {
            "y_nm": [float(r["y_px"]) * pixel_nm for r in rows],
            "x_nm": [float(r["x_px"]) * pixel_nm for r in rows],
            "species": [r[kind] for r in rows],
        }
    )


def analysed(image: nd.Micrograph, crystal: str) -> dict[str, Any]:
    """All steps up to classify, with the seconds they took."""
    start = time.perf_counter()
    model = model_for(crystal)
    maps = nd.predict(image, model) if model else None
    atoms = nd.locate(image, maps=maps)
    lattice = nd.fit_lattice(atoms, crystal)
    sites = nd.assign_sites(atoms, lattice)
    method = "maps" if maps is not None else "intensities"
    defects = nd.classify(image, sites, method=method, maps=maps)
    seconds = time.perf_counter() - start
    return {"atoms": atoms, "sites": sites, "defects": defects, "lattice": lattice, "seconds": seconds, "maps": maps}


def thinned(pixels: np.ndarray, params: dict[str, Any], dose: float, seed: int = 0) -> np.ndarray:
    """Thin the electrons of an image binomially, down to a lower dose."""
    electrons = np.clip((pixels.astype(float) - params["offset"]) / params["gain"], 0, None)
    share = dose / params["dose_e_per_A2"]
    rng = np.random.default_rng([int(dose), seed] if seed else int(dose))
    return rng.binomial(np.rint(electrons).astype(int), share) * params["gain"] + params["offset"]


def measured(data: np.ndarray, pixel: float, crystal: str, folder: Path, name: str) -> dict[str, float]:
    """Precision and recall of atoms and defects in one image."""
    micrograph = nd.Micrograph(data, pixel)
    found = analysed(micrograph, crystal)
    truth = table_of(folder / f"{name}_atoms.csv", pixel, "elements")
    atoms, columns = found["atoms"].assign(species=""), truth[truth["species"] != ""].assign(species="")
    seen = f1(atoms, columns, 0.07, micrograph.extent_nm)
    defects = found["defects"].assign(species=found["defects"]["species"].map(species_label))
    truth = table_of(folder / f"{name}_defects.csv", pixel, "type")
    right = f1(defects, truth, 0.2 if crystal == "graphene" else 0.1, micrograph.extent_nm)
    return {"atoms P": seen["precision"], "atoms R": seen["recall"], **right, "s": found["seconds"]}


def multislice(folder: Path, doses: list[float], only: str, thinnings: int) -> None:
    """Print one line per multislice image, and per dose that it is thinned to: means over the thinnings."""
    import tifffile

    print(
        f"{'image':16}{'dose':>9}{'atoms P':>9}{'atoms R':>9}{'n':>6}{'P':>8}{'R':>8}"
        f"{'micro-F1':>10}{'+-':>8}{'lowest R':>10}{'s':>6}"
    )
    for image in json.loads((folder / "manifest.json").read_text())["images"]:
        name, params = image["name"], image["params"]
        if not name.startswith(only):
            continue
        crystal, pixel = CRYSTALS[name.split("_")[0]], params["pixel_size_nm"]
        pixels = tifffile.imread(folder / image["file"])
        lower = [d for d in doses if d < params["dose_e_per_A2"]] if crystal == "WSe2" and name != "wsete_high" else []
        for dose in (params["dose_e_per_A2"], *lower):
            taken = [pixels] if dose not in lower else [thinned(pixels, params, dose, k) for k in range(thinnings)]
            try:
                results = pd.DataFrame([measured(data, pixel, crystal, folder, name) for data in taken])
            except ValueError as error:
                print(f"{name:16}{dose:9.1e}  {error}")
                continue
            mean, error = results.mean(), results["micro_f1"].sem()
            print(
                f"{name:16}{dose:9.1e}{mean['atoms P']:9.4f}{mean['atoms R']:9.4f}{mean['n']:6.0f}"
                f"{mean['precision']:8.3f}{mean['recall']:8.3f}{mean['micro_f1']:10.4f}{error:8.4f}"
                f"{mean['lowest']:10.3f}{mean['s']:6.1f}",
                flush=True,
            )


def doped(folder: Path) -> None:
    """Print what is found of the labelled columns of Ti-doped WSe2."""
    image = nd.calibrate(nd.read_micrograph(folder / "1028_ADF2_25.dm4"), "WSe2")
    found = analysed(image, "WSe2")
    labels = pd.read_csv(folder / "labels_25.csv")
    labels[["y_nm", "x_nm"]] = labels[["y_px", "x_px"]] * image.pixel_size_nm
    sites = found["sites"].dropna(subset=["y_nm"])

    def inner(table: pd.DataFrame) -> pd.DataFrame:
        at = table[["y_nm", "x_nm"]]
        return table[((at > 1) & (at < image.extent_nm - 1)).all(axis=1)]

    columns, labels = inner(sites[sites["i"].notna()]), inner(labels)
    distance, which = cKDTree(sites[["y_nm", "x_nm"]]).query(labels[["y_nm", "x_nm"]])
    host = labels["label"].replace({"Ti_W": "W", "Se2": "Se", "V_Se": "Se"}).to_numpy()
    near = distance < 0.08
    back = cKDTree(labels[["y_nm", "x_nm"]]).query(columns[["y_nm", "x_nm"]])[0] < 0.08
    right = (sites["sublattice"].to_numpy()[which[near]] == host[near]).mean()
    lattice = found["lattice"]
    print(f"\nwse2_ti: {image.pixel_size_nm:.5f} nm/px, residual {lattice.residual_pm:.1f} pm")
    print(f"  columns recall {near.mean():.4f} precision {back.mean():.4f} (>= 0.98), sublattice {right:.4f} (>= 0.99)")
    truth = labels[labels["label"] == "Ti_W"].assign(species="Ti")
    by_intensity = nd.classify(image, found["sites"], method="intensities")
    for method, defects in (("maps", found["defects"]), ("intensities", by_intensity)):
        on_metal = inner(defects[defects["sublattice"] == "W"]).assign(species="Ti")
        result = f1(on_metal, truth, 0.1, image.extent_nm)
        print(
            f"  Ti_W as anything wrong on a W site, by {method}: recall {result['recall']:.3f} precision"
            f" {result['precision']:.3f} F1 {result['micro_f1']:.3f} (>= 0.90); named"
            f" {defects.loc[defects['sublattice'] == 'W', 'species'].value_counts().to_dict()}"
        )
        darker = inner(defects[defects["species"] == "darker_W"]).assign(species="Ti")
        print(f"    darker_W alone: F1 {f1(darker, truth, 0.1, image.extent_nm)['micro_f1']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared")
    parser.add_argument("--shared", type=Path, default=Path(default))
    parser.add_argument("--low-dose", action="store_true", help="also thin the WSe2 images to 1e4, 6e3, 3e3 e/A^2")
    parser.add_argument("--thinnings", type=int, default=1, help="of each image, to take the mean of")
    parser.add_argument("--only", default="", help="images whose name starts so")
    arguments = parser.parse_args()
    if not (arguments.shared / "checks").is_dir():
        raise SystemExit(f"no images at {arguments.shared}; give their folder with --shared")
    doses = [2e4, 1e4, 6e3, 3e3] if arguments.low_dose else []
    multislice(arguments.shared / "checks" / "multislice", doses, arguments.only, arguments.thinnings)
    if "wse2_ti".startswith(arguments.only):
        doped(arguments.shared / "data" / "wse2_ti")


if __name__ == "__main__":
    main()
