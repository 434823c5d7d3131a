from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from napari_defects import crystals, figures, tables
from napari_defects.deformation import LineProfile
from napari_defects.eshelby import fit_eshelby


def around(strain, yx, radius_nm):
    near = np.hypot(strain["y_nm"] - yx[0], strain["x_nm"] - yx[1]) < radius_nm
    return strain[near]


def drawn(ax, tmp_path):
    path = figures.save(ax.figure, tmp_path / "a.png", dpi=60)
    assert path.stat().st_size > 2000
    return ax


def test_overview_has_circles_in_the_colours_of_the_legend_and_a_scale_bar(results, tmp_path):
    _, ax = figures.new()
    assert drawn(figures.overview(ax, results.micrograph, results.defects), tmp_path) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    counted = results.defects["species"].value_counts()
    assert set(labels) == {f"{crystals.species_label(s)}   {n}" for s, n in counted.items()}
    rings = {to_hex(c.get_edgecolor()[0]): len(c.get_offsets()) for c in ax.collections}
    assert rings[crystals.species_color("V_Se")] == counted["V_Se"]
    assert "1 nm" in [t.get_text() for t in ax.texts]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left, bottom - top) == pytest.approx(tuple(results.micrograph.extent_nm[::-1]))
    assert (left, top) == pytest.approx((-0.0125, -0.0125))


def test_overview_without_defects(results, tmp_path):
    _, ax = figures.new()
    drawn(figures.overview(ax, results.micrograph, tables.empty("defects")), tmp_path)
    assert ax.get_legend() is None


def test_class_average_and_its_displacements(results, tmp_path):
    average = results.averages["V_Se"]
    _, ax = figures.new(80, 80)
    figures.class_average(ax, average, columns=True)
    figures.displacements(ax, average.strain(), magnification=20)
    assert ax.get_title() == f"SV, average of {average.n}, displacements × 20"
    drawn(ax, tmp_path)


def test_strain_map_is_centred_at_zero(results, tmp_path):
    for component in ("dilation", "exy", "rotation_rad", "ux_pm"):
        _, ax = figures.new()
        drawn(figures.strain_map(ax, results.strain, component), tmp_path)
        image = ax.images[0]
        assert image.norm.vmin == -image.norm.vmax
        assert image.cmap(image.norm(0.0))[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)


def test_profiles(results, tmp_path):
    strain = around(results.strain, results.micrograph.extent_nm / 2, 1.5)
    _, ax = figures.new(85, 65)
    drawn(figures.radial_profile(ax, fit_eshelby(strain, results.micrograph.extent_nm / 2)), tmp_path)
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"W", "Se", "elastic inclusion"}
    x = np.linspace(0, 2, 9)
    measured, model = (LineProfile("exx", x, f(x) / 100, np.full(9, 0.001)) for f in (np.sin, np.cos))
    _, ax = figures.new(85, 65)
    drawn(figures.line_profile(ax, measured, elastic=model, DFT=measured), tmp_path)
    assert np.allclose(ax.lines[0].get_ydata(), np.sin(x))
    assert ax.get_ylabel().endswith("(%)")


def test_counts_with_intervals(results, tmp_path):
    _, ax = figures.new()
    drawn(figures.counts(ax, results.counts), tmp_path)
    shown = {text.get_text() for text in ax.texts}
    assert {str(n) for n in results.counts["count"]} <= shown
    assert "nm² seen" in ax.get_xlabel()
    none = results.counts.assign(count=0, density_per_cm2=0.0, density_low_per_cm2=0.0)
    _, ax = figures.new()
    drawn(figures.counts(ax, none), tmp_path)
    _, ax = figures.new()
    drawn(figures.counts(ax, tables.empty("counts")), tmp_path)


def test_precision(results, tmp_path):
    class One:
        precision = pd.DataFrame(
            {
                "n": [2, 4, 8] * 2,
                "sublattice": ["W"] * 3 + ["Se"] * 3,
                "precision_pm": [2, 1.4, 1] * 2,
                "precision_err_pm": [0.3, 0.2, 0.1] * 2,
                "bound_pm": [1.9, 1.3, 0.9] * 2,
            }
        )

    _, ax = figures.new()
    drawn(figures.precision(ax, One()), tmp_path)
    assert ax.get_xscale() == "log"


def test_empty_strain_is_said(results, tmp_path):
    for draw in (figures.strain_map, figures.displacements):
        _, ax = figures.new()
        drawn(draw(ax, tables.empty("strain")), tmp_path)
        assert ax.get_title().startswith("no ")


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_save(tmp_path, suffix):
    figure, ax = figures.new()
    ax.plot([1, 2])
    assert figures.save(figure, tmp_path / f"a.{suffix}").stat().st_size > 1000
    with pytest.raises(OSError, match="cannot be written"):
        figures.save(figure, "/proc/a.png")


def test_pyplot_is_not_touched():
    code = "import sys, napari_defects.figures as f; f.new(); sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
