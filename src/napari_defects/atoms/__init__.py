"""Columns of an image: found, fitted together, and given an honest error.

- ``localization``: `locate`; ``residuals``: `residual`, what the columns do not explain.
- ``detection``: candidates; ``jitter``: scan lines that lie beside where they should.
"""

from napari_defects.atoms.localization import column_probability as column_probability
from napari_defects.atoms.localization import locate as locate
from napari_defects.atoms.residuals import residual as residual
