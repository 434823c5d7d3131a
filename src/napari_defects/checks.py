"""What steps say of an argument they cannot take: its name, its value, and what is allowed instead."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt


def check_type(name: str, value: Any, kind: type | UnionType, remedy: str) -> None:
    """Raise TypeError unless `value` is a `kind`; `remedy` says how to get one."""
    if not isinstance(value, kind):
        names = " or ".join(one.__name__ for one in get_args(kind) or (kind,))
        raise TypeError(f"`{name}` must be a {names}, got {type(value).__name__}; {remedy}.")


def check_choice(name: str, value: Any, options: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of `options`."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"`{name}` must be one of {', '.join(options)}, got {value!r}.")


def check_range(
    name: str, value: Any, low: float = -inf, high: float = inf, *, above: bool = False, below: bool = False,
    whole: bool = False, hint: str = "",
) -> None:  # fmt: skip
    """Raise TypeError unless `value` is a number, ValueError unless it is finite and within `low` to `high`.

    Parameters
    ----------
    name : str
    value : object
    low, high : float
    above, below : bool
        Whether `low`, or `high`, itself is not allowed.
    whole : bool
        Whether only whole numbers are.
    hint : str
        What else helps, at the end of the sentence.
    """
    ends = [f"above {low:g}" if above else f"{low:g} or more"] if low > -inf else []
    ends += [f"below {high:g}" if below else f"at most {high:g}"] if high < inf else []
    allowed = ", ".join(["a whole number"] * whole + [" and ".join(ends)] * bool(ends)) or "a finite number"
    said = f"`{name}` must be {allowed}, got {value!r}{hint and f'; {hint}'}."
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(said)
    right = isinstance(value, Integral) or not whole
    value = float(value)
    inside = (low < value if above else low <= value) and (value < high if below else value <= high)
    if not (right and inside and isfinite(value)):
        raise ValueError(said)


def check_fields(thing: Any, names: Iterable[str], low: float = -inf, high: float = inf, **limits: Any) -> None:
    """`check_range` of fields of a dataclass."""
    for name in names:
        check_range(name, getattr(thing, name), low, high, **limits)


def check_place(name: str, value: Any, what: str = "a place (y, x) in nm") -> npt.NDArray[np.float64]:
    """Return a place as ``array([y, x])``; raise ValueError where it is none."""
    try:
        place = np.asarray(value, float)
    except (TypeError, ValueError):
        place = np.empty(0)
    if place.shape != (2,) or not np.isfinite(place).all():
        raise ValueError(f"`{name}` must be {what}, got {value!r}.")
    return place
