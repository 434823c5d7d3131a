"""Unit cells: how many are found, how honest their probabilities are, how fast; ours beside 2DIP-Net's two networks.

    python benchmarks/cells.py [find] [calibration] [time]

Without a word: the first two. `find` simulates images as 2DIP-Net's (75 x 65 pixels per unit cell of MoTe2) from
seeds that no training has seen. How cells are named: `cell_kinds.py`. Noise: `napari-defects noise-sweep`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou

import napari_defects as nd
from napari_defects.cells.boxes import Found, find_cells
from napari_defects.cells.detection import detect_cells
from napari_defects.cells.examples import simulated, sites_nm, true_cells
from napari_defects.cells.hexagons import boxes_around, unit_cells
from napari_defects.cells.kinds import cells_of, frame_of
from napari_defects.cells.patches import CELL_SIZE
from napari_defects.networks import list_models, load_model, model_for

PIXEL_NM, DOSE = nd.PRESETS["2DIP-Net"]["pixel_size_nm"], nd.PRESETS["2DIP-Net"]["dose_e_per_A2"]
DEFECTS = {"V_Te": 0.04, "V2_Te": 0.02, "V_Mo": 0.02, "V_Te+V_Mo": 0.01, "V2_Te+V_Mo": 0.01}
FIRST_SEED = 900_000


def paper_like(seed: int, angle: float = 0.0, side_nm: float = 4.8) -> tuple[nd.Micrograph, pd.DataFrame]:
    """One image under 2DIP-Net's conditions, and its true sites."""
    rng = np.random.default_rng(seed)
    return nd.simulate(
        "MoTe2", field_of_view_nm=side_nm, pixel_size_nm=PIXEL_NM, defects=DEFECTS,
        microscope=nd.PRESETS["2DIP-Net"]["microscope"], dose_e_per_A2=float(DOSE * np.exp(rng.uniform(-1, 1))),
        scan=nd.Scan(rotation_deg=angle, drift_pm_per_line=(0.02, 0.03), jitter_pm=4.0, wander_pm=10.0), seed=seed,
    )  # fmt: skip


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Best IoU of each true box."""
    if not len(boxes):
        return np.zeros(len(truth))
    return box_iou(*map(torch.from_numpy, (truth, boxes))).amax(1).numpy()


def whole(truth: pd.DataFrame, micrograph: nd.Micrograph) -> pd.DataFrame:
    """Cells whose rectangle lies in the image."""
    middles = sites_nm(truth).mean(1)
    margin = 0.66 * nd.MOTE2.a_nm
    return truth[((middles > margin) & (middles < micrograph.extent_nm - margin)).all(1)]


def numbered_as(lattice: nd.Lattice, sites: pd.DataFrame) -> pd.DataFrame:
    """Give true sites the indices of a fitted lattice, whose a1 may lie along any of three equal directions.

    Where it takes one sublattice for the other, no cell is left.
    """
    i, j, which = lattice.index(sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float))
    names = np.array([s.name for s in lattice.crystal.sublattices], object)
    same = names[which] == sites["sublattice"].to_numpy(object)
    return sites.assign(i=pd.array(i, "Int64"), j=pd.array(j, "Int64"))[same].reset_index(drop=True)


def seen_in(found: Found, truth: pd.DataFrame, px_per_a: float) -> np.ndarray:
    """Boxes of the true cells in the turned image."""
    middles = (sites_nm(truth).mean(1) / found.pixel_nm - found.origin) @ np.linalg.inv(found.matrix)
    return boxes_around(middles, px_per_a * CELL_SIZE)


def find(n: int = 10) -> None:
    """Print how many cells of simulated images are found, and how well they are covered."""
    boxes = load_model("mote2-boxes")
    px_per_a = nd.MOTE2.a_nm / boxes.pixel_size_nm
    alphas, betas = (0.55, 0.60, 0.65, 0.70, 0.75), (0.40, 0.45, 0.50, 0.55, 0.60)
    results: dict[str, list[np.ndarray]] = {"along the lattice": [], "hexagons": [], "unit cells directly": []}
    table = np.zeros((len(alphas), len(betas)))
    for k in range(n):
        micrograph, sites = paper_like(FIRST_SEED + k, angle=33.0 * k)
        atoms = nd.locate(micrograph)
        lattice = nd.fit_lattice(atoms, "MoTe2")
        sites = numbered_as(lattice, sites)
        true_frame = frame_of(cells_of(sites, nd.MOTE2), nd.MOTE2)
        truth = whole(true_cells(sites, nd.MOTE2), micrograph)
        measured = cells_of(nd.assign_sites(atoms, lattice), nd.MOTE2)
        frame = frame_of(measured, nd.MOTE2)
        turn = np.linalg.inv(true_frame)
        own = boxes_around(sites_nm(measured).mean(1) @ turn, nd.MOTE2.a_nm * CELL_SIZE)
        results["along the lattice"].append(
            overlaps(own, boxes_around(sites_nm(truth).mean(1) @ turn, nd.MOTE2.a_nm * CELL_SIZE))
        )
        hexagons = find_cells(micrograph, boxes, nd.MOTE2, frame, alpha=1.0, beta=1.0)
        around, there = hexagons.boxes[: len(hexagons.boxes) // 2], seen_in(hexagons, truth, px_per_a)
        results["hexagons"].append(overlaps(unit_cells(around), there))
        for a, alpha in enumerate(alphas):
            for b, beta in enumerate(betas):
                table[a, b] += overlaps(unit_cells(around, alpha, beta), there).mean() / n
        direct = find_cells(micrograph, boxes, nd.MOTE2, frame, direct=True)
        results["unit cells directly"].append(overlaps(direct.boxes, there))
    total = sum(map(len, results["hexagons"]))
    print(f"{total} unit cells of {n} simulated images, rotations 0 to 330 degrees (2DIP-Net: 1691 cells)")
    print(f"{'way':24}{'IoU > 0.5':>10}{'IoU > 0.7':>10}{'mean IoU':>10}")
    for name, parts in results.items():
        values = np.concatenate(parts)
        print(f"{name:24}{(values > 0.5).mean():10.4f}{(values > 0.7).mean():10.4f}{values.mean():10.4f}")
    print("\nmean IoU of the cells cut from hexagons (rows alpha, columns beta)")
    print(pd.DataFrame(table.round(3), index=alphas, columns=betas).to_string())
    print("\nthe box detector on images that are not turned to the lattice: unit cells with IoU > 0.5")
    for angle in (0, 3, 6, 10, 15, 20, 30, 45, 60):
        micrograph, sites = paper_like(FIRST_SEED + 50, angle=float(angle))
        truth = whole(true_cells(sites, nd.MOTE2), micrograph)
        found = find_cells(micrograph, boxes, nd.MOTE2, np.eye(2))
        value = (overlaps(found.boxes, seen_in(found, truth, px_per_a)) > 0.5).mean()
        print(f"  lattice at {angle:3d} degrees: {value:.3f}, {len(found.boxes) // 2} hexagons")


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Mean distance between how sure a network is of its verdicts and how often they are right."""
    said, sure = probability.argmax(1), probability.max(1)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    right = said == truth
    gaps = [abs(sure[place == k].sum() - right[place == k].sum()) for k in range(bins)]
    return float(sum(gaps) / max(len(truth), 1))


