"""Halos, and how they are taken back: what is coarse in a painting follows the photograph's colours.

Nets that see 8 pixels as one, and filters as wide as the finish's coarsest, ring: a dark roof gets a light rim, 30 pixels wide, in a sky
that is one colour in the photograph. So the coarsest scale is fitted to the photograph, window by window: a cell of :data:`CELL` pixels
gets what the linear map from the photograph's colours to the painting's says that suits the cells around it best. This is the guided
filter (He, Sun & Tang 2013, "Guided image filtering", eq. 19) but for its second mean, over all windows that a cell lies in: that
doubles how far a pixel sees, and 24 pairs came out the same. All that is finer, which is where strokes are, stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.pyramid import halved, means

Array = NDArray[np.float32]
Array64 = NDArray[np.float64]

CELL = 16
"""Pixels a side of what counts as one. With 8 less is left of the style (24 pairs: content 0.444, style 0.541 in place of 0.462, 0.525),
with 32 more of the halos (10 8-bit steps in place of 8.4, where both were fitted before the finish and not in it)."""
WINDOW = 5
"""Cells around a cell that have a say in it. With 4 halos of 7.3 8-bit steps are left, with 5 6.8, and content and style are the same to
0.001; how far tiles have to overlap grows with it."""
RIDGE = 1e-5
"""Added to the variance of the photograph's colours: differences below 0.003 explain nothing. At 1e-3 24 pairs are 0.002 farther from
their contents at the same style."""
REACH = (WINDOW + 2) * CELL
"""Pixels around a pixel that have a say in it: those of a window, the cell itself and the next one, towards which it is interpolated."""


def guide(pixels: Array) -> Array:
    """A photograph (H, W, 3) reduced to its cells, (3, ⌈H/16⌉, ⌈W/16⌉): by means to a quarter, which is quick, then as paintings are."""
    return halved(halved(means(pixels, CELL // 4)))


def fitted(painted: Array, guide: Array) -> Array:
    """A painting (3, h, w) as the ``guide`` (3, h, w) explains it, each cell by the window around it."""
    y, x = np.triu_indices(3)
    g, p = guide.astype(np.float64), painted.astype(np.float64)
    products = (p[:, None] * g).reshape(9, *g.shape[1:])
    g_mean, p_mean, squares, products = np.split(window_means(np.concatenate([g, p, g[y] * g[x], products])), [3, 6, 12])
    squares -= g_mean[y] * g_mean[x]
    squares[[0, 3, 5]] += RIDGE
    covariance = products.reshape(3, *g.shape) - p_mean[:, None] * g_mean
    return (p_mean + (covariance * np.stack(solved(squares, g - g_mean))).sum(1)).astype(np.float32)


def solved(matrix: Any, right: Any) -> tuple[Any, Any, Any]:
    """Symmetric 3 × 3 matrices, given as six maps of their upper triangles, and three of right-hand sides -> three of solutions.

    By Cramer's rule; maps are arrays or PyTorch's tensors.
    """
    a, b, c, d, e, f = matrix
    x, y, z = right
    first = (d * f - e * e, c * e - b * f, b * e - c * d)
    second, third, last = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * first[0] + b * first[1] + c * first[2]
    return (
        (first[0] * x + first[1] * y + first[2] * z) / determinant,
        (first[1] * x + second * y + third * z) / determinant,
        (first[2] * x + third * y + last * z) / determinant,
    )


def window_means(x: Array64, window: int = WINDOW) -> Array64:
    """Of (C, h, w), the mean around each place over ``window`` more to every side, as far as there is anything."""
    for _ in range(2):  # rows, and turned over columns
        n = x.shape[1]
        sums = np.zeros((len(x), n + 2 * window + 1, x.shape[2]))  # of all rows up to one, with what a window has beyond both ends
        np.cumsum(x, 1, out=sums[:, window + 1 : window + 1 + n])
        sums[:, window + 1 + n :] = sums[:, window + n, None]
        at = np.arange(n)
        count = np.minimum(at + window + 1, n) - np.maximum(at - window, 0)
        x = ((sums[:, 2 * window + 1 :] - sums[:, :n]) / count[:, None]).transpose(0, 2, 1)
    return x
