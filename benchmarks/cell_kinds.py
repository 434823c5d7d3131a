"""Unit cells by name: ours beside 2DIP-Net's networks, class maps and intensities, on multislice and real images.

    python benchmarks/cell_kinds.py [multislice] [counted] [faint] [gallery] [--copies 20]

`multislice` and `gallery` need the folder of images (NAPARI_DEFECTS_SHARED, or ../shared beside the repository);
nothing is ever tuned on them. `counted` makes its own: one field of MoTe2 with many vacancies by the multislice engine
(extra `multislice`; five minutes) with aberrations, drift, jitter and contamination, counted anew at low doses and
with much read noise as often as it takes to show 99 %. `faint` looks for the faintest of all, single vacancies of
sulphur at 60 kV.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.cells.detection import detect_cells
from napari_defects.cells.examples import sites_nm, true_cells
from napari_defects.cells.kinds import cells_of, kinds_of, number_of
from napari_defects.networks import list_models, model_for

SHARED = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
Verdicts = tuple[np.ndarray, np.ndarray, np.ndarray]


def multislice_cells(name: str) -> tuple[nd.Micrograph, pd.DataFrame, pd.DataFrame]:
    """Return a multislice image, its measured sites, and what each of their cells truly is."""
    import tifffile

    folder = SHARED / "checks" / "multislice"
    params = next(i for i in json.loads((folder / "manifest.json").read_text())["images"] if i["name"] == name)[
        "params"
    ]
    micrograph = nd.Micrograph(tifffile.imread(folder / f"{name}.tif"), params["pixel_size_nm"])
    atoms = nd.locate(micrograph)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "MoTe2"))
    true = pd.read_csv(folder / f"{name}_defects.csv")
    places = true[["y_px", "x_px"]].to_numpy(float) * params["pixel_size_nm"]
    species = true["type"].map({"VTe": "V_Te", "VTe2": "V2_Te", "VMo": "V_Mo"}).to_numpy(object)
    return micrograph, sites, with_truth(cells_of(sites, nd.MOTE2), places, species, micrograph)


def with_truth(cells: pd.DataFrame, places: np.ndarray, species: np.ndarray, micrograph: nd.Micrograph) -> pd.DataFrame:
    """Cells 0.25 nm from the border with the kind that true defects at `places` make of them."""
    kinds, _ = kinds_at(sites_nm(cells), places, species)
    at = sites_nm(cells)
    inner = ((at > 0.25) & (at < micrograph.extent_nm - 0.25)).all((1, 2))
    return cells.assign(kind=kinds)[inner]


def kinds_at(at: np.ndarray, places: np.ndarray, species: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kinds of cells with sites at `at` that defects at `places` make, and which hold a species that is no vacancy."""
    distance, which = cKDTree(places).query(at.reshape(-1, 2))
    names = np.where(distance < 0.1, species[which], "").reshape(-1, 2)
    chalcogen = np.select([names[:, 1] == "V2_Te", names[:, 1] == "V_Te"], [2, 1], 0)
    strange = ~np.isin(names[:, 0], ["", "V_Mo"]) | ~np.isin(names[:, 1], ["", "V_Te", "V2_Te"])
    return number_of(chalcogen, (names[:, 0] == "V_Mo").astype(int)), strange


def verdicts(cells: pd.DataFrame, truth: pd.DataFrame) -> Verdicts:
    """Kind, and how sure, of each true cell in a table of CELLS; -1 where it was not found."""
    kinds = kinds_of("MoTe2")
    known = cells.assign(said=cells["species"].map({k: n for n, k in enumerate(kinds)})).set_index(["frame", "i", "j"])
    known = known.reindex(truth.index)
    sure = known["probability"].fillna(0.0).to_numpy(float)
    return known["said"].fillna(-1).to_numpy(int), sure, truth["kind"].to_numpy(int)


def by_defects(defects: pd.DataFrame, truth: pd.DataFrame) -> Verdicts:
    """Return the same from a table of DEFECTS: what the methods for sites make of each cell."""
    places, species = defects[["y_nm", "x_nm"]].to_numpy(float), defects["species"].to_numpy(object)
    kinds, strange = kinds_at(sites_nm(truth), places, species)
    said = np.where(strange, -1, kinds)
    return said, np.ones(len(said)), truth["kind"].to_numpy(int)


def said_by_all(
    micrograph: nd.Micrograph, sites: pd.DataFrame, truth: pd.DataFrame, boxed: bool
) -> dict[str, Verdicts]:
    """Verdicts of each way."""
    ways = {}
    for model in (row["name"] for row in list_models("cells") if row["crystal"] == "MoTe2"):
        ways[model] = verdicts(detect_cells(micrograph, model, sites=sites), truth)
        if boxed and model in ("mote2-cells-halves", "mote2-cells-whole"):
            cells = detect_cells(micrograph, model, sites=sites, boxes="mote2-boxes")
            ways[f"{model}, in boxes"] = verdicts(cells, truth)
    fcn = model_for("MoTe2")
    if fcn is not None:
        ways[f"class maps ({fcn})"] = by_defects(nd.classify(micrograph, sites, model=fcn), truth)
    ways["intensities"] = by_defects(nd.classify(micrograph, sites, method="intensities"), truth)
    return ways


