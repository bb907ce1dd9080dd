"""Pictures at half the size and half of that, smoothly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""Of two pixels that become one, and their neighbours. Means of 2 × 2 pixels alias: a slanted edge had beads, one for every 8 pixels that
it moved by, and pixels in pairs were more alike than between pairs (24 pairs: steps 1.21 times as large at every second row or column,
1.12 with these)."""


def halved(planes: Array) -> Array:
    """(C, h, w) -> (C, ⌈h/2⌉, ⌈w/2⌉); the edge is repeated."""
    return _halved(_halved(planes, 1), 2)


def _halved(planes: Array, axis: int) -> Array:
    half = -(-planes.shape[axis] // 2)
    padded = np.pad(planes, [(1, 2) if k == axis else (0, 0) for k in range(3)], mode="edge")

    def tap(k: int) -> Array:
        places = slice(k, k + 2 * half - 1, 2)
        return padded[:, places] if axis == 1 else padded[:, :, places]

    found, beside = tap(1) + tap(2), tap(0) + tap(3)
    found *= np.float32(TAPS[1])
    beside *= np.float32(TAPS[0])
    found += beside
    return found


def means(pixels: Array, cell: int) -> Array:
    """(H, W, C) -> means of ``cell`` × ``cell`` pixels, (C, ⌈H/cell⌉, ⌈W/cell⌉); the last ones of what there is."""
    height, width, channels = pixels.shape
    rows, columns = (np.arange(0, n, cell) for n in (height, width))
    whole = height // cell * cell
    found = np.empty((len(rows), width, channels), np.float32)
    pixels[:whole].reshape(-1, cell, width, channels).mean(1, out=found[: whole // cell])
    if whole < height:
        pixels[whole:].mean(0, out=found[-1])
    found = np.add.reduceat(found, columns, axis=1) / np.diff(columns, append=width)[:, None].astype(np.float32)
    return found.transpose(2, 0, 1)
