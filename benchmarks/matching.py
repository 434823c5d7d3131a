"""match(): random settings of microscope, scan and detector, found again from the image alone.

    python benchmarks/matching.py [--images 10] [--contamination 0.5] [--figure docs/images/twins.png]

With `--figure`, the twins of the real images beside them (NAPARI_DEFECTS_SHARED, or ../shared beside the repository):
power spectrum, histogram and local noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import convolve

import napari_defects as nd
from napari_defects.twins import match

LIMITS = {"pixel size %": 0.2, "rotation deg": 0.1, "dose %": 10, "read noise %": 10, "source FWHM nm": 0.01}


def random_settings(contamination: float, seed: int) -> dict[str, float]:
    """Errors of `match` on one image of random settings."""
    rng = np.random.default_rng([7, seed])
    crystal = str(rng.choice(["WSe2", "MoS2", "MoTe2"]))
    pixel, rotation = rng.uniform(0.014, 0.026), rng.uniform(-60, 60)
    dose, source, gain = np.exp(rng.uniform(*np.log([3e4, 5e5]))), rng.uniform(0.05, 0.13), np.exp(rng.uniform(0, 6))
    peak = 0.015 * dose * 100 * pixel**2
    read = rng.uniform(0.5, 1.2) * np.sqrt(0.2 * peak)
    image, _ = nd.simulate(
        crystal, field_of_view_nm=384 * pixel, pixel_size_nm=pixel, dose_e_per_A2=dose,
        defects={f"V_{nd.get_crystal(crystal).sublattices[1].element}": rng.uniform(0, 0.08)},
        microscope=nd.Microscope(source_fwhm_nm=source),
        scan=nd.Scan(
            rotation_deg=rotation, drift_pm_per_line=tuple(rng.uniform(-0.6, 0.6, 2)), jitter_pm=rng.uniform(0, 6)
        ),
        detector=nd.Detector(gain=gain, offset=rng.uniform(-50, 500), read_noise_e=read),
        surface=nd.Surface(contamination=contamination), seed=seed,
    )  # fmt: skip
    stated = pixel * (1 + rng.uniform(-0.05, 0.05))
    twin = match(nd.Micrograph(image.data, stated), crystal)
    turn = (twin.scan.rotation_deg - rotation + 60) % 120 - 60
    return {
        "pixel size %": 100 * (twin.pixel_size_nm / pixel - 1),
        "rotation deg": turn,
        "dose %": 100 * (twin.dose_e_per_A2 / dose - 1),
        "read noise %": 100 * (twin.detector.read_noise_e / read - 1),
        "source FWHM nm": twin.microscope.source_fwhm_nm - source,
    }


def settings_found_again(images: int, contamination: float) -> None:
    """Print median and largest error of each quantity."""
    errors = [random_settings(contamination, k) for k in range(images)]
    print(f"{images} images of 384 x 384, contamination {contamination:g}")
    for name, limit in LIMITS.items():
        size = np.abs([e[name] for e in errors])
        print(f"  {name:15s} median {np.median(size):7.4f}  largest {size.max():7.4f}  "
              f"{(size <= limit).sum()} of {images} within {limit:g}", flush=True)  # fmt: skip


def local_noise(image: np.ndarray) -> np.ndarray:
    """Return the standard deviation of what a smooth image cannot have, around each pixel."""
    kernel = np.outer([1, -2, 1], [1, -2, 1]) / 6
    return np.sqrt(convolve(convolve(image, kernel) ** 2, np.full((9, 9), 1 / 81)))


def power(image: np.ndarray) -> np.ndarray:
    """Power averaged over rings of spatial frequency."""
    window = np.multiply.outer(*map(np.hanning, image.shape))
    total = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    ring = (np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")) * 240).astype(int)
    return (np.bincount(ring.ravel(), total.ravel()) / np.maximum(np.bincount(ring.ravel()), 1))[1:120]


def figure(path: Path) -> None:
    """Real images, their twins, and both together."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from realism import SHARED, images

    if not (SHARED / "data").is_dir():
        print(f"no real images at {SHARED}: no figure")
        return
    rows = images()
    picture, axes = plt.subplots(len(rows), 5, figsize=(15, 3.1 * len(rows)), squeeze=False)
    for (name, micrograph, crystal, microscope, defects), row in zip(rows, axes, strict=True):
        twin = match(micrograph, crystal, microscope=microscope)
        real, made = micrograph.frame().astype(float), twin.simulate(defects=defects, seed=1)[0].frame().astype(float)
        limits = np.percentile(real, [0.5, 99.8])
        for axis, image, title in zip(row, (real, made), (name, "twin"), strict=False):
            axis.imshow(image[:200, :200], cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set(title=title, xticks=[], yticks=[])
        bins, noise = np.linspace(*np.percentile(real, [0.05, 99.95]), 80), [local_noise(i) for i in (real, made)]
        widths = np.linspace(*np.percentile(noise[0], [0.1, 99.9]), 60)
        for image, local, label in zip((real, made), noise, ("image", "twin"), strict=True):
            row[2].semilogy(np.arange(1, 120) / 240 / twin.pixel_size_nm, power(image), label=label)
            row[3].hist(image.ravel(), bins, histtype="step", density=True)
            row[4].hist(local.ravel(), widths, histtype="step", density=True)
        row[2].set(title="power spectrum", xlabel="1/nm")
        row[2].legend(frameon=False)
        row[3].set(title="histogram", xlabel="image units", yticks=[])
        row[4].set(title="local noise", xlabel="image units", yticks=[])
        print(f"{name}: {twin.pixel_size_nm:.5f} nm/px, source {twin.microscope.source_fwhm_nm:.3f} nm, "
              f"{twin.dose_e_per_A2:.3g} e/A2, read noise {twin.detector.read_noise_e:.2f} e")  # fmt: skip
    picture.tight_layout()
    picture.savefig(path, dpi=60)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--contamination", type=float, default=0.0)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.images:
        settings_found_again(options.images, options.contamination)
    if options.figure:
        figure(options.figure)
