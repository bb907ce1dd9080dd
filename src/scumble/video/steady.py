"""Steadier still: each painted frame is blended with earlier ones, carried along by the movement in the film.

With the one before, and with an anchor: the last frame, or one up to :data:`EVERY` before it. What is blended with the one before alone
forgets within a few frames, and what is made to remember longer so is blurred, being carried along again at each of them; an anchor is
carried once.

Movement is dense optical flow (DIS: Kroeger et al. 2016) between two frames of the content, at a reduced size. Where it does not
lead back to where it came from (Sundaram, Brox & Keutzer 2010, eq. 5), something has come into sight and is painted afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.errors import in_range
from scumble.video.frames import Bytes, Floats, load_cv2
from scumble.video.shots import Snapshot

FLOW_SIDE = 240
"""Longer side of what the flow is found on, in pixels.

At 320 the error between neighbours falls by one to three hundredths more, at half as much time again; at 160 it falls by four to
thirteen hundredths less.
"""

SMALL = 320
"""Up to this size frames are taken as they are: reduced to 240, edges of what moves smear over what is behind it, and a passer-by before
a still wall left it less steady than without."""

MOST = 0.75
"""Share of the frames before at ``steady=1``. More makes neighbours still more alike, but what is blurred by carrying it along outlives a
second, and frames further apart differ more: at 0.9 the error over 8 frames saved a third on moving textures, at 0.7 a half."""

USUAL = 0.75
"""``steady`` where nobody says: 0.56 of the frames before. It halves the error between neighbours."""

EVERY = 8
"""Frames after which there is a new anchor. Blended with the frame before alone, a real film that moved slowly kept nine tenths of its
error over 8 frames; with an anchor every 4, 8 and 16 frames (and half of the share) it kept 0.81, 0.76 and 0.75, and moving textures
0.62, 0.61 and 0.66."""

ANCHORED = 0.6
"""The anchor's share of what is taken from earlier frames."""

STILL = 2.0
"""Mean difference in 8-bit steps, over 5 by 5 pixels, below which a place that matches itself at least as well as where the flow
leads to is taken to stand still. Flow is smooth, so it draws along what lies behind the edges of what moves."""

TOLERANCE = 0.06
"""How much lightness, of 1, may change along the movement before the blend is down to 60 %: shadows and lamps are no movement."""

REPAINTED = 14 / 255
"""How much the mean of some 16 by 16 painted pixels may differ from what it was, where the film stands still, before the blend is down
to a third. Held statistics paint what stands still alike, but for what moves past it: rims, and rings around it on flat grounds, go
along with it. Blended over, they stayed behind, a trail of outlines that faded in half a second. At 8 / 255 a passer-by before a still wall
is less steady (-55 % in place of -62 % with ``steady`` at 1, and -72 % with the trail)."""


@dataclass(frozen=True, eq=False)
class Movement:
    """From a frame to an earlier one, at the size at which it was found."""

    flow: Floats
    """(h, w, 2): the pixel at (x, y) was at (x + u, y + v)."""
    trust: Floats
    """(h, w) in [0, 1]: 0 where nothing was."""
    fixed: Bytes | None = None
    """(H, W), 1 where the frame at its full size shows that nothing has moved; None for nowhere, or if movement was found at that size."""

    def across(self, height: int, width: int, into: tuple[Floats, Floats] | None = None) -> tuple[Floats, Floats]:
        """``flow`` (H, W, 2) and ``trust`` (H, W) for the whole frame; ``into`` is memory to be used for them."""
        cv2, (flow, trust) = load_cv2(), into or (None, None)
        h, w = self.trust.shape
        wide = self.flow * np.array([width / w, height / h], np.float32)
        flow, trust = cv2.resize(wide, (width, height), flow), cv2.resize(self.trust, (width, height), trust)
        if self.fixed is not None:
            nowhere, sure = _unmoved(height, width)
            cv2.copyTo(nowhere, self.fixed, flow)
            cv2.copyTo(sure, self.fixed, trust)
        return flow, trust


@dataclass(frozen=True, eq=False)
class Past:
    """Where a frame's pixels were before."""

    last: Movement
    """In the frame before."""
    anchor: Movement
    """In the anchor; no place is trusted more than in ``last``."""
    renews: bool
    """Whether this frame is the anchor of those to come."""


