"""Make docs/images/overview.png: one simulated image from raw pixels to the strain around a vacancy.

The nearest columns of every Se vacancy are moved inwards by 8 pm, and the field falls off as 1/r.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import napari_defects as nd
from napari_defects.simulation import Relaxation

TARGET = Path(__file__).with_name("images") / "overview.png"


def crop(
    image: nd.Micrograph, defects: pd.DataFrame, *, start_px: int, side_px: int
) -> tuple[nd.Micrograph, pd.DataFrame]:
    """Cut a square out of an image and its table of defects."""
    window = slice(start_px, start_px + side_px)
    start, side = start_px * image.pixel_size_nm, side_px * image.pixel_size_nm
    moved = defects.assign(y_nm=defects["y_nm"] - start, x_nm=defects["x_nm"] - start)
    inside = moved["y_nm"].between(0.1, side - 0.1) & moved["x_nm"].between(0.1, side - 0.1)
    return nd.Micrograph(image.data[window, window], image.pixel_size_nm), moved[inside]


def main() -> None:
    """Simulate, analyse, draw."""
    image, _ = nd.simulate(
        "WSe2",
        field_of_view_nm=20.0,
        pixel_size_nm=0.02,
        defects={"V_Se": 0.03, "V2_Se": 0.004, "Te_Se": 0.03, "Te2_Se": 0.006, "V_W": 0.004, "Se_W": 0.004},
        relaxation={"V_Se": Relaxation(amplitude_pm=-8.0)},
        dose_e_per_A2=1.3e5,
        seed=11,
    )
    results = nd.analyze(image, {"fit_lattice": {"crystal": "WSe2"}, "average": {"symmetrize": True}})
    vacancy = results.averages["V_Se"]
    strain = vacancy.strain()

    figure = Figure(figsize=(12, 3.3), layout="constrained")
    axes = figure.subplots(1, 4)
    part, found = crop(image, results.defects, start_px=300, side_px=280)
    nd.figures.overview(axes[0], part)
    nd.figures.overview(axes[1], part, found)
    nd.figures.displacements(nd.figures.class_average(axes[2], vacancy), strain)
    nd.figures.strain_map(axes[3], strain, "exx")
    for ax, title in zip(axes, ("raw", "classified", None, "strain"), strict=True):
        if title:
            ax.set_title(title, fontsize=9)
    nd.figures.save(figure, TARGET, dpi=130)


if __name__ == "__main__":
    main()
