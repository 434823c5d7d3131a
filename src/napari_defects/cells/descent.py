"""A network on its way down: AdamW on a half cosine, the running average of its weights, and its state on disk."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..micrograph import Progress
from ..networks.training import StopTraining

log = logging.getLogger(__name__)

_EVERY = 50  # steps between two writings of the state


class Options(Protocol):
    """What the ways to train a network have in common; see `Fitting`."""

    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def average(self) -> float: ...  # noqa: D102
    @property
    def minutes(self) -> float | None: ...  # noqa: D102


class Descent:
    """Trains a network step by step, and goes on where it was left.

    Parameters
    ----------
    network, averaged
        Two of a kind with the same weights: the second becomes the running average of the first.
    options : Options
    warm_up : int
        Steps over which the learning rate rises.
    rng : Generator
        What the caller draws with; its state is kept, as torch's is.
    checkpoint : path, optional
        File of the state: read where it exists, written every 50 steps, at the end and when anything goes wrong.

    Attributes
    ----------
    step : int
        Steps taken.
    seconds : float
        Time they took, earlier runs included.
    """

    def __init__(
        self, network: Any, averaged: Any, options: Options, *, warm_up: int, rng: np.random.Generator,
        checkpoint: str | Path | None = None,
    ):  # fmt: skip
        self.network, self.averaged, self._options, self._warm_up, self._rng = network, averaged, options, warm_up, rng
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.step, self.seconds = 0, 0.0
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        if self._checkpoint is not None and self._checkpoint.is_file():
            self._resume(self._checkpoint)

    def run(self, progress: Progress | None = None) -> Iterator[int]:
        """Yield the number of each step to take; the caller calls `learn` once for each."""
        self.network.train()
        ended = False
        try:
            while self._over(self.step) < 1:
                began = time.perf_counter()
                for group in self._optimizer.param_groups:
                    group["lr"] = self._options.learning_rate * self._rate()
                yield self.step
                self.step += 1
                self._follow()
                self.seconds += time.perf_counter() - began
                if self.step % _EVERY == 0:
                    self._write()
                if progress is not None:
                    progress(self.step, self._options.steps)
            ended = True
        except StopTraining:
            log.info("training stopped at step %d", self.step)
        finally:
            if not ended or self.step % _EVERY:
                self._write()

    def learn(self, loss: torch.Tensor, longest: float = math.inf) -> None:
        """Go down a loss by one step, with a gradient not longer than `longest`."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if longest < math.inf:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), longest)
        self._optimizer.step()
        log.debug("step %d: loss %.4f", self.step + 1, loss.item())

    def card(self, seed: int) -> dict[str, Any]:
        """Return what a card says of the way."""
        return {"steps": self.step, "minutes": round(self.seconds / 60, 2), "seed": seed}

    def _over(self, step: int) -> float:
        """Part of the way that is behind us."""
        return max(step / self._options.steps, self.seconds / 60 / (self._options.minutes or math.inf))

    def _rate(self) -> float:
        step = self.step + 1
        return 0.5 * (1 + math.cos(math.pi * self._over(step))) * min(1.0, step / self._warm_up)

    def _follow(self) -> None:
        keep = min(self._options.average, self.step / (self.step + 10))
        pairs = zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True)
        with torch.no_grad():
            for mean, new in pairs:
                mean.lerp_(new, 1 - keep) if mean.is_floating_point() else mean.copy_(new)

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "averaged": self.averaged, "optimizer": self._optimizer}

    def _write(self) -> None:
        if self._checkpoint is None:
            return
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"step": self.step, "seconds": self.seconds, "torch": torch.get_rng_state()}
        state["numpy"] = json.dumps(self._rng.bit_generator.state)
        partial = self._checkpoint.with_name(f".{self._checkpoint.name}.{os.getpid()}.part")
        try:
            torch.save(state, partial)
            os.replace(partial, self._checkpoint)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            torch.set_rng_state(state["torch"])
            self._rng.bit_generator.state = json.loads(state["numpy"])
        except Exception as error:
            why = str(error).splitlines()[0][:120]
            raise ValueError(
                f"`checkpoint` {str(path)!r} is not one of this training ({why}); delete it to begin anew."
            ) from None


def in_half_precision(network: Any) -> Any:
    """Return the network, ready to use, its weights rounded to half precision."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return network.cpu().eval()
