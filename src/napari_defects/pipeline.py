"""All steps in a row: an image and a recipe in, every table, average and figure out."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from .averages import ClassAverage
from .averages.files import strain_of, write_averages
from .crystals import get_crystal
from .defects import knows
from .io import read_micrograph, write_table
from .lattice import Lattice
from .micrograph import Maps, Micrograph, Progress, check_micrograph
from .networks import load_model, model_for
from .recipes import STEPS as STEPS
from .recipes import Recipe as Recipe
from .saving import file_name, writing_folder
from .tables import Atoms, Counts, Defects, Sites, Strain

log = logging.getLogger(__name__)

SCALE_TOLERANCE = 0.015
"""A pixel size that differs by more from what the lattice says is worth a warning."""


@dataclass(frozen=True, eq=False)
class Results:
    """What `analyze` found; None where a step did not run."""

    micrograph: Micrograph
    recipe: Recipe
    maps: Maps | None
    atoms: Atoms
    lattice: Lattice | None
    sites: Sites | None
    defects: Defects | None
    averages: Mapping[str, ClassAverage]
    strain: Strain | None
    counts: Counts | None
    log: tuple[str, ...]

    def averaged(self, progress: Progress | None = None) -> Results:
        """Return the same with the class averages that `analyze` was to leave for later."""
        if self.defects is None or not len(self.defects):
            return self
        run = Run(self.recipe, progress)
        found = run("average", self.micrograph, self.defects, sites=self.sites, lattice=self.lattice)
        return replace(self, averages=found, log=(*self.log, *run.lines))

    def write(self, folder: str | os.PathLike[str], *, pictures: bool = True) -> Path:
        """Write ``FOLDER/{atoms,sites,defects,counts,strain}.csv``, averages, figures, log and recipe.

        All is written inside the folder under another name first and then moved into place, so that a
        failure leaves what was there. Averages and figures of an earlier run are replaced; other files stay.

        Parameters
        ----------
        folder : path
        pictures : bool
            Whether to write averages and figures, too.

        Raises
        ------
        OSError
            If the folder cannot be written to or the disk is full.
        """
        folder = Path(folder)
        with writing_folder(folder) as new:
            for name in ("atoms", "sites", "defects", "counts", "strain"):
                if (table := getattr(self, name)) is not None:
                    write_table(table, new / f"{name}.csv")
            if pictures:
                (new / "averages").mkdir()
                write_averages(self.averages, new / "averages")
                (new / "figures").mkdir()
                self._draw(new / "figures")
            (new / "recipe.toml").write_text(self.recipe.complete().to_toml(), "utf-8")
            (new / "log.txt").write_text("".join(f"{line}\n" for line in self.log), "utf-8")
        return folder

    def _draw(self, folder: Path) -> None:
        from . import figures

        def draw(name: str, function: Callable[..., Any], *args: Any, size: tuple[float, float] = (120, 100)) -> None:
            figure, ax = figures.new(*size)
            function(ax, *args)
            figures.save(figure, folder / f"{name}.png")

        draw("overview", figures.overview, self.micrograph, self.defects)
        if self.strain is not None:
            draw("strain", figures.strain_map, self.strain)
        if self.counts is not None:
            draw("counts", figures.counts, self.counts, size=(120, 25 + 8 * len(self.counts)))
        for species, one in self.averages.items():
            figure, ax = figures.new(80, 85)
            figures.displacements(figures.class_average(ax, one), strain_of(one))
            figures.save(figure, folder / f"average_{file_name(species)}.png")
            if len(one.precision):
                draw(f"precision_{file_name(species)}", figures.precision, one, size=(85, 65))


def analyze(
    micrograph: Micrograph,
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    averages: bool = True,
    progress: Progress | None = None,
    on_step: Callable[[str, Any], Any] | None = None,
) -> Results:
    """Run all steps on an image.

    Parameters
    ----------
    micrograph : Micrograph
    recipe : Recipe, mapping or str, optional
        A recipe, its tables, or just the name of a crystal. Without a crystal only atoms are located.
    averages : bool
        False leaves the class averages, the longest step, for `Results.averaged`.
    progress : callable, optional
        ``progress(done, total)``; to cancel, raise from it.
    on_step : callable, optional
        ``on_step(name, result)`` after each step, to show it; what that returns, if not None, goes on instead.

    Returns
    -------
    Results

    Raises
    ------
    ValueError
        If the pixel size is not known, the image cannot be analysed, or has no lattice of the crystal.
    """
    check_micrograph(micrograph)
    run = Run(Recipe.make(recipe), progress, on_step)
    micrograph = run.prepared(micrograph)
    maps = run.predicted(micrograph)
    atoms = run("locate", micrograph, maps=maps)
    run.note(f"{len(atoms)} columns located")
    if run.recipe.crystal is None:
        run.note("no crystal is given: no lattice, no defects")
        return Results(micrograph, run.provenance(micrograph), maps, atoms, None, None, None, {}, None, None, run.lines)
    lattice = run("fit_lattice", atoms, run.recipe.crystal)
    run.check_scale(micrograph, lattice)
    sites = run("assign_sites", atoms, lattice)
    defects = run.classified(micrograph, sites, maps)
    wanted = averages and len(defects)
    averaged = run("average", micrograph, defects, sites=sites, lattice=lattice) if wanted else {}
    deformation = run("strain", sites, lattice)
    counts = run("count", defects, sites)
    recipe = run.provenance(micrograph)
    return Results(micrograph, recipe, maps, atoms, lattice, sites, defects, averaged, deformation, counts, run.lines)


class Run:
    """Steps of one analysis: each with its keywords, its share of the progress and a line in the log.

    Calling it runs a step: ``run("locate", micrograph, maps=maps)``.
    """

    def __init__(
        self,
        recipe: Recipe,
        progress: Progress | None = None,
        on_step: Callable[[str, Any], Any] | None = None,
    ) -> None:
        self.recipe, self.progress, self.on_step = recipe, progress, on_step
        self.log: list[str] = []

    @property
    def lines(self) -> tuple[str, ...]:
        """The log so far."""
        return tuple(self.log)

    def __call__(self, step: str, *args: Any, **flow: Any) -> Any:
        """Run a step with what flows into it and the keywords of the recipe."""
        keywords = {k: v for k, v in self.recipe.keywords(step).items() if k not in ("crystal", "model")} | flow
        number, total = list(STEPS).index(step), len(STEPS)

        def share(done: int, of: int) -> None:
            if self.progress is not None:
                self.progress(100 * number + 100 * done // max(of, 1), 100 * total)

        if "progress" in inspect.signature(STEPS[step]).parameters:
            keywords["progress"] = share
        share(0, 1)
        start = time.perf_counter()
        with threadpool_limits(1, user_api="blas"):  # the same digits whatever the machine, and faster when it is busy
            result = STEPS[step](*args, **keywords)
        self.note(f"{step}: {time.perf_counter() - start:.1f} s")
        if self.on_step is not None and (corrected := self.on_step(step, result)) is not None:
            result = corrected
        share(1, 1)
        return result

    def note(self, line: str, level: int = logging.INFO) -> None:
        """Add a line to the log."""
        self.log.append(line)
        log.log(level, line)

    def prepared(self, micrograph: Micrograph) -> Micrograph:
        """Calibrate where the recipe says so; raise ValueError for what cannot be analysed."""
        if "calibrate" in self.recipe.steps:
            crystal = self.recipe.keywords("calibrate").get("crystal") or self.recipe.crystal
            micrograph = self("calibrate", micrograph, crystal)
        size = ", ".join(f"{side:.5g}" for side in micrograph.pixel_size_yx_nm)
        for _ in micrograph.frames():
            pass
        self.note(f"{' x '.join(map(str, micrograph.data.shape))} px of {size} nm (y, x)")
        return micrograph

    def predicted(self, micrograph: Micrograph) -> Maps | None:
        """Predict maps by the network named, else by that for the crystal, else None."""
        crystal, given = self.recipe.crystal, self.recipe.keywords("predict").get("model")
        name = given or (model_for(crystal) if crystal else None) or "none"
        changes: dict[str, dict[str, Any]] = {"predict": {"model": name}}
        model = None if name == "none" else load_model(name, crystal)
        if model is not None:
            recorded = self.recipe.keywords("network").get("sha256", model.sha256)
            if recorded != model.sha256:
                self.note(f"the network {name} is not the one this recipe was made with.", logging.WARNING)
            changes["network"] = {"sha256": model.sha256}
        self.recipe = self.recipe.updated(changes)
        return None if model is None else self("predict", micrograph, model)

    def classified(self, micrograph: Micrograph, sites: Sites, maps: Maps | None) -> Defects:
        """Defects by the method named, else by maps where they know the crystal, else by intensities."""
        crystal, network = get_crystal(sites.attrs["crystal"]), self.recipe.keywords("predict").get("model")
        known = maps is not None and knows(maps, crystal)
        method = self.recipe.keywords("classify").get("method") or ("maps" if known else "intensities")
        if method == "maps" and maps is None:
            raise ValueError("`classify.method` is maps, but `predict.model` is none; name a network, or no method.")
        if method == "intensities" and maps is not None and not known and network != model_for(crystal.name):
            self.note(f"{network} knows no column of {crystal.name}: verdicts are by intensity.", logging.WARNING)
        self.recipe = self.recipe.updated({"classify": {"method": method}})
        defects: Defects = self("classify", micrograph, sites, maps=maps if known or method == "maps" else None)
        self.note(", ".join(f"{n} {s}" for s, n in defects["species"].value_counts().items()) or "no defects found")
        return defects

    def check_scale(self, micrograph: Micrograph, lattice: Lattice) -> None:
        """Warn where the pixel size and the lattice disagree."""
        off = lattice.scale - 1
        if abs(off) > SCALE_TOLERANCE:
            size, wrong = float(np.sqrt(np.prod(micrograph.pixel_size_yx_nm))), "large" if off > 0 else "small"
            self.note(
                f"the pixel size of {size:.5g} nm is {abs(off):.1%} too {wrong} for {lattice.crystal.name}, whose"
                f" lattice says {size / lattice.scale:.5g} nm; pass that, or let the lattice calibrate the image.",
                logging.WARNING,
            )

    def provenance(self, micrograph: Micrograph) -> Recipe:
        """Return the recipe as it was run, with the input and the versions."""
        about = {key: micrograph.metadata.get(key) for key in ("file", "channel", "sha256")}
        about |= {"shape": list(micrograph.data.shape), "pixel_size_nm": micrograph.pixel_size_nm}
        return Recipe({**self.recipe.steps, "input": about, "versions": versions()})


def versions() -> dict[str, str]:
    """Versions of this package and of what decides its numbers."""
    names = ("napari-defects", "numpy", "scipy", "pandas", "torch", "numba")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def analyze_file(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    pictures: bool = True,
    progress: Progress | None = None,
) -> Results:
    """Read an image with the recipe's ``read_micrograph`` keywords, analyse it and write the results.

    Without `pictures` averages and figures are left for later (`Results.averaged`, `Results.write`).
    """
    recipe = Recipe.make(recipe)
    micrograph = read_micrograph(path, **recipe.keywords("read_micrograph"))
    micrograph = replace(micrograph, metadata={**micrograph.metadata, "sha256": sha256(path)})
    results = analyze(micrograph, recipe, averages=pictures, progress=progress)
    results.write(folder, pictures=pictures)
    return results
