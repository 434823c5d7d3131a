"""The command line: the same verbs as the library, on files.

Defaults are those of the steps: an option that is not given is not passed on. Every keyword of every
step can be set by a recipe or by ``--set step.keyword=value``.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ._help import Verb
from .cells import cells, noise_sweep
from .fields import eshelby
from .jobs import analyze, average_dataset, batch, demo, simulate, watch
from .movies import bonds
from .networks import evaluate, models, train
from .steps import average, classify, count, locate, predict, strain, track

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are tiny: threads would only wait for each other

VERBS: tuple[Callable[..., None], ...] = (
    simulate, train, evaluate, predict, locate, classify, cells, average, strain, eshelby, bonds, track, count,
    analyze, batch, average_dataset, watch, models, noise_sweep, demo,
)  # fmt: skip
"""In the order of the help."""

app = typer.Typer(
    help="Point defects in atomic-resolution STEM images of 2D materials.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


def main() -> None:
    """Run the command line."""
    app()


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Make the errors of a verb end in one line on stderr and exit code 2."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            typer.echo(f"napari-defects: error: {' '.join(str(error).split()) or type(error).__name__}", err=True)
            raise typer.Exit(2) from None

    return run


for _verb in VERBS:
    app.command(cls=Verb)(guarded(_verb))


@app.callback(invoke_without_command=True)
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="tell what is being done")] = False,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("napari-defects: %(message)s"))
    log = logging.getLogger("napari_defects")
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
