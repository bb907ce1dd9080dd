"""Previews: the picture that the page shows while sliders move, and the styles of the library painted small on it.

A preview is the picture that the settings would give, reduced: painted at the size at which that is painted, as far as one pass of the
nets can do this within ``PASS_SECONDS`` on this machine, as it is now. What a change of a slider does not change is kept: the content at
that size, its features and statistics, what the nets can't give back of it and a draft lacks of a style, and the last paintings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble import passes, tiling
from scumble.color import keep_chroma, rgb_to_oklab
from scumble.light import keep_light
from scumble.mask import Mask, composite
from scumble.passes import Ground
from scumble.picture import Picture
from scumble.serve.limits import Cache, Upload
from scumble.serve.pace import Pace
from scumble.style import Style
from scumble.stylizer import MEMORY, Stylizer, resize, working_scale

T = TypeVar("T")
Array = NDArray[np.float32]

SIDE = 1024
"""The longer side of a preview, in pixels."""
PASS_SECONDS = 0.15
"""For one pass of the nets; with colours kept, resizing and encoding a JPEG, a preview then takes less than 0.3 s. The first in
a style, or with a brush of another width, which is looked at before it is painted, takes three times a pass more."""
SPUN = 2
"""Times a pass that painting at several phases takes (:meth:`~scumble.engine.Engine.unfinished`). Where there isn't the time for it a
preview is painted at one: better with beads along slanted edges than with another width of the brush."""
GUESSES = {"generator": 0.1, "fusion": 1.0}
"""Seconds a million pixels, until there is a measurement."""
FINER = 1.5
"""How much larger than shown the library's previews are painted: strokes as they come out at 160 pixels hide what the picture shows."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A picture that somebody is working on: the file, and the picture at the two sizes that previews need."""

    key: str
    upload: Upload
    size: tuple[int, int]
    """(height, width) of the file's picture."""
    small: Picture
    """As it is shown: the longer side at most ``SIDE``."""
    base: Picture
    """As it is painted where no brush is asked for. Enlarged from ``small``, what is painted came out at an SSIM of 0.93 to the final."""

    @staticmethod
    def of(upload: Upload, picture: Picture) -> Kept:
        """``picture``, which is what ``upload`` holds."""
        factor = working_scale(*picture.size, None)
        base = picture if factor >= 1 else picture.scaled(factor)
        return Kept(upload.sha256, upload, picture.size, fitted(picture, SIDE), base)

    @property
    def cost(self) -> float:
        """Bytes in memory."""
        held = {id(array): array.nbytes for p in (self.small, self.base) for array in (p.pixels, p.alpha) if array is not None}
        return float(len(self.upload.data) + sum(held.values()))


