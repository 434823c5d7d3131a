"""How often a network names known cells right, kind by kind."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .examples import Examples
from .training import logits_of

_DOSES = (0.0, 1e4, 5e4, np.inf)


def by_kind(network: Any, examples: Examples, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Recall and precision of each kind, over all doses and in three ranges of it."""
    said = logits_of(network, examples.pictures).argmax(1)
    rows = []
    for low, high in ((0.0, np.inf), *pairwise(_DOSES)):
        part = (examples.doses >= low) & (examples.doses < high)
        span: Any = "all" if (low, high) == (0, np.inf) else f"{low:.0e} to {high:.0e}"
        for kind, name in enumerate(classes):
            actual, claimed = part & (examples.kinds == kind), part & (said == kind)
            right = int((actual & claimed).sum())
            rows.append(
                {
                    "dose_e_per_A2": span,
                    "class": name,
                    "n": int(actual.sum()),
                    "recall": round(right / max(int(actual.sum()), 1), 4),
                    "precision": round(right / max(int(claimed.sum()), 1), 4),
                }
            )
    return rows


def confusion(truth: npt.NDArray[Any], said: npt.NDArray[Any], n_classes: int) -> npt.NDArray[np.int64]:
    """Cells of each true kind (rows) by what they were called (columns)."""
    table = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(table, (truth, said), 1)
    return table
