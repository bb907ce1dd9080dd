"""Grain: the noise that photographs have and drawings, renderings and smoothed skies lack.

A net that paints has nothing to make strokes of where a picture is flat. What its normalisations and the finish then find in the whole
picture is the detail at edges alone, which they make as strong as a style's: outlines are drawn again and again, like the rings around a
stone in water, and the ground between them stays empty. So each part of a picture is brought to the deviation of a photograph's noise
before it is painted, as painters prime a canvas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble import guided

Array = NDArray[np.float32]

GRAIN = 4 / 255
"""Standard deviation."""


def grained(pixels: Array, amount: float = 1.0) -> Array:
    """(H, W, 3) in [0, 1] -> the same with white noise where its colours deviate by less than ``amount`` times :data:`GRAIN` from the
    mean of the 16 x 16 pixels around.
    """
    own = (guided.guide(pixels * pixels) - guided.guide(pixels) ** 2).mean(0)
    missing = np.sqrt(np.maximum(np.float32(amount * GRAIN) ** 2 - own, 0))
    if not missing.any():
        return pixels
    height, width, _ = pixels.shape
    shape = guided.CELL * missing.shape[1], guided.CELL * missing.shape[0]
    noise = np.random.default_rng(0).standard_normal((height, width), np.float32)
    noise *= np.asarray(Image.fromarray(missing).resize(shape, Image.Resampling.BILINEAR))[:height, :width]
    found = pixels + noise[..., None]
    return np.clip(found, 0.0, 1.0, out=found)
