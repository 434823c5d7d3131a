"""Time and memory of `analyze` on a 1024 x 1024 image: at most 60 s on two cores, at most 2 GiB.

python benchmarks/analyze.py [--crystal WSe2] [--model NAME|none]
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

SECONDS, GIB = 60.0, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystal", default="WSe2")
    parser.add_argument("--model", default=None)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()

    import tempfile

    import napari_defects as nd

    site = "Se" if "Se" in arguments.crystal else "C"
    amounts = {f"V_{site}": 0.02, f"Te_{site}": 0.02} if site == "Se" else {"Si1C3": 4}
    pixel_size_nm = 0.02
    micrograph, _ = nd.simulate(
        arguments.crystal,
        field_of_view_nm=arguments.side * pixel_size_nm,
        pixel_size_nm=pixel_size_nm,
        defects=amounts,
        seed=1,
    )
    recipe = nd.Recipe.of(arguments.crystal, arguments.model)
    start, cpu = time.perf_counter(), time.process_time()
    results = nd.analyze(micrograph, recipe)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    with tempfile.TemporaryDirectory() as folder:
        writing = time.perf_counter()
        results.write(folder)
        writing = time.perf_counter() - writing
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{micrograph.data.shape} px, {len(results.atoms)} columns, {len(results.defects)} defects")
    for line in results.log:
        print(f"  {line}")
    print(f"{'':12}{'measured':>10}{'allowed':>10}")
    print(f"{'wall s':12}{seconds + writing:10.1f}{SECONDS:10.1f}")
    print(f"{'cpu s':12}{cpu_seconds:10.1f}{2 * SECONDS:10.1f}")
    print(f"{'write s':12}{writing:10.1f}")
    print(f"{'peak GiB':12}{gib:10.2f}{GIB:10.2f}")


if __name__ == "__main__":
    main()
