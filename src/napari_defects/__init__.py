"""Point defects in atomic-resolution STEM images of 2D materials, from pixels to tables.

Names are listed in ``__init__.pyi`` and bound when they are first used, so that importing the
package costs nothing.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = "0.1.0"