def report(title: str, ways: dict[str, Verdicts]) -> None:
    """Print the accuracy of each way, kind by kind, and what it confuses."""
    kinds = kinds_of("MoTe2")
    n = np.bincount(next(iter(ways.values()))[2], minlength=6)
    present = [k for k, c in enumerate(n) if c]
    print(f"\n{title}: {n.sum()} cells; " + ", ".join(f"{kinds[k]} {n[k]}" for k in present))
    print(f"{'way':34}" + "".join(f"{kinds[k]:>13}" for k in present) + f"{'p > 0.9':>10}")
    for way, (said, sure, actual) in ways.items():
        recall = "".join(f"{np.mean(said[actual == k] == k):13.4f}" for k in present)
        print(f"{way:34}{recall}" + (f"{np.mean(sure > 0.9):10.4f}" if sure.min() < 1 else f"{'–':>10}"))
    called = {-1: "not found or another species", **dict(enumerate(kinds))}
    for way, (said, _, actual) in ways.items():
        wrong = said != actual
        pairs = pd.Series(list(zip(actual[wrong], said[wrong], strict=True)), dtype=object).value_counts()
        print(
            f"  {way}: " + ("; ".join(f"{kinds[a]} as {called[s]} {c}" for (a, s), c in pairs.items()) or "all right")
        )


def multislice() -> None:
    """Name the cells of the two multislice images."""
    for name in ("mote2_mid", "mote2_low"):
        micrograph, sites, truth = multislice_cells(name)
        report(name, said_by_all(micrograph, sites, truth, boxed=True))


def own_field(dose: float) -> nd.Micrograph:
    """Return the electrons expected of a multislice field of our own, with what a real image has besides noise."""
    aberrations = nd.Aberrations(
        C10_nm=1.0, C12_nm=0.7, phi12_deg=70, C21_nm=9, phi21_deg=160, C23_nm=6, phi23_deg=20, C30_um=0.5
    )
    field, _ = nd.simulate(
        "MoTe2", field_of_view_nm=4.6, pixel_size_nm=0.0125, engine="multislice", dose_e_per_A2=dose, seed=41,
        defects={"V_Mo": 18, "V_Te": 14, "V2_Te": 8}, frozen_phonons=2,
        microscope=nd.Microscope(80, 27, 70, 278, source_fwhm_nm=0.09, aberrations=aberrations),
        scan=nd.Scan(rotation_deg=17.0, jitter_pm=5.0, drift_pm_per_line=(0.3, -0.2), wander_pm=20.0),
        surface=nd.Surface(contamination=0.4, contamination_scale_nm=3.0),
        detector=nd.Detector(read_noise_e=0), shot_noise=False,
    )  # fmt: skip
    return field


def counted(copies: int, dose: float = 2e4) -> None:
    """Name the cells of a multislice field of our own, counted anew `copies` times at three doses and read noises."""
    field = own_field(dose)
    true, rng = field.metadata["defects"], np.random.default_rng(41)
    places, species = true[["y_nm", "x_nm"]].to_numpy(float), true["species"].to_numpy(object)
    for part, read in ((1.0, 0.5), (1.0, 2.0), (0.5, 0.5), (0.3, 0.5)):
        parts = []
        for _ in range(copies):
            detector = nd.Detector(read_noise_e=read)
            micrograph = nd.Micrograph(detector.read(part * field.frame(), rng), field.pixel_size_nm)
            atoms = nd.locate(micrograph)
            sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "MoTe2"))
            truth = with_truth(cells_of(sites, nd.MOTE2), places, species, micrograph)
            parts.append(said_by_all(micrograph, sites, truth, boxed=False))
        joined = {way: tuple(np.concatenate(v) for v in zip(*(p[way] for p in parts), strict=True)) for way in parts[0]}
        report(f"{copies} counts of one multislice field at {part * dose:.0e} e/A^2, {read} e read noise", joined)


