"""The elastic inclusion: its field, its fit to a defect's surroundings, and a test for what it cannot explain.

- ``inclusion``: displacement and strain of a circular inclusion.
- ``fits``: the inclusion that fits a table of displacements best.
- ``oscillation``: a radial wave beyond it.
"""

from .fits import EshelbyFit as EshelbyFit
from .fits import fit_eshelby as fit_eshelby
from .inclusion import Plane as Plane
from .inclusion import displacement as displacement
from .inclusion import strain_tensor as strain_tensor
from .oscillation import Oscillation as Oscillation
from .oscillation import find_oscillation as find_oscillation
