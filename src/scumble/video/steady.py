"""Steadier still: each painted frame is blended with the one before, carried along by the movement in the film.

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
"""Share of the frame before at ``steady=1``. More makes neighbours still more alike, but what is blurred by carrying it along outlives a
second, and frames further apart differ more: at 0.9 the error over 8 frames saved a third on moving textures, at 0.7 a half."""

USUAL = 0.65
"""``steady`` where nobody says: half of the frame before. Where things move it halves the error between neighbours."""

TOLERANCE = 0.06
"""How much lightness, of 1, may change along the movement before the blend is down to 60 %: shadows and lamps are no movement."""


@dataclass(frozen=True, eq=False)
class Movement:
    """From a frame to the one before, at the size of the frame."""

    flow: Floats
    """(H, W, 2): the pixel at (x, y) was at (x + u, y + v)."""
    trust: Floats
    """(H, W) in [0, 1]: 0 where nothing was."""


class Flow:
    """Finds the movement between each frame and the one before, on what is at most ``side`` pixels long."""

    def __init__(self, side: int = FLOW_SIDE) -> None:
        cv2 = load_cv2()
        # with more threads the patches of DIS read what their neighbours are just writing: no two films came out the same
        cv2.setNumThreads(1)
        self._side = side
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._last: Bytes | None = None

    def __call__(self, pixels: Bytes, *, cut: bool) -> Movement | None:
        """``pixels`` (H, W, 3) uint8; None at a cut, and for the first frame."""
        cv2 = load_cv2()
        height, width, _ = pixels.shape
        longer = max(height, width)
        scale = 1.0 if longer <= SMALL else min(1.0, self._side / longer)
        # DIS looks at patches of 8 pixels over a pyramid, and refuses anything smaller than a few of them
        size = (max(32, round(width * scale)), max(32, round(height * scale)))
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        last, self._last = self._last, grey
        if cut or last is None or last.shape != grey.shape:
            return None
        back = self._dis.calc(grey, last, None)
        forth = self._dis.calc(last, grey, None)
        there = carry(forth, back)
        consistent = _squared(back + there) < 0.01 * (_squared(back) + _squared(there)) + 0.5
        change = (carry(last.astype(np.float32), back) - grey) * np.float32(1 / 255)
        trust = np.where(consistent & _inside(back), np.exp(-0.5 * (change / TOLERANCE) ** 2), 0.0).astype(np.float32)
        back *= np.array([width / size[0], height / size[1]], np.float32)
        flow, sure = (cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) for found in (back, trust))
        return Movement(flow, sure)

    def snapshot(self) -> Snapshot:
        """The last frame, as an array."""
        return {} if self._last is None else {"last": self._last}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        self._last = snapshot.get("last")


class Steadier:
    """Blends painted frames along the movement; ``amount`` in [0, 1], 0 leaves them as they are."""

    def __init__(self, amount: float) -> None:
        self.amount = in_range("steady", amount, 0.0, 1.0)
        self._last: Floats | None = None

    def __call__(self, painted: Floats, movement: Movement | None) -> Floats:
        """``painted`` (H, W, 3) in [0, 1] -> the same, steadier. No movement: a new beginning."""
        if movement is not None and self._last is not None and self._last.shape == painted.shape:
            # the net gives planes, OpenCV takes pixels; and NumPy is ten times slower where the two meet, or where it has to repeat
            cv2 = load_cv2()
            painted = cv2.merge([painted[:, :, k] for k in range(3)])
            share = np.float32(MOST * self.amount) * movement.trust
            steadied = carry(self._last, movement.flow)
            steadied -= painted
            steadied *= cv2.merge([share] * 3)
            steadied += painted
            painted = np.clip(steadied, 0.0, 1.0, out=steadied)
        self._last = painted
        return painted

    def snapshot(self) -> Snapshot:
        """The last frame, as an array."""
        return {} if self._last is None else {"last": self._last}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on as if nothing had happened."""
        self._last = snapshot.get("last")


def carry(image: NDArray[Any], flow: NDArray[Any]) -> Floats:
    """``image`` (h, w[, n]) float32, taken at (x + u, y + v) for each pixel; beyond its edge, the edge.

    Cubic: linear would blur at every step.
    """
    cv2 = load_cv2()
    at = _grid(*flow.shape[:2]) + flow.astype(np.float32, copy=False)
    return cv2.remap(image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _squared(flow: Floats) -> Floats:
    return flow[:, :, 0] ** 2 + flow[:, :, 1] ** 2


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Floats:
    """(H, W, 2): where each pixel is, x and y."""
    at = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    at.flags.writeable = False
    return at


def _inside(flow: Floats) -> NDArray[np.bool_]:
    height, width, _ = flow.shape
    at = _grid(height, width) + flow
    x, y = at[:, :, 0], at[:, :, 1]
    return (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
