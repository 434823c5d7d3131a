"""Bonds and movies measured: real and multislice graphene, simulated movies with known switches.

python benchmarks/bonds.py [stills walk multislice vacancies movies turns speed] [--pictures FOLDER]

`stills`, `walk` and `multislice` need the folder of shared images (NAPARI_DEFECTS_SHARED or
../shared beside the repository) and are left out where it is absent. `--pictures` draws
every frame whose class is not that of its file, and all of them side by side (disagreements.png).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numpy as np
import pandas as pd

import napari_defects as nd
from napari_defects.bonds import angle_table, assign_elements, bond_graph, bond_rules, bond_table, find_defects
from napari_defects.bonds.neighborhoods import resolve
from napari_defects.micrograph import Micrograph
from napari_defects.simulation import Motion
from napari_defects.tracks import track, transitions

SHARED = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
SILICON = SHARED / "data" / "graphene_si"


def load(name: str) -> Micrograph:
    """Read a frame; calibrated by its lattice or, where none is found, by its header, a few percent off."""
    entries = {e["file"]: e for e in json.loads((SILICON / "metadata.json").read_text())}
    micrograph = nd.read_micrograph(SILICON / f"{name}.tif")
    stated = float(entries[f"{name}.tif"]["attrs"]["scan size"]) / 1e3 / micrograph.shape_yx[1]
    micrograph = micrograph.with_pixel_size(stated)
    try:
        return nd.calibrate(micrograph, "graphene")
    except ValueError:
        return micrograph


def chemistry(micrograph: Micrograph):
    atoms = resolve(micrograph, assign_elements(nd.locate(micrograph), bond_rules("graphene")))
    graph = bond_graph(atoms)
    return atoms, graph, find_defects(graph, micrograph=micrograph, min_probability=0)


def silicon(name: str, micrograph: Micrograph) -> np.ndarray:
    table = pd.read_csv(SILICON / f"{name}_atoms.csv")
    return table[table["element"] == "Si"][["y_px", "x_px"]].to_numpy() * micrograph.pixel_size_yx_nm


def stills(pictures: Path | None) -> None:
    print("== real frames of silicon in graphene")
    names = sorted(p.stem for p in SILICON.glob("Si*.tif"))
    found, right, offsets, wrong, lengths, angles = 0, 0, [], [], [], []
    for name in names:
        micrograph = load(name)
        atoms, graph, defects = chemistry(micrograph)
        places = silicon(name, micrograph)
        mine = atoms[atoms["element"] == "Si"][["y_nm", "x_nm"]].to_numpy()
        away = np.linalg.norm(places[:, None] - mine, axis=-1).min(1) if len(mine) else np.full(len(places), np.inf)
        offsets += away.tolist()
        found += int((away < 0.1).all())
        near = np.linalg.norm(defects[["y_nm", "x_nm"]].to_numpy()[:, None] - places, axis=-1).min(1) < 0.25
        species = defects[near & defects["species"].str.startswith("Si")]["species"].tolist()
        if name.split("_")[0] in species:
            right += 1
            lengths.append(bond_table(graph).query("bond == 'C-Si'").assign(species=name.split("_")[0]))
            angles.append(angle_table(graph).assign(species=name.split("_")[0]))
        else:
            wrong.append((name, species, micrograph, atoms, graph))
    print(f"frames {len(names)}: defect found {found / len(names):.1%}, class of the file {right / len(names):.1%}")
    print(f"foreign atoms to the file's: median {1e3 * np.median(offsets):.1f} pm of {len(offsets)}")
    print("other class:", "; ".join(f"{n}: {', '.join(s) or 'none'}" for n, s, *_ in wrong))
    if pictures is not None and wrong:
        draw(pictures, wrong)
    bonds, turns = pd.concat(lengths), pd.concat(angles)
    for species, text in (("Si1C3", "159.6 +- 14.7 of the collection, 150 seed"), ("Si1C4", "188.7 +- 8.7, 172 seed")):
        one, two = bonds[bonds["species"] == species]["length_pm"], turns[turns["species"] == species]["angle_deg"]
        error = bonds[bonds["species"] == species]["length_err_pm"].median()
        print(f"{species}: Si-C {one.mean():.1f} +- {one.std():.1f} pm (n {len(one)}, error {error:.1f}; {text}), "
              f"angle {two.mean():.1f} +- {two.std():.1f} deg")  # fmt: skip


def draw(folder: Path, wrong: list[tuple]) -> None:
    """Draw every frame of another class than its file's: bonds as found, the file's silicon circled."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, panels = plt.subplots(1, len(wrong), figsize=(3.4 * len(wrong), 3.7), squeeze=False)
    for axes, (name, species, micrograph, atoms, graph) in zip(panels[0], wrong, strict=True):
        height, width = micrograph.extent_nm
        axes.imshow(micrograph.frame(), cmap="gray", extent=(0, width, height, 0))
        for bond in bond_table(graph).itertuples():
            color = "gold" if "Si" in bond.bond else "deepskyblue"
            axes.plot([bond.x0_nm, bond.x1_nm], [bond.y0_nm, bond.y1_nm], color=color, lw=1)
        axes.scatter(atoms["x_nm"], atoms["y_nm"], s=12, c=np.where(atoms["element"] == "Si", "red", "deepskyblue"))
        axes.plot(*silicon(name, micrograph)[:, ::-1].T, "o", mfc="none", mec="lime", ms=14)
        y, x = silicon(name, micrograph).mean(0)
        axes.set(xlim=(x - 0.7, x + 0.7), ylim=(y + 0.7, y - 0.7), xticks=[], yticks=[])
        axes.set_title(f"{name}\nfound: {', '.join(species) or 'none'}", fontsize=10)
    figure.tight_layout()
    figure.savefig(folder / "disagreements.png", dpi=90, bbox_inches="tight")
    plt.close(figure)


