"""Defects through the frames of a movie: trajectories, what changes along them, hops, rotors."""

from .changes import dwell_times, dwells, transition_matrix, transitions
from .drift import measure_drift
from .hops import find_hops, hop_rates
from .linking import track
from .movies import BondResults, analyze_bonds
from .rotors import rotor, rotors, triangles
from .smoothing import smooth_species

__all__ = [
    "BondResults",
    "analyze_bonds",
    "dwell_times",
    "dwells",
    "find_hops",
    "hop_rates",
    "measure_drift",
    "rotor",
    "rotors",
    "smooth_species",
    "track",
    "transition_matrix",
    "transitions",
    "triangles",
]
