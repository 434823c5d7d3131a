"""Settings of the plugin, as napari keeps them: the device, the threads, where models of one's own are."""

from __future__ import annotations

import os
import sys
from typing import Any


def setting(name: str, default: Any) -> Any:
    """Return a setting of the group "compute"; `default` without a window or where napari knows no such settings."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings("napari-defects").compute, name)
    except Exception:  # whatever napari raises where there is no manifest, no file, or another version
        return default


def device() -> str | None:
    """Return the device for networks; None for the best there is."""
    chosen = str(setting("device", "auto"))
    return None if chosen == "auto" else chosen


def accelerator() -> str | None:
    """Return the GPU that was named, for what compiled loops do where none was; else None."""
    chosen = device()
    return None if chosen == "cpu" else chosen


def limit_threads() -> None:
    """Let the libraries that compute use as many threads as the settings say; called in the thread that computes."""
    threads = int(setting("threads", 0))
    if threads <= 0:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):  # if loaded later
        os.environ[name] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    if (loops := sys.modules.get("napari_defects.gaussian.threads")) is not None:
        loops.limit(threads)


def keep_llvm_single() -> None:
    """Keep triton out of a process in which Mesa draws with LLVM: two copies of LLVM end it with a crash.

    torchvision loads triton by way of torch's compiler, which nothing here uses; with a driver of NVIDIA's, or where
    triton is there already, nothing is changed.
    """
    if sys.platform != "linux" or "triton" in sys.modules:
        return
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            if "libLLVM" in maps.read():
                sys.modules["triton"] = None  # type: ignore[assignment]
    except OSError:
        return
