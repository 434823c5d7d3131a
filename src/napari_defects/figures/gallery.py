"""The gallery of what was discovered."""

from __future__ import annotations

from matplotlib.axes import Axes

from ..learning.discovery import Discovery

_GAP = 1.08
_CONTRAST = (-0.1, 1.5)  # from between the columns to half as bright again as the host


def clusters(ax: Axes, found: Discovery) -> Axes:
    """Draw the mean image of each cluster that `discover` found, and that of the pristine columns below it."""
    side = max((c.patch_nm for c in found.clusters), default=1.0)
    step = _GAP * side
    for k, cluster in enumerate(found.clusters):
        for row, patch in enumerate((cluster.host, cluster.patch)):
            extent = (step * k, step * k + side, step * row, step * row + side)
            ax.imshow(
                patch[::-1], cmap="gray", vmin=_CONTRAST[0], vmax=_CONTRAST[1], extent=extent, origin="lower",
                interpolation="bicubic",
            )  # fmt: skip
        height = f"{cluster.relative_height:.3f} ± {cluster.relative_height_err:.3f}"
        words = f"{cluster.n} on {cluster.sublattice}{', odd shape' * cluster.odd_shape}\n{height}"
        ax.text(step * k + side / 2, 2.12 * side, words, ha="center", va="bottom", fontsize=7)
    if found.clusters:
        for row, words in enumerate(("pristine", "novel")):
            ax.text(-0.06 * side, step * row + side / 2, words, ha="right", va="center", rotation=90, fontsize=7)
    else:
        ax.text(0.5, 0.5, "nothing novel", ha="center", va="center", transform=ax.transAxes)
    ax.set(xlim=(-0.3 * side, step * max(len(found.clusters), 1)), ylim=(0, 2.6 * side), aspect="equal")
    ax.set_axis_off()
    return ax
