"""Previews: the picture that the page shows while sliders move, and the styles of the library painted small on it.

A preview is the picture that the settings would give, painted with less: at most so many pixels as one pass of the net can do within
``PASS_SECONDS`` on this machine. Everything that depends on the content alone (its own statistics, what the nets can't give back of
it) is kept from one change of a slider to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble import cascade
from scumble.color import keep_color
from scumble.mask import Mask, composite
from scumble.picture import Picture
from scumble.serve.limits import Cache, Upload
from scumble.style import REFERENCE, Style
from scumble.stylizer import LARGEST, Stylizer, resize, working_scale

Array = NDArray[np.float32]

SIDE = 1024
"""The longer side of a preview, in pixels."""
PASS_SECONDS = 0.18
"""For one pass of the net; with resizing, keeping colours and encoding a JPEG, a preview then takes less than 0.3 s."""
FEWEST, MOST = 200_000, round((LARGEST * REFERENCE) ** 2)
"""Pixels that are painted for a preview, whatever the machine: below, brush strokes are not to be told apart; above, the final picture
isn't painted larger either."""
FINER = 1.5
"""How much larger than shown the library's previews are painted: strokes as they come out at 160 pixels hide what the picture shows."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A picture that somebody is working on: the file, and the picture reduced to ``SIDE``."""

    key: str
    upload: Upload
    size: tuple[int, int]
    """(height, width) of the file's picture."""
    small: Picture

    @property
    def cost(self) -> float:
        """Bytes in memory."""
        return len(self.upload.data) + self.small.pixels.nbytes + (0 if self.small.alpha is None else self.small.alpha.nbytes)


@dataclass(eq=False)
class _Work:
    """The content at the size at which it is painted, and what is derived from it when it is first needed."""

    pixels: Array
    detail: Array | None
    """What this size can't hold of the preview; None where it is the preview's own."""
    own: Array | None = None
    """The modulation with the content's own statistics."""
    unmoved: dict[str, Array] = field(default_factory=dict[str, Array])
    """By method: what the nets make of the content when no style is asked for."""

    @property
    def cost(self) -> float:
        return self.pixels.nbytes * 2.0 + (0 if self.detail is None else self.detail.nbytes)


class Previewer:
    """Paints previews with the nets of ``painter``; ``memory`` is in bytes, for what is derived from contents."""

    def __init__(self, painter: Stylizer, memory: float) -> None:
        self.painter = painter
        self.pixels = FEWEST
        """How many are painted; :meth:`calibrate` raises it to what this machine can do."""
        self._work: Cache[tuple[str, int, int], _Work] = Cache(memory, lambda work: work.cost)

    def calibrate(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Measure the net's speed, and paint as many pixels as it does within ``PASS_SECONDS``."""
        y, x = np.mgrid[0:384, 0:384].astype(np.float32) / np.float32(384)
        pixels = np.stack([x, y, x * y], -1)
        modulation = self._own(pixels)
        best = float("inf")
        for _ in range(4):  # the first one warms up; the quickest says what the machine can do when nothing else disturbs it
            started = clock()
            self.painter.engine.paint(pixels, modulation)
            best = min(best, clock() - started)
        self.pixels = round(min(MOST, max(FEWEST, PASS_SECONDS * pixels.shape[0] * pixels.shape[1] / max(best, 1e-9))))

    def __call__(self, kept: Kept, styles: Sequence[Style], settings: Mapping[str, Any], masks: Sequence[Mask] = ()) -> Picture:
        """The preview; ``settings`` are complete, ``masks`` are of any size."""
        content, strength = kept.small, settings["strength"]
        if strength <= 0:
            return content
        height, width = self.working_size(kept, settings)
        work = self._work.get((kept.key, height, width), lambda: _work(content.pixels, height, width))
        layers: list[Array] = []
        for style in styles:
            painted = self._draft(work, style, settings["method"], strength)
            # keeping colours comes after enlarging in the final picture; here it costs half as much and looks the same
            painted = keep_color(painted, work.pixels, settings["keep_color"])
            layers.append(painted if work.detail is None else np.clip(_enlarged(painted, *content.size) + work.detail, 0.0, 1.0))
        if not masks:
            return content.with_pixels(layers[0])
        layers = layers * len(masks) if len(layers) == 1 else layers
        fitted = [(layer, mask.resized(*content.size)) for layer, mask in zip(layers, masks, strict=True)]
        return content.with_pixels(composite(content.pixels, fitted))

    def working_size(self, kept: Kept, settings: Mapping[str, Any]) -> tuple[int, int]:
        """(height, width) at which the preview is painted: the final picture's own working size, as far as that can be afforded."""
        full_height, full_width = kept.size
        asked = 1.0 if settings["size"] is None else settings["size"] / max(kept.size)
        height, width = full_height * asked, full_width * asked
        factor = working_scale(max(1, round(height)), max(1, round(width)), settings["style_scale"])
        area = min(height * width * factor**2, float(self.pixels), kept.small.height * kept.small.width)
        scale = min(1.0, (area / (kept.small.height * kept.small.width)) ** 0.5)
        return max(1, round(kept.small.height * scale)), max(1, round(kept.small.width * scale))

    def gallery(self, content: Picture, named: Mapping[str, Array], side: int) -> Iterator[tuple[str, Picture]]:
        """``content`` with each of the modulations in ``named``, the longer side ``side`` pixels, one by one."""
        painted_at = fitted(content, round(side * FINER))
        shown = fitted(content, side)
        for name, modulation in named.items():
            painted, _ = self.painter.engine.paint(painted_at.pixels, modulation)
            yield name, shown.with_pixels(_enlarged(painted, *shown.size))

    def _draft(self, work: _Work, style: Style, method: str, strength: float) -> Array:
        """As the Stylizer paints a draft; a test holds both together."""
        engine = self.painter.engine
        if method == "generator":
            modulation = engine.modulation(style.vector)
            if strength != 1.0:
                if work.own is None:
                    work.own = self._own(work.pixels)
                modulation = work.own + np.float32(strength) * (modulation - work.own)
            painted = engine.paint(work.pixels, modulation)[0]
        else:
            painted = cascade.paint(engine, work.pixels, style, method=method, strength=strength)[0]
        if strength >= 1:
            return painted
        if method not in work.unmoved:
            if method == "generator" and work.own is not None:
                work.unmoved[method] = engine.paint(work.pixels, work.own)[0]
            else:
                work.unmoved[method] = cascade.paint(engine, work.pixels, style, method=method, strength=0.0)[0]
        return np.clip(painted + np.float32(1 - strength) * (work.pixels - work.unmoved[method]), 0.0, 1.0, dtype=np.float32)

    def _own(self, pixels: Array) -> Array:
        engine = self.painter.engine
        return engine.modulation(Style(cascade.content_moments(engine, pixels)).vector)


def fitted(picture: Picture, side: int) -> Picture:
    """``picture`` reduced so that its longer side is at most ``side`` pixels."""
    factor = side / max(picture.size)
    return picture if factor >= 1 else picture.resized(max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))


def _work(pixels: Array, height: int, width: int) -> _Work:
    if (height, width) == pixels.shape[:2]:
        return _Work(pixels, None)
    small = resize(pixels, height, width)
    return _Work(small, pixels - _enlarged(small, *pixels.shape[:2]))


def _enlarged(pixels: Array, height: int, width: int) -> Array:
    """At another size, through 8 bits: a tenth of the time that floats take, and a preview is shown in 8 bits."""
    image = Image.fromarray((pixels * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    return np.divide(np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)), np.float32(255), dtype=np.float32)
