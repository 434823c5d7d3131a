"""Write docs/tables.md from the definitions in ``napari_defects.tables``."""

from collections.abc import Iterable
from pathlib import Path

from napari_defects.tables import ATOMS, DEFECTS, EXTRAS, SITES, TABLES, Column

PAGE = Path(__file__).with_name("tables.md")
GROWS = {"sites": ("atoms", ATOMS), "strain": ("sites", SITES), "tracks": ("defects", DEFECTS)}
OF_AVERAGES = {
    "columns": ("columns of an average", "`SPECIES_columns.csv`: those of [sites](#sites), from the defect, and:"),
    "members": ("members of an average", "`SPECIES_members.csv`: those of [defects](#defects), and:"),
    "precision": ("precision of an average", "`SPECIES_precision.csv`:"),
}
INTRODUCTION = """# Tables

Plain pandas DataFrames; columns beyond these are kept and passed on. Made by `docs/make_tables.py` from `tables.py`.
"""


def page() -> str:
    """Return the page as Markdown."""
    lines = [INTRODUCTION]
    for kind, columns in TABLES.items():
        base, inherited = GROWS.get(kind, ("", ()))
        lines += [f"## {kind}", ""]
        lines += [f"The columns of [{base}](#{base}), and:", ""] if base else []
        lines += [*rows(c for c in columns if c not in inherited), ""]
        lines += ["Some have, too:", "", *rows(EXTRAS[kind]), ""] if kind in EXTRAS else []
    for kind, (name, said) in OF_AVERAGES.items():
        lines += [f"## {name}", "", said, "", *rows(EXTRAS[kind]), ""]
    return "\n".join(lines)


def rows(columns: Iterable[Column]) -> list[str]:
    """Return columns as a table of Markdown."""
    head = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    return head + [f"| `{c.name}` | {c.dtype} | {c.unit} | {c.meaning} |" for c in columns]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
