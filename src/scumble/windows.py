"""Windows over a picture, how large they may be, and how to tell that they were too large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from scumble.errors import UsageError

LEAST_TILE = 128
"""Pixels a side. Below it nearly all of the work would be overlap."""
ALIGNED = 16
"""Tiles begin at multiples of this, the stride of the coarsest features: a net that strides sees the same grid in every tile."""

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class Window:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a picture, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts it out of an array (H, W, …)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, by: int, height: int, width: int) -> Window:
        """``by`` pixels wider on each side, as far as a picture of ``height`` x ``width`` goes; it begins at a multiple of 16."""
        return Window(
            max(0, self.top - by) // ALIGNED * ALIGNED,
            min(height, self.bottom + by),
            max(0, self.left - by) // ALIGNED * ALIGNED,
            min(width, self.right + by),
        )

    def within(self, outer: Window) -> Window:
        """The same window as seen from the corner of ``outer``."""
        return Window(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)


def partition(height: int, width: int, tile: int, origin: tuple[int, int] = (0, 0)) -> list[Window]:
    """Tiles of ``tile`` pixels a side, row by row, that share no pixel and miss none.

    They begin at multiples of 16; the last of a row or a column takes the rest, which is never less than 16 unless the picture is.
    With an ``origin`` (row, column), multiples of 16, tiles are cut there and at whole tiles from there.
    """
    tile = max(ALIGNED, tile // ALIGNED * ALIGNED)
    rows, columns = _cuts(height, tile, origin[0] % tile), _cuts(width, tile, origin[1] % tile)
    return [Window(top, bottom, left, right) for top, bottom in rows for left, right in columns]


def _cuts(length: int, tile: int, first: int) -> list[tuple[int, int]]:
    starts = [*([0] if first else []), *range(first, length, tile)]
    if len(starts) > 1 and length - starts[-1] < ALIGNED:
        starts.pop()
    return list(zip(starts, [*starts[1:], length], strict=True))


def half(window: Window) -> int:
    """The side of tiles that cut ``window`` in half, a multiple of 16."""
    return -(-max(window.height, window.width) // (2 * ALIGNED)) * ALIGNED


def parts(window: Window, tile: int) -> Iterator[Window]:
    """``window`` cut into tiles, each beginning at a multiple of 16 if it does."""
    for part in partition(window.height, window.width, tile):
        yield Window(window.top + part.top, window.top + part.bottom, window.left + part.left, window.left + part.right)


def largest_side(memory: float, bytes_a_pixel: int, overlap: int) -> int:
    """The largest tile, in steps of 64 pixels from 128 to 4096, that takes no more than ``memory`` bytes with its overlap on all sides.

    UsageError if none does.
    """

    def cost(side: int) -> int:
        return (side + 2 * overlap) ** 2 * bytes_a_pixel

    if cost(LEAST_TILE) > memory:
        raise UsageError(
            f"the smallest tile takes {math.ceil(cost(LEAST_TILE) / 1e6)} MB of memory; got {max(0, memory) / 1e6:.0f} MB:"
            " raise it with --memory"
        )
    return max(side for side in range(LEAST_TILE, 4097, 64) if cost(side) <= memory)


def parse_bytes(text: str | int) -> int:
    """``1GB`` -> 10^9, ``512MiB`` -> 2^29; UsageError for what is no amount of memory."""
    given = str(text).strip().upper()
    number = given.rstrip("KMGTIB ")
    unit = given[len(number) :].strip()
    unit = unit.removesuffix("B") if unit != "B" else unit
    try:
        amount = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        amount = 0.0
    if not 1 <= amount < 1e18:  # also catches NaN
        raise UsageError(f"memory must be an amount such as 800MB, 1GB or 1.5GiB; got {text!r}")
    return int(amount)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is Python's, NumPy's, PyTorch's or ONNX Runtime's way of saying that an allocation failed (CPU or GPU)."""
    if isinstance(error, MemoryError):
        return True
    told = f"{type(error).__name__} {error}".lower()
    if type(error).__name__ == "OutOfMemoryError" or "defaultcpuallocator: can't allocate" in told:  # PyTorch's, CUDA and CPU
        return True
    return "onnxruntime" in type(error).__module__ and any(
        sign in told for sign in ("failed to allocate", "bad_alloc", "bad allocation", "out of memory", "memory allocation")
    )


def too_small() -> MemoryError:
    """What to raise where not even the smallest tile can be had."""
    return MemoryError("out of memory, even for a tile of 128 pixels a side; close other programs or free some")
