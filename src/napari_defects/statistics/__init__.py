"""How many defects there are, and how they lie to each other."""

from .counting import PER_CM2, count, poisson_interval, wilson_interval
from .neighbors import clusters, nearest_neighbors
from .order import density_map, short_range_order
from .pairs import pair_correlation, ripley_l
from .pooling import pool, unfold

__all__ = [
    "PER_CM2", "clusters", "count", "density_map", "nearest_neighbors", "pair_correlation", "poisson_interval", "pool",
    "ripley_l", "short_range_order", "unfold", "wilson_interval",
]  # fmt: skip
