"""A method with its statistics frozen: any window of the picture can be painted by itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scumble import cascade, finish
from scumble.engine import GENERATOR_REACH, Engine
from scumble.picture import Picture
from scumble.style import Style, toward
from scumble.tiling import exact as exact_statistics
from scumble.tiling.exact import Sweep
from scumble.windows import ALIGNED, LEAST_TILE, Window, half, is_out_of_memory, largest_side, partition, parts, too_small

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
Read = Callable[[Window], Array]
"""Pixels (h, w, 3) in [0, 1] of a window of the picture."""

STATISTICS = ("thumbnail", "exact")
CASCADE_REACH = 208 + finish.REACH
"""How far the eye and the decoders see, 203 pixels by their convolutions, and the finish; a multiple of the stride of 16."""
GENERATOR_BYTES = 280
CASCADE_BYTES = 850
"""Memory for each pixel of a tile with its overlap. What one pass adds to the resident memory, a pixel, on a CPU with glibc:

- generator: 239 to 293 up to 1024², 210 in tiles of 1024² with their overlap; 100 at 2048², 68 at 3840 x 2160;
- fusion methods: 470 to 569 at 1024², 727 in tiles of 960² one after the other; 390 at 2048².

Large pictures take less because their features are mapped, and given back as soon as they are dropped, where smaller ones leave holes
in the heap. A budget is mostly spent on tiles, so the constants are theirs, the second with a margin of a sixth; whatever is larger than
these stays well below the budget.
"""
LOOK_BYTES = 480
"""The same for a look at a draft, at 1024²: it is the eye that takes them."""


@dataclass
class Limit:
    """The largest tile that there was memory for."""

    side: int = sys.maxsize


@dataclass(frozen=True, eq=False)
class Local:
    """A method, a style and frozen statistics; :meth:`paint` is then a function of a pixel's neighbourhood alone.

    ``strength`` as in :class:`~scumble.stylizer.Stylizer`, what it puts back of the content below 1 included.
    """

    engine: Engine
    passes: tuple[tuple[float, Array | None, Array | cascade.FrozenMaps], ...]
    """(weight, modulation, statistics) for each run of a net, the fusion methods' without a modulation."""
    content: float
    """Weight of the content itself."""
    style: Style
    limit: Limit = field(default_factory=Limit)

    @property
    def reach(self) -> int:
        """Pixels around a window that have a say in it."""
        return CASCADE_REACH if self.passes[0][1] is None else GENERATOR_REACH

    @property
    def bytes_a_pixel(self) -> int:
        """Peak memory for each pixel of what is painted at once, overlap included."""
        return CASCADE_BYTES if self.passes[0][1] is None else GENERATOR_BYTES

    def side_within(self, memory: float) -> int:
        """The largest tile that takes no more than ``memory`` bytes; UsageError if none does."""
        return largest_side(memory, self.bytes_a_pixel, self.reach)

    def paint(self, pixels: Array) -> Array:
        """(h, w, 3) in [0, 1] -> the same painted; ``pixels`` must begin at multiples of 16 of the picture."""
        if self.content == 0 and len(self.passes) == 1:
            return self._pass(pixels, *self.passes[0][1:])
        out = np.float32(self.content) * pixels
        for weight, modulation, frozen in self.passes:
            out += np.float32(weight) * self._pass(pixels, modulation, frozen)
        return np.clip(out, 0.0, 1.0, out=out)

    def _pass(self, pixels: Array, modulation: Array | None, frozen: Array | cascade.FrozenMaps) -> Array:
        if modulation is None:
            assert isinstance(frozen, cascade.FrozenMaps)
            return cascade.paint(self.engine, pixels, self.style, frozen=frozen)[0]
        assert not isinstance(frozen, cascade.FrozenMaps)
        return self.engine.paint(pixels, modulation, frozen=frozen)[0]

    def paint_window(self, window: Window, read: Read, height: int, width: int) -> Array:
        """One window (h, w, 3) of a picture of ``height`` x ``width``, with the overlap that it takes.

        Out of memory, this and all later ones are made of tiles half as large, and so on; MemoryError when they get below 128 pixels.
        """
        if max(window.height, window.width) >= self.limit.side + ALIGNED:  # the last of a row may be that much larger
            out = np.empty((window.height, window.width, 3), np.float32)
            for part in parts(window, self.limit.side):
                out[part.within(window).slices] = self.paint_window(part, read, height, width)
            return out
        outer = window.grown(self.reach, height, width)
        try:
            return self.paint(read(outer))[window.within(outer).slices]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if max(window.height, window.width) < 2 * LEAST_TILE:
                raise too_small() from error
        if self.limit.side == sys.maxsize:
            log.warning("out of memory: going on with smaller tiles")
        self.limit.side = half(window)
        return self.paint_window(window, read, height, width)


