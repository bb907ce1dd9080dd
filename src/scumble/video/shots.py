"""Painting without flicker: what is measured of a shot is measured at its start and held until the next cut.

A generator that normalises each frame by its own statistics paints the same wall differently whenever something walks past it.
Here the statistics are a running mean over the first frames of a shot and then stay; so do the style's modulation and, in the
classic path, the affine maps. What is left of flicker is the net's answer to the movement itself: see :mod:`scumble.video.steady`.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble import cascade, finish, tiling
from scumble.cascade import FrozenMaps
from scumble.color import keep_color as keep_content_color
from scumble.errors import UsageError, in_range, unknown
from scumble.fusion import AffineMap
from scumble.passes import Ground
from scumble.pyramid import means
from scumble.style import REFERENCE, Style, toward
from scumble.stylizer import LARGEST, MEMORY, METHODS, Stylizer, resize, working_scale
from scumble.video.fades import SAME, Fade, Light
from scumble.video.frames import Bytes, Floats, as_float

log = logging.getLogger(__name__)

T = TypeVar("T")
Snapshot = dict[str, NDArray[Any]]
Change = Literal["cut", "drift", "none"]

SETTLE = 8
"""Frames at the start of a shot over which statistics are averaged: one alone may be blurred, or half of a dissolve."""

NOTHING, SOMETHING = 0.03, 0.12
"""Differences within a frame, of colours in [0, 1], up to which there is nothing in it, and from which on it is painted: see
:func:`presence`."""

GLIDE = 24
"""Frames over which statistics move on where they have to within a shot: a second, in which nobody sees them move."""

QUICK = 3
"""The same while a dissolve goes on, so that neither picture is painted by statistics of the other."""


class Cuts:
    """Finds where shots begin, from thumbnails: colour histograms and the layout of lightness.

    A cut changes both at once and much more than the frames before did. Slow changes (a pan into the dark, a dissolve) that add
    up to another picture are ``drift``: the statistics of the shot's start no longer fit.
    """

    HISTOGRAM, LAYOUT, SUDDEN = 0.4, 0.6, 3.0
    """Distance of histograms that is a cut by itself; loss of correlation that is one if an eighth of that comes with it; times the
    usual change. A pan by a tenth of the picture's width loses 0.2 of correlation a frame."""
    DRIFT = 0.1
    """Distance of histograms from the shot's start: people who walk about a room stay below it, a pan across a room does not."""

    def __init__(self) -> None:
        self._last: _Look | None = None
        """Without its fade."""
        self._reference: _Look | None = None
        self._usual = 0.0
        self._step: Floats | None = None
        """What the last frame brought, as a difference of thumbnails."""
        self._mixing = False
        """Whether pictures are being dissolved."""
        self.glide = GLIDE
        """Frames within which to follow a drift."""
        self.light = Light()
        self.fade: Fade | None = None
        """How the last frame was faded."""
        self.thumbnail: Floats = np.zeros((48, 48, 3), np.float32)
        """(48, 48, 3), 0 … 255, as it came."""
        self.share = 0.0
        """How much of the last frame there is to paint, if it is faded; 0 if there is nothing in it."""

    def __call__(self, pixels: Bytes) -> Change:
        """What the next frame, (H, W, 3) uint8, is to those before; the first is a cut."""
        self.thumbnail = _thumbnail(pixels)
        self.share = float(np.clip(_contrast(pixels) / NOTHING - 1, 0.0, 1.0))
        if self.share == 0:
            self.light.nothing()
        self.fade = (
            None if self.share == 0 else self.light(self.thumbnail, None if self._last is None else self._last.thumbnail, self.share)
        )
        look = _Look.of(self.thumbnail if self.fade is None else 255 * self.fade.undone(self.thumbnail * np.float32(1 / 255)))
        last, self._last, self.glide = self._last, look, GLIDE
        mixed, self._mixing = self._mixing, self._is_mixed(look, last)
        if last is None or self._reference is None or self.light.grows:
            self._reference = look
            return "cut" if last is None or self.light.fresh else "drift"
        colors, layout = _colors_differ(look, last), _layouts_differ(look, last)
        change = colors + layout
        other = colors > self.HISTOGRAM or (colors > self.HISTOGRAM / 8 and layout > self.LAYOUT)
        if other and change > self.SUDDEN * self._usual:
            self._last = self._reference = _Look.of(self.thumbnail)
            self._usual, self.fade = 0.0, None
            if self.share > 0:
                self.light.begin(self.thumbnail)
            return "cut"
        self._usual = max(change, 0.8 * self._usual)
        dim = self.fade is not None and self.fade.gain < 0.5  # what is undone then has steps of two and more
        ends = mixed and not self._mixing
        if not dim and _colors_differ(look, self._reference) > (self.DRIFT / 4 if self._mixing or ends else self.DRIFT):
            self._reference = look
            self.glide = QUICK if self._mixing or ends else GLIDE
            return "drift"
        return "none"

    def _is_mixed(self, look: _Look, last: _Look | None) -> bool:
        """In a dissolve each frame brings the same as the one before, all over; where something moves, edges are elsewhere next time."""
        before, self._step = self._step, None if last is None else look.thumbnail - last.thumbnail
        if before is None or self._step is None or last is None:
            return False
        most = max(float((before**2).sum()), float((self._step**2).sum()))
        return float((before * self._step).sum()) > SAME * most and _colors_differ(look, last) > self.DRIFT / 10

    def snapshot(self) -> Snapshot:
        """All that is remembered, as arrays."""
        if self._last is None or self._reference is None:
            return {}
        found: Snapshot = {"last": self._last.thumbnail, "reference": self._reference.thumbnail, "usual": np.array(self._usual)}
        if self._step is not None:
            found |= {"step": self._step, "mixing": np.array(self._mixing)}
        return found | self.light.snapshot()

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        if snapshot:
            self._last, self._reference = (_Look.of(snapshot[key]) for key in ("last", "reference"))
            self._usual = float(snapshot["usual"])
            self._step = snapshot.get("step")
            self._mixing = bool(snapshot.get("mixing", False))
            self.light.restore(snapshot)


