"""Training of the networks that name cells: a few minutes on one thread, calibrated on images held back."""

from __future__ import annotations

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..micrograph import Progress
from ..networks.devices import pick_device
from ..networks.models import build
from ..networks.training import StopTraining
from .examples import Examples

log = logging.getLogger(__name__)


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
        Most that half of the pictures get on top, in local standard deviations.
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
    progress: Progress | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train a network on pictures, and calibrate it.

    Returns
    -------
    network
        Its logits corrected for the balance of the kinds and scaled to honest probabilities, its weights rounded to
        half precision.
    card : dict
        Steps, minutes, temperature, and accuracy by kind on `held_back`.
    """
    torch.manual_seed(seed)
    rng, where = np.random.default_rng(seed), pick_device(device)
    network: Any = build(architecture, n_classes).to(where)
    averaged = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    share = np.maximum(np.bincount(examples.kinds, minlength=n_classes), 1) / len(examples.kinds)
    weight = share[examples.kinds] ** -options.balance
    weight /= weight.sum()
    drawn = np.cumsum(weight)
    began, step = time.perf_counter(), 0
    network.train()
    try:
        for step in range(1, options.steps + 1):
            over = max(step / options.steps, (time.perf_counter() - began) / 60 / (options.minutes or math.inf))
            if over > 1:
                break
            rate = options.learning_rate * min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * over))
            for group in optimizer.param_groups:
                group["lr"] = rate
            index = np.minimum(np.searchsorted(drawn, rng.random(options.batch)), len(drawn) - 1)
            x = torch.from_numpy(examples.pictures[index].astype(np.float32)).to(where)
            amount = torch.empty(2, len(x), 1, 1, 1, device=where).uniform_(-1, 1)
            x = x * (1 + 0.1 * amount[0]) + options.noise * amount[1].clamp(min=0) * torch.randn_like(x)
            loss = F.cross_entropy(network(x), torch.from_numpy(examples.kinds[index]).to(where))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            keep = min(options.average, step / (step + 10))
            with torch.no_grad():
                for mean, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
                    mean.lerp_(new, 1 - keep) if mean.is_floating_point() else mean.copy_(new)
            log.debug("step %d: loss %.4f", step, loss.item())
            if progress is not None:
                progress(step, options.steps)
    except StopTraining:
        log.info("training stopped at step %d", step)
    averaged.eval()
    with torch.no_grad():
        averaged.head.bias += torch.from_numpy(np.log(share) * options.balance).to(averaged.head.bias)
    temperature = _temperature(logits_of(averaged, held_back.pictures), held_back.kinds)
    with torch.no_grad():
        averaged.head.weight /= temperature
        averaged.head.bias /= temperature
        for tensor in averaged.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    minutes = round((time.perf_counter() - began) / 60, 2)
    card: dict[str, Any] = {"steps": step, "minutes": minutes, "seed": seed, "temperature": round(temperature, 3)}
    card["training"] = asdict(options)
    card["shares"] = [float(f"{s:.3g}") for s in share]
    return averaged.cpu(), card


def logits_of(network: Any, pictures: npt.NDArray[Any], batch: int = 1024) -> npt.NDArray[np.float64]:
    """Logits (cell, class) of pictures."""
    where = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            x = torch.from_numpy(pictures[start : start + batch].astype(np.float32)).to(where)
            parts.append(network(x).double().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, network.n_classes))


def _temperature(logits: npt.NDArray[np.float64], kinds: npt.NDArray[np.int64]) -> float:
    """Divisor of the logits that makes the truth most likely."""
    x, y = torch.from_numpy(logits), torch.from_numpy(kinds)
    grid = np.geomspace(0.5, 3.0, 61)
    return float(grid[np.argmin([float(F.cross_entropy(x / t, y)) for t in grid])])
