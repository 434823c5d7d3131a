"""Joint maximum-likelihood fit of overlapping columns, its covariance and the bound it can reach.

Model of a pixel: background + sum over columns of A exp(-(u^2 + v^2) / 2 sigma^2), counts Poisson.
Everything here is in pixels and counts (variance = mean); the background is bilinear between the
nodes of a coarse grid.

- ``kernels``: loops over the pixels of a column, compiled.
- ``equations``: score and Fisher information of an image, and their solution.
- ``fits``: the fit, the errors, the bound.
"""

from napari_defects.gaussian.equations import Columns as Columns
from napari_defects.gaussian.equations import hat as hat
from napari_defects.gaussian.fits import column_misfit as column_misfit
from napari_defects.gaussian.fits import cramer_rao as cramer_rao
from napari_defects.gaussian.fits import fit_columns as fit_columns
from napari_defects.gaussian.fits import local_excess as local_excess