def reach(method: str) -> int:
    """How far ``method`` sees with its statistics frozen, in pixels."""
    return GENERATOR_REACH if method == "generator" else CASCADE_REACH


def bytes_a_pixel(method: str) -> int:
    """Peak memory of one pass of ``method``, for each pixel."""
    return GENERATOR_BYTES if method == "generator" else CASCADE_BYTES


def missed(engine: Engine, style: Style, pixels: Array, memory: float) -> Array:
    """What a draft of ``pixels`` lacks, see :meth:`~scumble.style.Style.missed_in`; where ``memory`` is short, a draft of them reduced."""
    height, width, _ = pixels.shape
    shrink = (memory / (LOOK_BYTES * height * width)) ** 0.5
    if shrink < 1.0:
        pixels = Picture.from_array(pixels).resized(width=max(1, int(width * shrink)), height=max(1, int(height * shrink))).pixels
    return style.missed_in(pixels, engine)


def least_memory(method: str) -> int:
    """Bytes that the smallest tile takes."""
    return (LEAST_TILE + 2 * reach(method)) ** 2 * bytes_a_pixel(method)


def freeze(
    engine: Engine,
    thumbnail: Array,
    style: Style,
    *,
    method: str = "generator",
    strength: float = 1.0,
    look: bool = False,
    statistics: str = "thumbnail",
    sweeps: Callable[[int], Sweep],
    memory: float,
) -> Local:
    """The statistics with which a picture is to be painted in tiles.

    ``thumbnail`` measures them in one pass over the reduced picture, as URST does (Chen et al. 2022, *Towards Ultra-Resolution Neural
    Style Transfer via Thumbnail Instance Normalization*). ``exact`` are those of the full picture, see :mod:`scumble.tiling.exact`.

    Args:
        thumbnail: (h, w, 3) in [0, 1]; the picture itself where it is held whole.
        look: see first what a draft of it lacks, :func:`missed`.
        sweeps: sweeps over the full picture, for ``exact``, in tiles of a side.
        memory: bytes that one tile may take in them.
    """
    exact = statistics == "exact"
    if method != "generator":
        tile = largest_side(memory, CASCADE_BYTES, CASCADE_REACH) if exact else 0
        maps = [
            exact_statistics.fusion_maps(engine, style, method, s, sweeps(tile))
            if exact and s > 0  # maps of strength 0 change nothing
            else cascade.paint(engine, thumbnail, style, method=method, strength=s)[1]
            for s in ([strength] if strength >= 1 else [strength, 0])
        ]
        weights = [1.0, strength - 1]
        return Local(engine, tuple((w, None, m) for w, m in zip(weights, maps, strict=False)), max(0.0, 1 - strength), style)
    modulations = [(1.0, style.modulation(engine, strength, missed(engine, style, thumbnail, memory) if look else None, wide=look))]
    if strength < 1:
        own = Style.of_pixels(thumbnail, engine).modulation(engine, wide=look)
        modulations = [(weight, toward(own, modulations[0][1], share)) for weight, share in ((1.0, strength), (strength - 1, 0.0))]
    passes: list[tuple[float, Array | None, Array | cascade.FrozenMaps]] = []
    for weight, modulation in modulations:
        if exact:
            tile = largest_side(memory, GENERATOR_BYTES, GENERATOR_REACH)
            passes.append((weight, modulation, exact_statistics.generator_statistics(engine, modulation, sweeps(tile))))
        else:
            passes.append((weight, modulation, engine.paint(thumbnail, modulation)[1]))
    return Local(engine, tuple(passes), max(0.0, 1 - strength), style)


class Painting(Protocol):
    """What can give any window of a painted picture."""

    def paint_window(self, window: Window, read: Read, height: int, width: int) -> Array:
        """(h, w, 3) in [0, 1]."""
        ...


def paint(painting: Painting, pixels: Array, tile: int) -> Array:
    """A picture (H, W, 3) that is held in memory, painted in tiles of ``tile`` pixels a side."""
    height, width, _ = pixels.shape
    out = np.empty(pixels.shape, np.float32)
    for window in partition(height, width, tile):
        out[window.slices] = painting.paint_window(window, lambda w: pixels[w.slices], height, width)
    return out


def sweep_over(pixels: Array, tile: int, reach: int = GENERATOR_REACH) -> Sweep:
    """For :func:`freeze`, over a picture that is held in memory."""
    height, width, _ = pixels.shape

    def sweep() -> Iterable[tuple[Window, Window, Array]]:
        for window in partition(height, width, tile):
            outer = window.grown(reach, height, width)
            yield window, outer, pixels[outer.slices]

    return sweep
