"""Time and memory of `napari-defects analyze` on a 1024 x 1024 image: at most 60 s on two cores, at most 2 GiB.

    python benchmarks/analyze.py [--crystal WSe2] [--model NAME|none] [--side 1024]

Everything counts: starting, reading, all steps, tables and figures.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS, GIB = 60.0, 2.0
PIXEL_SIZE_NM = 0.02
DEFECTS = {"WSe2": {"V_Se": 0.02, "Te_Se": 0.02}, "graphene": {"Si1C3": 6, "V1": 3}, "MoS2": {"V_S": 0.02}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystal", default="WSe2", choices=DEFECTS)
    parser.add_argument("--model", default=None)
    parser.add_argument("--side", type=int, default=1024)
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        image, out = Path(name) / "image.tif", Path(name) / "out"
        program = [sys.executable, "-m", "napari_defects"]
        size = ["--field-of-view-nm", f"{given.side * PIXEL_SIZE_NM}", "--pixel-size-nm", f"{PIXEL_SIZE_NM}"]
        species = [a for item in DEFECTS[given.crystal].items() for a in ("--defect", "{}={}".format(*item))]
        subprocess.run([*program, "simulate", given.crystal, *size, *species, "--seed", "1", "-o", image], check=True)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        options = ["--crystal", given.crystal, *(["--model", given.model] if given.model else [])]
        threads = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
        subprocess.run(
            [*program, "-v", "analyze", image, *options, "-o", out], check=True, env={**os.environ, **threads}
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{'':12}{'measured':>10}{'allowed':>10}")
    print(f"{'wall s':12}{wall:10.1f}{SECONDS:10.1f}")
    print(f"{'cpu s':12}{cpu:10.1f}{2 * SECONDS:10.1f}")
    print(f"{'peak GiB':12}{after.ru_maxrss / 2**20:10.2f}{GIB:10.2f}")


if __name__ == "__main__":
    main()
