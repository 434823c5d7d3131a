"""The whole chain on multislice fields of our own: other aberrations, dirt and crystals than the check images have.

    python benchmarks/fields.py [--only NAME ...] [--counts 3]

Needs abTEM (`pip install "napari-defects[multislice]"`), and half an hour of one core to make the fields. Each is
counted several times at each dose, with 1 electron of read noise; micro-F1 is class-aware within 0.1 nm (graphene 0.2),
columns count within 70 pm, 0.25 nm at the border left out; lost are images in which no lattice was found. Lessons were
drawn from these fields (`docs/accuracy.md` says which), so they are not blind any more.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import numpy as np
import pandas as pd
from accuracy import analysed, f1

import napari_defects as nd

DOSES = {"graphene": (3e5, 6e5, 1.2e6, 3e6)}
USUAL = (3e3, 6e3, 1e4, 2e4, 8.7e4)


UNKNOWN = {"WS2": {"Mo_W": "darker_W"}}
"""What no network has a class for, and what it is right to call it."""


def optics(energy: float, angles: tuple[float, float, float], source: float, *aberrations: float) -> nd.Microscope:
    """Return a microscope; aberrations are C10, C12, phi12, C21, phi21, C23, phi23, C30."""
    names = ("C10_nm", "C12_nm", "phi12_deg", "C21_nm", "phi21_deg", "C23_nm", "phi23_deg", "C30_um")
    residual = nd.Aberrations(**dict(zip(names, aberrations, strict=True)))
    return nd.Microscope(energy, *angles, source_fwhm_nm=source, aberrations=residual)


FIELDS: dict[str, dict[str, Any]] = {
    "graphene": {
        "crystal": "graphene", "field_of_view_nm": 5.0, "pixel_size_nm": 0.0115, "seed": 71, "disorder_pm": 2.0,
        "defects": {"Si1C3": 5, "Si1C4": 3, "V1": 4, "V2": 3, "SW": 3},
        "microscope": optics(60, (31, 80, 220), 0.07, 1.5, 1.0, 40, 12, 100, 10, 70, 0.4),
        "scan": nd.Scan(rotation_deg=23.0, jitter_pm=4.0, drift_pm_per_line=(0.2, 0.3), wander_pm=15.0),
        "surface": nd.Surface(contamination=0.4, contamination_scale_nm=2.5),
    },
    "graphene, dirty": {
        "crystal": "graphene", "field_of_view_nm": 6.0, "pixel_size_nm": 0.017, "seed": 75, "disorder_pm": 3.0,
        "defects": {"Si1C3": 6, "Si1C4": 4, "V1": 5, "SW": 4, "V2": 4},
        "microscope": optics(60, (30, 70, 220), 0.09, -2.0, 1.5, -40, 20, 10, 14, 20, 0.6),
        "scan": nd.Scan(rotation_deg=7.0, jitter_pm=6.0, drift_pm_per_line=(0.4, -0.3), wander_pm=25.0),
        "surface": nd.Surface(contamination=0.8, contamination_scale_nm=2.0),
    },
    "WSe2": {
        "crystal": "WSe2", "field_of_view_nm": 6.0, "pixel_size_nm": 0.0155, "seed": 72, "disorder_pm": 2.0,
        "defects": {"V_Se": 14, "V2_Se": 8, "Te_Se": 22, "Te2_Se": 10, "V_W": 8, "Se_W": 8, "Te2_W": 8},
        "microscope": optics(80, (27, 65, 220), 0.09, 1.0, 0.9, 20, 10, 200, 8, -40, -0.4),
        "scan": nd.Scan(rotation_deg=38.0, jitter_pm=6.0, drift_pm_per_line=(-0.4, 0.3), wander_pm=20.0),
        "surface": nd.Surface(contamination=0.5, contamination_scale_nm=3.0),
    },
    "MoTe2": {
        "crystal": "MoTe2", "field_of_view_nm": 5.5, "pixel_size_nm": 0.018, "seed": 81, "disorder_pm": 2.0,
        "defects": {"V_Te": 16, "V2_Te": 8, "V_Mo": 10},
        "microscope": optics(80, (27, 70, 278), 0.085, -1.2, 0.8, 10, 10, 300, 9, 50, 0.4),
        "scan": nd.Scan(rotation_deg=51.0, jitter_pm=6.0, drift_pm_per_line=(-0.4, 0.3), wander_pm=25.0),
        "surface": nd.Surface(contamination=0.7, contamination_scale_nm=2.5),
    },
    "MoS2": {
        "crystal": "MoS2", "field_of_view_nm": 5.5, "pixel_size_nm": 0.0145, "seed": 82, "disorder_pm": 2.0,
        "defects": {"V_S": 18, "V2_S": 8, "V_Mo": 6, "S2_Mo": 4},
        "microscope": optics(60, (30, 60, 200), 0.08, 1.5, 1.0, 60, 12, 30, 9, -20, -0.3),
        "scan": nd.Scan(rotation_deg=12.0, jitter_pm=5.0, drift_pm_per_line=(0.3, 0.3), wander_pm=20.0),
        "surface": nd.Surface(contamination=0.4, contamination_scale_nm=3.5),
    },
    "WS2": {
        "crystal": "WS2", "field_of_view_nm": 8.0, "pixel_size_nm": 0.015, "seed": 908, "disorder_pm": 2.0,
        "defects": {"V_S": 50, "V2_S": 15, "V_W": 10, "Mo_W": 20, "S2_W": 6},
        "microscope": optics(80, (28, 70, 200), 0.085, -1.0, 0.0, 0, 0, 0, 0, 0, 0.0),
        "scan": nd.Scan(rotation_deg=-15.0, jitter_pm=5.0, drift_pm_per_line=(0.3, 0.3), wander_pm=20.0),
        "surface": nd.Surface(contamination=0.4, contamination_scale_nm=4.0),
    },
}  # fmt: skip


def field(name: str, dose: float) -> tuple[nd.Micrograph, pd.DataFrame]:
    """Return the electrons expected of a field, and where all its columns are seen."""
    electrons = nd.Detector(gain=1.0, offset=0.0, read_noise_e=0.0)
    keywords = FIELDS[name] | {"detector": electrons, "shot_noise": False, "dose_e_per_A2": dose}
    return nd.simulate(engine="multislice", frozen_phonons=2, **keywords)


def counted(expected: nd.Micrograph, share: float, seed: int) -> nd.Micrograph:
    """Count the electrons of an image, and read them out."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(np.clip(expected.data.astype(float), 0, None) * share)
    return nd.Micrograph((electrons + rng.normal(0, 1.0, electrons.shape)) * 37 + 210, expected.pixel_size_nm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FIELDS), default=list(FIELDS))
    parser.add_argument("--counts", type=int, default=3, help="how often each field is counted at each dose")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"{'field':18}{'dose':>9}{'atoms P':>9}{'atoms R':>9}{'n':>5}{'P':>8}{'R':>8}{'micro-F1':>10}{'lost':>6}")
    for name in options.only:
        crystal = FIELDS[name]["crystal"]
        doses = DOSES.get(crystal, USUAL)
        expected, sites = field(name, doses[-1])
        truth = expected.metadata["defects"].replace({"species": UNKNOWN.get(name, {})})
        columns = sites.dropna(subset=["y_nm"]).assign(species="")
        for dose in doses:
            rows = []
            for seed in range(options.counts):
                image = counted(expected, dose / doses[-1], seed)
                try:
                    found = analysed(image, crystal)
                except ValueError:  # no lattice
                    continue
                seen = f1(found["atoms"].assign(species=""), columns, 0.07, image.extent_nm)
                right = f1(found["defects"], truth, 0.2 if crystal == "graphene" else 0.1, image.extent_nm)
                rows.append({"atoms P": seen["precision"], "atoms R": seen["recall"], **right})
            if rows:
                mean = pd.DataFrame(rows).mean()
                print(
                    f"{name:18}{dose:9.1e}{mean['atoms P']:9.4f}{mean['atoms R']:9.4f}{mean['n']:5.0f}"
                    f"{mean['precision']:8.3f}{mean['recall']:8.3f}{mean['micro_f1']:10.3f}"
                    f"{options.counts - len(rows):6}",
                    flush=True,
                )
            else:
                print(f"{name:18}{dose:9.1e}  no lattice in {options.counts}", flush=True)


if __name__ == "__main__":
    main()
