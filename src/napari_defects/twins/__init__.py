"""The simulated twin of an image.

``matching`` estimates its conditions, ``views`` draws its columns again, ``leftovers`` reads detector and dirt from
what is left.
"""

from .matching import Twin as Twin
from .matching import match as match
