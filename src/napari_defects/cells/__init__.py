"""Unit cells of MX2 crystals: found along the lattice or by boxes, cut out, and named by what they lack.

- ``kinds``: the six kinds of cells; ``patches``: their pictures; ``typical``: what they have in common.
- ``detection``: `detect_cells`; ``hexagons``, ``boxes``: the way of 2DIP-Net.
- ``examples``, ``training``, ``box_training``, ``descent``, ``recipes``: networks.
- ``collection``: cells labelled by hand, on disk; ``references``: what each kind looks like; ``sweep``: noise.

Names are bound when they are first used, so that looking at tables does not load torch.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
