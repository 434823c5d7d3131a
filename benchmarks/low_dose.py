"""Where defects are lost at low doses: what the counts allow, beside what each witness and the verdict make of them.

    python benchmarks/low_dose.py [--seeds 4] [--doses 3e3 6e3 1e4 2e4]
    python benchmarks/low_dose.py --multislice [--shared FOLDER]

Simulated WSe2 of 8 nm at three pixel sizes, as many kinds of defects and conditions as `reliability.py` draws, counted
anew at each dose. Class-aware micro-F1, and means over the images with their standard error, of

- verdict: `classify` with maps, all steps; network: its likeliest class at each site;
- normal: heights alone, each class normally distributed with the mean, scatter and share that it has in this image;
- counts: the same if heights had no error but counting (Fisher information with neighbours free, nothing else unknown).

With `--multislice`, "counts" of the WSe2 images of the checks, their own electrons thinned: classes where the image at
full dose has them, a background that is known, and the errors of counting alone. No verdict by height can do better.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from accuracy import analysed, f1, table_of
from reliability import ALIGNED
from scipy import sparse
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.crystals import get_crystal, site_of
from napari_defects.gaussian import Heights
from napari_defects.intensities.photometry import measuring_points, relative_heights
from napari_defects.networks.validation import mean_around
from napari_defects.simulation import Detector, Surface
from napari_defects.simulation.bench import Bench
from napari_defects.simulation.conditions import draw_contrast, draw_microscope, draw_scan
from napari_defects.simulation.truth import Scene, true_defects

AMOUNTS = {"V_Se": 0.06, "V2_Se": 0.03, "Te_Se": 0.12, "Te2_Se": 0.04, "V_W": 0.03, "Se_W": 0.03, "Te2_W": 0.03}
CRYSTAL = get_crystal("WSe2")
HOST = "host"


def scene(seed: int, pixel: float) -> tuple[Scene, np.random.Generator]:
    """Draw a scene at 1 e/A^2, and a generator to count its electrons with."""
    rng = np.random.default_rng([seed, int(1e5 * pixel), 77])
    shape, size = (round(8 / pixel),) * 2, (pixel, pixel)
    amounts = {species: share * rng.uniform(0.5, 1.3) for species, share in AMOUNTS.items()}
    bench = Bench(
        CRYSTAL, shape, size, draw_microscope(ALIGNED, rng), draw_scan(ALIGNED, shape, pixel, rng),
        Surface(contamination=rng.uniform(0, 0.6)), 1.0, draw_contrast(ALIGNED, CRYSTAL, tuple(amounts), rng),
    )  # fmt: skip
    return next(bench.scenes(amounts, rng, disorder_pm=2.0)), rng


def networks_own(micrograph: nd.Micrograph, maps: nd.Maps, sites: pd.DataFrame, at: np.ndarray) -> np.ndarray:
    """Likeliest class of the network at each site, of those that its sublattice can have."""
    seen = mean_around(maps.data, at / micrograph.pixel_size_yx_nm, 0.05 / float(micrograph.pixel_size_yx_nm.mean()))
    said = np.full(len(sites), HOST, object)
    for sublattice in CRYSTAL.sublattices:
        rows = np.flatnonzero(sites["sublattice"] == sublattice.name)
        own = [c for c in maps.classes if site_of(c) == sublattice.element and not c.startswith(("darker", "brighter"))]
        best = seen[np.ix_(rows, [maps.classes.index(c) for c in (sublattice.host, *own)])].argmax(1)
        said[rows] = np.array([HOST, *own], object)[best]
    return said


def normal(relative: np.ndarray, true: np.ndarray, error: dict[str, float] | None = None) -> np.ndarray:
    """Likeliest class by its height, as each class is distributed; with `error` as its scatter where that is given."""
    names = [c for c in np.unique(true.astype(str)) if (true == c).sum() >= 4]
    logs = []
    for name in names:
        own = relative[true == name]
        width = own.std() if error is None else error[name]
        logs.append(np.log((true == name).mean() / width) - 0.5 * ((relative - np.median(own)) / width) ** 2)
    return np.array(names, object)[np.argmax(logs, axis=0)]


def counting_errors(expected: np.ndarray, points: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """1 sigma of heights fitted with the neighbours free, by Fisher's information."""
    yx = np.mgrid[: expected.shape[0], : expected.shape[1]]
    reach = int(5 * sigma.max()) + 1
    rows, columns, values = [], [], []
    for k, (center, width) in enumerate(zip(points, sigma, strict=True)):
        low = np.clip(np.rint(center).astype(int) - reach, 0, None)
        window = tuple(slice(a, a + 2 * reach + 1) for a in low)
        y, x = (axis[window] for axis in yx)
        rows.append((y * expected.shape[1] + x).ravel())
        columns.append(np.full(rows[-1].size, k))
        values.append(np.exp(-0.5 * ((y - center[0]) ** 2 + (x - center[1]) ** 2) / width[0] ** 2).ravel())
    drawn = sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(expected.size, len(points))
    )
    floor = 0.05 * expected.mean()
    information = splu(
        sparse.csc_array(drawn.T @ (drawn.multiply(1 / np.maximum(expected, floor).ravel()[:, None])).tocsr())
    )
    unit = np.eye(len(points))
    return np.sqrt(np.array([information.solve(unit[k])[k] for k in range(len(points))]))


