"""Intensities of sites, and what they say of their occupants.

- ``photometry``: heights of columns, and of places where one should be, relative to the host around them.
- ``surroundings``: where the lattice ends, and nothing can be said.
- ``verdicts``: one species per site.
"""
