"""A dopant that no network knows, discovered, named, taught and found: Ti in WSe2, real microscope image.

    python benchmarks/discovery.py [--clusters] [--minutes 5] [--seed 0] [--out FOLDER]

The network at the start knows the lattice, vacancies, and columns darker or brighter than it: wse2-te's weights,
fine-tuned to twins of the image in which foreign atoms have any brightness. The left half of the image is searched; the
darkest cluster of ten or more columns on W is named Ti_W, as an expert would; the network learns it; the right half,
which it has never seen, tells how well. The labels that came with the image (by clustering, no human's truth) are used
to score alone, and never to train. Needs NAPARI_DEFECTS_SHARED, or ../shared beside the repository.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import napari_defects as nd
from napari_defects.evaluation.labelled import truth_of
from napari_defects.evaluation.scoring import match_points
from napari_defects.networks.validation import mean_around

SHARED = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
GENERIC = (
    "background", "W", "Se2", "V_Se", "V2_Se", "V_W", "darker_W", "brighter_W", "darker_Se", "brighter_Se",
)  # fmt: skip
BORDER_NM, RADIUS_NM = 1.0, 0.12


def half(image: nd.Micrograph, side: int) -> nd.Micrograph:
    """Left (0) or right (1) half of an image."""
    width = image.shape_yx[1] // 2
    return nd.Micrograph(image.frame()[:, side * width : (side + 1) * width], image.pixel_size_nm)


def sites_of(image: nd.Micrograph) -> pd.DataFrame:
    """Return the sites of a half, as measured."""
    atoms = nd.locate(image)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    sites.attrs["crystal"] = "WSe2"
    return sites


def labelled(sites: pd.DataFrame, truth: pd.DataFrame, image: nd.Micrograph) -> pd.Series:
    """Label of each site; empty where there is none, or near the border."""
    at = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    known = truth[["y_px", "x_px"]].to_numpy(float) * image.pixel_size_yx_nm
    a, b = match_points(np.nan_to_num(at, nan=-1e3), known, RADIUS_NM)
    label = pd.Series("", index=sites.index)
    label.iloc[a] = truth["species"].to_numpy()[b]
    inner = ((at > BORDER_NM) & (at < image.extent_nm - BORDER_NM)).all(1)
    return label.where(inner, "")


def score(name: str, said: pd.Series, label: pd.Series) -> None:
    """Print recall, precision and F1 of Ti_W at labelled sites."""
    known = label != ""
    true, claimed = (label == "Ti_W") & known, said & known
    right = (true & claimed).sum()
    recall, precision = right / max(true.sum(), 1), right / max(claimed.sum(), 1)
    f1 = 2 * right / max(true.sum() + claimed.sum(), 1)
    print(f"{name:44}{true.sum():5}{claimed.sum():6}{recall:9.3f}{precision:11.3f}{f1:8.3f}", flush=True)


def words(image: nd.Micrograph, sites: pd.DataFrame, model: object) -> pd.Series:
    """Return what a network says at each site: the class with the highest mean probability within 0.05 nm."""
    maps, size = nd.predict(image, model), image.pixel_size_yx_nm
    at = sites[["y_ideal_nm", "x_ideal_nm"]].fillna(0).to_numpy(float) / size
    return pd.Series(np.asarray(maps.classes)[mean_around(maps.data, at, 0.05 / size.mean()).argmax(1)], sites.index)


def verdict(image: nd.Micrograph, sites: pd.DataFrame, model: object, species: set[str]) -> pd.Series:
    """Whether `classify` calls each site one of `species`."""
    found = nd.classify(image, sites, model=model)
    keys = ["i", "j", "sublattice"]
    named = set(found[found["species"].isin(species)][keys].itertuples(index=False, name=None))
    return pd.Series([key in named for key in sites[keys].itertuples(index=False, name=None)], sites.index)


def show(found: nd.Discovery, sites: pd.DataFrame, label: pd.Series) -> None:
    """Print the clusters, and what the labels call their members."""
    for cluster in found.clusters:
        members, places = (
            t[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float) for t in (found.members(cluster.number), sites)
        )
        index = match_points(members, np.nan_to_num(places, nan=-1e3), 0.01)[1]
        counts = label.iloc[index].replace("", "(border)").value_counts().to_dict()
        print(
            f"cluster {cluster.number}: {cluster.n:4} on {cluster.sublattice:3} {cluster.relative_height:6.3f} ±"
            f" {cluster.relative_height_err:.3f} of the host  {cluster.likeness:12} labels {counts}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each of the two trainings")
    parser.add_argument("--steps", type=int, help="of each training at most")
    parser.add_argument("--clusters", action="store_true", help="only what is found without a network, in a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write the models and the gallery")
    options = parser.parse_args()
    folder = SHARED / "data" / "wse2_ti"
    image = nd.calibrate(nd.read_micrograph(folder / "1028_ADF2_25.dm4"), "WSe2")
    truth = truth_of(pd.read_csv(folder / "labels_25.csv"), image, {})
    if options.clusters:
        whole = sites_of(image)
        show(nd.discover(image, whole), whole, labelled(whole, truth, image))
        return
    halves = [half(image, side) for side in (0, 1)]
    shift = halves[0].shape_yx[1]
    parts = [truth[truth["x_px"] < shift], truth[truth["x_px"] >= shift].assign(x_px=lambda t: t["x_px"] - shift)]
    sites = [sites_of(one) for one in halves]
    labels = [labelled(s, t, i) for s, t, i in zip(sites, parts, halves, strict=True)]
    keywords = {"minutes": options.minutes, "steps": options.steps, "seed": options.seed}

    began = time.process_time()
    start = nd.fine_tune(halves[0], "wse2-te", classes=GENERIC, **keywords)
    print(f"start: {start.card['steps']} steps, {time.process_time() - began:.0f} s of CPU; {', '.join(start.classes)}")
    found = nd.discover(halves[0], sites[0], model=start)
    show(found, sites[0], labels[0])
    dark = [c for c in found.clusters if c.likeness == "darker_W" and c.n >= 10 and not c.odd_shape]
    named = min(dark, key=lambda c: c.relative_height)
    began = time.process_time()
    model = nd.learn(halves[0], sites[0], found.named({named.number: "Ti_W"}), start, **keywords)
    print(
        f"learned: {model.card['steps']} steps, {time.process_time() - began:.0f} s of CPU; {model.card['notes'][-1]}"
    )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        start.save(options.out / "start")
        model.save(options.out / "learned")
    print(f"\n{'Ti on W, 1 nm border left out':44}{'true':>5}{'said':>6}{'recall':>9}{'precision':>11}{'F1':>8}")
    members = set(found.members(named.number)[["i", "j"]].itertuples(index=False, name=None))
    on_w = sites[0]["sublattice"] == "W"
    inside = pd.Series([k in members for k in sites[0][["i", "j"]].itertuples(index=False, name=None)], sites[0].index)
    score("left half: the cluster that was named", inside & on_w, labels[0])
    for name, side in (("left half", 0), ("right half, never seen", 1)):
        one, place, label = halves[side], sites[side], labels[side]
        said = words(one, place, start)
        score(f"{name}: start, darker_W in the maps", said == "darker_W", label)
        said = words(one, place, model)
        score(f"{name}: learned, Ti_W in the maps", said == "Ti_W", label)
        score(f"{name}: learned, Ti_W by classify", verdict(one, place, model, {"Ti_W"}), label)
        others = label[(said == "Ti_W") & (label != "") & (label != "Ti_W")].value_counts().to_dict()
        print(f"    labels of the others called Ti_W: {others}")


if __name__ == "__main__":
    main()