def by_sublattice(
    values: np.ndarray, true: np.ndarray, metal: np.ndarray, errors: np.ndarray | None = None
) -> np.ndarray:
    """Apply `normal` to either sublattice; with `errors` of the sites, each class scatters as its sites do by those."""
    said = np.empty(len(values), object)
    for own in (metal, ~metal):
        each = None if errors is None else {c: float(np.median(errors[own][true[own] == c])) for c in true[own]}
        said[own] = normal(values[own], true[own], each)
    return said


def rows_of(seed: int, pixel: float, doses: list[float]) -> Iterator[dict[str, float]]:
    """Scores of one scene at each dose."""
    made, rng = scene(seed, pixel)
    truth, extent = true_defects(made), np.array(made.expected_e.shape) * pixel
    for dose in doses:
        micrograph = nd.Micrograph(Detector(gain=100.0, read_noise_e=0.1).read(made.expected_e * dose, rng), pixel)
        maps = nd.predict(micrograph, "wse2-te")
        atoms = nd.locate(micrograph, maps=maps)
        sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, CRYSTAL))
        measured = relative_heights(micrograph, sites)
        measured = measured[(measured["sublattice"] != "") & measured["relative_height"].notna()]
        at, relative = measuring_points(measured), measured["relative_height"].to_numpy(float)
        distance, which = cKDTree(truth[["y_nm", "x_nm"]]).query(at)
        true = np.where(distance < 0.1, truth["species"].to_numpy(object)[which], HOST)
        metal = measured["sublattice"].to_numpy(str) == "W"

        def score(said: np.ndarray, at: np.ndarray = at) -> float:
            kept = said != HOST
            table = pd.DataFrame({"y_nm": at[kept, 0], "x_nm": at[kept, 1], "species": said[kept]})
            return f1(table, truth, 0.1, extent)["micro_f1"]

        sigma = np.full((len(at), 2), float(measured["sigma_nm"].median()) / pixel)
        clean = Heights(made.expected_e * dose, at / pixel, sigma[:, 0])(0.1)
        error, center = counting_errors(made.expected_e * dose, at / pixel, sigma), np.zeros(len(at))
        for own in (metal, ~metal):
            host = float(np.median(clean[own & (true == HOST)]))
            clean[own], error[own] = clean[own] / host, error[own] / host
            for name in np.unique(true[own].astype(str)):
                center[own & (true == name)] = np.median(clean[own & (true == name)])
        counted = center + error * np.random.default_rng(seed).normal(size=len(at))
        yield {
            "dose": dose, "pixel": pixel,
            "verdict": f1(nd.classify(micrograph, sites, maps=maps), truth, 0.1, extent)["micro_f1"],
            "network": score(networks_own(micrograph, maps, measured, at)),
            "normal": score(by_sublattice(relative, true, metal)),
            "counts": score(by_sublattice(counted, true, metal, error)),
        }  # fmt: skip


