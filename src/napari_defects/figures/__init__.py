"""Figures: each function draws one on the Axes it is given and returns it.

    figure, ax = new()
    overview(ax, micrograph, defects)
    save(figure, "overview.png")

Neither pyplot nor global settings are touched.
"""

from ._axes import DIVERGING, new, save, scale_bar
from .gallery import clusters
from .lines import jitter_spectrum
from .pictures import class_average, displacements, overview, strain_map, superposition
from .plots import counts, line_profile, precision, radial_profile
from .spatial import pair_correlation, spread_over_images

__all__ = [
    "DIVERGING",
    "class_average",
    "clusters",
    "counts",
    "displacements",
    "jitter_spectrum",
    "line_profile",
    "new",
    "overview",
    "pair_correlation",
    "precision",
    "radial_profile",
    "save",
    "scale_bar",
    "spread_over_images",
    "strain_map",
    "superposition",
]
