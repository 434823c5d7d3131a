"""All tables of an image out of its layers, under the names the command line gives them, and the button for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton

from napari_defects.micrograph import Micrograph
from napari_defects.saving import one_sentence
from napari_defects.tables import TABLES
from napari_defects.widgets._cells import cells_of_layer
from napari_defects.widgets._exclusion import EXCLUSION
from napari_defects.widgets._layers import about, scale_nm, source_name
from napari_defects.widgets._picks import DEFECTS, SITES, Pick, Source
from napari_defects.widgets._points import table_of

FORMATS = (".csv", ".xlsx", ".parquet")


class ExportTables(QPushButton):
    """Writes every table of an image to a folder that the user chooses.

    Parameters
    ----------
    panel : Panel
        Where to tell what was written, or why not.
    source : callable
        Gives a layer of the image, or the image itself.
    missing : str
        What to say where there is no layer.
    """

    def __init__(self, panel: Any, source: Callable[[], Any], missing: str):
        super().__init__("Export all")
        self._panel, self._source, self._missing = panel, source, missing
        menu = QMenu(self)
        for suffix in FORMATS:
            menu.addAction(f"All tables as {suffix[1:]}…", lambda suffix=suffix: self.export(suffix=suffix))
        self.setMenu(menu)
        self.setToolTip("Write every table of this image to a folder, and its averages as tif.")

    def folder(self) -> str:
        """Let the user choose a folder."""
        return str(QFileDialog.getExistingDirectory(self._panel, "Export to folder"))

    def export(self, folder: str | Path | None = None, suffix: str = ".csv") -> None:
        """Write all tables of the image, and its class averages, to a folder."""
        folder = folder or self.folder()
        if not folder:
            return
        layer = self._source()
        try:
            if layer is None:
                raise ValueError(self._missing)
            written = export(self._panel.viewer, source_name(layer), Path(folder), suffix, layer)
        except (ValueError, OSError) as error:
            self._panel.fail(error)
            return
        self._panel.say(f"✓ Wrote {', '.join(p.name for p in written)} to {folder}.")


def grown(table: pd.DataFrame, kind: str, atom_columns: list[str] | None = None) -> dict[str, pd.DataFrame]:
    """Return a table and those it has grown from, as the steps gave them: strain was sites was atoms."""
    found = {kind: table}
    for young, old in (("strain", "sites"), ("sites", "atoms")):
        if young in found:
            added = {c.name for c in TABLES[young]} - {c.name for c in TABLES[old]}
            found[old] = found[young].drop(columns=[c for c in found[young] if c in added])
    if kind != "atoms" and "atoms" in found:
        atoms = found["atoms"][np.isfinite(found["atoms"]["y_nm"])]
        atoms = atoms[[c for c in atoms if atom_columns is None or c in atom_columns]]
        found["atoms"] = atoms.sort_values(["frame", "y_nm", "x_nm"], kind="stable", ignore_index=True)
    return found


def looked_at(defects: Source, sites: Source, left_out: Source | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Defects and sites without what is painted to be left out."""
    found, seen = defects.value, sites.value
    if left_out is not None:
        found, seen = found[left_out.value.leaves(found)], seen[left_out.value.leaves(seen)]
    seen.attrs["crystal"] = sites.about.get("crystal")
    return found, seen


def counts_of(viewer: Any, layer: Any) -> pd.DataFrame | None:
    """Count the defects of a layer as they are now, the way they were counted last; None where they never were."""
    from napari_defects.statistics import count

    sites, mask, keywords = counted_with(viewer, layer)
    if about(layer).get("counts") is None or sites is None:
        return None
    seen, left_out = _source(sites, SITES), None if mask is None else _source(mask, EXCLUSION)
    return count(*looked_at(_source(layer, DEFECTS), seen, left_out), **keywords)


def counted_with(viewer: Any, layer: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the layers of sites and of what is left out, and the keywords, that defects were counted with last.

    Before they were counted by themselves these are of their image, and of the recipe of its analysis.
    """
    from napari_defects.recipes import Recipe

    known = about(layer)
    own = [one for one in viewer.layers if source_name(one) == source_name(layer) and "truth" not in about(one)]
    if "counted" in known:
        layers, keywords = known["counted"]
        sites, mask = (one if one in viewer.layers else None for one in map(layers.get, ("sites", "left_out")))
    else:
        sites, mask = None, next((one for one in own if "exclusion" in about(one)), None)
        keywords = Recipe.from_toml(known.get("made", {}).get("recipe", "")).keywords("count")
    if sites is None:
        sites = next((one for one in reversed(own) if SITES.fits(one)), None)
    return sites, mask, keywords


def _source(layer: Any, pick: Pick) -> Source:
    return Source(pick.read(layer), source_name(layer), about(layer))


def export(viewer: Any, image: str, folder: Path, suffix: str = ".csv", chosen: Any = None) -> list[Path]:
    """Write the tables and averages that came from an image, under the names the command line gives them.

    Where layers show the same kind of table, the `chosen` one is written, else the newest; of what is painted, that
    which the defects are counted without.

    Raises
    ------
    ValueError
        If there is nothing to be written.
    OSError
        If it cannot be written there.
    """
    from napari_defects.io import write_micrograph, write_table

    tables: dict[str, pd.DataFrame] = {}
    averages: dict[str, Any] = {}
    mask: Any = None
    for layer in sorted(viewer.layers, key=lambda one: one is chosen):
        known = about(layer)
        if source_name(layer) != image or {"truth", "labels"} & set(known):
            continue
        if "average" in known:
            averages[known["average"].species] = known["average"]
        elif known.get("table") in TABLES:
            read = cells_of_layer if known["table"] == "cells" else table_of
            tables |= grown(read(layer), known["table"], known.get("atom_columns"))
            if DEFECTS.fits(layer):
                mask, counts = counted_with(viewer, layer)[1], counts_of(viewer, layer)
                tables.pop("counts", None)  # of other defects
                tables |= {} if counts is None else {"counts": counts}
    if not tables and not averages:
        raise ValueError(f"There are no tables of {image!r} yet: run Analyze, or Localize, first.")
    with one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = [write_table(table, folder / f"{name}{suffix}") for name, table in tables.items()]
    if mask is not None:
        pixels, size = (np.asarray(mask.data) != 0).astype(np.uint8), scale_nm(mask)
        picture = Micrograph(pixels, None if size is None else (float(size[0]), float(size[1])))
        written.append(write_micrograph(picture, folder / "left_out.tif"))
    if averages:
        from napari_defects.averages.files import write_averages

        (folder / "averages").mkdir(exist_ok=True)
        write_averages(averages, folder / "averages")
        written.append(folder / "averages")
    return written
