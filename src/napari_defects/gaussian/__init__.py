"""Joint maximum-likelihood fit of overlapping columns, its covariance and the bound it can reach.

Model of a pixel: background + sum over columns of A f((r - r_k) / sigma), f a Gaussian or a measured profile, counts
Poisson. Everything here is in pixels and counts (variance = mean); the background is bilinear between the nodes of a
coarse grid.

- ``columns``: `Columns`, what is fitted; ``neighbors``: which overlap; ``pixels``: their likelihood given counts.
- ``windows``, ``kernels``, ``solvers``, ``threads``: compiled loops over pixels and over columns, on all cores.
- ``device``, ``tensors``: pixels and equations by torch, on a GPU where there is one; loaded when asked for.
- ``equations``, ``shared``: Fisher information of an image, and its solution; ``fits``: the fit.
- ``heights``: the same at known places, where only heights are asked for.
- ``bounds``: errors, goodness of fit, Cramér–Rao bound; ``shapes``: the profile, measured.
- ``blur``: wide averages.
"""

from napari_defects.gaussian.blur import wide_mean as wide_mean
from napari_defects.gaussian.bounds import column_misfit as column_misfit
from napari_defects.gaussian.bounds import covariance as covariance
from napari_defects.gaussian.bounds import cramer_rao as cramer_rao
from napari_defects.gaussian.bounds import local_excess as local_excess
from napari_defects.gaussian.columns import Columns as Columns
from napari_defects.gaussian.columns import Profile as Profile
from napari_defects.gaussian.columns import background_grid as background_grid
from napari_defects.gaussian.columns import hat as hat
from napari_defects.gaussian.fits import fit_columns as fit_columns
from napari_defects.gaussian.heights import Heights as Heights
from napari_defects.gaussian.pixels import Pixels as Pixels
from napari_defects.gaussian.shapes import measure_ellipse as measure_ellipse
from napari_defects.gaussian.shapes import measure_profile as measure_profile
from napari_defects.gaussian.threads import in_turn as in_turn
