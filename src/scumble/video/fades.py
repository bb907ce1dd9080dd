"""Fades: how much of a shot's picture a frame shows before a flat colour, black as a rule.

By statistics that are held, half of a picture is not painted as half of the painting: what is dim gets the style's darkest colours,
whatever it was. So a frame that is a part of the shot's picture is painted as if it were all of it, and the painting faded as it was.
What fades out is compared with what the shot was before; what fades in, with what it is going to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.video.frames import Floats

UNMOVED, ALIKE, AKIN = 0.99, 0.9, 0.5
"""Correlation with the shot's picture above which all is where it was; below which a newer one is taken for it; and below which a frame
shows another."""

SUDDEN = 0.55
"""How much of the picture may go from one frame to the next: half goes in a fade over two; a lamp that is switched off takes more."""

SAME = 0.8
"""How much of what a frame brings the next one brings, too, as their scalar product, where nothing but light and a dissolve changes it."""

MOST = 0.85
"""Share of the colours that a fade has to explain."""

LASTS = 24
"""Frames after which light that stays as it is counts as the shot's own: a camera has set its exposure, and nothing fades."""

RISEN = 5
"""Frames without more of the picture after which what fades in is there."""


@dataclass(frozen=True, eq=False)
class Fade:
    """A frame that is ``gain`` * picture + ``offset``."""

    gain: float
    """In (0, 1)."""
    offset: Floats
    """(3,), in [0, 1 - gain]: the flat colour's part."""
    share: float = 1.0
    """How much of what is shown is painted: less where what is left of the picture is next to nothing."""

    def undone(self, pixels: Floats) -> Floats:
        """(H, W, 3) in [0, 1], as it was before it was faded."""
        whole = (pixels - self.offset) * np.float32(1 / self.gain)
        return np.clip(whole, 0.0, 1.0, out=whole)

    def redone(self, painted: Floats, pixels: Floats) -> Floats:
        """The same fade of a painting; ``pixels`` is the frame as it came. A line of text before it that stays bright does so."""
        gain, share = np.float32(self.gain), np.float32(self.share)
        return np.clip(pixels + share * gain * (painted - self.undone(pixels)), 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Part:
    """What a thumbnail is of another, as far as one can say."""

    gain: float
    offset: Floats
    """(3,), 0 … 255."""
    explained: float
    """How much of the difference between their colours goes by it, up to 1."""
    alike: float
    """Correlation of what is where."""

    @staticmethod
    def of(thumbnail: Floats, full: Floats) -> _Part:
        """Colours are compared in their order, so that it does not matter where they are: what fades may move."""
        y, x = (np.ascontiguousarray(t.reshape(-1, 3).T) for t in (thumbnail, full))  # (3, n): sorted in a third of the time
        middle_y, middle_x = y.mean(1, keepdims=True), x.mean(1, keepdims=True)
        much, little = float(((x - middle_x) ** 2).sum()), float(((y - middle_y) ** 2).sum())
        if much < y.size or little == 0:  # less than a step: there is no picture to be a part of
            return _Part(1.0, np.zeros(3, np.float32), 0.0, 0.0)
        alike = float(((y - middle_y) * (x - middle_x)).sum()) / (much * little) ** 0.5
        if little > 0.98 * much and np.abs(middle_y - middle_x).max() < 1:  # as much contrast and light: most frames
            return _Part(1.0, np.zeros(3, np.float32), 0.0, alike)
        sorted_y, sorted_x = np.sort(y, 1), np.sort(x, 1)
        found: list[_Part] = []
        for flat in (0.0, 255.0):
            gain, explained = _toward(flat, sorted_y, sorted_x)
            found.append(_Part(gain, np.full(3, flat * (1 - gain), np.float32), explained, alike))
        # any other colour only if all is where it was: the half of a dissolve that goes is like that, but for what comes
        gain = alike * (little / much) ** 0.5
        offset = middle_y - np.float32(gain) * middle_x
        if alike > UNMOVED and (offset > 0).all() and (offset < 255 * (1 - gain)).all():
            found.append(_Part(gain, offset[:, 0], _explained(y, x, gain, offset), alike))
        return max(found, key=lambda part: part.explained)

    def fade(self, share: float, likely: float = 1.0) -> Fade | None:
        """None where it is no fade. What is one in part, as something else changes, too, is undone in part."""
        sure = likely * float(np.clip((self.explained - 0.7) / 0.25, 0.0, 1.0))
        gain = 1 - sure * (1 - self.gain)
        if gain > 0.99 or self.gain <= 0:
            return None
        return Fade(gain, (self.offset * np.float32(sure / 255)).astype(np.float32), share)


def _toward(flat: float, y: Floats, x: Floats) -> tuple[float, float]:
    """Gain, and how much it explains, by what most of the colours do: a logo stays as bright as it was."""
    y, x = y.ravel() - np.float32(flat), x.ravel() - np.float32(flat)
    far = np.abs(x) > 16
    if not far.any():
        return 1.0, 0.0
    apart = np.abs(y - np.median(y[far] / x[far]) * x)
    most = ~far | (apart <= np.quantile(apart[far], MOST))
    y, x = y[most], x[most]
    gain = float((x * y).sum() / max(1.0, (x * x).sum()))
    return gain, _explained(y, x, gain, np.float32(0))


def _explained(y: Floats, x: Floats, gain: float, offset: Floats | np.float32) -> float:
    """How much of the difference of ``y`` and ``x`` is ``gain`` and ``offset``, noise of a step apart, up to 1; 0 for more light."""
    if not 0 < gain < 1:
        return 0.0
    return 1 - float(((y - np.float32(gain) * x - offset) ** 2).mean() + 1) / float(((y - x) ** 2).mean() + 1)


def part_of(thumbnail: Floats, full: Floats, share: float) -> Fade | None:
    """How ``thumbnail``, (h, w, 3) in 0 … 255, is faded from ``full``, the same; None if it is not."""
    return _Part.of(thumbnail, full).fade(share)


def _alike_at_large(thumbnail: Floats, full: Floats, part: _Part) -> float:
    """Correlation of what is where, (48, 48, 3), in 8 x 8 cells, of what ``part`` explains best: a slow zoom moves little of that."""
    apart = np.abs(thumbnail - part.gain * full - part.offset).sum(-1)
    kept = apart <= np.quantile(apart, MOST)
    if full[kept].var() < full.var() / 4:  # a line of text is most of what there is
        kept[:] = True
    weight = kept.astype(np.float32)[..., None]
    share = _cells(weight)
    y, x = (_cells(t * weight) / np.maximum(share, 1) for t in (thumbnail, full))
    y, x = (c - (c * share).sum((0, 1)) / share.sum() for c in (y, x))
    size = float((share * y * y).sum() * (share * x * x).sum())
    return float((share * y * x).sum()) / max(1e-9, size) ** 0.5


def _cells(a: Floats) -> Floats:
    """(48, 48, n) -> sums (8, 8, n)."""
    return a.reshape(8, 6, 8, 6, -1).sum((1, 3))


class Light:
    """Follows how much there is of a shot's picture, from thumbnails; every one of them is (48, 48, 3), 0 … 255.

    Light that comes up where there was nothing before is ``rising`` until it stays: then only is it known what was a part of what.
    """

    def __init__(self) -> None:
        self._full: Floats | None = None
        """The shot's picture."""
        self._gain, self._offset = 1.0, np.zeros(3, np.float32)
        """Of the last frame."""
        self._before: Floats | None = None
        self._step: Floats | None = None
        """The last frame, and what it brought."""
        self._lasting, self._rested = 1.0, 0
        """What the gain is about, since how many frames."""
        self.rising, self._waited = False, 0
        """Whether what is there now may be a part only of what comes."""
        self.grows, self.fresh = False, False
        """Whether the last frame showed more of it than those before; and whether nothing of it was there before."""

    def nothing(self) -> None:
        """A frame of one colour."""
        self._begin(None, rising=True)

    def begin(self, thumbnail: Floats) -> None:
        """A cut."""
        self._begin(thumbnail, rising=False)

    def __call__(self, thumbnail: Floats, last: Floats | None, share: float) -> Fade | None:
        """How a frame is faded; ``last`` is the one before, its fade undone."""
        self.grows = self.fresh = False
        still = self._stands(thumbnail)
        if self._full is None or last is None:  # the film's first frame, or the first in which there is something
            self._begin(thumbnail, rising=last is not None)
            return None
        if self.rising:
            self.grows = part_of(self._full, thumbnail, share) is not None
            self._full, self._waited = (thumbnail, 0) if self.grows else (self._full, self._waited + 1)
            self.rising = self._waited < RISEN
            return None
        part = _Part.of(thumbnail, self._full)
        if part.alike < ALIKE and not still:
            self._full = last
            part = _Part.of(thumbnail, last)
        fade = part.fade(share)
        if fade is None and self._gain == 1 and part.alike < UNMOVED:  # so that what moves slowly has not moved far when it begins to fade
            self._full = thumbnail
        alike = _alike_at_large(thumbnail, self._full, part) if fade is not None or self._gain < 0.2 else 1.0
        if fade is not None and still:  # as the gain went to half, fades of 26 clips lost 0.07 of it at most, dissolves 0.23 as a rule
            fade = part.fade(share, float(np.clip((0.2 - (1 - alike) / (1 - part.gain)) / 0.08, 0.0, 1.0)))
        fade = None if alike < AKIN else fade
        if fade is None and self._gain < 0.2 and alike < AKIN:  # of what faded out something was left as the next came up
            self._begin(thumbnail, rising=True)
            return None
        if fade is None and self._gain < 0.9 and part.gain < 0.95:  # it fades no longer, and has not come back: let go gently
            fade = Fade(self._gain, self._offset, share)
            self._full = fade.undone(thumbnail * np.float32(1 / 255)) * np.float32(255)
            self._lasting, self._rested = self._gain, LASTS
        if fade is not None and self._gain - fade.gain > SUDDEN:
            self._begin(thumbnail, rising=False)
            return None
        self._gain, self._offset = (1.0, self._offset) if fade is None else (fade.gain, fade.offset)
        self._rest(thumbnail, self._full)
        return fade

    def _begin(self, full: Floats | None, *, rising: bool) -> None:
        self._full, self._gain, self._lasting, self._rested, self.rising, self._waited = full, 1.0, 1.0, 0, rising, 0
        self.grows = self.fresh = rising and full is not None

    def _stands(self, thumbnail: Floats) -> bool:
        """In a fade and in a dissolve each frame brings the same as the one before; where something moves, edges are elsewhere then."""
        before, self._before = self._before, thumbnail
        step, self._step = self._step, None if before is None else thumbnail - before
        if step is None or self._step is None:
            return False
        return float((step * self._step).sum()) > SAME * max(float((step**2).sum()), float((self._step**2).sum()))

    def _rest(self, thumbnail: Floats, full: Floats) -> None:
        if abs(self._gain - self._lasting) > 0.02:
            self._lasting, self._rested = self._gain, 0
            return
        self._rested += 1
        if self._rested > LASTS and self._gain < 1:
            self._full = (full + (thumbnail - full) / LASTS).astype(np.float32)
            self._lasting = self._gain

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """All that is remembered, as arrays."""
        state = np.array([self._gain, *self._offset, self._lasting, self._rested, self.rising, self._waited], np.float64)
        kept = {"full": self._full, "before": self._before, "step": self._step}
        return {"light": state} | {f"light {k}": v for k, v in kept.items() if v is not None}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        if "light" not in snapshot:  # runs of before did not know of it
            return
        self._full, self._before, self._step = (snapshot.get(f"light {k}") for k in ("full", "before", "step"))
        self._gain, *offset, self._lasting, rested, rising, waited = (float(n) for n in snapshot["light"])
        self._offset = np.array(offset, np.float32)
        self._rested, self.rising, self._waited = int(rested), bool(rising), int(waited)