class Flow:
    """Finds the movement between each frame and the one before, on what is at most ``side`` pixels long."""

    def __init__(self, side: int = FLOW_SIDE) -> None:
        cv2 = load_cv2()
        # with more threads the patches of DIS read what their neighbours are just writing: no two films came out the same
        cv2.setNumThreads(1)
        self._side = side
        # one that is given where to start keeps something of that for its next search, even if that is given nothing
        self._dis, self._corrector = (cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST) for _ in range(2))
        self._last: Bytes | None = None
        self._full: Bytes | None = None
        """The last frame at its full size."""
        self._anchor: Bytes | None = None
        self._since: Movement | None = None
        """From the last frame to the anchor, if that is not the same."""
        self._count = 0

    def __call__(self, pixels: Bytes, *, cut: bool) -> Past | None:
        """``pixels`` (H, W, 3) uint8; None at a cut, and for the first frame."""
        cv2 = load_cv2()
        height, width, _ = pixels.shape
        longer = max(height, width)
        scale = 1.0 if longer <= SMALL else min(1.0, self._side / longer)
        # DIS looks at patches of 8 pixels over a pyramid, and refuses anything smaller than a few of them
        size = (max(32, round(width * scale)), max(32, round(height * scale)))
        full = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        grey = full if size == (width, height) else cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        last, self._last = self._last, grey
        full_last, self._full = self._full, full
        if cut or last is None or full_last is None or full_last.shape != full.shape:
            self._anchor, self._since, self._count = grey, None, 0
            return None
        back = self._dis.calc(grey, last, None)
        forth = self._dis.calc(last, grey, None)
        there = carry(forth, back)
        consistent = _squared(back + there) < 0.01 * (_squared(back) + _squared(there)) + 0.5
        before, now = last.astype(np.float32), grey.astype(np.float32)
        moved, unmoved = carry(before, back) - now, before - now
        apart = cv2.boxFilter(np.abs(unmoved), -1, (5, 5))
        still = (apart <= cv2.boxFilter(np.abs(moved), -1, (5, 5))) & (apart < STILL)
        back[still] = 0.0
        change = np.where(still, unmoved, moved) * np.float32(1 / 255)
        trust = np.where(still | (consistent & _inside(back)), _likely(change), np.float32(0))
        step = Movement(back, trust, None if grey is full else _fixed(still, full, full_last))
        anchor = step if self._since is None or self._anchor is None else self._to_anchor(step, self._since, self._anchor, grey, still)
        self._count += 1
        renews = self._count == EVERY
        self._anchor, self._since, self._count = (grey, None, 0) if renews else (self._anchor, anchor, self._count)
        return Past(step, anchor, renews)

    def _to_anchor(self, step: Movement, since: Movement, anchor: Bytes, grey: Bytes, still: NDArray[np.bool_]) -> Movement:
        """One step more; what adds up of its errors (a pixel within 8 frames) is corrected by looking at the anchor itself."""
        sum_of_steps = step.flow + carry(since.flow, step.flow)
        flow = self._corrector.calc(grey, anchor, sum_of_steps.copy())
        unmoved = still & (_squared(sum_of_steps) < 0.01)
        flow[unmoved] = sum_of_steps[unmoved]
        change = (carry(anchor.astype(np.float32), flow) - grey.astype(np.float32)) * np.float32(1 / 255)
        fixed = None if step.fixed is None or since.fixed is None else step.fixed & since.fixed
        return Movement(flow, step.trust * np.clip(carry(since.trust, step.flow), 0.0, 1.0) * _likely(change), fixed)

    def snapshot(self) -> Snapshot:
        """The last frame, the anchor, and the movement since, as arrays."""
        if self._last is None or self._full is None or self._anchor is None:
            return {}
        since = {} if self._since is None else {k: v for k, v in vars(self._since).items() if v is not None}
        return {"last": self._last, "full": self._full, "anchor": self._anchor, "count": np.array(self._count), **since}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        self._last, self._full, self._anchor = (snapshot.get(key) for key in ("last", "full", "anchor"))
        self._since = Movement(snapshot["flow"], snapshot["trust"], snapshot.get("fixed")) if "flow" in snapshot else None
        self._count = int(snapshot.get("count", 0))