def faint(n: int = 3) -> None:
    """Look for single sulphur vacancies in simulated MoS2 at four doses; false ones are those in perfect cells."""
    crystal, microscope = nd.get_crystal("MoS2"), nd.Microscope(60, 31, 86, 200)
    for dose in (1e4, 2e4, 4e4, 8e4):
        found: dict[str, np.ndarray] = {}
        for seed in range(n):
            micrograph, sites = nd.simulate(
                crystal, field_of_view_nm=8.0, pixel_size_nm=0.015, defects={"V_S": 0.05}, microscope=microscope,
                dose_e_per_A2=dose, scan=nd.Scan(rotation_deg=7.0 + 20 * seed), seed=700 + seed,
            )  # fmt: skip
            truth = true_cells(sites, crystal)
            truth = truth[((sites_nm(truth) > 0.25) & (sites_nm(truth) < 7.75)).all((1, 2))]
            places, kinds = truth[["y_X", "x_X"]].to_numpy(), truth["kind"].to_numpy()
            atoms = nd.locate(micrograph)
            measured = nd.assign_sites(atoms, nd.fit_lattice(atoms, crystal))
            for way in ("cells", "maps", "intensities"):
                table = nd.classify(micrograph, measured, method=way)
                for name, rows in (("V_S", table[table["species"] == "V_S"]), ("any name", table)):
                    near = beside(places, rows)
                    counts = [np.sum(x) for kind in (1, 0) for x in (near & (kinds == kind), kinds == kind)]
                    key = f"{way}, {name}"
                    found[key] = found.get(key, np.zeros(4, int)) + counts
        print(f"\nMoS2 at {dose:.0e} e/A^2: V_S found, and called so in perfect cells")
        for way, (right, all_single, wrong, all_perfect) in found.items():
            print(f"  {way:24}{right:5d} of {all_single}{wrong:6d} of {all_perfect}")


def beside(places: np.ndarray, defects: pd.DataFrame) -> np.ndarray:
    """Say which places have a defect within 0.1 nm."""
    if not len(defects):
        return np.zeros(len(places), bool)
    return np.asarray(cKDTree(defects[["y_nm", "x_nm"]]).query(places)[0] < 0.1)


def gallery(out: Path = Path("runs")) -> None:
    """Draw what each way says of real WSe2 and MoS2, and where they disagree."""
    import matplotlib.pyplot as plt
    from scipy.ndimage import gaussian_filter

    from napari_defects.cells.collection import PX_PER_A, SIDE_PX, crops
    from napari_defects.cells.patches import middle_to_sites

    out.mkdir(exist_ok=True)
    images = {
        "wse2_ti": ("WSe2", nd.calibrate(nd.read_micrograph(SHARED / "data/wse2_ti/1028_ADF2_25.dm4"), "WSe2")),
        "mos2": ("MoS2", nd.Micrograph(np.load(SHARED / "data/mos2/MoS2_stem_Exp-000-2.npy"), 9.0 / 512)),
    }
    for name, (crystal, micrograph) in images.items():
        atoms = nd.locate(micrograph)
        sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, crystal))
        ways: dict[str, pd.Series] = {}
        for model in (row for row in list_models("cells") if row["crystal"] == crystal):
            cells = detect_cells(micrograph, model["name"], sites=sites)
            ways[model["name"]] = cells.set_index(["i", "j"])["species"]
        for method in ("maps", "intensities"):
            if method == "maps" and model_for(crystal) is None:
                continue
            found = nd.classify(micrograph, sites, method=method).dropna(subset=["i"])
            named = found.groupby(["i", "j"])["species"].agg("+".join)
            every = cells_of(sites, nd.get_crystal(crystal)).droplevel("frame").index
            ways[method] = named.reindex(every).fillna("perfect")
        table = pd.DataFrame(ways).dropna()
        print(f"\n{name}: {len(table)} cells")
        for way in ways:
            print(f"  {way}: " + ", ".join(f"{n} {s}" for s, n in table[way].value_counts().head(8).items()))
        differ = table[table.nunique(axis=1) > 1]
        print(f"  not all agree on {len(differ)} cells ({len(differ) / max(len(table), 1):.2%})")
        chosen = differ.sample(min(23, len(differ)), random_state=0)
        if chosen.empty:
            continue
        pictures = crops(micrograph, sites, crystal, np.array(chosen.index.to_list(), int))
        marks = SIDE_PX / 2 - 0.5 + middle_to_sites(nd.get_crystal(crystal)) * PX_PER_A
        figure, axes = plt.subplots(4, 6, figsize=(13, 10.5), constrained_layout=True)
        for axis in axes.flat:
            axis.axis("off")
        titles = ["typical cell\norange: metal\nblue: chalcogen"]
        titles += ["\n".join(f"{way}: {said}" for way, said in row.items()) for _, row in chosen.iterrows()]
        shown = [pictures[0, 1], *(gaussian_filter(picture, 1.5) for picture in pictures[:, 0])]
        for axis, picture, title in zip(axes.flat, shown, titles, strict=False):
            axis.imshow(picture, cmap="gray", vmin=-1.5, vmax=2.5)
            axis.scatter(marks[:, 1], marks[:, 0], s=260, facecolors="none", edgecolors=["tab:orange", "tab:blue"])
            axis.set_title(title, fontsize=7, loc="left")
        figure.suptitle(f"{name}: cells on which the ways disagree ({len(differ)} of {len(table)})")
        figure.savefig(out / f"cells_{name}.png", dpi=110)
        print(f"  {out / f'cells_{name}.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["multislice"], help="multislice, counted, faint, gallery")
    parser.add_argument("--copies", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jobs = {
        "multislice": multislice, "counted": lambda: counted(arguments.copies), "faint": faint, "gallery": gallery
    }  # fmt: skip
    for name in arguments.what:
        jobs[name]()


if __name__ == "__main__":
    main()
