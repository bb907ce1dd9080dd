"""The steps that every painting has in common, be it a still, a preview or a frame: what is made ready before the nets see it, of which of
their paintings a strength is made, and what is given back after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scumble import cascade, tiling
from scumble.engine import Engine
from scumble.fusion import give_back
from scumble.grain import grained
from scumble.style import Style, toward
from scumble.subject import subject

T = TypeVar("T")
Array = NDArray[np.float32]

SMALLEST = 16
"""Pixels a side. A narrower picture is repeated, mirrored, until it has four times as many: statistics of a few pixels mean nothing
(a red one was painted black)."""


class Keep(Protocol):
    """Gives what has a name, made if it is not kept."""

    def __call__(self, name: tuple[Any, ...], make: Callable[[], T], /) -> T:
        """Names tell apart what is made of one ground."""
        ...


@dataclass(frozen=True, eq=False)
class Ground:
    """A picture made ready for the nets."""

    pixels: Array
    """(H, W, 3) in [0, 1]: the picture, mirrored on and on where it is narrower than :data:`SMALLEST`."""
    primed: Array
    """The same with grain where it is flat: what is painted on."""
    size: tuple[int, int]
    """(height, width) of the picture itself, which is the upper left of both."""
    statistics: str

    @staticmethod
    def of(picture: Array, grain: float, statistics: str = "thumbnail") -> Ground:
        """A picture (h, w, 3) with ``grain`` in [0, 4]; ``statistics`` as in :class:`~scumble.stylizer.Stylizer`."""
        more = [(0, 4 * SMALLEST - n if n < SMALLEST else 0) for n in picture.shape[:2]]
        pixels = np.pad(picture, [*more, (0, 0)], mode="symmetric") if any(m for _, m in more) else picture
        return Ground(pixels, grained(pixels, grain), picture.shape[:2], statistics)

    @cached_property
    def seen(self) -> Array:
        """What statistics are taken of: the subject, if there is one; ``exact`` ones are those of all pixels."""
        window = subject(self.pixels) if self.statistics == "thumbnail" else None
        return self.primed if window is None else self.primed[window.slices]

    @property
    def area(self) -> int:
        """Pixels that a net takes."""
        return self.pixels.shape[0] * self.pixels.shape[1]

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return self.pixels.nbytes + (0 if self.primed is self.pixels else self.primed.nbytes)

    def given_back(self, painted: Array, strength: float) -> Array:
        """:func:`~scumble.fusion.give_back` of the grain: what shows of the content below strength 1 shows without it."""
        return give_back(painted, self.pixels, self.primed, strength)

    def cut(self, painted: Array) -> Array:
        """The part of a painting that is the picture."""
        return painted[: self.size[0], : self.size[1]]


def _anew(_: tuple[Any, ...], make: Callable[[], T], /) -> T:
    return make()


def _at_once(paint: Callable[[], Array]) -> Array:
    return paint()


def painted(
    engine: Engine,
    ground: Ground,
    style: Style,
    *,
    method: str,
    strength: float,
    look: bool,
    memory: float,
    spun: bool | None = None,
    keep: Keep = _anew,
    timed: Callable[[Callable[[], Array]], Array] = _at_once,
) -> Array:
    """A ground painted by the nets in one piece, (H, W, 3) in [0, 1]; with what below strength 1 they could not give back of it.

    Args:
        method: ``generator``, or a key of :data:`scumble.fusion.METHODS`.
        strength: above 0, up to 2.
        look: what a draft lacks is looked for first.
        memory: bytes that this look may take.
        spun: see :meth:`~scumble.engine.Engine.paint`.
        keep: for what another painting of the same ground, of the same ``method`` and after as much of a ``look``, can use again.
        timed: runs a painting, without what is measured for it.
    """
    pixels, seen = ground.primed, ground.seen

    def fused(strength: float) -> Array:
        taps, maps = keep(("taps",), lambda: engine.eye(pixels)), None
        if seen is not pixels:
            own = keep(("seen",), lambda: engine.eye(seen))
            maps = cascade.paint(engine, seen, style, method=method, strength=strength, taps=own)[1]
        return timed(lambda: cascade.paint(engine, pixels, style, method=method, strength=strength, frozen=maps, taps=taps)[0])

    def generated(modulation: Array) -> Array:
        measured = None if seen is pixels else engine.paint(seen, modulation, spun=spun)[1]
        return timed(lambda: engine.paint(pixels, modulation, measured, spun=spun)[0])

    if method != "generator":
        found = fused(strength)
        # asked for nothing, all methods of fusion are the identity
        return found if strength >= 1 else give_back(found, pixels, keep(("unmoved", 0), lambda: fused(0.0)), strength)
    missed = keep(("missed", style.digest), lambda: tiling.missed(engine, style, seen, memory)) if look else None
    modulation = style.modulation(engine, strength, missed, wide=look)
    if strength >= 1:
        return generated(modulation)
    content = keep(("own", look), lambda: Style.of_pixels(seen, engine).modulation(engine, wide=look))
    own, modulation = (toward(content, modulation, share) for share in (0.0, strength))
    # its length tells whether there are larger patches, smaller ones, or no texture
    return give_back(generated(modulation), pixels, keep(("unmoved", len(own)), lambda: generated(own)), strength)
