"""Simulated micrographs with exact truth: specimen, probe, scan, detector, and streams of training pairs."""

from .conditions import Conditions, training_species
from .crystal_files import one_t_prime, read_crystal
from .dataset import training_pairs
from .detector import Detector, Surface
from .images import simulate
from .motion import Motion
from .placement import alloy
from .presets import PRESETS
from .probe import Aberrations, Microscope
from .relaxation import Displacements, Relaxation, read_relaxation
from .scan import Scan
from .supercells import structure_sites

__all__ = [
    "PRESETS",
    "Aberrations",
    "Conditions",
    "Detector",
    "Displacements",
    "Microscope",
    "Motion",
    "Relaxation",
    "Scan",
    "Surface",
    "alloy",
    "one_t_prime",
    "read_crystal",
    "read_relaxation",
    "simulate",
    "structure_sites",
    "training_pairs",
    "training_species",
]
