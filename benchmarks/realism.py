"""Can a classifier tell simulated from real patches? The nearer its accuracy to 0.5, the better the simulator.

    python benchmarks/realism.py [--figure OUT.png]

Real images against their matched twins, and against plain Gaussians with Poisson noise. Patches of 64 x 64
pixels, normalized; power spectrum, histogram and correlations as features; logistic regression trained on the
upper halves of the images and tested on the lower. Needs the folder of real images (NAPARI_DEFECTS_SHARED, or
../shared beside the repository).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import napari_defects as nd
from napari_defects.twins import Twin, match

SHARED = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
PATCH, STRIDE = 64, 24


def images() -> list[tuple[str, nd.Micrograph, str, nd.Microscope, dict[str, float]]]:
    """Name, image, crystal, microscope and about the defects that are in it."""
    data = SHARED / "data"
    mos2 = nd.Micrograph(np.load(data / "mos2" / "MoS2_stem_Exp-000-2.npy"), 9 / 512)
    wse2 = data / "wse2_ti"
    defects = {"Se_W": 0.019, "Mo_W": 0.027, "V_Se": 0.005}  # as bright as its two groups, 0.32 and 0.53 of W
    return [
        ("WSe2, ADF2", nd.read_micrograph(wse2 / "1028_ADF2_25.dm4"), "WSe2", nd.Microscope(), defects),
        ("WSe2, ADF1", nd.read_micrograph(wse2 / "1028_ADF1_25.dm4"), "WSe2", nd.Microscope(), defects),
        ("MoS2", mos2, "MoS2", nd.Microscope(energy_keV=60), {"V_Mo": 0.01, "V_S": 0.02}),
    ]


def plain(twin: Twin, seed: int) -> np.ndarray:
    """Gaussians on a perfect lattice, Z^1.7, Poisson noise: what is often trained on."""
    scan = nd.Scan(rotation_deg=twin.scan.rotation_deg)
    keywords = twin.keywords() | {"scan": scan, "surface": nd.simulation.Surface()}
    _, sites = nd.simulate(twin.crystal, seed=seed, **keywords, shot_noise=False)
    places = nd.tables.positions_nm(sites) / twin.pixel_size_nm
    numbers = {"W": 74, "Se": 34, "Mo": 42, "S": 16}
    weight = [sum(numbers[e] ** 1.7 for e in elements.split("+")) for elements in sites["elements"]]
    y, x = np.mgrid[: twin.shape[0], : twin.shape[1]]
    image, sigma = np.zeros(twin.shape), 0.05 / twin.pixel_size_nm
    reach = int(4 * sigma) + 1
    for (row, column), w in zip(places, weight, strict=True):
        window = tuple(slice(max(0, int(p) - reach), int(p) + reach + 2) for p in (row, column))
        image[window] += w * np.exp(-((y[window] - row) ** 2 + (x[window] - column) ** 2) / (2 * sigma**2))
    clean = nd.simulate(twin.crystal, seed=seed, **keywords, shot_noise=False)[0].frame()
    electrons = (clean.mean() - twin.detector.offset) / twin.detector.gain
    return np.random.default_rng(seed).poisson(image * electrons / image.mean() + 0.02 * electrons)


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of the patches of an image, and the row at which each begins."""
    window = np.multiply.outer(*(np.hanning(PATCH),) * 2)
    frequency = np.fft.fftfreq(PATCH)
    ring = (np.hypot(frequency[:, None], frequency) * 44).astype(int)
    result, rows = [], []
    for row in range(0, image.shape[0] - PATCH + 1, STRIDE):
        for column in range(0, image.shape[1] - PATCH + 1, STRIDE):
            patch = image[row : row + PATCH, column : column + PATCH].astype(float)
            patch = (patch - patch.mean()) / patch.std()
            power = np.abs(np.fft.fft2(patch * window)) ** 2
            radial = np.log(np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel()))
            lines = [
                np.log(power[12:20].mean(0).reshape(8, 8).mean(1)),
                np.log(power[:, 12:20].mean(1).reshape(8, 8).mean(1)),
            ]
            blocks = patch.reshape(4, 16, 4, 16).mean((1, 3)).std()
            lags = [(patch[:, k:] * patch[:, : PATCH - k]).mean() for k in (1, 2, 3)]
            lags += [(patch[k:] * patch[: PATCH - k]).mean() for k in (1, 2, 3)]
            moments = [(patch**3).mean(), (patch**4).mean(), *np.percentile(patch, [1, 10, 25, 50, 75, 90, 99])]
            result.append(np.concatenate([radial, *lines, [blocks], lags, moments]))
            rows.append(row)
    return np.array(result), np.array(rows)


