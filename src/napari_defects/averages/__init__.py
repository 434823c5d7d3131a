"""Class averages: all defects of one kind on top of each other, until a vacancy is seen to pull on its crystal.

- ``classes``: `average`, its result, half sets and errors.
- ``gathering``, ``members``: who belongs to a class, and the crystal's own frame around each.
- ``stacks``, ``registration``, ``kernels``: members fitted to their iterated average, screened, summed.
- ``coordinates``: where the columns of an average are.
"""

from .classes import ClassAverage as ClassAverage
from .classes import average as average
