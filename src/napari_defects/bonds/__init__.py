"""From atoms to the chemistry of a defect: elements, bonds, rings, formulas; and out to other programs."""

from .chemistry import assign_elements
from .formulas import classify_bonds, find_defects
from .graphs import angle_table, bond_graph, bond_table, foreign_atoms
from .neighborhoods import resolve
from .rings import clusters, ring_table, rings
from .rules import BondRules, bond_rules
from .structures import to_ase, write_structure

__all__ = [
    "BondRules",
    "angle_table",
    "assign_elements",
    "bond_graph",
    "bond_rules",
    "bond_table",
    "classify_bonds",
    "clusters",
    "find_defects",
    "foreign_atoms",
    "resolve",
    "ring_table",
    "rings",
    "to_ase",
    "write_structure",
]
