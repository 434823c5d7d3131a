"""Class averages: all defects of one kind on top of each other, until a vacancy is seen to pull on its crystal.

- ``averaging``: `average`; ``classes``: its result.
- ``gathering``, ``members``, ``clusters``, ``screening``: who belongs to a class, and the crystal's own frame there.
- ``stacks``, ``registration``, ``kernels``: members fitted to their iterated average, screened, summed.
- ``measurement``, ``coordinates``: where the columns of an average are, and how precisely.
- ``overlaps``, ``surroundings``: what neighbouring defects add, taken off.
- ``files``: written and read.
- ``superposition``: clusters against sums of single defects.
"""

from .averaging import average as average
from .classes import ClassAverage as ClassAverage
from .clusters import find_clusters as find_clusters
from .superposition import Superposition as Superposition
from .superposition import superpose as superpose