@dataclass(frozen=True, eq=False)
class _Look:
    thumbnail: Floats
    """(48, 48, 3), 0 … 255."""
    histogram: Floats
    """(3, 8): shares of the bins, a bin's neighbours having a part in it, so that a shade more is no change."""

    @staticmethod
    def of(thumbnail: Floats) -> _Look:
        centers = np.arange(16, 256, 32, dtype=np.float32)
        near = np.maximum(0.0, 1.0 - np.abs(thumbnail.reshape(-1, 3, 1) - centers) / 32).mean(0)
        return _Look(thumbnail, near / near.sum(-1, keepdims=True))


def _thumbnail(pixels: Bytes) -> Floats:
    step = max(
        1, min(pixels.shape[:2]) // 192
    )  # four samples each way for each of the thumbnail's pixels are enough, and a third of the time
    return np.asarray(Image.fromarray(pixels[::step, ::step]).resize((48, 48), Image.Resampling.BOX), np.float32)


def _colors_differ(a: _Look, b: _Look) -> float:
    """Total variation between histograms, [0, 1]."""
    return float(np.abs(a.histogram - b.histogram).sum(-1).mean() / 2)


def _layouts_differ(a: _Look, b: _Look) -> float:
    """1 - correlation of lightness, [0, 2]; 0 where both are flat."""
    x, y = (look.thumbnail.mean(-1) - look.thumbnail.mean() for look in (a, b))
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return 0.0 if size < 48 * 48 else 1.0 - float((x * y).sum()) / size


@dataclass(frozen=True)
class Timeline:
    """Styles and the seconds at which each is reached; between two of them the style morphs."""

    keys: tuple[tuple[float, Style], ...]

    @staticmethod
    def of(styles: Sequence[tuple[float | None, Style]]) -> Timeline:
        """In the order of time. UsageError for none, for two at a time, for several of which one has no time."""
        if not styles:
            raise UsageError("give a style")
        if len(styles) == 1:
            return Timeline(((styles[0][0] or 0.0, styles[0][1]),))
        times = [t for t, _ in styles if t is not None]
        if len(times) < len(styles):
            raise UsageError("several styles need a time each, as in --style great-wave@0s --style starry-night@4s")
        if len(set(times)) < len(times):
            raise UsageError("two styles can't be reached at the same time")
        return Timeline(tuple(sorted(((t, s) for t, s in styles if t is not None), key=lambda key: key[0])))

    def at(self, seconds: float) -> tuple[int, int, float]:
        """The styles before and after, and how much of the latter there is, [0, 1)."""
        k = bisect_right([t for t, _ in self.keys], seconds) - 1
        if k < 0:
            return 0, 0, 0.0
        if k == len(self.keys) - 1:
            return k, k, 0.0
        (a, _), (b, _) = self.keys[k], self.keys[k + 1]
        return k, k + 1, (seconds - a) / (b - a)


