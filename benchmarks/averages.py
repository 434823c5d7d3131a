"""Registration against its bound and against peers; and the time of a class average.

python benchmarks/averages.py [--patches 200] [--members 1000]

pystackreg is not a dependency of this package: it is measured where it is installed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from skimage.registration import phase_cross_correlation

import napari_defects as nd
from napari_defects.averages.registration import Patches, make_template

SIDE, STEP_NM, A_NM, SIGMA_NM = 128, 0.0156, 0.329, 0.065


def patch(shift_nm: np.ndarray, peak: float, side: int = SIDE) -> np.ndarray:
    """Return a vacancy in a WSe2-like lattice: W at 1, Se2 at 0.6, the vacancy at 0.3, background at 0.1 of `peak`."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * STEP_NM
    image = np.full((side, side), 0.1)
    for i in range(-9, 10):
        for j in range(-9, 10):
            for fraction, height in ((0.0, 0.6), (1 / 3, 1.0)):
                row, column = (j - fraction) * A_NM * 0.75**0.5, (i + fraction - (j - fraction) / 2) * A_NM
                squared = (y - row - shift_nm[0]) ** 2 + (x - column - shift_nm[1]) ** 2
                image += (0.3 if i == j == fraction == 0 else height) * np.exp(-squared / 2 / SIGMA_NM**2)
    return peak * image


def registration(count: int) -> None:
    print(f"{'peak':>6}{'bound pm':>10}  {'method':28}{'rms / bound':>12}{'patches per CPU s':>20}")
    for peak in (5.0, 50.0, 1000.0):
        rng = np.random.default_rng(0)
        shifts = rng.uniform(-0.5, 0.5, (8, 2)) * STEP_NM
        clean = [patch(s, peak) for s in shifts]
        images = [rng.poisson(clean[k % 8]).astype(np.float32) for k in range(count)]
        truth = np.array([shifts[k % 8] for k in range(count)]) / STEP_NM
        reference = patch(np.zeros(2), peak)
        bound = np.sqrt([1 / (slope**2 / reference).sum() for slope in np.gradient(reference)])
        template = make_template(patch(np.zeros(2), peak, SIDE + 1), 0.0, (0.0, 1.0))

        def ours(image: np.ndarray, template=template) -> np.ndarray:
            pose = np.array([[0.0, 0, 1, 0, 0]])
            one = Patches(np.full((1, 2), (SIDE - 1) / 2), np.eye(2)[None], [np.zeros((0, 2))], 1.0)
            one.register(image, template, SIDE // 2, pose)
            return pose[0, :2]

        def phase(image: np.ndarray, reference=reference) -> np.ndarray:
            return -phase_cross_correlation(reference, image, upsample_factor=100, normalization=None)[0]

        methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {"napari-defects": ours, "skimage, 1/100 px": phase}
        try:
            from pystackreg import StackReg
        except ImportError:
            print("pystackreg is not installed")
        else:
            stack = StackReg(StackReg.TRANSLATION)
            methods["pystackreg"] = lambda image, r=reference, s=stack: s.register(r, image)[:2, 2][::-1]
        for name, method in methods.items():
            method(images[0])
            start = time.process_time()
            found = np.array([method(image) for image in images])
            seconds = time.process_time() - start
            rms = np.sqrt(np.mean(((found - truth) / bound) ** 2))
            print(f"{peak:6.0f}{1000 * STEP_NM * bound[0]:10.3f}  {name:28}{rms:12.3f}{count / seconds:20.0f}")


def averaging(members: int) -> None:
    side = float(np.ceil(np.sqrt(members / 0.15)))
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=side, pixel_size_nm=STEP_NM, defects={"V_Se": members}, dose_e_per_A2=1.3e5
    )
    defects = micrograph.metadata["defects"]
    nd.average(micrograph, defects[:8], sites=sites)
    start, cpu = time.perf_counter(), time.process_time()
    found = nd.average(micrograph, defects, sites=sites)["V_Se"]
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"\naverage of {found.n} of {members} patches of {SIDE} px: {seconds:.1f} s, {cpu:.1f} CPU s (allowed: 5 s)")
    print(found.precision.to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--members", type=int, default=1000)
    arguments = parser.parse_args()
    registration(arguments.patches)
    if arguments.members:
        averaging(arguments.members)


if __name__ == "__main__":
    main()
