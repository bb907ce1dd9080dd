"""How much can be painted in a given time, learnt from what painting takes: a machine gets slower when others use it, and faster again."""

from __future__ import annotations

import threading
from collections import deque
from statistics import median

from scumble.style import REFERENCE
from scumble.stylizer import LARGEST

USUAL = round((LARGEST * REFERENCE) ** 2)
"""Pixels of the largest pass that is made without a ``style_scale``."""
STEPS = tuple(round(USUAL * 2 ** (k / 2)) for k in range(-5, 4))
"""Pixels of a pass. They lie √2 apart, so that the width of the brush changes by a fifth, and seldom. Below the first, strokes can't be
told apart, whatever the machine; above the last a preview would take a GB of memory."""
PASSES = 5
"""The median over so many last passes counts: a single one may have waited for something else."""
WORTH = 50_000
"""Pixels of a pass that tells something; in smaller ones it is the calls that take the time."""


class Pace:
    """How many pixels a kind of pass does in ``seconds``. May be asked and told from any thread.

    Args:
        seconds: for one pass.
        guess: seconds for a million pixels, until there is a measurement.
    """

    def __init__(self, seconds: float, guess: float) -> None:
        self.seconds = seconds
        self._rates = deque([guess / 1e6], maxlen=PASSES)
        self._lock = threading.Lock()
        self._step = self._affordable(1.0)

    @property
    def pixels(self) -> int:
        """How many a pass should have at most."""
        return STEPS[self._step]

    def took(self, pixels: int, seconds: float) -> None:
        """A pass has been made. Down by what is needed as soon as the median says so; up only where a fifth would be to spare."""
        if pixels < WORTH:
            return
        with self._lock:
            self._rates.append(seconds / pixels)
            if self.seconds_for(self.pixels) > 1.2 * self.seconds:
                self._step = self._affordable(1.0)
            else:
                self._step = max(self._step, self._affordable(0.8))

    def seconds_for(self, pixels: float) -> float:
        """What a pass should take."""
        return median(self._rates) * pixels

    def _affordable(self, share: float) -> int:
        return max((k for k, pixels in enumerate(STEPS) if self.seconds_for(pixels) <= share * self.seconds), default=0)
