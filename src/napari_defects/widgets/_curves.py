"""Curves of a training while it runs: the loss at every step, the score at every validation."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_defects.widgets._plots import COLORS, Plot

_SMOOTH = 25  # steps that the loss is averaged over
_LOG = "napari_defects"  # of all trainings: what they say is passed on to it


class Curves(Plot):
    """Loss and score against steps, drawn twice a second at most."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[tuple[int, float]] = []
        self.scores: list[tuple[int, float]] = []
        self._timer = QTimer(self, interval=500, singleShot=True)
        self._timer.timeout.connect(self.draw)

    def clear(self) -> None:
        """Forget the curves."""
        self.losses, self.scores = [], []
        self.setVisible(False)

    def listener(self) -> Listener:
        """Return a listener that feeds the curves from another thread."""
        listener = Listener()
        listener.signals.loss.connect(self.add_loss)
        listener.signals.score.connect(self.add_score)
        return listener

    def add_loss(self, step: int, loss: float) -> None:
        """Add the loss of one step."""
        self.losses.append((step, loss))
        self._later()

    def add_score(self, step: int, score: float) -> None:
        """Add the score of a validation."""
        self.scores.append((step, score))
        self._later()

    def _later(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def draw(self) -> None:
        """Draw what there is."""
        if not self.losses and not self.scores:
            return
        self.begin("step", "")
        if self.losses:
            steps, loss = np.array(self.losses).T
            width = min(_SMOOTH, len(loss))
            mean = np.convolve(loss, np.ones(width) / width, "valid")
            self.line(steps[width - 1 :], mean, COLORS[1], f"loss {mean[-1]:.3f}")
        if self.scores:
            steps, score = np.array(self.scores).T
            self.line(steps, score, COLORS[0], f"score {score[-1]:.3f}, best {score.max():.3f}")
            self.plot.plot(steps, score, pen=None, symbol="o", symbolSize=5, symbolBrush=COLORS[0], symbolPen=None)


class _Signals(QObject):
    loss = Signal(int, float)
    score = Signal(int, float)


class Listener(logging.Handler):
    """Hears what the training writes to its log, as long as it is entered as a context."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.signals = _Signals()
        self._log = logging.getLogger(_LOG)

    def __enter__(self) -> Listener:
        self._level = self._log.level
        self._log.addHandler(self)
        self._log.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: Any) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        """Take the numbers out of a line: (step, loss), or (step, loss, score, seconds)."""
        values: Any = record.args
        if not isinstance(values, tuple) or not record.msg.startswith("step %d: loss"):
            return
        if len(values) == 2:
            self.signals.loss.emit(int(values[0]), float(values[1]))
        elif len(values) == 4:
            self.signals.score.emit(int(values[0]), float(values[2]))
            if values[1] == values[1]:  # not NaN
                self.signals.loss.emit(int(values[0]), float(values[1]))