def accuracy(real: np.ndarray, made: np.ndarray) -> float:
    """Balanced accuracy in the lower half of what was learned in the upper."""
    sets = [features(image) for image in (real, made)]
    middle = real.shape[0] // 2
    train = [f[rows + PATCH <= middle] for f, rows in sets]
    test = [f[rows >= middle] for f, rows in sets]
    mean, spread = np.concatenate(train).mean(0), np.concatenate(train).std(0) + 1e-9
    x = (np.concatenate(train) - mean) / spread
    y = np.repeat([1.0, -1.0], [len(t) for t in train])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = y * (x @ w[:-1] + w[-1])
        share = -y / (1 + np.exp(np.clip(margin, -50, 50)))
        gradient = np.append(x.T @ share / len(y) + 0.02 * w[:-1], share.mean())
        return float(np.logaddexp(0, -margin).mean() + 0.01 * (w[:-1] ** 2).sum()), gradient

    w = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    right = [((t - mean) / spread @ w[:-1] + w[-1]) * sign > 0 for t, sign in zip(test, (1, -1), strict=True)]
    return float(np.mean([r.mean() for r in right]))


def bands(real: np.ndarray, made: np.ndarray, pixel_nm: float) -> str:
    """Median power of the twin over the image's between the peaks, in bands of spatial frequency."""
    power = []
    for image in (real, made):
        window = np.multiply.outer(*map(np.hanning, image.shape))
        power.append(np.abs(np.fft.fft2((image - image.mean()) / image.std() * window)) ** 2)
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, pixel_nm) for n in real.shape), indexing="ij"))
    parts = []
    for low, high in ((0.3, 1), (1, 2), (2, 3), (4, 6), (6, 8), (8, 10), (10, 12)):
        band = (q >= low) & (q < high)
        parts.append(f"{low:g}-{high:g}: {np.median(power[1][band]) / np.median(power[0][band]):.2f}")
    return "  twin / image between peaks, per nm: " + ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="picture of originals and twins")
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        print(f"no real images at {SHARED}: skipped")
        return
    shown = []
    for name, micrograph, crystal, microscope, defects in images():
        twin = match(micrograph, crystal, microscope=microscope)
        real = micrograph.frame()
        made = twin.simulate(defects=defects, seed=1)[0].frame()
        bare = replace(twin, surface=replace(twin.surface, contamination=0.0)).simulate(seed=1)[0].frame()
        row = {"twin": made, "twin, clean and perfect": bare, "plain Gaussians": plain(twin, 1)}
        print(name, ", ".join(f"{k} {accuracy(real, v):.3f}" for k, v in row.items()), flush=True)
        print(bands(real, made, twin.pixel_size_nm))
        shown.append((name, real, made))
    if options.figure:
        figure(shown, options.figure)


def figure(shown: list[tuple[str, np.ndarray, np.ndarray]], path: Path) -> None:
    """Originals, twins, histograms and radial power spectra."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(len(shown), 4, figsize=(13, 3.3 * len(shown)), squeeze=False)
    for (name, *pair), row in zip(shown, axes, strict=True):
        for axis, image, title in zip(row, pair, (name, "twin"), strict=False):
            low, high = np.percentile(image, [0.5, 99.8])
            axis.imshow(image[:220, :220], cmap="gray", vmin=low, vmax=high)
            axis.set(title=title, xticks=[], yticks=[])
        bins = np.linspace(*np.percentile(pair[0], [0.1, 99.9]), 80)
        for image in pair:
            row[2].hist(image.ravel(), bins, histtype="step", density=True)
            power = np.abs(np.fft.fft2((image - image.mean()) * np.multiply.outer(*map(np.hanning, image.shape)))) ** 2
            ring = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")) * 240
            total = np.bincount(ring.astype(int).ravel(), power.ravel()) / np.bincount(ring.astype(int).ravel())
            row[3].semilogy(np.arange(1, 120) / 240, total[1:120])
        row[2].set(title="histogram", yticks=[])
        row[3].set(title="power spectrum", xlabel="1/px")
    picture.tight_layout()
    picture.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
