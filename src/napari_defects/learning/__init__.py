"""What a network was not told: found, named, taught; and networks fitted to one's own microscope.

- ``labels``, ``annotations``: what was labelled by hand, as training pairs.
- ``discovery``, ``strangers``, ``mixtures``: columns that fit no class, in groups.
- ``lessons``: a name for a group, taught to a network.
- ``tuning``: a network fitted to the twins of an image.
"""
