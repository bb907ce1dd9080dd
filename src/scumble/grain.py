"""Grain: the noise that photographs have and drawings, renderings and smoothed skies lack.

A net that paints has nothing to make strokes of where a picture is flat. What its normalisations and the finish then find in the whole
picture is the detail at edges alone, which they make as strong as a style's: outlines are drawn again and again, like the rings around a
stone in water, and the ground between them stays empty. So each part of a picture is brought to the deviation of a photograph's noise
before it is painted, as painters prime a canvas.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble import guided
from scumble.pyramid import means

Array = NDArray[np.float32]

GRAIN = 4 / 255
"""Standard deviation."""

SIDES = (181, 191)
"""Noise is the sum of two squares of so many pixels a side, each repeated: together they repeat after 34 571 pixels. It is the same at
the same place of any picture, and small enough to go into a graph (:mod:`scumble.train.export`) that paints the same pixels."""


def grained(pixels: Array, amount: float = 1.0) -> Array:
    """(H, W, 3) in [0, 1] -> the same with white noise where its colours deviate by less than ``amount`` times :data:`GRAIN` from the
    mean of the 16 x 16 pixels around.
    """
    if amount == 0:  # rounding alone makes some variances negative
        return pixels
    missing = np.sqrt(np.maximum(np.float32(amount * GRAIN) ** 2 - variances(pixels), 0))
    if not missing.any():
        return pixels
    height, width, _ = pixels.shape
    shape = guided.CELL * missing.shape[1], guided.CELL * missing.shape[0]
    noise = np.asarray(Image.fromarray(missing).resize(shape, Image.Resampling.BILINEAR))[:height, :width]
    noise = noise * sum(square[np.ix_(np.arange(height) % len(square), np.arange(width) % len(square))] for square in squares())
    found = pixels + noise[..., None]
    return np.clip(found, 0.0, 1.0, out=found)


def variances(pixels: Array) -> Array:
    """Of (H, W, 3) in each of its cells of 16 x 16 pixels, the mean of its colours': (⌈H/16⌉, ⌈W/16⌉)."""
    found: Array = (means(pixels * pixels, guided.CELL) - means(pixels, guided.CELL) ** 2).mean(0)
    return found


@lru_cache(maxsize=1)
def squares() -> tuple[Array, ...]:
    """Of :data:`SIDES`: numbers of half precision, of variance 1 in sum."""
    rng = np.random.default_rng(0)
    found = tuple((rng.standard_normal((n, n)) * 0.5**0.5).astype(np.float16).astype(np.float32) for n in SIDES)
    for square in found:
        square.flags.writeable = False
    return found