def movie() -> tuple[Micrograph, list[int]]:
    """Stack the frames of the walking silicon that there are, and tell their numbers."""
    numbers = sorted(int(m[1]) for p in SILICON.glob("Si1C3_*.tif") if (m := re.match(r"Si1C3_(\d+)$", p.stem)))
    numbers = [n for n in numbers if n <= 52]
    frames = np.stack([nd.read_micrograph(SILICON / f"Si1C3_{n}.tif").frame() for n in numbers])
    return nd.calibrate(Micrograph(frames, 2.0 / 256), "graphene"), numbers


def walk(_: Path | None) -> None:
    print("== the walking silicon")
    micrograph, numbers = movie()
    _, _, defects = chemistry(micrograph)
    defects["frame"] = np.array(numbers)[defects["frame"]]
    tracks = track(defects[defects["species"].str.startswith("Si")])
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    print(f"frames {numbers[0]}-{numbers[-1]} without {missing}: {tracks['track'].nunique()} track(s) over "
          f"{tracks['frame'].nunique()} of {len(numbers)} frames; classes {tracks['species'].value_counts().to_dict()}"
          f"; changes {len(transitions(tracks))}")  # fmt: skip


def multislice(_: Path | None) -> None:
    print("== multislice graphene")
    folder = SHARED / "checks" / "multislice"
    images = {
        m["name"]: m["params"]["pixel_size_nm"] for m in json.loads((folder / "manifest.json").read_text())["images"]
    }
    with tempfile.TemporaryDirectory() as out:
        for name in ("graphene_low", "graphene_mid"):
            pixel = images[name]
            micrograph = nd.read_micrograph(folder / f"{name}.tif", pixel_size_nm=pixel)
            atoms, _, defects = chemistry(micrograph)
            defects = defects[defects["probability"] >= 0.5]
            label = defects["species"].replace({"Si1C3": "Si3", "Si1C4": "Si4"})
            table = pd.DataFrame({"x": defects["x_nm"] / pixel, "y": defects["y_nm"] / pixel, "class": label})
            table.to_csv(Path(out) / f"{name}_defects.csv", index=False)
            (atoms[["x_nm", "y_nm"]] / pixel).set_axis(["x", "y"], axis=1).to_csv(
                Path(out) / f"{name}_atoms.csv", index=False
            )
        subprocess.run([sys.executable, SHARED / "checks" / "score.py", "set", out], check=True)


MICROSCOPE = nd.Microscope(60.0, 31.0, 86.0, 200.0, 0.08)
HEAD = "dose e/A2   Si-C bond err pm   found   class right   true / found within 1 frame   invented   unsure"


def vacancies(_: Path | None) -> None:
    print("== simulated stills of 4 nm with two V1 and two V2 each, and perfect ones; 8 of either at each dose")
    microscope = nd.Microscope(60.0, 31.0, 86.0, 200.0, source_fwhm_nm=0.08)
    print("dose e/A2   V1 found   V2 found   in place of others or invented   in perfect ones")
    for dose in (1.5e5, 2e5, 3e5, 5e5, 1e6, 3e6):
        right, wrong, invented = {"V1": 0, "V2": 0}, 0, 0
        for seed in range(8):
            scan = nd.Scan(rotation_deg=7.0 * seed, drift_pm_per_line=(0.2, 0.3))
            keywords = {"field_of_view_nm": 4.0, "pixel_size_nm": 0.016, "microscope": microscope, "scan": scan}
            four = [("V1", 1.1, 1.1), ("V1", 2.9, 2.8), ("V2", 1.1, 2.9), ("V2", 2.8, 1.2)]
            for at in (four, []):
                image, _sites = nd.simulate("graphene", dose_e_per_A2=dose, at=at, seed=900 + seed, **keywords)
                found, truth = nd.analyze_bonds(image).defects, image.metadata["defects"]
                if not at:
                    invented += len(found)
                    continue
                for species, y, x in truth[["species", "y_nm", "x_nm"]].itertuples(index=False):
                    near = np.hypot(found["y_nm"] - y, found["x_nm"] - x) < 0.2
                    right[species] += bool((found.loc[near, "species"] == species).any())
                    found = found[~(near & (found["species"] == species))]
                wrong += len(found)
        print(f"{dose:9.1e} {right['V1']:6} of 16 {right['V2']:6} of 16 {wrong:18} {invented:28}", flush=True)


