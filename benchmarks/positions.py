"""Positions on multislice and real images, beside the Cramér–Rao bound.

python benchmarks/positions.py [multislice real] [--shared FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import tifffile
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.atoms import Jitter, bound
from napari_defects.gaussian import Columns


def multislice(options: argparse.Namespace) -> None:
    """Print position errors on multislice images, with line jitter taken out and left in, beside the bound."""

    def none(counts: np.ndarray, columns: Columns) -> Jitter:
        return Jitter(np.zeros(len(counts)), 0.0, np.zeros(len(columns.yx)))

    folder = options.shared / "checks" / "multislice"
    print("\nmultislice: rms of the error, y / x in pm (common offset of a sublattice left out), and the bound;")
    print("between copies of the same column, as the field is periodic: what its three frozen phonons and its")
    print("neighbours do to a column is the same in all (last: how many more copies than columns)")
    for name in ("wsete_mid", "wsete_high"):
        image = next(i for i in json.loads((folder / "manifest.json").read_text())["images"] if i["name"] == name)
        pixel = image["params"]["pixel_size_nm"]
        micrograph = nd.Micrograph(tifffile.imread(folder / image["file"]), pixel)
        truth = pd.read_csv(folder / f"{name}_atoms.csv")
        for label, context in (("out", nullcontext()), ("in", patch(f"{nd.locate.__module__}.estimate_jitter", none))):
            with context:
                atoms = nd.locate(micrograph)
            at, true = atoms[["y_nm", "x_nm"]].to_numpy(), truth[["y_px", "x_px"]].to_numpy() * pixel
            distance, near = cKDTree(true).query(at)
            good = (distance < 0.07) & ((at > 0.4) & (at < micrograph.extent_nm - 0.4)).all(axis=1)
            limit = bound(micrograph, atoms)
            for kind in ("W", "Se+Se"):
                own = good & (truth["elements"].to_numpy()[near] == kind)
                if own.any():
                    off = 1e3 * (at - true[near])[own]
                    best = 1e3 * np.sqrt((limit[own] ** 2).mean(axis=0))
                    copies = pd.DataFrame(off).groupby(truth["src_index"].to_numpy()[near][own])
                    free = len(off) - copies.ngroups
                    apart = np.sqrt(((off - copies.transform("mean").to_numpy()) ** 2).sum(axis=0) / free)
                    print(
                        f"  {name:11} jitter {label:3}  {kind:5} {off.std(axis=0).round(2)}"
                        f"  between copies {apart.round(2)}  bound {best.round(2)}"
                        f"  ratios {(off.std(axis=0) / best).round(2)} {(apart / best).round(2)} ({free})"
                    )


def real(options: argparse.Namespace) -> None:
    """Print what is left between atoms and lattice on real images, beside the errors and the bound."""
    print("\nreal images: robust scatter off the lattice per axis (y, x), median stated error, median bound (pm)")
    for name, path, crystal in (
        ("channel 1", "data/wse2_ti/1028_ADF1_25.dm4", "WSe2"),
        ("wse2_ti", "data/wse2_ti/1028_ADF2_25.dm4", "WSe2"),
        ("mos2", "data/mos2/MoS2_stem_Exp-000-2.npy", "MoS2"),
    ):
        file = options.shared / path
        plain = nd.Micrograph(np.load(file)) if file.suffix == ".npy" else nd.read_micrograph(file)
        image = nd.calibrate(plain, crystal)
        atoms = nd.locate(image)
        jitter, tremor = atoms.attrs["line_jitter_pm"][0], atoms.attrs["tremor_pm"][0]
        print(f"  {name:9} line jitter {jitter:.1f} pm, tremor within lines {tremor:.1f} pm")
        if name == "channel 1":
            continue
        sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, crystal))
        limit = bound(image, sites)
        kept = ((sites["sublattice"] != "") & sites["y_nm"].notna() & sites["i"].notna()).to_numpy().copy()
        at = sites[["y_nm", "x_nm"]].to_numpy()
        off, err = (
            1e3 * (at - sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()),
            sites[["y_err_nm", "x_err_nm"]].to_numpy(),
        )
        for one in sites.loc[kept, "sublattice"].unique():
            own = kept & (sites["sublattice"] == one).to_numpy()
            off[own] -= np.median(off[own], axis=0)
            spread = 1.4826 * np.median(np.abs(off[own]), axis=0)
            stated, best = (1e3 * np.nanmedian(k[own], axis=0) for k in (err, limit))
            print(f"  {name:8} {one:3} {spread.round(1)}  {stated.round(1)}  {best.round(1)}")
        kept[kept] &= (np.abs(off[kept]) < 5 * np.std(off[kept], axis=0)).all(axis=1)
        print(f"    variance {off[kept].var(axis=0).round(0)} pm^2; what columns share of it with others at")
        pairs = cKDTree(at[kept]).query_pairs(2.0, output_type="ndarray")
        between = at[kept][pairs[:, 0]] - at[kept][pairs[:, 1]]
        shared, distance = np.prod(off[kept][pairs], axis=1), np.linalg.norm(between, axis=1)
        line = np.abs(between[:, 0]) < 0.05
        for label, which in (
            ("< 0.25 nm", distance < 0.25),
            ("0.7 to 1.2 nm", (distance > 0.7) & (distance < 1.2)),
            ("1.2 to 2 nm", distance > 1.2),
            ("0.7 to 1.2 nm on the same lines", (distance > 0.7) & (distance < 1.2) & line),
            ("1.2 to 2 nm on the same lines", (distance > 1.2) & line),
        ):
            print(f"      {label:32} {shared[which].mean(axis=0).round(0)}")


PARTS = {"multislice": multislice, "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"of {', '.join(PARTS)}")
    default = os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared")
    parser.add_argument("--shared", type=Path, default=Path(default))
    options = parser.parse_args()
    if not (options.shared / "checks").is_dir():
        parser.exit(0, f"no images at {options.shared}; give their folder with --shared\n")
    for part in options.parts or PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
