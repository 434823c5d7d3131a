"""Where to compute, and with how many digits."""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)


def pick_device(device: str | None) -> torch.device:
    """Return the device to compute on: as asked for, or else CUDA, MPS, CPU in this order.

    Raises
    ------
    ValueError
        If the device asked for is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is None:
        found = next(name for name, there in present.items() if there)
        log.debug("computing on %s", found)
        return torch.device(found)
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or not present.get(chosen.type, False):
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise ValueError(f"`device` must be one that is there ({there}), got {device!r}.")
    return chosen


def fast_dtype(device: torch.device, *, training: bool = False) -> torch.dtype:
    """Return the quickest number type: bfloat16 on a CPU that has it, half precision on a GPU."""
    if device.type == "cpu":
        has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if has_bf16() else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if training and torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32 if training else torch.float16
