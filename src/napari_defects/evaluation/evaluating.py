"""Evaluation: how many of the defects in labelled images a model finds, and what it calls them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import noise
from ..atoms import locate
from ..crystals import Crystal, get_crystal, species_of_label
from ..defects import classify
from ..io import read_micrograph, read_table
from ..lattice import assign_sites, calibrate, fit_lattice
from ..micrograph import Maps, Micrograph, Progress
from .scoring import class_scores, confusion, outcomes

PLACES = (("y_nm", "x_nm"), ("y_px", "x_px"), ("y", "x"), ("row", "col"))
NAMES = ("species", "type", "class", "label")
ENDINGS = ("_defects", "_sites", "_truth", "_labels", "")
"""A table of truth is called after its image, with one of these."""

_IMAGES = (".tif", ".tiff", ".dm3", ".dm4", ".emd", ".ser", ".mrc", ".hspy", ".npy", ".png", ".jpg", ".jpeg")
_TABLES = (".csv", ".parquet", ".xlsx")


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image with what is true of it.

    Parameters
    ----------
    name : str
    micrograph : Micrograph
    truth : DataFrame
        frame, y_px, x_px, species, and `edge` where something is not to count.
    """

    name: str
    micrograph: Micrograph
    truth: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of an evaluation.

    Parameters
    ----------
    outcomes : DataFrame
        image, frame, y_nm, x_nm, truth, said, distance_pm: every true and every found defect.
    """

    outcomes: pd.DataFrame

    @property
    def classes(self) -> pd.DataFrame:
        """Recall, precision and F1 of each class, of any class, micro and macro, all images together."""
        return class_scores(self.outcomes)

    @property
    def images(self) -> pd.DataFrame:
        """The micro scores of each image."""
        parts = [class_scores(own).assign(image=name) for name, own in self.outcomes.groupby("image", sort=False)]
        table = pd.concat(parts, ignore_index=True) if parts else class_scores(self.outcomes).assign(image="")
        return table[table["class"] == "micro"].drop(columns="class").set_index("image").reset_index()

    @property
    def confusion(self) -> pd.DataFrame:
        """Who is taken for whom: true classes as rows, what was said as columns."""
        return confusion(self.outcomes)

    @property
    def micro_f1(self) -> float:
        """F1 over all defects: right where the place and the class are."""
        return float(self.classes.query("`class` == 'micro'")["f1"].iloc[0])

    def to_json(self) -> str:
        """All tables as JSON."""
        tables = {"classes": self.classes, "images": self.images, "outcomes": self.outcomes}
        content: dict[str, Any] = {name: json.loads(t.to_json(orient="records")) for name, t in tables.items()}
        matrix = self.confusion
        content["confusion"] = {
            "truth": list(matrix.index), "said": list(matrix.columns), "counts": matrix.to_numpy().tolist()
        }  # fmt: skip
        return json.dumps(content, indent=1)


def evaluate(
    labelled: Iterable[Labelled | tuple[Micrograph, pd.DataFrame]],
    model: Any = None,
    *,
    crystal: str | Crystal | None = None,
    radius_nm: float = 0.1,
    border_nm: float = 0.25,
    keep_electrons: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on labelled images, through all the steps from the image to the defects.

    Parameters
    ----------
    labelled : iterable of Labelled, or of (Micrograph, DataFrame)
        From `read_labelled`; or images with tables of y_nm, x_nm and species. Pristine columns among them are left out.
    model : Model, str or path, optional
        Without one, defects are classified by intensities.
    crystal : str or Crystal, optional
        That of the model where it is not given.
    radius_nm : float
        A defect is found when something was found this near.
    border_nm : float
        So near to the border nothing counts.
    keep_electrons : float
        Share of the electrons to keep, 0 to 1: the same images at a lower dose (binomial thinning; gain and offset are
        estimated from each image).
    seed : int
        Of the thinning.
    progress : callable, optional
        ``progress(done, total)`` after each image.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If there is no labelled image, an argument is out of range, or an image cannot be analysed.
    """
    if not 0 < keep_electrons <= 1:
        raise ValueError(f"`keep_electrons` must be above 0 and at most 1, got {keep_electrons}.")
    for name, value in (("radius_nm", radius_nm), ("border_nm", border_nm)):
        if not 0 <= value < 10:
            raise ValueError(f"`{name}` must be 0 to 10 nm, got {value}.")
    chosen, known = _chosen(model), get_crystal(crystal) if crystal else None
    known = known or get_crystal(getattr(chosen, "crystal", "") or _no_crystal())
    images, parts = list(labelled), []
    if not images:
        raise ValueError("`labelled` is empty: give at least one image with its truth.")
    for number, item in enumerate(images):
        one = item if isinstance(item, Labelled) else _labelled(f"image {number}", *item)
        micrograph = thinned(one.micrograph, keep_electrons, seed + number) if keep_electrons < 1 else one.micrograph
        size = micrograph.pixel_size_yx_nm
        truth = _defects_of(one.truth, known)
        truth = truth.assign(y_nm=truth["y_px"] * size[0], x_nm=truth["x_px"] * size[1])
        found = _found(micrograph, chosen, known)
        parts.append(outcomes(
            found, truth, radius_nm=radius_nm, border_nm=border_nm, extent_nm=tuple(micrograph.extent_nm - size)
        ).assign(image=one.name))  # fmt: skip
        if progress is not None:
            progress(number + 1, len(images))
    parts = [part for part in parts if len(part)] or parts[:1]
    return Evaluation(pd.concat(parts, ignore_index=True).set_index("image").reset_index())


