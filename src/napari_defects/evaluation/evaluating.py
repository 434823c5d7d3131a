"""Evaluation: how many of the defects in labelled images a model finds, and what it calls them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .. import noise
from ..atoms import locate
from ..checks import check_range
from ..crystals import Crystal, get_crystal
from ..defects import classify
from ..lattice import assign_sites, fit_lattice
from ..micrograph import Maps, Micrograph, Progress
from .labelled import Labelled, labelled_by
from .scoring import class_scores, confusion, outcomes


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
    check_range("keep_electrons", keep_electrons, 0, 1, above=True)
    check_range("radius_nm", radius_nm, 0, 10)
    check_range("border_nm", border_nm, 0, 10)
    chosen, known = _chosen(model), get_crystal(crystal) if crystal else None
    known = known or get_crystal(getattr(chosen, "crystal", "") or _no_crystal())
    images, parts = list(labelled), []
    if not images:
        raise ValueError("`labelled` is empty: give at least one image with its truth.")
    for number, item in enumerate(images):
        one = item if isinstance(item, Labelled) else labelled_by(f"image {number}", *item)
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


def _chosen(model: Any) -> Any:
    from ..networks import Model, load_model

    return model if model is None or isinstance(model, Model) else load_model(model)


def _no_crystal() -> str:
    raise ValueError("`crystal` must be given: the model does not say one.")
