"""Shipped networks on independent multislice images, thinned to lower doses, and their speed.

    python benchmarks/networks.py [--model NAME_OR_FILE] [--only PREFIX] [--confusion] [--speed]

Every known site gets one verdict: the class with the highest mean probability within 0.05 nm of it.
Needs the folder of multislice images (NAPARI_DEFECTS_SHARED, or ../shared beside the repository).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_defects import Micrograph, load_model, predict
from napari_defects.networks.validation import mean_around

SHARED = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
SPECIES = {
    "SV": "V_Se", "DV": "V2_Se", "SeTe": "Te_Se", "2Te": "Te2_Se", "VW": "V_W", "SeW": "Se_W", "2TeW": "Te2_W",
    "Si3": "Si", "Si4": "Si",
}  # fmt: skip
MODELS = {"WSe2-2xTe2x": "wse2-te", "graphene": "graphene-si"}
DOSES = {"wsete": (8.7e4, 2e4, 1e4, 6e3, 3e3), "graphene": (1e6, 3e5)}


def sites(folder: Path, name: str, pixel_size_nm: float) -> pd.DataFrame:
    """Tell what is where: pristine columns and defects that do not lie at the border."""
    atoms = pd.read_csv(folder / f"{name}_atoms.csv", keep_default_na=False)
    defects = pd.read_csv(folder / f"{name}_defects.csv")
    host = {"M": "W", "X": "Se2", "C": "C"}
    pristine = atoms[(atoms["defect"] == "") & (atoms["elements"] != "Si")]
    table = pd.concat(
        [
            pd.DataFrame({"y": t["y_px"], "x": t["x_px"], "edge": t["edge"], "species": s})
            for t, s in (
                (pristine, pristine["site"].map(host)),
                (defects, defects["type"].map(lambda t: SPECIES.get(t, t))),
            )
        ],
        ignore_index=True,
    )
    return table[table["edge"].astype(int) == 0].assign(
        y_nm=lambda t: t["y"] * pixel_size_nm, x_nm=lambda t: t["x"] * pixel_size_nm
    )


def thinned(image: np.ndarray, params: dict, dose: float, seed: int = 0) -> np.ndarray:
    """Keep each electron with the probability that leaves `dose` e/A^2."""
    electrons = np.clip(np.rint((image.astype(float) - params["offset"]) / params["gain"]), 0, None).astype(int)
    return np.random.default_rng(seed).binomial(electrons, dose / params["dose_e_per_A2"]).astype(np.float32)


def measure(micrograph: Micrograph, table: pd.DataFrame, model: object) -> tuple[pd.DataFrame, float]:
    """Verdicts, and seconds of prediction."""
    began = time.perf_counter()
    maps = predict(micrograph, model)
    seconds = time.perf_counter() - began
    means = mean_around(maps.data, table[["y", "x"]].to_numpy(float), 0.05 / micrograph.pixel_size_yx_nm.mean())
    return table.assign(verdict=np.asarray(maps.classes)[means.argmax(axis=1)]), seconds


def scores(table: pd.DataFrame, hosts: tuple[str, ...]) -> dict[str, float]:
    """Class-aware micro-F1 of the defects, the worst class's recall, and the columns named rightly."""
    actual, said = ~table["species"].isin(hosts), ~table["verdict"].isin(hosts)
    right = (actual & (table["species"] == table["verdict"])).sum()
    recall = (table["species"] == table["verdict"])[actual].groupby(table["species"][actual]).mean()
    return {
        "micro_f1": 2 * right / (actual.sum() + said.sum()),
        "worst_recall": recall.min(),
        "worst": recall.idxmin(),
        "all_right": (table["species"] == table["verdict"]).mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or file; the shipped one of each material when left out")
    parser.add_argument("--only", default="", help="images whose name starts so")
    parser.add_argument("--confusion", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    folder = SHARED / "checks" / "multislice"
    print(f"{'image':14}{'dose':>9}{'micro-F1':>10}{'worst recall':>22}{'all right':>11}{'seconds':>9}")
    for entry in json.loads((folder / "manifest.json").read_text())["images"]:
        name, params = entry["name"], entry["params"]
        if entry["material"] not in MODELS or not name.startswith(options.only):
            continue
        model = load_model(options.model or MODELS[entry["material"]])
        hosts = ("W", "Se2") if model.crystal == "WSe2" else ("C",)
        image = tifffile.imread(folder / f"{name}.tif")
        table = sites(folder, name, params["pixel_size_nm"])
        full = params["dose_e_per_A2"]
        for dose in (full, *(d for d in DOSES[name.split("_")[0]] if d < full)):
            data = image if dose == full else thinned(image, params, dose)
            said, seconds = measure(Micrograph(data, params["pixel_size_nm"]), table, model)
            s = scores(said, hosts)
            print(
                f"{name:14}{dose:9.2g}{s['micro_f1']:10.4f}{s['worst_recall']:14.3f} {s['worst']:7}"
                f"{s['all_right']:11.4f}{seconds:9.2f}"
            )
            if options.confusion:
                print(pd.crosstab(said["species"], said["verdict"]).to_string())
    if options.speed:
        speed(load_model(options.model or "wse2-te"))


def speed(model: object) -> None:
    """Seconds and megapixels per second of prediction, in pixels of the model."""
    rng = np.random.default_rng(0)
    for side in (512, 1024, 2048):
        micrograph = Micrograph(rng.poisson(20, (side, side)).astype(np.float32), model.pixel_size_nm)  # type: ignore[attr-defined]
        predict(micrograph, model)
        began, work = time.perf_counter(), time.process_time()
        predict(micrograph, model)
        seconds, work = time.perf_counter() - began, time.process_time() - work
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{side}²: {seconds:.2f} s, {side**2 / seconds / 1e6:.2f} Mpx/s ({work:.2f} s of CPU), {peak:.2f} GiB")


if __name__ == "__main__":
    main()
