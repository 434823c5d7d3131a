"""Training of the networks that name cells: a few minutes on one thread, calibrated on images held back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from ..micrograph import Progress
from ..networks.devices import pick_device
from ..networks.models import build
from .descent import Descent, in_half_precision
from .examples import Examples


@dataclass(frozen=True)
class Fitting:
    """How a network for cells is trained.

    Parameters
    ----------
    steps, batch : int
        Batches, and cells in each.
    learning_rate, weight_decay : float
        Of AdamW, on a half cosine to zero.
    balance : float
        Kinds are drawn as their frequency to the power ``1 - balance``; the logits are corrected for it afterwards.
    average : float
        Decay of the running average of the weights, which is what is kept.
    noise : float
        Most that half of the pictures get on top, in local standard deviations; the typical cell gets none.
    minutes : float, optional
        End after this time; the learning rate then follows the clock.
    """

    steps: int = 3000
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    balance: float = 0.5
    average: float = 0.995
    noise: float = 0.0
    minutes: float | None = None


def fit(
    architecture: dict[str, Any],
    n_classes: int,
    examples: Examples,
    held_back: Examples,
    options: Fitting = Fitting(),
    *,
    seed: int = 0,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train a network on pictures, and calibrate it; go on from `checkpoint` where it exists.

    Returns
    -------
    network
        Its logits corrected for the balance of the kinds, its weights rounded to half precision.
    card : dict
        Steps, minutes, shares of the kinds, and the `tempered` that makes its probabilities honest on `held_back`.
    """
    torch.manual_seed(seed)
    rng, where = np.random.default_rng(seed), pick_device(device)
    network: Any = build(architecture, n_classes).to(where)
    way = Descent(network, copy.deepcopy(network), options, warm_up=100, rng=rng, checkpoint=checkpoint)
    share = np.maximum(np.bincount(examples.kinds, minlength=n_classes), 1) / len(examples.kinds)
    weight = share[examples.kinds] ** -options.balance
    drawn = np.cumsum(weight / weight.sum())
    for _ in way.run(progress):
        index = np.minimum(np.searchsorted(drawn, rng.random(options.batch)), len(drawn) - 1)
        x = torch.from_numpy(examples.pictures[index].astype(np.float32)).to(where)
        amount = torch.empty(2, len(x), 1, 1, 1, device=where).uniform_(-1, 1)
        x = x * (1 + 0.1 * amount[0])
        x[:, :2] += options.noise * amount[1].clamp(min=0) * torch.randn_like(x[:, :2])  # not the typical cell
        way.learn(F.cross_entropy(network(x), torch.from_numpy(examples.kinds[index]).to(where)))
    averaged = way.averaged.eval()
    with torch.no_grad():
        averaged.head.bias += torch.from_numpy(np.log(share) * options.balance).to(averaged.head.bias)
    averaged = in_half_precision(averaged)
    card = way.card(seed) | {"training": asdict(options), "shares": [float(f"{s:.3g}") for s in share]}
    card["temperature"] = _temperature(logits_of(averaged, held_back.pictures), held_back.kinds, held_back.noises)
    return averaged, card


def logits_of(network: Any, pictures: npt.NDArray[Any], most_px: int = 400_000) -> npt.NDArray[np.float64]:
    """Logits (cell, class) of pictures, so many pixels of which are looked at at a time."""
    where = next(network.parameters()).device
    batch, parts = max(1, most_px // int(np.prod(pictures.shape[2:]))), []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            x = torch.from_numpy(pictures[start : start + batch].astype(np.float32)).to(where)
            parts.append(network(x).double().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, network.n_classes))


def tempered(
    logits: npt.NDArray[np.float64], noise: float | npt.NDArray[np.float64], card: Mapping[str, Any]
) -> npt.NDArray[np.float64]:
    """Logits whose probabilities are honest at a noise: divided by a temperature that is a power of it.

    Parameters
    ----------
    logits : ndarray, shape (cell, class)
    noise : float or ndarray, shape (cell,)
        `Typical.noise` of the image; taken as within what the calibration saw.
    card : mapping
        Of the model. Where its ``temperature`` is one number, the weights hold it.
    """
    if not isinstance(card.get("temperature"), list):
        return logits
    at_one, power, low, high = card["temperature"]
    return np.asarray(logits / np.reshape(at_one * np.clip(noise, low, high) ** power, (-1, 1)))


def _temperature(
    logits: npt.NDArray[np.float64], kinds: npt.NDArray[np.int64], noises: npt.NDArray[np.float64]
) -> list[float]:
    """Temperature at noise 1, its power, and the range of noise: such that the truth is most likely."""
    low, high = np.quantile(noises, (0.02, 0.98))
    x, y, noise = torch.from_numpy(logits), torch.from_numpy(kinds), torch.from_numpy(np.clip(noises, low, high))

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        temperature = torch.exp(parameters[0] + parameters[1] * torch.log(noise))
        return float(F.cross_entropy(x / temperature[:, None], y))

    found = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-7}).x
    values = (np.exp(np.clip(found[0], -1.5, 1.5)), np.clip(found[1], -1.0, 1.0), low, high)
    return [round(float(v), 4) for v in values]
