"""The lattice beneath the atoms: two vectors, an origin, and the smooth distortion of the scan.

- ``model``: `Lattice`; ``fitting``: from atoms; ``sites``: atoms on its sites; ``calibration``: the pixel size.
- ``grains``: more than one lattice; ``intensities``: sublattices compared.
- ``indexing``, ``occupancy``, ``distortion``: kernels beneath them.
- ``reciprocal``, ``phasing``: from the image alone, without atoms.
"""

from napari_defects.lattice.calibration import calibrate as calibrate
from napari_defects.lattice.fitting import fit_lattice as fit_lattice
from napari_defects.lattice.grains import fit_grains as fit_grains
from napari_defects.lattice.intensities import sublattice_intensities as sublattice_intensities
from napari_defects.lattice.model import Lattice as Lattice
from napari_defects.lattice.sites import assign_sites as assign_sites
