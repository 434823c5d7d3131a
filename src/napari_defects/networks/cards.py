"""The model card: what a model knows, how it was made and how well it does, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .models import Model, with_ending


def place_for(out: str | Path) -> Path:
    """File of a model to be made, with its ending; looked at before the training, not after.

    Raises
    ------
    ValueError
        If its folder does not exist.
    """
    path = with_ending(out)
    if not path.parent.is_dir():
        raise ValueError(f"`out` must lie in a folder that exists, got {str(path)!r}.")
    return path


def keep(model: Model, out: str | Path) -> Path:
    """Write a model, and its card beside it."""
    path = model.save(out)
    write_card(model, path.with_suffix(".md"))
    return path


def write_card(model: Model, path: str | Path) -> Path:
    """Write the card of a model as Markdown."""
    path = Path(path)
    path.write_text(card_text(model, path.stem), encoding="utf-8")
    return path


def card_text(model: Model, name: str) -> str:
    """Markdown of a model's card; `name` is its title."""
    card = model.card
    size = sum(t.numel() for t in model.network.weights().values())
    dose = card.get("dose_e_per_A2")
    facts: list[tuple[str, Any]] = [
        ("crystal", model.crystal or "any"),
        ("classes", ", ".join(f"`{c}`" for c in model.classes)),
        ("pixel size", f"{model.pixel_size_nm} nm (images are resampled to it)"),
        ("network", f"{_listed(model.network.architecture)}; {size / 1e6:.2f} M parameters"),
        ("doses seen", f"{dose[0]:.3g} to {dose[1]:.3g} e/Å²" if dose else "not known"),
        ("trained", f"{card.get('steps')} steps, {card.get('minutes')} minutes, seed {card.get('seed')}"),
        ("options", _listed(card.get("training", {}))),
        ("weights", f"sha256 `{model.sha256}`"),
    ]
    if "recipe" in card:
        facts.append(("made by", f"`napari-defects train {card['recipe']} --seed {card.get('seed')} -o OUT`"))
    lines = [f"# {name}", "", *(f"- **{key}**: {value}" for key, value in facts), *card.get("notes", [])]
    lines += ["", "## On simulated images held back from the training", ""]
    lines += [
        card.get("read_out", "At known positions: the class with the highest mean probability within 0.05 nm."),
        "",
    ]
    lines += _table(card.get("validation", []))
    for title, rows in card.get("tests", {}).items():
        lines += ["", f"## {title}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _listed(mapping: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in mapping.items() if value not in (None, ""))


def _table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["none"]
    keys = list(rows[0])
    cells = [[_cell(row.get(key, "")) for key in keys] for row in rows]
    return [_row(keys), _row(["---"] * len(keys)), *map(_row, cells)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{v:.3g}" for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
