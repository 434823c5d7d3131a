"""Which elements bond in a host, how far and how often: a small table, ``data/bond_rules.toml``, to copy and edit."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..crystals import Crystal, get_crystal

VACANCY = "V"


@dataclass(frozen=True)
class BondRules:
    """Which atoms bond in a host crystal.

    Parameters
    ----------
    host : tuple of str
        Elements of the host; every other one is foreign.
    longest_bond_pm : mapping of frozenset of str to float
        Longest bond of a pair of elements, in projection.
    largest_coordination : mapping of str to int
        Most bonds of an element.
    smallest_coordination : mapping of str to int
        Fewest bonds that a foreign element is believed to have without good evidence.
    brightness : mapping of str to (float, float)
        Peak height of a foreign element relative to the host columns around it.
    default_bond_pm, default_coordination
        For pairs and elements not listed.
    """

    host: tuple[str, ...]
    longest_bond_pm: Mapping[frozenset[str], float]
    largest_coordination: Mapping[str, int]
    brightness: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    smallest_coordination: Mapping[str, int] = field(default_factory=dict)
    default_bond_pm: float = 200.0
    default_coordination: int = 3

    @property
    def reach_nm(self) -> float:
        """Distance within which atoms may matter to each other."""
        return max([*self.longest_bond_pm.values(), self.default_bond_pm]) / 1e3 + 0.03

    def limit_pm(self, a: str, b: str) -> float:
        """Longest bond between two elements; 0 for a vacancy, which bonds to nothing."""
        if VACANCY in (a, b):
            return 0.0
        return self.longest_bond_pm.get(frozenset((a, b)), self.default_bond_pm)


def bond_rules(crystal: str | Crystal = "graphene", path: str | Path | None = None) -> BondRules:
    """Read the rules of a host crystal.

    Parameters
    ----------
    crystal : str or Crystal
    path : str or Path, optional
        A TOML file like ``data/bond_rules.toml``; the shipped one by default.

    Raises
    ------
    ValueError
        If the file cannot be read or is not TOML, has no section of the crystal, or a key or value of that is no rule.
    """
    crystal = get_crystal(crystal)
    table = _section(crystal.name, path)
    for key, value in table.items():
        if key not in _RULES:
            raise ValueError(f"`{key}` in [{crystal.name}] is no bond rule; the rules are {', '.join(sorted(_RULES))}.")
        fits, words = _RULES[key]
        if not fits(value):
            raise ValueError(f"`{key}` in [{crystal.name}] of {path} must be {words}, got {value!r}.")
    return BondRules(
        host=tuple(table.get("host", dict.fromkeys(s.element for s in crystal.sublattices))),
        longest_bond_pm={frozenset(k.split("-")): float(v) for k, v in table.get("longest_bond_pm", {}).items()},
        largest_coordination=table.get("largest_coordination", {}),
        smallest_coordination=table.get("smallest_coordination", {}),
        brightness={k: (float(low), float(high)) for k, (low, high) in table.get("brightness", {}).items()},
        default_bond_pm=1300 * crystal.nearest_neighbor_nm,
    )


def _section(name: str, path: str | Path | None) -> dict[str, Any]:
    """Rules of a crystal as they stand in a file; the shipped one need not have any."""
    source = files("napari_defects") / "data" / "bond_rules.toml" if path is None else Path(path)
    try:
        sections = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"`path` must be a file of bond rules, {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ValueError(f"`path` must be a TOML file of bond rules, {path} is not: {error}.") from None
    if path is not None and not isinstance(sections.get(name), dict):
        there = ", ".join(f"[{section}]" for section in sections) or "none"
        raise ValueError(f"{path} must have a section [{name}], it has {there}; rename or add it.")
    return dict(sections.get(name, {}))


def _elements(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _length(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")


def _number(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_length, value)) and value[0] < value[1]


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "host": (_elements, 'elements, as ["C"]'),
    "longest_bond_pm": (_each(_length), "lengths in pm, as { C-Si = 230 }"),
    "largest_coordination": (_each(_number), "numbers of bonds, as { Si = 4 }"),
    "smallest_coordination": (_each(_number), "numbers of bonds, as { Si = 3 }"),
    "brightness": (_each(_range), "the lowest and the highest, as { Si = [1.8, 15.0] }"),
}
