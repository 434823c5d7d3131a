"""Intensities of sites, and what they say of their occupants.

- ``columns``: heights of columns, and of places where one should be, by a linear fit of all together.
- ``photometry``: these heights relative to the host around them.
- ``surroundings``: where the lattice ends, and nothing can be said.
- ``verdicts``: one species per site.
"""
