"""Simulated micrographs with exact truth: specimen, probe, scan, detector, and streams of training pairs."""

from .bench import simulate
from .conditions import Conditions, training_species
from .crystal_files import one_t_prime, read_crystal
from .dataset import training_pairs
from .detector import Detector, Surface
from .motion import Motion
from .placement import alloy
from .presets import PRESETS
from .probe import Aberrations, Microscope
from .scan import Scan
from .specimen import Relaxation

__all__ = [
    "PRESETS",
    "Aberrations",
    "Conditions",
    "Detector",
    "Microscope",
    "Motion",
    "Relaxation",
    "Scan",
    "Surface",
    "alloy",
    "one_t_prime",
    "read_crystal",
    "simulate",
    "training_pairs",
    "training_species",
]
