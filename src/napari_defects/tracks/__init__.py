"""Defects through the frames of a movie: trajectories, what changes along them, rotors."""

from .changes import dwell_times, dwells, transition_matrix, transitions
from .linking import track
from .rotors import rotor

__all__ = ["dwell_times", "dwells", "rotor", "track", "transition_matrix", "transitions"]
