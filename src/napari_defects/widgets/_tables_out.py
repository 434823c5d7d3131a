"""All tables of an image out of its layers, under the names the command line gives them, and the button for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton

from napari_defects.micrograph import Micrograph
from napari_defects.tables import TABLES
from napari_defects.widgets._layers import about, scale_nm, source_name
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
            written = export(self._panel.viewer, source_name(layer), Path(folder), suffix)
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


def export(viewer: Any, image: str, folder: Path, suffix: str = ".csv") -> list[Path]:
    """Write the tables and averages that came from an image, under the names the command line gives them."""
    from napari_defects.io import write_micrograph, write_table

    tables: dict[str, pd.DataFrame] = {}
    averages: dict[str, Any] = {}
    masks: list[Any] = []
    for layer in viewer.layers:
        known = about(layer)
        if source_name(layer) != image or "truth" in known:
            continue
        if "exclusion" in known:
            masks.append(layer)
        elif "average" in known:
            averages[known["average"].species] = known["average"]
        elif known.get("table") in TABLES:
            tables |= grown(table_of(layer), known["table"], known.get("atom_columns"))
            if known.get("counts") is not None:
                tables["counts"] = known["counts"]
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_table(table, folder / f"{name}{suffix}") for name, table in tables.items()]
    for mask in masks[:1]:
        pixels, size = (np.asarray(mask.data) != 0).astype(np.uint8), scale_nm(mask)
        picture = Micrograph(pixels, None if size is None else (float(size[0]), float(size[1])))
        written.append(write_micrograph(picture, folder / "left_out.tif"))
    if averages:
        from napari_defects.averages.files import write_averages

        (folder / "averages").mkdir(exist_ok=True)
        write_averages(averages, folder / "averages")
        written.append(folder / "averages")
    return written