def read_labelled(
    paths: Sequence[str | os.PathLike[str]],
    *,
    pixel_size_nm: float | None = None,
    crystal: str | Crystal | None = None,
    names: Mapping[str, str] | None = None,
) -> list[Labelled]:
    """Read labelled images: folders of them, images beside their tables, or images each followed by its table.

    Parameters
    ----------
    paths : sequence of path
        Folders, images, and tables. A table that does not follow its image is looked for beside it: ``NAME_defects``,
        ``NAME_sites``, ``NAME_truth``, ``NAME_labels`` or ``NAME`` with ``.csv``, ``.parquet`` or ``.xlsx``.
    pixel_size_nm : float, optional
        Instead of what the files say.
    crystal : str or Crystal, optional
        Where given, the lattice measures the pixel size.
    names : mapping of str to str, optional
        Label in the tables to species. Labels as papers write them (``SV``, ``SeTe``) are known.

    Returns
    -------
    list of Labelled

    Raises
    ------
    ValueError
        If an image has no table, a table no image, or its columns are not known.
    """
    result = []
    for image, table in _paired([Path(p) for p in paths]):
        micrograph = read_micrograph(image, pixel_size_nm=pixel_size_nm)
        truth = truth_of(read_table(table), micrograph, names or {}, table.name)
        if crystal is not None:
            micrograph = calibrate(micrograph, crystal)
        result.append(Labelled(image.stem, micrograph, truth))
    return result


