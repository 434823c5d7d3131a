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
from scipy.stats import median_abs_deviation
from torch.nn import functional as F

from ..micrograph import Progress
from ..networks.devices import pick_device
from ..networks.models import build
from .descent import Descent, in_half_precision
from .examples import Examples

_ENOUGH = 8  # perfect cells, to judge by
_RARE = 0.05  # share of defective cells in an image as it usually is


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
        Steps, minutes, shares of the kinds, and the temperature (`tempered`) that is honest on `held_back`.
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
    card["temperature"] = _temperature(logits_of(averaged, held_back.pictures), held_back, share)
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


def tempered(logits: npt.NDArray[np.float64], card: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Logits whose probabilities are honest in the image that they are of.

    A network that knows clean and dirty, sharp and blurred images is as sure as it may be on their average. What it
    may be in one of them, the cells there tell (`scatter`): where they are more alike, the logits are divided by less.

    Parameters
    ----------
    logits : ndarray, shape (cell, class)
        Of the cells of one image.
    card : mapping
        Of the model. Where its ``temperature`` is one number, the weights hold it.
    """
    if not isinstance(card.get("temperature"), list):
        return logits
    most, half = card["temperature"]
    own = scatter(logits, np.asarray(card["shares"], float))
    return np.asarray(logits / (most * own / (own + half)))


def scatter(logits: npt.NDArray[np.float64], shares: npt.NDArray[np.float64]) -> float:
    """Tell by how much the cells of one image scatter more than the logits promise.

    The logarithm of a likelihood ratio that is normally distributed has a variance of twice its mean: where that of
    the cells called perfect is smaller, they could be told from others more surely than the network dares.

    Returns
    -------
    float
        That variance over twice the mean, of perfect cells against those that lack a chalcogen, two, or a metal.
    """
    perfect = logits[logits.argmax(1) == 0]
    if len(perfect) < _ENOUGH:
        return 1.0
    ratio = perfect[:, 1:4] - perfect[:, :1] - np.log(shares[1:4] / shares[0])
    middle = np.median(ratio, 0)
    spread = median_abs_deviation(ratio, axis=0, scale="normal")
    return float(np.exp(np.mean(np.log(np.maximum(spread, 0.05) ** 2 / np.maximum(-2 * middle, 0.2)))))


def _temperature(logits: npt.NDArray[np.float64], examples: Examples, shares: npt.NDArray[np.float64]) -> list[float]:
    """Largest temperature, and scatter at which it is half of that: such that the truth is most likely.

    It is asked for in images as they usually are, with few defects.
    """
    usual = np.where(np.arange(len(shares)) == 0, 1.0, _RARE * shares / shares[1:].sum())
    own = np.ones(len(logits))
    for image in np.unique(examples.images):
        part = examples.images == image
        own[part] = scatter(logits[part], shares)
    x, y = torch.from_numpy(logits - np.log(shares)), torch.from_numpy(examples.kinds)
    prior, weight = torch.from_numpy(np.log(usual)), torch.from_numpy((usual / shares)[examples.kinds])

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        most, half = np.exp(parameters)
        temperature = torch.from_numpy(most * own / (own + half))[:, None]
        return float((weight * F.cross_entropy(x / temperature + prior, y, reduction="none")).sum() / weight.sum())

    found = minimize(loss, np.log([1.1, 0.1]), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-8}).x
    return [round(float(v), 4) for v in np.exp(np.clip(found, np.log([0.5, 1e-3]), np.log([3.0, 2.0])))]