class Steadier:
    """Blends painted frames along the movement; ``amount`` in [0, 1], 0 leaves them as they are."""

    def __init__(self, amount: float) -> None:
        self.amount = in_range("steady", amount, 0.0, 1.0)
        self._last: Floats | None = None
        self._anchor: Floats | None = None
        self._room: tuple[Floats, ...] = ()
        """Memory that is used anew for every frame: new pages cost more than what is done in them."""

    def __call__(self, painted: Floats, past: Past | None) -> Floats:
        """``painted`` (H, W, 3) in [0, 1] -> the same, steadier. No past: a new beginning."""
        if self.amount == 0:
            return painted
        if past is None or self._last is None or self._anchor is None or self._last.shape != painted.shape:
            self._anchor = None
        else:
            # the net gives planes, OpenCV takes pixels; and NumPy is ten times slower where the two meet, or where it has to repeat
            cv2 = load_cv2()
            painted = cv2.merge([painted[:, :, k] for k in range(3)])
            height, width, _ = painted.shape
            if not self._room or self._room[0].shape != painted.shape:
                self._room = tuple(np.empty((height, width, *more), np.float32) for more in ((3,), (3,), (2,), (), (), ()))
            a, b, room, *planes, rest = self._room
            flow, anchored = past.anchor.across(height, width, (room, planes[0]))
            anchor = carry(self._anchor, flow, a, linear=True)  # in half the time; once in 8 frames is not every time
            _take_back(anchored, painted, anchor, flow)
            flow, share = past.last.across(height, width, (room, planes[1]))
            last = carry(self._last, flow, b)
            _take_back(share, painted, last, flow)
            share *= np.float32(MOST * self.amount)
            anchored *= np.float32(MOST * self.amount * ANCHORED)
            np.minimum(anchored, share, out=anchored)
            before = cv2.blendLinear(anchor, last, anchored, np.subtract(share, anchored, out=rest), a)
            steadied = cv2.blendLinear(before, painted, share, np.subtract(1, share, out=rest))
            painted = np.clip(steadied, 0.0, 1.0, out=steadied)
        if self._anchor is None or (past is not None and past.renews):
            self._anchor = painted
        self._last = painted
        return painted

    def snapshot(self) -> Snapshot:
        """The last frame and the anchor, as arrays."""
        return {} if self._last is None or self._anchor is None else {"last": self._last, "anchor": self._anchor}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        self._last, self._anchor = snapshot.get("last"), snapshot.get("anchor")


def carry(image: NDArray[Any], flow: NDArray[Any], into: Floats | None = None, *, linear: bool = False) -> Floats:
    """``image`` (h, w[, n]) float32, taken at (x + u, y + v) for each pixel; beyond its edge, the edge.

    Cubic: ``linear`` would blur at every step.
    """
    cv2 = load_cv2()
    at = _grid(*flow.shape[:2]) + flow.astype(np.float32, copy=False)
    return cv2.remap(image, at, None, cv2.INTER_LINEAR if linear else cv2.INTER_CUBIC, into, cv2.BORDER_REPLICATE)


def _fixed(still: NDArray[np.bool_], full: Bytes, last: Bytes) -> Bytes | None:
    """Where the full frame is what it was, at and next to places that are ``still`` in the reduced one.

    Reduced, edges of what moves smear over what is behind it. Next to them only: where nothing can be seen to move, in a sky that a
    camera pans across, what is painted still has to move with the rest.
    """
    cv2 = load_cv2()
    height, width = full.shape
    if not still.any():
        return None
    near = cv2.resize(cv2.dilate(still.astype(np.uint8), np.ones((5, 5), np.uint8)), (width, height), interpolation=cv2.INTER_NEAREST)
    return near & (cv2.blur(cv2.absdiff(full, last), (3, 3)) < 1)


def _take_back(share: Floats, painted: Floats, before: Floats, flow: Floats) -> None:
    """Lessens ``share`` (H, W) where the film stands still, and what is painted there is on the whole not what it was ``before``."""
    cv2 = load_cv2()
    height, width = share.shape
    size = max(1, width // 4), max(1, height // 4)
    moves = (_squared(cv2.resize(flow, size, interpolation=cv2.INTER_NEAREST)) > 1e-4).astype(np.uint8)
    moves = cv2.erode(moves, np.ones((3, 3), np.uint8))  # at the edge of what stands still, smooth flow is small and means nothing
    if moves.all():
        return
    apart = cv2.blur(cv2.resize(cv2.subtract(painted, before), size, interpolation=cv2.INTER_AREA), (4, 4))
    alike = np.exp(np.einsum("ijk,ijk->ij", apart, apart) * np.float32(-1 / 3 / REPAINTED**2))
    alike[moves > 0] = 1.0
    share *= cv2.resize(alike, (width, height))


def _likely(change: Floats) -> Floats:
    return np.exp(np.float32(-0.5) * (change / np.float32(TOLERANCE)) ** 2)


def _squared(flow: Floats) -> Floats:
    return flow[:, :, 0] ** 2 + flow[:, :, 1] ** 2


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Floats:
    """(H, W, 2): where each pixel is, x and y."""
    at = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    at.flags.writeable = False
    return at


@lru_cache(maxsize=2)
def _unmoved(height: int, width: int) -> tuple[Floats, Floats]:
    """Movement of none (H, W, 2), and all trust in it (H, W)."""
    return np.zeros((height, width, 2), np.float32), np.ones((height, width), np.float32)


def _inside(flow: Floats) -> NDArray[np.bool_]:
    height, width, _ = flow.shape
    at = _grid(height, width) + flow
    x, y = at[:, :, 0], at[:, :, 1]
    return (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
