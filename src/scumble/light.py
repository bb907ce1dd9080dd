"""Light: what is light in the photograph is to be light in the painting, as far as the style has light to give.

A style's few lights go to whatever stands out from its neighbourhood: in a dark work a forehead ends darker than the gleam on a nose, and
a face is lost. Here the broad light and dark of a painting, strokes aside, is brought into the photograph's order: what the photograph
explains of it (the guided filter: He, Sun & Tang 2013, "Guided image filtering", eqs. 11 to 16, computed on a reduced picture as by He
& Sun 2015, "Fast guided filter") is replaced by a curve of the photograph's own. The curve gives the painting's lights to the
photograph's, rank by rank (histogram matching), so the painting as a whole is as dark or light as before.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble.color import oklab_to_rgb, rgb_to_oklab
from scumble.errors import UsageError, in_range
from scumble.guided import window_means

Array = NDArray[np.float32]

CELLS = 128
"""A picture is reduced to about as many a side, whatever its size: what a preview shows is then what the picture gets."""
WINDOW = 4
"""Cells around a cell that belong to its neighbourhood: a face is many, a stroke is one."""
RIDGE = 1e-3
"""Added to the variance of the photograph's lightness: what varies by less than 0.03 in a neighbourhood has no light of its own."""
WIDTH = 0.03
"""Lightness within which the curve is a mean: noise on what is flat in the photograph is no order."""
_RANKS = (np.arange(256) + 0.5) / 256
_SAMPLED = 1 << 16


def keep_light(painted: Array, content: Array, amount: float) -> Array:
    """``painted`` (H, W, 3) in [0, 1] with its lights where those of ``content`` (H, W, 3) are, to the share ``amount`` in [0, 1].

    Lightness is OKLab's; colours get paler or stronger with it, as paint in shade does. UsageError for unequal shapes and other amounts.
    """
    if painted.shape != content.shape:
        raise UsageError(f"content must have the painted picture's shape {painted.shape}; got {content.shape}")
    in_range("keep-light", amount, 0.0, 1.0)
    if amount == 0.0:
        return painted
    lab, theirs = rgb_to_oklab(painted), rgb_to_oklab(content)[..., 0]
    ours = lab[..., 0].copy()
    broad, order = _broad(ours, theirs)
    lab[..., 0] += np.float32(amount) * (_matched(order, broad) - broad)
    np.clip(lab[..., 0], 0.0, 1.0, out=lab[..., 0])
    lab[..., 1:] *= np.clip((lab[..., 0] + 0.05) / (ours + 0.05), 0.5, 2.0)[..., None]
    return oklab_to_rgb(lab)


def _broad(ours: Array, theirs: Array) -> tuple[Array, Array]:
    """What the photograph's lightness explains of the painting's (H, W), neighbourhood by neighbourhood, and of its own."""
    height, width = theirs.shape
    cell = max(1.0, math.sqrt(height * width) / CELLS)
    size = max(1, round(width / cell)), max(1, round(height / cell))
    g, p = (np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX), np.float64) for x in (theirs, ours))
    g_mean, p_mean, square, product = window_means(np.stack([g, p, g * g, g * p]), WINDOW)
    variance = square - g_mean**2
    slopes = np.stack([product - g_mean * p_mean, variance]) / (variance + RIDGE)
    maps = window_means(np.concatenate([slopes, np.stack([p_mean, g_mean]) - slopes * g_mean]), WINDOW).astype(np.float32)
    a, b, c, d = (np.asarray(Image.fromarray(m).resize((width, height), Image.Resampling.BILINEAR)) for m in maps)
    return a * theirs + c, b * theirs + d


def _matched(order: Array, broad: Array) -> Array:
    """``order`` with the histogram of ``broad``."""
    step = max(1, order.size // _SAMPLED)
    x, y = (np.quantile(values.ravel()[::step], _RANKS) for values in (order, broad))
    at = np.linspace(x[0], x[-1], 256)
    near = np.exp(-0.5 * ((at[:, None] - x) / WIDTH) ** 2)
    return np.interp(order, at, (near @ y) / near.sum(1)).astype(np.float32) if x[-1] > x[0] else np.full_like(order, y.mean())