def truth_of(
    table: pd.DataFrame, micrograph: Micrograph, names: Mapping[str, str], source: str = "truth"
) -> pd.DataFrame:
    """Return frame, y_px, x_px and species of a table in nm or pixels, however its columns are called.

    Raises
    ------
    ValueError
        If there are no places or no species.
    """
    columns = {str(c).strip().lower(): c for c in table.columns}
    place = next((p for p in PLACES if set(p) <= set(columns)), None)
    name = next((n for n in NAMES if n in columns), None)
    if place is None or name is None:
        raise ValueError(
            f"{source}: the truth needs y_nm and x_nm (or y_px and x_px) and species, "
            f"it has {', '.join(map(str, table.columns))[:120]}."
        )
    at = table[[columns[c] for c in place]].to_numpy(float)
    if "y_ideal_nm" in columns:  # an empty site is where the lattice has it
        at = np.where(np.isfinite(at), at, table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float))
    if place[0] == "y_nm":
        at = at / micrograph.pixel_size_yx_nm
    labels = table[columns[name]].fillna("").astype(str).str.strip()
    truth = pd.DataFrame({
        "frame": table[columns["frame"]].to_numpy(np.int64) if "frame" in columns else 0, "y_px": at[:, 0],
        "x_px": at[:, 1], "species": [names.get(label, species_of_label(label)) for label in labels],
    })  # fmt: skip
    if "edge" in columns:
        truth["edge"] = table[columns["edge"]].astype(str).str.lower().isin(["1", "1.0", "true"]).to_numpy()
    return pd.DataFrame(truth[np.isfinite(at).all(1)]).reset_index(drop=True)


def thinned(micrograph: Micrograph, keep: float, seed: int = 0) -> Micrograph:
    """Keep each electron with probability `keep`: the same image at a lower dose, in electrons.

    Gain and offset are estimated from each frame; what is below the offset counts as no electron.
    """
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(micrograph.n_frames):
        found = noise.estimate(micrograph, frame=index)
        electrons = (micrograph.frame(index).astype(float) - found.offset) / found.gain
        frames.append(rng.binomial(np.clip(np.rint(electrons), 0, 2**31 - 1).astype(np.int64), keep).astype(np.float32))
    return replace(micrograph, data=np.stack(frames) if micrograph.is_movie else frames[0])


def _found(micrograph: Micrograph, model: Any, crystal: Crystal) -> pd.DataFrame:
    """Defects, by all the steps."""
    maps: Maps | None = None
    if model is not None:
        from ..networks import predict

        maps = predict(micrograph, model)
    atoms = locate(micrograph, maps=maps)
    sites = assign_sites(atoms, fit_lattice(atoms, crystal))
    sites.attrs["crystal"] = crystal.name
    return pd.DataFrame(classify(micrograph, sites, maps=maps, method="intensities" if maps is None else "maps"))


def _defects_of(truth: pd.DataFrame, crystal: Crystal) -> pd.DataFrame:
    """Leave out the pristine columns, whatever they are called."""
    hosts = {name for s in crystal.sublattices for name in (s.host, s.name, s.element, *s.column)}
    defects: pd.DataFrame = truth[~truth["species"].isin({*hosts, "", "nan"})]
    return defects


def _labelled(name: str, micrograph: Micrograph, table: pd.DataFrame) -> Labelled:
    return Labelled(name, micrograph, truth_of(table, micrograph, {}, name))


def _chosen(model: Any) -> Any:
    from ..networks import Model, load_model

    return model if model is None or isinstance(model, Model) else load_model(model)


def _paired(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Images with their tables."""
    pairs: list[tuple[Path, Path]] = []
    waiting = list(paths)
    while waiting:
        path = waiting.pop(0)
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in _IMAGES and _beside(p)]
            if not inside:
                raise ValueError(
                    f"{path}: no image there has a table of truth; call it NAME_defects.csv beside NAME.tif."
                )
            pairs += [(p, t) for p in inside if (t := _beside(p))]
        elif path.suffix.lower() in _TABLES:
            raise ValueError(f"{path}: a table of truth must follow its image.")
        else:
            follows = waiting and waiting[0].suffix.lower() in _TABLES
            table = waiting.pop(0) if follows else _beside(path)
            if table is None:
                raise ValueError(f"{path}: there is no table of truth beside it; give it after the image.")
            pairs.append((path, table))
    return pairs


def _beside(image: Path) -> Path | None:
    names = [image.with_name(f"{image.stem}{ending}{suffix}") for ending in ENDINGS for suffix in _TABLES]
    return next((path for path in names if path.is_file()), None)


def _no_crystal() -> str:
    raise ValueError("`crystal` must be given: the model does not say one.")
