"""A picture that was painted at a reduced size, brought back to its own, window by window.

A brush has its width relative to the picture, so a large picture is painted small. What that can't hold, everything finer than its
pixels, comes from one of two places: from the content as it is, or from the content painted once more at full size, with the small
pass's statistics. Either way only what is finer is taken, so that a reduced result is the small painting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble.tiling.local import Local, Read
from scumble.windows import Window, largest_side

Array = NDArray[np.float32]

DETAILS = ("content", "painted")
_CELLS = 5
"""Pixels of the small picture around a window that have a say in it: two by cubic interpolation, two by the cubic filter that reduces
(a triangle lets through too much: the reduced result was at SSIM 0.88 to the small painting, with cubic at 0.95), one for rounding."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What is laid over a large picture, of which any window can be had."""

    small: Array
    """(h, w, 3) in [0, 1]: the content at the reduced size."""
    painted: Array
    """(h, w, 3) in [0, 1]: the same, painted."""
    detail: Local | None = None
    """Paints what is finer; None leaves it as it is in the content."""

    def overlap(self, height: int, width: int) -> int:
        """Pixels around a window that are read for it, in a picture of ``height`` x ``width``."""
        if self.detail is None:
            return 0
        cell = max(height / len(self.small), width / self.small.shape[1])
        return self.detail.reach + math.ceil((_CELLS + 1) * cell)

    @property
    def bytes_a_pixel(self) -> int:
        """Peak memory for each pixel of a window, overlap included: the content, the result, two of what lies between, and the net's."""
        return 60 + (0 if self.detail is None else self.detail.bytes_a_pixel)

    def side_within(self, memory: float, height: int, width: int) -> int:
        """The largest tile that takes no more than ``memory`` bytes; UsageError if none does."""
        return largest_side(memory, self.bytes_a_pixel, self.overlap(height, width))

    def paint_window(self, window: Window, read: Read, height: int, width: int) -> Array:
        """One window (h, w, 3) in [0, 1] of a picture of ``height`` x ``width``; MemoryError as of :class:`~scumble.tiling.Local`."""
        if self.detail is None:
            change = enlarged(self.painted - self.small, window, height, width)
            change += read(window)
            return np.clip(change, 0.0, 1.0, out=change)
        rows, top, bottom = _cells(window.top, window.bottom, height, len(self.small))
        columns, left, right = _cells(window.left, window.right, width, self.small.shape[1])
        outer = Window(top, bottom, left, right)
        fine = self.detail.paint_window(outer, read, height, width)
        y, x = height / len(self.small), width / self.small.shape[1]
        box = (columns.start * x - left, rows.start * y - top, columns.stop * x - left, rows.stop * y - top)
        coarse = resampled(fine, rows.stop - rows.start, columns.stop - columns.start, box, Image.Resampling.BICUBIC)
        change = self.painted[rows, columns] - coarse
        box = (
            window.left / x - columns.start,
            window.top / y - rows.start,
            window.right / x - columns.start,
            window.bottom / y - rows.start,
        )
        out = resampled(change, window.height, window.width, box, Image.Resampling.BICUBIC)
        out += fine[window.within(outer).slices]
        return np.clip(out, 0.0, 1.0, out=out)


def enlarged(small: Array, window: Window, height: int, width: int) -> Array:
    """One window of ``small`` (h, w, C) brought to ``height`` x ``width``: the pixels that the whole would have there."""
    y, x = len(small) / height, small.shape[1] / width
    box = (window.left * x, window.top * y, window.right * x, window.bottom * y)
    return resampled(small, window.height, window.width, box, Image.Resampling.LANCZOS)


def resampled(pixels: Array, height: int, width: int, box: tuple[float, float, float, float], filter: Image.Resampling) -> Array:
    """The part ``box`` = (left, top, right, bottom) of ``pixels`` (h, w, C) at another size, not clipped. What lies around it counts."""
    limits = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
    inside = (max(box[0], limits[0]), max(box[1], limits[1]), min(box[2], limits[2]), min(box[3], limits[3]))  # rounding may lead out
    planes = (Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2]))
    return np.stack([np.asarray(plane.resize((width, height), filter, box=inside)) for plane in planes], axis=-1)


def _cells(start: int, stop: int, length: int, cells: int) -> tuple[slice, int, int]:
    """For the pixels ``start`` to ``stop``: the cells of the small picture that they need, and the pixels that those need."""
    size = length / cells
    first, last = max(0, math.floor(start / size) - 3), min(cells, math.ceil(stop / size) + 3)
    return slice(first, last), max(0, math.floor((first - 2) * size)), min(length, math.ceil((last + 2) * size))
