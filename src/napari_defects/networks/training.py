"""Training: pairs in, model out; cancelled, killed or finished, the best weights are kept."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..micrograph import Micrograph, Progress
from .devices import fast_dtype, pick_device
from .examples import Examples
from .family import FAMILY
from .models import Model, Network, load_model
from .options import Training
from .validation import score, verdicts
from .zoo import check_classes

log = logging.getLogger(__name__)
Pair = tuple[Micrograph, pd.DataFrame]


class StopTraining(Exception):
    """Raise it from `progress` to end a training early and get the best model so far."""


def train(
    pairs: Iterable[Pair],
    *,
    classes: tuple[str, ...],
    options: Training = Training(),  # noqa: B008 (it is frozen)
    device: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Model:
    """Train a network to find and name columns.

    Parameters
    ----------
    pairs : iterable of (Micrograph, DataFrame)
        Images with what is in them: ``y_nm``, ``x_nm``, ``species`` of every host column, defect
        and empty site. May be endless; a finite one is used again and again.
    classes : tuple of str
        ``"background"``, then host columns, then species. Where discs meet, the later class wins.
    options : Training
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"mps"``; by itself the best that is there.
    seed : int
        Same seed, same pairs, same machine, CPU: same weights.
    progress : callable, optional
        Called as ``progress(done, total)`` after each step. `StopTraining` raised from it ends the
        training with the best weights so far; any other exception passes through, after the
        checkpoint is written.

    Returns
    -------
    Model
        With the weights of the best validation; its card tells how it was made.

    Raises
    ------
    ValueError
        If there are too few pairs, or they hold species that are not among the classes.
    """
    classes = check_classes(classes)
    where = pick_device(device)
    torch.manual_seed(seed)
    examples = Examples(iter(pairs), classes, options, seed)
    run = _Run(Network(len(classes), **_architecture(options)), classes, options, where, examples)
    if options.start is not None:
        run.start_from(options.start)
    if options.checkpoint is not None and Path(options.checkpoint).is_file():
        run.resume(Path(options.checkpoint))
    try:
        while run.step < options.steps and run.fraction < 1:
            run.advance()
            if run.step % options.validate_every == 0 and run.validate() >= options.patience:
                log.info("no better score for %d validations: training ends at step %d", options.patience, run.step)
                break
            if progress is not None:
                progress(run.step, options.steps)
    except StopTraining:
        log.info("training stopped at step %d", run.step)
    except BaseException:
        run.write()
        raise
    if run.step % options.validate_every or run.best is None:
        run.validate()
    return run.model(seed)


class _Run:
    """State of one training."""

    def __init__(
        self, network: Network, classes: tuple[str, ...], options: Training, device: torch.device, examples: Examples
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes, self.options, self.device, self.examples = classes, options, device, examples
        self.averaged = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.class_weights = torch.from_numpy(examples.class_weights(options.balance)).to(device)
        if unknown := set(options.odds) - set(classes):
            raise ValueError(f"`odds` names {min(unknown)!r}, which is not among `classes`.")
        self.odds = torch.tensor([float(options.odds.get(c, 1.0)) for c in classes], device=device)
        self.step, self.seconds, self.best_score, self.stale = 0, 0.0, -1.0, 0
        self.best: dict[str, torch.Tensor] | None = None
        self.history: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.table: list[dict[str, Any]] = []
        self.dtype = fast_dtype(device, training=True)

    @property
    def fraction(self) -> float:
        """How much of the training is over, by steps or by the clock."""
        limit = self.options.minutes
        return max(self.step / self.options.steps, self.seconds / (60 * limit) if limit else 0.0)

    def advance(self) -> None:
        """One step of the optimizer."""
        began = time.perf_counter()
        rate = (
            self.options.learning_rate
            * min(1.0, (self.step + 1) / min(200, max(1, self.options.steps // 5)))
            * 0.5
            * (1 + math.cos(math.pi * self.fraction))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, targets = self.examples.batch(self.step)
        x = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        y = torch.from_numpy(targets).to(self.device)
        self.network.train()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(x)
        loss = F.cross_entropy(logits.float(), y, self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self.options.average, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, new in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
                mean.lerp_(new, 1 - keep) if mean.is_floating_point() else mean.copy_(new)
        self.losses.append(float(loss.detach()))
        log.debug("step %d: loss %.4f", self.step, self.losses[-1])
        self.seconds += time.perf_counter() - began

    def corrected(self) -> Network:
        """Return the averaged network, its bias corrected for the weights in the loss and the odds expected."""
        network: Network = copy.deepcopy(self.averaged).eval()
        with torch.no_grad():
            assert network.head.bias is not None
            network.head.bias += (self.odds / self.class_weights).log()
        return network

    def validate(self) -> int:
        """Score the averaged weights on the pairs held back; return for how long nothing got better."""
        network = self.corrected()
        table = verdicts(network, self.examples.held_back, self.classes, self.device)
        value, rows = score(table, self.classes, self.options.crystal)
        loss = float(np.mean(self.losses)) if self.losses else math.nan
        self.history.append({"step": self.step, "seconds": round(self.seconds, 1), "loss": loss, "score": value})
        self.losses = []
        self.stale = 0 if value > self.best_score else self.stale + 1
        if self.best is None or not self.stale:
            self.best, self.best_score, self.table = network.weights(), value, rows
        log.info("step %d: loss %.4f, score %.4f (%.0f s)", self.step, loss, value, self.seconds)
        self.write()
        return self.stale

    def write(self) -> None:
        """Write the checkpoint: whole or not at all."""
        if self.options.checkpoint is None:
            return
        path = Path(self.options.checkpoint)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        names = ("step", "seconds", "best_score", "stale", "best", "history", "table", "class_weights")
        state = {name: getattr(self, name) for name in names}
        parts = {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimizer")}
        torch.save({**state, **parts, "classes": list(self.classes)}, partial)
        os.replace(partial, path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError when it is not one of this training."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if tuple(state.pop("classes")) != self.classes:
                raise ValueError("other classes")
            for name in ("network", "averaged", "optimizer"):
                getattr(self, name).load_state_dict(state.pop(name))
            for name, value in state.items():
                if name not in vars(self):
                    raise ValueError(f"unknown entry {name!r}")
                setattr(self, name, value)
        except Exception as error:
            raise ValueError(
                f"`checkpoint` {str(path)!r} is not one of this training ({str(error).splitlines()[0][:80]}); "
                "remove it, or give another name."
            ) from None
        log.info("resuming at step %d", self.step)

    def start_from(self, path: str | Path) -> None:
        """Take over the weights of another model; its classes by their names, new ones begin as unlikely."""
        model = load_model(path)
        if {**model.network.architecture, "inputs": 0} != {**self.network.architecture, "inputs": 0}:
            raise ValueError(
                f"`start`: {str(path)!r} has another architecture than asked for: "
                f"{model.network.architecture}, not {self.network.architecture}."
            )
        if not set(model.classes[1:]) & set(self.classes):
            raise ValueError(f"`start`: {str(path)!r} has none of the classes {', '.join(self.classes[1:])}.")
        rows = [model.classes.index(c) if c in model.classes else -1 for c in self.classes]
        known = torch.tensor([row >= 0 for row in rows], device=self.device)
        state = {k: v.to(self.device) for k, v in model.network.state_dict().items()}
        for name in ("head.weight", "head.bias"):
            old, fresh = state[name][rows], self.network.state_dict()[name]
            state[name] = torch.where(known.reshape(-1, *[1] * (old.ndim - 1)), old, 0.1 * fresh)
        state["head.bias"] += torch.where(known, (self.class_weights / self.odds).log(), state["head.bias"].mean() - 2)
        for name, fresh in self.network.state_dict().items():
            if fresh.ndim == 4 and (more := fresh.shape[1] - state[name].shape[1]):  # a hint joins the image
                state[name] = F.pad(state[name], (0, 0, 0, 0, 0, more))
        for network in (self.network, self.averaged):
            network.load_state_dict(state)

    def model(self, seed: int) -> Model:
        """Return the best weights as a model with its card."""
        network = Network(len(self.classes), **self.network.architecture)
        network.load_state_dict(self.best or {}, strict=False)
        options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self.options).items()}
        card = {
            "training": {k: v for k, v in options.items() if k not in ("checkpoint", "start")},
            "seed": seed,
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "score": self.best_score,
            "history": self.history,
            "validation": self.table,
            "dose_e_per_A2": self.examples.dose_range,
        }
        return Model(network.eval(), self.classes, self.options.pixel_size_nm, self.options.crystal, card)


def _architecture(options: Training) -> dict[str, Any]:
    parts = {name: getattr(options, name) for name in ("kind", "channels", "levels", "stem")}
    return parts | {"inputs": 2 if options.crystal == FAMILY else 1}