def multislice(folder: Path, doses: list[float], draws: int = 10) -> None:
    """Print what counting allows on each WSe2 image thinned to each dose, mean over several draws."""
    for image in json.loads((folder / "manifest.json").read_text())["images"]:
        name, params = image["name"], image["params"]
        if name not in ("wsete_low", "wsete_mid", "wsete_coarse"):
            continue
        pixel, pixels = params["pixel_size_nm"], tifffile.imread(folder / image["file"]).astype(float)
        micrograph = nd.Micrograph(pixels, pixel)
        sites = relative_heights(micrograph, analysed(micrograph, "WSe2")["sites"])
        sites = sites[(sites["sublattice"] != "") & sites["relative_height"].notna()]
        at, relative = measuring_points(sites), sites["relative_height"].to_numpy(float)
        truth, metal = table_of(folder / f"{name}_defects.csv", pixel, "type"), sites["sublattice"].to_numpy(str) == "W"
        distance, which = cKDTree(truth[["y_nm", "x_nm"]]).query(at)
        true = np.where(distance < 0.1, truth["species"].to_numpy(object)[which], HOST)
        electrons = np.clip((pixels - params["offset"]) / params["gain"], 0, None)
        smooth = gaussian_filter(electrons, 0.015 / pixel)  # what pixels scatter by; heights are those of the image
        sigma = np.full((len(at), 2), float(sites["sigma_nm"].median()) / pixel)
        center = np.ones(len(at))
        for own in (metal, ~metal):
            for species in np.unique(true[own].astype(str)):
                center[own & (true == species)] = np.median(relative[own & (true == species)])
        for dose in sorted(d for d in doses if d <= params["dose_e_per_A2"]):
            share = dose / params["dose_e_per_A2"]
            height = Heights(share * electrons, at / pixel, sigma[:, 0])(0.1)
            error = counting_errors(share * smooth, at / pixel, sigma)
            for own in (metal, ~metal):
                error[own] /= np.median(height[own & (true == HOST)])
            scores = []
            for seed in range(draws):
                drawn = center + error * np.random.default_rng(seed).normal(size=len(at))
                said = by_sublattice(drawn, true, metal, error)
                table = pd.DataFrame({"y_nm": at[:, 0], "x_nm": at[:, 1], "species": said})[said != HOST]
                scores.append(f1(table, truth, 0.1, micrograph.extent_nm)["micro_f1"])
            scatter = [float(np.median(error[own & (true == HOST)])) for own in (metal, ~metal)]
            print(
                f"{name:14}{dose:9.0f}  counts {np.mean(scores):.3f} +- {np.std(scores) / np.sqrt(draws):.3f}"
                f"   error of a height: W {scatter[0]:.3f}, Se2 {scatter[1]:.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared")
    parser.add_argument("--multislice", action="store_true", help="what counting allows on the check images")
    parser.add_argument("--shared", type=Path, default=Path(default))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--doses", type=float, nargs="+", default=[3e3, 6e3, 1e4, 2e4])
    options = parser.parse_args()
    if options.multislice:
        return multislice(options.shared / "checks" / "multislice", options.doses)
    rows = []
    for seed in range(options.seeds):
        for pixel in (0.0125, 0.0135, 0.0207):
            rows += list(rows_of(seed, pixel, options.doses))
            print(pd.DataFrame(rows[-len(options.doses) :]).round(3).to_string(index=False, header=len(rows) < 6))
    table = pd.DataFrame(rows).groupby("dose").agg(["mean", "sem"]).drop(columns="pixel")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
