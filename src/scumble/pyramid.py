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
    rows, columns = height // cell, width // cell
    high, wide = rows * cell, columns * cell
    found = np.empty((-(-height // cell), width, channels), np.float32)
    pixels[:high].reshape(rows, cell, width, channels).mean(1, out=found[:rows])
    if high < height:
        pixels[high:].mean(0, out=found[-1])
    means = np.empty((len(found), -(-width // cell), channels), np.float32)
    # a sixth of what sum(2) takes over so few neighbours, and half of what reduceat takes
    np.einsum("ijkc->ijc", found[:, :wide].reshape(len(found), columns, cell, channels), out=means[:, :columns])
    means[:, :columns] *= np.float32(1 / cell)
    if wide < width:
        found[:, wide:].mean(1, out=means[:, -1])
    return means.transpose(2, 0, 1)