def followed(kind: str, dose: float, frames: int, motion: dict, seed: int):
    """Simulate a movie of one defect in the middle, and follow it."""
    micrograph, _ = nd.simulate(
        "graphene", field_of_view_nm=2.8, pixel_size_nm=0.0125, at=[(kind, 1.4, 1.4)], microscope=MICROSCOPE,
        dose_e_per_A2=dose, frames=frames, motion=motion, seed=seed,
    )  # fmt: skip
    truth = micrograph.metadata["defects"].set_index("frame")
    results = nd.analyze_bonds(micrograph)
    bonds = bond_table(results.graph)
    return truth, results, float(bonds.loc[bonds["bond"] == "C-Si", "length_err_pm"].median())


def movies(_: Path | None) -> None:
    print("== simulated movies: hops, and switches between three and four bonds")
    motion = {"Si1C3": Motion(hop=0.1, switch=0.12, becomes="Si1C4"), "Si1C4": Motion(switch=0.12, becomes="Si1C3")}
    print(HEAD)
    for dose in (2e6, 5e5, 1e5, 5e4, 3e4):
        truth, results, error = followed("Si1C3", dose, 30, motion, 0)
        truth = truth[((truth[["y_nm", "x_nm"]] - 1.4).abs() < 1.1).all(axis=1)]  # with its neighbours in view
        tracks = results.tracks[results.tracks["species"].str.startswith("Si")]
        best = tracks.sort_values("probability").groupby("frame").tail(1).set_index("frame").sort_index()
        both = truth.index.intersection(best.index)
        right = (truth.loc[both, "species"] == best.loc[both, "species"]).mean()
        report(dose, error, len(both) / len(truth), right, switches(truth["species"]),
               transitions(tracks)["frame"].tolist(), int(best["unsure"].sum()))  # fmt: skip


def turns(_: Path | None) -> None:
    print("== simulated movies: a rotor of three silicon atoms that turns by 60 degrees")
    known = [4, 5, 9, 16, 17, 22]
    print(HEAD + "   angle err deg")
    for dose in (1e6, 2e5, 1e5, 7e4, 5e4, 3e4):
        truth, results, error = followed("Si3C6", dose, 26, {"Si3C6": Motion(turn_at=tuple(known))}, 0)
        table = results.tables()["rotors"]
        tracks = results.tracks[results.tracks["species"].str.startswith("Si")]
        right = (tracks["species"] == "Si3C6").sum() / len(truth)
        report(dose, error, tracks["frame"].nunique() / len(truth), right, known,
               table.loc[table["switch"], "frame"].tolist(), int(table["unsure"].sum()),
               f"   {table['angle_err_deg'].median():.2f}")  # fmt: skip


def report(dose, error, seen, right, known, found, unsure, more="") -> None:
    hit = sum(any(abs(k - f) <= 1 for f in found) for k in known)
    invented = sum(all(abs(k - f) > 1 for k in known) for f in found)
    print(f"{dose:9.0e}   {error:16.1f}   {seen:5.2f}   {right:11.2f}   {len(known):11d} / {hit:<14d}   "
          f"{invented:8d}   {unsure:6d}{more}", flush=True)  # fmt: skip


def switches(species: pd.Series) -> list[int]:
    return species.index[(species != species.shift()).to_numpy() & (np.arange(len(species)) > 0)].tolist()


def speed(_: Path | None) -> None:
    """Time 72 frames: those of the walking silicon, over again; simulated ones where these are absent."""
    if SILICON.is_dir():
        frames = movie()[0]
        frames = replace(frames, data=np.concatenate([frames.data, frames.data[: 72 - len(frames.data)]]))
    else:
        frames = nd.simulate(
            "graphene", field_of_view_nm=3.2, pixel_size_nm=0.0125, defects={"Si1C3": 1}, dose_e_per_A2=1e6, frames=72
        )[0]
    print(f"== {frames.data.shape} px")
    nd.analyze_bonds(replace(frames, data=frames.data[:2]))
    start, cpu = time.perf_counter(), time.process_time()
    results = nd.analyze_bonds(frames)
    print(f"pixels to trajectories: {time.perf_counter() - start:.1f} s (asked 10), "
          f"{time.process_time() - cpu:.1f} s of CPU on {os.environ['NUMBA_NUM_THREADS']} threads; "
          f"{len(results.defects)} defects, {results.tracks['track'].nunique()} trajectories")  # fmt: skip


def main() -> None:
    parts = {f.__name__: f for f in (stills, walk, multislice, vacancies, movies, turns, speed)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], metavar="part")
    parser.add_argument("--pictures", type=Path, default=None)
    arguments = parser.parse_args()
    for name in arguments.parts or parts:
        if name in ("stills", "walk", "multislice") and not SILICON.is_dir():
            print(f"== {name}: left out, no images at {SHARED}")
        else:
            parts[name](arguments.pictures)


if __name__ == "__main__":
    main()
