"""Networks that turn an image into class maps: the shipped ones, training and prediction.

Names are bound when they are first used, so that listing the models does not load torch.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
