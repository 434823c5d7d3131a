"""Displacement and strain of measured or computed columns.

- ``shifts``: displacements from a reference lattice.
- ``gradients``: strain, with its errors.
- ``profiles``: strain and displacement as images, along lines, by distance from a defect.
"""

from .gradients import cell as cell
from .gradients import strain as strain
from .profiles import LineProfile as LineProfile
from .profiles import line_profile as line_profile
from .profiles import radial_profile as radial_profile
from .profiles import strain_image as strain_image
from .shifts import displacements as displacements
from .theory import structure_strain as structure_strain
