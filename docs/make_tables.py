"""Write docs/tables.md from the definitions in ``napari_defects.tables``."""

from pathlib import Path

from napari_defects.tables import ATOMS, DEFECTS, SITES, TABLES

PAGE = Path(__file__).with_name("tables.md")
GROWS = {"sites": ("atoms", ATOMS), "strain": ("sites", SITES), "tracks": ("defects", DEFECTS)}
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
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.dtype} | {c.unit} | {c.meaning} |" for c in columns if c not in inherited]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
