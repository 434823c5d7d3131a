"""What the verbs have in common: recipe from file and options, a run with a progress bar, words for numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..micrograph import Micrograph, Progress
    from ..recipes import Recipe


def read_recipe(
    file: Path | None = None, settings: list[str] | None = None, crystal: str | None = None, model: str | None = None,
    pixel_size_nm: float | None = None, channel: str | None = None, calibrate: bool = False,
) -> Recipe:  # fmt: skip
    """Recipe file, then options, then --set; the later wins."""
    from ..recipes import Recipe

    recipe = Recipe() if file is None else Recipe.read(file)
    recipe = recipe.updated({
        "read_micrograph": {"pixel_size_nm": pixel_size_nm, "channel": channel},
        "fit_lattice": {"crystal": crystal}, "predict": {"model": model},
        "calibrate": {"crystal": (crystal or recipe.crystal or "") if calibrate else None},
    })  # fmt: skip
    for step, key, value in parsed(settings, "STEP.KEY=VALUE"):
        recipe = recipe.updated({step: {key: value}})
    return recipe


def parsed(settings: list[str] | None, form: str) -> Iterator[tuple[str, str, Any]]:
    """Yield group, key and value of each --set; a value that is no TOML is a word."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    for setting in settings or ():
        name, text = pair(setting, form)
        group, dot, key = name.partition(".")
        if not dot:
            raise ValueError(f"--set needs {form}, got {setting!r}.")
        try:
            yield group, key, tomlkit.parse(f"value = {text}").unwrap()["value"]
        except TOMLKitError:
            yield group, key, text


@contextmanager
def running(image: Path, recipe: Recipe) -> Iterator[tuple[Any, Micrograph]]:
    """Give the steps, with a progress bar, and the image they run on."""
    from ..io import read_micrograph
    from ..pipeline import Run

    with progress_bar(image.name) as progress:
        run = Run(recipe, progress)
        yield run, run.prepared(read_micrograph(image, **recipe.keywords("read_micrograph")))


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """Progress bar on a terminal, for what takes longer than a second."""
    from tqdm import tqdm

    with tqdm(
        desc=label, delay=1, leave=False, disable=None, file=sys.stderr, bar_format="{l_bar}{bar}| {elapsed}"
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def counted(counts: Any) -> str:
    lines = (f"{row.species:<14}{row.count:>6}  {row.density_per_cm2:.2e} cm^-2" for row in counts.itertuples())
    return "\n".join(lines) or "no defects"


def pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ValueError(f"expected {form}, got {text!r}.")
    return name.strip(), value.strip()


def number(text: str) -> float:
    """Parse a count as int, a share as float."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"the amount of a defect must be a number, got {text!r}.") from None