def calibration(n: int = 20) -> None:
    """Print accuracy and honesty of the probabilities on simulated images of unseen seeds, by dose."""
    from napari_defects.cells.detection import calibrated
    from napari_defects.cells.training import logits_of, tempered

    for row in list_models("cells"):
        model = load_model(row["name"])
        crystal = nd.get_crystal(model.crystal)
        px_per_a = crystal.a_nm / model.pixel_size_nm
        test = simulated(crystal, model.network.architecture, px_per_a=px_per_a, n_images=n, seed=FIRST_SEED)
        logits = logits_of(model.network, test.pictures)
        for image in np.unique(test.images):
            logits[test.images == image] = tempered(logits[test.images == image], model.card)
        probability = calibrated(logits, np.array(model.card["shares"]), rounds=1)
        print(f"\n{row['name']}: {len(test.kinds)} simulated cells")
        print(f"{'dose e/A^2':>20}{'accuracy':>10}{'p > 0.9':>10}{'right there':>12}{'calibration error':>19}")
        for low, high in ((3e3, 1e4), (1e4, 5e4), (5e4, 5e5)):
            part = (test.doses >= low) & (test.doses < high)
            p, kinds = probability[part], test.kinds[part]
            right, sure = p.argmax(1) == kinds, p.max(1) > 0.9
            print(f"{low:9.0e} to {high:7.0e}{right.mean():10.4f}{sure.mean():10.4f}{right[sure].mean():12.4f}"
                  f"{calibration_error(p, kinds):19.4f}")  # fmt: skip


def timing() -> None:
    """Print seconds of CPU per 2048 x 2048 image, everything but the common lattice fit."""
    torch.set_num_threads(1)
    micrograph, sites = paper_like(FIRST_SEED + 70, angle=20.0, side_nm=2048 * PIXEL_NM)
    large, many = nd.simulate("MoTe2", field_of_view_nm=2048 * 0.02, pixel_size_nm=0.02, defects=DEFECTS, seed=3)
    fcn = model_for("MoTe2") or "wse2-te"
    for title, image, table in (("4.7 pm/px", micrograph, sites), ("20 pm/px", large, many)):
        table.attrs["crystal"] = "MoTe2"
        print(f"\n2048 x 2048 at {title}, {len(cells_of(table, nd.MOTE2))} cells: CPU seconds on one thread")
        runs: dict[str, Any] = {f"class maps ({fcn})": lambda image=image: nd.predict(image, fcn)}
        for model in list_models("cells"):
            if model["crystal"] == "MoTe2":
                runs[model["name"]] = lambda image=image, table=table, model=model: detect_cells(
                    image, model["name"], sites=table
                )
        if image is micrograph:  # at 20 pm/px it takes a hundred tiles
            runs["boxes + mote2-cells-halves"] = lambda image=image, table=table: detect_cells(
                image, "mote2-cells-halves", sites=table, boxes="mote2-boxes"
            )
        for name, run in runs.items():
            start = time.process_time()
            run()
            print(f"  {name:32}{time.process_time() - start:8.2f}")


JOBS = {"find": find, "calibration": calibration, "time": timing}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in sys.argv[1:] or ("find", "calibration"):
        JOBS[job]()