class Previewer:
    """Paints previews with the nets of ``painter``.

    Args:
        kept: bytes for what is derived from contents.
        memory: bytes that a net may take for one preview; None is the Stylizer's own.
        clock: seconds; what passes take is measured with it.
    """

    def __init__(self, painter: Stylizer, kept: float, memory: int | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.painter, self.memory, self._clock = painter, MEMORY if memory is None else memory, clock
        self.paces = {kind: Pace(PASS_SECONDS, guess) for kind, guess in GUESSES.items()}
        """By kind of pass: how many pixels are painted."""
        self._derived: Cache[tuple[Any, ...], Any] = Cache(kept, _bytes)

    def calibrate(self) -> None:
        """Load the generator and measure its speed; the first pass warms up and doesn't count."""
        y, x = np.mgrid[0:512, 0:512].astype(np.float32) / np.float32(512)
        pixels = np.stack([x, y, x * y], -1)
        modulation = Style.of_pixels(pixels, self.painter.engine).modulation(self.painter.engine, wide=True)
        self.painter.engine.paint(pixels, modulation)
        for _ in range(3):
            self._timed("generator", 512 * 512, lambda: self.painter.engine.paint(pixels, modulation, spun=False))

    def __call__(self, kept: Kept, styles: Sequence[Style], settings: Mapping[str, Any], masks: Sequence[Mask] = ()) -> Picture:
        """The preview; ``settings`` are complete, ``masks`` are of any size. Where ``size`` is below ``SIDE`` it has that."""
        content = _content(kept, settings)
        if settings["strength"] <= 0:
            return content
        place = self._place(kept, settings)
        layers = [self._kept(place, self._painted(place, kept, content, style, settings), content, settings) for style in styles]
        if not masks:
            return content.with_pixels(layers[0])
        layers = layers * len(masks) if len(layers) == 1 else layers
        fitting = [(layer, mask.resized(height=content.height, width=content.width)) for layer, mask in zip(layers, masks, strict=True)]
        return content.with_pixels(composite(content.pixels, fitting))

    def working_size(self, kept: Kept, settings: Mapping[str, Any]) -> tuple[int, int]:
        """(height, width) at which the preview is painted: the final picture's own working size, as far as that can be afforded.

        Also where that is larger than what is shown: at 1024 pixels in place of 1247, the SSIM with the final picture was 0.81.
        """
        full_height, full_width = kept.size
        asked = 1.0 if settings["size"] is None else settings["size"] / max(kept.size)
        height, width = full_height * asked, full_width * asked
        factor = working_scale(max(1, round(height)), max(1, round(width)), settings["style_scale"])
        method = settings["method"]
        area = min(height * width * factor**2, self.paces[_kind(method)].pixels, self.memory / tiling.bytes_a_pixel(method))
        scale = (area / (kept.small.height * kept.small.width)) ** 0.5
        return max(1, round(kept.small.height * scale)), max(1, round(kept.small.width * scale))

    def is_prepared(self, kept: Kept, settings: Mapping[str, Any]) -> bool:
        """Whether nothing would be gained by :meth:`prepare`: also while the brush is moved, when every preview has another size."""
        if settings["method"] != "generator" or settings["style_scale"] is not None or settings["strength"] <= 0:
            return True
        return self._derived.peek((*self._place(kept, settings), "own", _looks(settings))) is not None

    def prepare(self, kept: Kept, settings: Mapping[str, Any]) -> None:
        """Measure the content's own statistics, which the first move of the strength would have to wait for."""
        place, look, engine = self._place(kept, settings), _looks(settings), self.painter.engine
        seen = self._ground(place, kept).seen
        self._derived.get((*place, "own", look), lambda: Style.of_pixels(seen, engine).modulation(engine, wide=look))

    def gallery(self, content: Picture, named: Mapping[str, Array], side: int) -> Iterator[tuple[str, Picture]]:
        """``content`` with each of the modulations in ``named``, the longer side ``side`` pixels, one by one."""
        ground, shown = Ground.of(fitted(content, round(side * FINER)).pixels, 1.0), fitted(content, side)
        paint = self.painter.engine.paint
        for name, modulation in named.items():
            measured = None if ground.seen is ground.primed else paint(ground.seen, modulation)[1]
            painted, _ = paint(ground.primed, modulation, measured)
            yield name, shown.with_pixels(_resized_quickly(ground.cut(painted), *shown.size))

    def _place(self, kept: Kept, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        """What names all that is derived from a content: the picture, its size, its grain, what of it is measured, and (height, width) at
        which it is painted.
        """
        return kept.key, *_content(kept, settings).size, settings["grain"], settings["statistics"], *self.working_size(kept, settings)

    def _pixels(self, place: tuple[Any, ...], kept: Kept) -> Array:
        return self._derived.get((*place, "content"), lambda: resize(kept.base.pixels, *place[-2:]))

    def _ground(self, place: tuple[Any, ...], kept: Kept) -> Ground:
        return self._derived.get((*place, "ground"), lambda: Ground.of(self._pixels(place, kept), *place[3:5]))

    def _painted(self, place: tuple[Any, ...], kept: Kept, content: Picture, style: Style, settings: Mapping[str, Any]) -> Array:
        """The content painted at the working size and brought to its own; where that is larger, as :class:`~scumble.tiling.Layer`."""
        method, strength, size = settings["method"], settings["strength"], place[-2:]
        look = _looks(settings)

        def paint() -> Array:
            ground = self._ground(place, kept)
            painted = ground.cut(ground.given_back(self._pass(place, ground, style, method, strength, look), strength))
            if size == content.size:
                return painted
            painted = _resized_quickly(painted, *content.size)
            if size > content.size:
                return painted
            detail = self._derived.get(
                (*place, "detail"), lambda: content.pixels - _resized_quickly(self._pixels(place, kept), *content.size)
            )
            return np.clip(painted + detail, 0.0, 1.0)

        return self._derived.get((*place, "painted", method, look, strength, style.digest), paint)

    def _pass(self, place: tuple[Any, ...], ground: Ground, style: Style, method: str, strength: float, look: bool) -> Array:
        """As the Stylizer paints before it refines, with what no control changes kept, and timed."""
        spun = look and SPUN * ground.area <= self.paces["generator"].pixels

        def keep(name: tuple[Any, ...], make: Callable[[], T]) -> T:
            return self._derived.get((*place, *name), make)

        def timed(paint: Callable[[], Array]) -> Array:
            return self._timed(_kind(method), ground.area * (SPUN if spun else 1), paint)

        return passes.painted(
            self.painter.engine, ground, style, method=method, strength=strength, look=look, memory=self.memory, spun=spun, keep=keep,
            timed=timed,
        )  # fmt: skip

    def _timed(self, kind: str, pixels: int, paint: Callable[[], T]) -> T:
        began = self._clock()
        painted = paint()
        self.paces[kind].took(pixels, self._clock() - began)
        return painted

    def _kept(self, place: tuple[Any, ...], painted: Array, content: Picture, settings: Mapping[str, Any]) -> Array:
        """Light and colours kept; in threads side by side, on two cores, it took longer: they wait for each other between steps this
        short.
        """
        painted = keep_light(painted, content.pixels, settings["keep_light"])
        if settings["keep_color"] == 0:
            return painted
        lab = self._derived.get((*place[:3], "lab"), lambda: rgb_to_oklab(content.pixels))
        return keep_chroma(painted, lab, settings["keep_color"])


def fitted(picture: Picture, side: int) -> Picture:
    """``picture`` reduced so that its longer side is at most ``side`` pixels."""
    factor = side / max(picture.size)
    return picture if factor >= 1 else picture.scaled(factor)


def _content(kept: Kept, settings: Mapping[str, Any]) -> Picture:
    return kept.small if settings["size"] is None else fitted(kept.small, settings["size"])


def _looks(settings: Mapping[str, Any]) -> bool:
    """Whether what a draft lacks is looked for."""
    return settings["method"] == "generator" and settings["quality"] != "draft"


def _kind(method: str) -> str:
    return "generator" if method == "generator" else "fusion"


def _bytes(derived: Array | Ground | Sequence[Array]) -> float:
    return float(derived.nbytes if isinstance(derived, (np.ndarray, Ground)) else sum(array.nbytes for array in derived))


def _resized_quickly(pixels: Array, height: int, width: int) -> Array:
    """At another size, through 8 bits: a tenth of the time that floats take, and a preview is shown in 8 bits."""
    image = Image.fromarray((pixels * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    return np.divide(np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)), np.float32(255), dtype=np.float32)
