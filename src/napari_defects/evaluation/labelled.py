"""Images with what is true of them, read from files, in whatever columns and words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..crystals import Crystal, species_of_label
from ..io import read_micrograph, read_table
from ..lattice import calibrate
from ..micrograph import Micrograph

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


def labelled_by(name: str, micrograph: Micrograph, table: pd.DataFrame) -> Labelled:
    """Name an image with its table of truth, in whatever columns and words."""
    return Labelled(name, micrograph, truth_of(table, micrograph, {}, name))


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
