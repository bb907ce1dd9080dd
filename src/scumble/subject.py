"""The subject: what a picture shows before a flat ground, as products are shown.

Nets normalise by statistics of the whole picture, and the finish gives all of it a style's contrast. Where most of it is empty ground,
what little there is of either lies in the subject and its outline, which then were made many times too strong: posterised, in a glowing
rim. So there statistics are those of the subject with a little of the ground around it, and the whole is painted with them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scumble.grain import GRAIN, variances
from scumble.guided import CELL
from scumble.windows import Window

Array = NDArray[np.float32]

MOST = 0.6
"""Share of the picture above which a subject is not set apart. Photographs with a clear sky above come to 0.75 and more."""
AROUND = 2 * CELL
"""Pixels of the ground that belong to it."""
LEAST = 12 * CELL
"""Its least side in pixels: the coarsest patches of the finish need 128."""


def subject(pixels: Array) -> Window | None:
    """The part of (H, W, 3) outside of which all is flat, with :data:`AROUND` of that; None where it is most of the picture, or nothing.

    Flat is what has less than :data:`~scumble.grain.GRAIN`, so this is to be asked before grain is added.
    """
    busy: NDArray[np.bool_] = variances(pixels) > GRAIN**2
    if not busy.any():
        return None
    height, width, _ = pixels.shape
    (top, bottom), (left, right) = (_span(np.flatnonzero(busy.any(axis)), n) for axis, n in ((1, height), (0, width)))
    found = Window(top, bottom, left, right)
    return found if found.height * found.width <= MOST * height * width else None


def _span(cells: NDArray[np.intp], length: int) -> tuple[int, int]:
    """From the first to the last of ``cells``, in pixels, with what belongs to them; it begins at a cell."""
    first, end = int(cells[0]) * CELL - AROUND, int(cells[-1] + 1) * CELL + AROUND
    more = max(0, LEAST - (end - first)) // 2
    first = max(0, min(first - more, length - LEAST)) // CELL * CELL
    return first, min(length, max(end + more, first + LEAST))
