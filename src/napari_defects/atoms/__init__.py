"""Columns of an image: found, fitted together, and given an honest error.

- ``localization``: `locate`, and `candidates` to look through before.
- ``measured``: from the table back to the model: `residual`, `bound`, `line_offsets`.
- ``detection``: where to begin; ``jitter``: scan lines that lie beside where they should.
"""

from napari_defects.atoms.jitter import Jitter as Jitter
from napari_defects.atoms.localization import Candidates as Candidates
from napari_defects.atoms.localization import candidates as candidates
from napari_defects.atoms.localization import column_probability as column_probability
from napari_defects.atoms.localization import locate as locate
from napari_defects.atoms.measured import bound as bound
from napari_defects.atoms.measured import line_offsets as line_offsets
from napari_defects.atoms.measured import residual as residual