def presence(pixels: Floats) -> float:
    """How much there is in a frame (H, W, 3), 0 for one colour, as before a fade and after it, to 1 for all that is worth painting.

    By statistics of nothing whatever comes next is far from the mean, and was painted cyan or red; and what is blown up in between is
    the noise of the camera. Such frames are left as they are, and those of a fade partly.
    """
    return float(np.clip((_contrast(pixels) - NOTHING) / (SOMETHING - NOTHING), 0.0, 1.0))


def _contrast(pixels: Floats | Bytes) -> float:
    """The largest difference within a frame (H, W, 3), of colours in [0, 1]."""
    return float(np.ptp(means(as_float(pixels[::4, ::4]), 4), axis=(1, 2)).max())


class ShotPainter:
    """Paints frame after frame, statistics held over a shot.

    Args:
        stylizer: whose nets are used.
        timeline: the styles.
        strength, method, style_scale, keep_color: as in :meth:`scumble.stylizer.Stylizer.__call__`.
        grain: the same, but the default is 0: the noise is the same in every frame, so its strokes stand still.
        hold: False measures every frame anew, as painting them one by one does: there to compare with.
        memory: bytes that a net may take for a frame. What would take more is measured on the reduced frame and painted in tiles.

    Raises UsageError for settings out of range; later, at a frame that takes more than ``memory``, if the smallest tile does, too.
    """

    def __init__(
        self,
        stylizer: Stylizer,
        timeline: Timeline,
        *,
        strength: float = 1.0,
        method: str = "generator",
        style_scale: float | None = None,
        keep_color: float = 0.0,
        grain: float = 0.0,
        hold: bool = True,
        memory: float = MEMORY,
    ) -> None:
        in_range("strength", strength, 0.0, 2.0)
        in_range("keep-color", keep_color, 0.0, 1.0)
        in_range("grain", grain, 0.0, 4.0)
        if style_scale is not None:
            in_range("style-scale", style_scale, 0.25, 4.0)
        if method not in METHODS:
            raise UsageError(unknown("method", method, METHODS))
        self.engine, self.timeline, self.hold = stylizer.engine, timeline, hold
        self.strength, self.method, self.style_scale, self.keep_color, self.grain = strength, method, style_scale, keep_color, grain
        self._memory, self._limit = memory, tiling.Limit()
        self._modulations = [s.modulation(self.engine, strength) for _, s in timeline.keys] if method == "generator" else []
        self._shot: Snapshot = {}
        """What is held: of style number k ``k/statistics``, with a strength below 1 ``k/own`` and ``k/unmoved``;
        or, in the classic path, ``k/level/matrix``, ``k/level/offset`` and ``k/filters``;
        where a drift leads to, the same under ``next/``."""
        self._seen = 0
        self._gliding = 0
        self._full_at = -1.0
        """When what fades in is there, of the last that was measured so."""
        self._from_nothing = False
        """Whether the shot came out of black: as long as it still changes then, it has not begun."""

    def __call__(
        self,
        pixels: Floats,
        seconds: float,
        change: Change,
        *,
        glide: int = GLIDE,
        faded: bool = False,
        full: tuple[float, Floats] | None = None,
    ) -> Floats:
        """Paint (H, W, 3) in [0, 1], shown at ``seconds``, which ``change`` says how to see: same size, same range.

        A drift is followed within ``glide`` frames. What was ``faded``, and is no longer, is not measured: too few steps are left of it.
        ``full`` is when what fades in is there, and how it looks then, by which it is painted.
        """
        if full is not None and self.hold and full[0] != self._full_at:
            self(full[1], seconds, "cut")
            self._full_at, self._from_nothing = full[0], False
        present = presence(pixels)
        fading_in = self._from_nothing and self._seen < SETTLE
        if present == 0 or change == "cut" or not self.hold or (change == "drift" and fading_in):
            self._begin(from_nothing=present == 0 or fading_in)
        if self.strength == 0 or present == 0:
            return pixels
        begun = self._seen > 0
        if present < 1 and begun:  # what fades out is painted by what it was
            change = "none"
        settling = not faded and self._seen < SETTLE
        self._seen += not faded
        height, width, _ = pixels.shape
        factor = working_scale(height, width, self.style_scale)
        small = pixels if factor == 1.0 else resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
        ground = Ground.of(small, self.grain)
        painted = self._paint(ground, seconds, glide=glide if change == "drift" else 0, settling=settling)
        painted = ground.cut(ground.given_back(painted, self.strength))
        if small is not pixels:
            painted = resize(painted, height, width)
            if factor < 1.0:  # as the stylizer does: the content's own finest detail, which the smaller picture could not hold
                painted = np.clip(painted + (pixels - resize(small, height, width)), 0.0, 1.0)
        if present < 1:
            painted = pixels + np.float32(present) * (painted - pixels)
            if not begun:  # what fades in is not what will be held
                self._begin(from_nothing=True)
        return keep_content_color(painted, pixels, self.keep_color)

    def _begin(self, *, from_nothing: bool) -> None:
        self._shot, self._seen, self._gliding, self._from_nothing = {}, 0, 0, from_nothing

    def _paint(self, ground: Ground, seconds: float, *, glide: int, settling: bool) -> Floats:
        a, b, share = self.timeline.at(seconds)
        pixels, styles = ground.primed, (a, b) if share else (a,)
        if glide and not settling:
            self._gliding = glide
        at_once = self.method == "generator" and self.strength >= 1.0 and settling and len(styles) == 1 and self._fits(pixels)
        if at_once and ground.seen is pixels:
            painted = self._in_memory(pixels, lambda: self._generate_settling(pixels, a))
            if painted is not None:
                return painted
        for k in styles:
            if not self._knows(k):
                self._hold(f"{k}/", self._measured(ground.seen, k))
            elif settling:
                self._hold(f"{k}/", _between(self._measured(ground.seen, k), self._of(f"{k}/"), 1.0 - 1.0 / self._seen))
            elif glide:
                self._hold(f"next/{k}/", self._measured(ground.seen, k))
        self._glide()
        held = self._of(f"{a}/") if not share else _between(self._of(f"{a}/"), self._of(f"{b}/"), share)
        local = self._local(held, a, b, share)
        painted = self._in_memory(pixels, lambda: local.paint(pixels)) if self._fits(pixels) else None
        return tiling.paint(local, pixels, local.side_within(self._memory)) if painted is None else painted

    def _knows(self, k: int) -> bool:
        """Whether the shot has been measured for style number ``k``."""
        return any(key.startswith(f"{k}/") for key in self._shot)

    def _local(self, held: Snapshot, a: int, b: int, share: float) -> tiling.Local:
        """The net with what is held: it paints a frame, or any part of it."""
        style, receding = self.timeline.keys[a][1], self.strength < 1
        if self.method != "generator":
            maps = tuple(AffineMap(held[f"{n}/matrix"], held[f"{n}/offset"]) for n in range(5))
            frozen = [FrozenMaps(maps, held["filters"].astype(np.float32))]
            if receding:  # maps of strength 0 change nothing, whatever the frame
                frozen.append(FrozenMaps(tuple(AffineMap(np.ones_like(m.offset), np.zeros_like(m.offset)) for m in frozen[0].maps)))
            passes = [(weight, None, used) for weight, used in zip((1.0, self.strength - 1), frozen, strict=False)]
            return tiling.Local(self.engine, tuple(passes), max(0.0, 1 - self.strength), style, self._limit)
        modulation = toward(self._modulations[a], self._modulations[b], share)
        if receding:
            modulation = toward(held["own"], modulation, self.strength)
        given = [(1.0, modulation, held["statistics"])] + ([(self.strength - 1, held["own"], held["unmoved"])] if receding else [])
        passes = [(weight, m.astype(np.float32), statistics.astype(np.float32)) for weight, m, statistics in given]
        return tiling.Local(self.engine, tuple(passes), max(0.0, 1 - self.strength), style, self._limit)

    def _fits(self, pixels: Floats) -> bool:
        return len(pixels) * pixels.shape[1] * tiling.bytes_a_pixel(self.method) <= self._memory

    def _in_memory(self, pixels: Floats, work: Callable[[], T]) -> T | None:
        """None if there is not enough memory after all; from then on half of what ``pixels`` take, or a tile, is all there is."""
        try:
            return work()
        except Exception as error:
            if not tiling.is_out_of_memory(error):
                raise
            needed, least = len(pixels) * pixels.shape[1] * tiling.bytes_a_pixel(self.method), tiling.least_memory(self.method)
            if needed <= least:
                raise tiling.too_small() from error
            log.warning("out of memory: going on in tiles")
            self._memory = max(least, needed / 2)
            return None

    def _generate_settling(self, pixels: Floats, k: int) -> Floats:
        """The common case at the start of a shot: painting measures at the same time, and the mean up to here costs nothing.

        For drifts this would not do: each normalisation would be measured behind others that do not fit yet, and overshoot.
        """
        painted, used = self.engine.paint(pixels, self._modulations[k], self._shot.get(f"{k}/statistics"), 1.0 - 1.0 / self._seen)
        self._shot[f"{k}/statistics"] = used
        return painted

    def _measured(self, pixels: Floats, k: int) -> Snapshot:
        """What a frame by itself, reduced to what memory holds, would be painted with, in style number ``k``."""
        found = None
        while found is None:
            small = pixels
            if not self._fits(pixels):
                most = min((LARGEST * REFERENCE) ** 2, self._memory / tiling.bytes_a_pixel(self.method))
                shrink = min(1.0, (most / (len(pixels) * pixels.shape[1])) ** 0.5)
                small = resize(pixels, *(max(1, int(n * shrink)) for n in pixels.shape[:2]))
            found = self._in_memory(small, partial(self._measured_whole, small, k))
        return found

    def _measured_whole(self, pixels: Floats, k: int) -> Snapshot:
        if self.method != "generator":
            style = self.timeline.keys[k][1]
            used = cascade.paint(self.engine, pixels, style, method=self.method, strength=self.strength)[1]
            held = {f"{n}/{part}": getattr(m, part) for n, m in enumerate(used.maps) for part in ("matrix", "offset")}
            return held | {"filters": finish.unchanging(finish.NARROW) if used.filters is None else used.filters}
        if self.strength >= 1.0:
            return {"statistics": self.engine.paint(pixels, self._modulations[k])[1]}
        own = Style.of_pixels(pixels, self.engine).modulation(self.engine)
        modulation = toward(own, self._modulations[k], self.strength)
        return {"own": own, "statistics": self.engine.paint(pixels, modulation)[1], "unmoved": self.engine.paint(pixels, own)[1]}

    def _glide(self) -> None:
        """One step of the straight line to what was measured when the drift was noticed."""
        if not self._gliding:
            return
        for key in [key for key in self._shot if key.startswith("next/")]:
            now = self._shot[key.removeprefix("next/")]
            self._shot[key.removeprefix("next/")] = (now + (self._shot[key] - now) / self._gliding).astype(now.dtype)
        self._gliding -= 1
        if not self._gliding:
            self._shot = {key: value for key, value in self._shot.items() if not key.startswith("next/")}

    def _hold(self, prefix: str, values: Snapshot) -> None:
        self._shot |= {f"{prefix}{key}": value for key, value in values.items()}

    def _of(self, prefix: str) -> Snapshot:
        return {key.removeprefix(prefix): value for key, value in self._shot.items() if key.startswith(prefix)}

    def snapshot(self) -> Snapshot:
        """All that is held, as arrays."""
        return {**self._shot, "counts": np.array([self._seen, self._gliding, self._from_nothing, self._full_at], np.float64)}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        self._shot = {k: v for k, v in snapshot.items() if k != "counts"}
        self._seen, self._gliding = (int(n) for n in snapshot["counts"][:2])
        if len(snapshot["counts"]) == 4:  # runs of before did not tell
            self._from_nothing, self._full_at = bool(snapshot["counts"][2]), float(snapshot["counts"][3])


def _between(a: Snapshot, b: Snapshot, share: float) -> Snapshot:
    return {key: a[key] + share * (b[key] - a[key]) for key in a}
