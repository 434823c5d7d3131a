"""The scan itself: offsets of its lines by frequency."""

from __future__ import annotations

from typing import Any

import pandas as pd


def jitter_spectrum(ax: Any, lines: pd.DataFrame, *, clear: float = 15.0) -> Any:
    """Amplitude of line jitter by frequency; what stands out of its surroundings is marked.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    lines : DataFrame
        From `napari_defects.atoms.line_offsets`.
    clear : float
        Power over that of the frequencies around from which a peak is marked.
    """
    spectrum = lines.attrs["spectrum"].iloc[1:]
    timed = spectrum["frequency_Hz"].notna().all()
    x = spectrum["frequency_Hz" if timed else "per_line"]
    ax.plot(x, spectrum["amplitude_pm"], lw=0.8, color="#3b6fb6")
    top = spectrum["amplitude_pm"]
    peak = (spectrum["above"] > clear) & (top >= top.rolling(7, center=True, min_periods=1).max())
    for place, height in zip(x[peak], top[peak], strict=True):
        ax.annotate(f"{place:.3g}", (place, height), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7)
    ax.set_xlabel("frequency (Hz)" if timed else "frequency (cycles per line)")
    ax.set_ylabel("amplitude (pm)")
    ax.set_title(f"line jitter, {lines.attrs['rms_pm']:.1f} pm rms", fontsize=9)
    ax.margins(x=0, y=0.12)
    return ax
