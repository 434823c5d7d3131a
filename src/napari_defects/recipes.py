"""Recipes: the keywords of every step of an analysis, as TOML.

A recipe has one table per step; its keys are that step's keywords, its defaults are theirs::

    [fit_lattice]
    crystal = "WSe2"

    [classify]
    min_probability = 0.7
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from .atoms import locate
from .averages import average
from .checks import check_choice, check_type
from .crystals import get_crystal
from .defects import METHODS, classify, possible_species
from .deformation import strain
from .io import read_micrograph
from .lattice import assign_sites, calibrate, fit_lattice
from .networks import predict
from .statistics import count
from .tracks import track

STEPS: dict[str, Callable[..., Any]] = {
    "read_micrograph": read_micrograph,
    "calibrate": calibrate,
    "predict": predict,
    "locate": locate,
    "fit_lattice": fit_lattice,
    "assign_sites": assign_sites,
    "classify": classify,
    "average": average,
    "strain": strain,
    "track": track,
    "count": count,
}
"""The steps by name, in order."""

_FLOW = {"path", "micrograph", "micrographs", "atoms", "lattice", "sites", "defects", "maps", "drift", "progress"}
_ON_DEMAND = ("calibrate", "track")
_PROVENANCE = ("input", "network", "versions")


@dataclass(frozen=True)
class Recipe:
    """Keywords of every step, beyond their defaults.

    Parameters
    ----------
    steps : mapping
        Step name to its keywords. ``fit_lattice.crystal`` names the crystal, ``predict.model`` the
        network (by default the one shipped for the crystal; ``"none"`` for none), and a table
        ``calibrate`` lets the lattice set the pixel size.

    Raises
    ------
    ValueError
        If a step or a keyword is not known; the nearest one is suggested. If a species cannot be in the crystal.
    """

    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for step, keywords in self.steps.items():
            _known("step", step, [*STEPS, *_PROVENANCE])
            if not isinstance(keywords, Mapping):
                raise ValueError(f"`{step}` must be a table of keywords in a recipe, got {keywords!r}.")
            for keyword in keywords if step in STEPS else ():
                _known(f"{step} keyword", keyword, list(defaults(step)))
                _number(step, keyword, keywords[keyword])
        if (method := self.keywords("classify").get("method")) is not None:
            check_choice("classify.method", method, METHODS)
        if self.crystal is not None and "species" in self.keywords("classify"):
            chosen = self.keywords("classify")
            possible_species(chosen["species"], get_crystal(self.crystal), chosen.get("method") or "maps")

    @classmethod
    def of(cls, crystal: str | None = None, model: str | None = None) -> Recipe:
        """Return the recipe with all defaults for a crystal."""
        given = {"fit_lattice": {"crystal": crystal}, "predict": {"model": model}}
        return cls({s: k for s, k in given.items() if None not in k.values()})

    @classmethod
    def make(cls, recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None) -> Recipe:
        """Return a recipe from its tables or the name of a crystal; a recipe passes through."""
        if isinstance(recipe, str) and recipe.endswith(".toml"):
            raise ValueError(
                f"`recipe` must be a Recipe or a crystal's name, got {recipe!r}; Recipe.read() reads a file."
            )
        if recipe is None or isinstance(recipe, str):
            return cls.of(recipe)
        if isinstance(recipe, Mapping):
            return cls(recipe)
        check_type("recipe", recipe, Recipe, "or its tables, or a crystal's name; Recipe.read() reads a file")
        return recipe

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """Parse a recipe; ValueError where it is not TOML or not a recipe."""
        try:
            return cls(tomlkit.parse(text).unwrap())
        except TOMLKitError as error:
            raise ValueError(f"the recipe is not valid TOML: {error}") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe file."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no recipe {path}.")
        try:
            return cls.from_toml(Path(path).read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{Path(path).name}: {error}") from None

    def to_toml(self) -> str:
        """Write as TOML; what is None is left out, as TOML knows no such thing."""
        document = tomlkit.document()
        for step, keywords in self.steps.items():
            given = {k: list(v) if isinstance(v, tuple) else v for k, v in keywords.items() if v is not None}
            if given:
                document.add(step, tomlkit.item(given))
        return tomlkit.dumps(document)

    def updated(self, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """Return the recipe with the keywords in `changes` that are not None."""
        steps = {step: dict(keywords) for step, keywords in self.steps.items()}
        for step, keywords in changes.items():
            given = {key: value for key, value in keywords.items() if value is not None}
            if given:
                steps[step] = steps.get(step, {}) | given
        return Recipe(steps)

    def keywords(self, step: str) -> dict[str, Any]:
        """Keywords given for a step."""
        return dict(self.steps.get(step, {}))

    def complete(self) -> Recipe:
        """Return the recipe with every default written out; `calibrate` and `track` only where they were asked for.

        How to classify is left open where it was not said: it is decided by whether there is a network.
        """
        steps = {s: defaults(s) | self.keywords(s) for s in STEPS if s not in _ON_DEMAND or s in self.steps}
        if "method" not in self.keywords("classify"):
            del steps["classify"]["method"]
        return Recipe(steps | {p: self.steps[p] for p in _PROVENANCE if p in self.steps})

    @property
    def crystal(self) -> str | None:
        """Name of the crystal, if one is given."""
        name = self.keywords("fit_lattice").get("crystal")
        return None if name is None else get_crystal(name).name


def defaults(step: str) -> dict[str, Any]:
    """Keywords of a step and their defaults, from its signature; None where it has none."""
    hidden = _FLOW | ({"model"} if step == "classify" else set())
    return {
        p.name: None if p.default is p.empty else p.default
        for p in inspect.signature(STEPS[step]).parameters.values()
        if p.name not in hidden
    }


def _number(step: str, keyword: str, value: Any) -> None:
    """Refuse words where only a number will do."""
    kinds = str(inspect.signature(STEPS[step]).parameters[keyword].annotation)
    if isinstance(value, str) and re.search(r"\b(float|int)\b", kinds) and not re.search(r"\b(str|Crystal)\b", kinds):
        raise ValueError(f"`{step}.{keyword}` must be a number, got {value!r}.")


def _known(what: str, name: str, names: list[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}."
        raise ValueError(f"unknown {what} {name!r} in the recipe; {hint}")
