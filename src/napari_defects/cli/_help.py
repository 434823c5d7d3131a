"""Help that lives where the option does: in the docstring and the signature of the step it is passed to."""

from __future__ import annotations

import inspect
import re
from typing import Any

from typer.core import TyperCommand, TyperOption

from ..docstrings import declared, numpydoc

_STEPS = {
    "simulate": "simulation.images.simulate", "train": "networks.recipes.train_recipe",
    "evaluate": "evaluation.evaluating.evaluate", "bonds": "tracks.movies.analyze_bonds",
    "track": "tracks.linking.track", "average-dataset": "batch.averaging.average_dataset",
    "noise-sweep": "cells.sweep.noise_sweep",
}  # fmt: skip
_INSTEAD = {"train": ("--match", "learning.tuning.fine_tune")}
"""Verbs that run another step with an option."""


class Verb(TyperCommand):
    """A verb whose options without words or default of their own have those of the step's keyword of that name."""

    def format_help(self, *args: Any, **kwargs: Any) -> None:
        """Write the help, with the words of the step."""
        if self.name in _STEPS:
            step = declared(_STEPS[self.name])
            words, keywords = numpydoc(step), inspect.signature(step).parameters
            for option in self.params:
                if not isinstance(option, TyperOption) or option.name not in words or option.default is not None:
                    continue
                text, default = option.help or _first(words[option.name][1]), keywords[option.name].default
                told = default in (None, inspect.Parameter.empty) or "[default" in text
                option.help = text if told else f"{text}  [default: {default}]"
        if self.name in _INSTEAD:
            given, path = _INSTEAD[self.name]
            others = inspect.signature(declared(path)).parameters
            for option in self.params:
                default = others[option.name].default if option.name in others else None
                if isinstance(option, TyperOption) and default and "[default" not in (option.help or ""):
                    option.help = f"{option.help}  [default with {given}: {default}]"
        super().format_help(*args, **kwargs)


def _first(text: str) -> str:
    """First sentence of a description, as it stands in a list."""
    sentence = re.split(r"[.;:](?: |$)", text)[0]
    return sentence[:1].lower() + sentence[1:]
