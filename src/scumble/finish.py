"""The finish: a painting is given the style's own colours and strokes, so far as second-order statistics know them, in closed form.

At every scale of a pyramid, from coarse to fine, the patches of a painting are carried to those of the style as one Gaussian to another
(the Monge map: Olkin & Pukelsheim 1982; as the first step of texture synthesis: Galerne, Leclaire & Rabin 2018, "A texture synthesis
model based on semi-discrete optimal transport in patch space"), and a pixel becomes the mean of what the patches around it say. Averaged
so, a linear map of patches is a convolution, with one kernel for each pass: these given, a pixel depends on its neighbourhood alone. A
net that paints in one pass can't see what statistics its own painting has; this can, and costs a few convolutions of three channels.

Patches are described by autocovariances: those between a pixel and the ones around it, of which the covariance of a stationary texture's
patches is made. A texture (T,) is mean and autocovariance at every scale; filters (F,) are bias and kernel of every pass.

What is painted is held as :class:`Cells`, as the net hands it over: 12 channels at half the size are convolved in half the time of 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scumble.fusion import Moments, barycenter

Array = NDArray[np.float32]
Array64 = NDArray[np.float64]

PATCH = 3
"""Side of the patches in pixels. 5 at the coarser scales brought 0.01 of style distance, 2 of 100, at eight times the work."""
SCALES = 4
"""An eighth of the size, a quarter, half and all of it. A sixteenth as well moved the layout, and brought no more."""
PASSES = (0, 1, 2, 3, 3)
"""Of which scales, in this order. Means of what patches say have less contrast than the patches: what one pass leaves to do at the finest
scale, a second does (style distance 0.559 to 0.545, content 0.469 to 0.474). All of it twice came to 0.538 at 0.481, which is no farther
out on the line between the two; all but the finest scale twice to 0.548 at 0.482."""
RIDGE = 1e-4
"""Added to the variance of every pixel of a patch on both sides: noise below 0.01 is not amplified."""

OFFSETS = tuple((dy, dx) for dy in range(PATCH) for dx in range(1 - PATCH, PATCH) if (dy, dx) >= (0, 0))
"""Half of the (rows, columns) between pixels of a patch; the other half is these turned over."""
LEAST_SIDE = 16
"""Below this many pixels a side there is too little to measure: such a scale is left as it is."""
REACH = 48
"""Pixels around a pixel that have a say in it: two of the kernel in each pass and one of the enlargement at each scale, 47 in all."""
_SPAN = 2 * PATCH - 1
_COVARIANCES = len(OFFSETS) * 9
TEXTURE = SCALES * (3 + _COVARIANCES)
"""T"""
_KERNEL = 9 * _SPAN * _SPAN
FILTERS = len(PASSES) * (3 + _KERNEL)
"""F"""
_SAME = np.zeros(3 + _KERNEL, np.float32)
_SAME[3:].reshape(3, 3, -1)[range(3), range(3), _SPAN * _SPAN // 2] = 1
_PIECE = 1024
"""Of how many patches products are summed in single precision."""
_ROWS_FIRST = np.append(np.arange(9 * PATCH).reshape(PATCH, PATCH, 3).transpose(1, 0, 2), 9 * PATCH)
"""Of numbers in the order (x, y, channel), and one more, those in the order (y, x, channel)."""
_MEASURED = 32_768
"""Patches that suffice: of larger pictures those of every second row are measured, or third, and so on. Single autocovariances of so few
places would not do: their differences are what is fine in a texture, and each would come from other places."""


def texture(pixels: Array) -> Array:
    """Of a picture (H, W, 3): mean and autocovariance at every scale, the coarsest first, (T,)."""
    return np.concatenate([autocovariance(level) for level in _pyramid(np.ascontiguousarray(pixels.transpose(2, 0, 1)))])


def halved(planes: Array) -> Array:
    """(3, h, w) -> (3, ⌈h/2⌉, ⌈w/2⌉), means of 2 × 2; an odd side's last row is repeated."""
    _, h, w = planes.shape
    if h % 2 or w % 2:
        planes = np.pad(planes, ((0, 0), (0, h % 2), (0, w % 2)), mode="edge")
    rows = planes[:, ::2] + planes[:, 1::2]  # first: neighbours in memory
    return np.float32(0.25) * (rows[:, :, ::2] + rows[:, :, 1::2])


def autocovariance(planes: Array) -> Array:
    """Mean and autocovariance of (3, h, w): (3 + 9·D,).

    As if there were nothing but the mean around it: that makes the covariance of patches positive however small the picture.
    """
    mean = planes.mean((1, 2))
    x = planes - mean[:, None, None]
    _, h, w = planes.shape
    found = [
        x[:, : max(0, h - dy), max(0, -dx) : w - max(0, dx)].reshape(3, -1) @ x[:, dy:, max(0, dx) : w + min(0, dx)].reshape(3, -1).T
        for dy, dx in OFFSETS
    ]
    return np.concatenate([mean, np.ravel(found) / (h * w)]).astype(np.float32)


@dataclass(frozen=True)
class Places:
    """Upper left corners of patches: rows from, to and by, and columns from and to."""

    rows: range
    columns: range

    @staticmethod
    def of(height: int, width: int, window: tuple[int, int, int, int] | None = None) -> Places:
        """Those that are measured of a picture, or of its ``window`` (top, bottom, left, right): enough of them, in whole rows."""
        top, bottom, left, right = window or (0, height, 0, width)
        step = 1 + height * width // _MEASURED
        r = PATCH - 1
        return Places(range(top + -top % step, min(bottom, height - r), step), range(left, min(right, width - r)))

    def seen_from(self, top: int, left: int) -> Places:
        """The same where the picture begins at another row and column."""
        rows, columns = self.rows, self.columns
        return Places(range(rows.start - top, rows.stop - top, rows.step), range(columns.start - left, columns.stop - left))


@dataclass(frozen=True, eq=False)
class Cells:
    """A picture as cells of 2 × 2 pixels: what a net has that ends in a pixel shuffle, before that."""

    array: Array
    """(12, h, w): channel 4·c + 2·p + q is the colour c of the pixel in row p and column q of a cell."""
    margin: int
    """How many rows and columns of cells there are before the picture begins, one at least; so many at least follow after its end."""
    height: int
    width: int
    """Of the picture, in pixels; if odd, half of its last cells lies beyond it."""

    @staticmethod
    def of(planes: Array) -> Cells:
        """Of (3, H, W), with its edge around it."""
        _, height, width = planes.shape
        found = Cells(np.empty((12, (height + 1) // 2 + 2, (width + 1) // 2 + 2), np.float32), 1, height, width)
        for p in (0, 1):
            for q in (0, 1):
                found._by_place[:, p, q, 1 : 1 + (height + 1 - p) // 2, 1 : 1 + (width + 1 - q) // 2] = planes[:, p::2, q::2]
        return found.edged()

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the cells that the picture has a part in."""
        m = self.margin
        return slice(m, m + (self.height + 1) // 2), slice(m, m + (self.width + 1) // 2)

    def edged(self) -> Cells:
        """The same, what lies next to the picture overwritten by its edge: two pixels, which is as far as a filter sees."""
        cells = self._by_place
        rows, columns = self.inside
        for turned, along, odd in ((cells, rows, self.height % 2), (cells.transpose(0, 2, 1, 4, 3), columns, self.width % 2)):
            first, last = along.start, along.stop - 1
            if odd:
                turned[:, 1, :, last] = turned[:, 0, :, last]
            turned[:, :, :, first - 1] = turned[:, :1, :, first]
            turned[:, :, :, last + 1] = turned[:, 1:, :, last]
        return self

    def halved(self) -> Array:
        """(3, ⌈H/2⌉, ⌈W/2⌉), the mean of each cell; of what is :meth:`edged`."""
        rows, columns = self.inside
        cells = self.array.reshape(3, 4, *self.array.shape[1:])[:, :, rows, columns]
        found = cells[:, 0] + cells[:, 1]
        found += cells[:, 2]
        found += cells[:, 3]
        found *= np.float32(0.25)
        return found

    @property
    def planes(self) -> Array:
        """The picture as (3, H, W)."""
        found = np.empty((3, self.height, self.width), np.float32)
        for p in (0, 1):
            for q in (0, 1):
                part = found[:, p::2, q::2]
                part[:] = self._by_place[:, p, q, self.margin :, self.margin :][:, : part.shape[1], : part.shape[2]]
        return found

    @property
    def _by_place(self) -> Array:
        """(3, 2, 2, h, w): colour, row and column in a cell; a view."""
        return self.array.reshape(3, 2, 2, *self.array.shape[1:])

    def planes_at(self, at: NDArray[np.intp]) -> Array:
        """The rows of pixels ``at`` (N,) as (3, N, W)."""
        cells = self._by_place[..., self.inside[1]]
        found = np.empty((3, len(at), 2 * cells.shape[-1]), np.float32)
        for q in (0, 1):
            found[:, :, q::2] = cells[:, :, q][:, at % 2, self.margin + at // 2]
        return found[:, :, : self.width]


def sums(level: Cells, center: Array, places: Places, by: Computing) -> Array64:
    """Sums over the patches at ``places``, (28, 28): of products of what deviates from ``center``, and of that itself.

    Those of a picture's tiles add up to the picture's.
    """
    at, columns = np.array(places.rows, np.intp)[:, None] + range(PATCH), places.columns
    lines = level.planes_at(at.ravel()).reshape(3, len(at), PATCH, -1) - center[:, None, None, None]
    lines = lines.transpose(1, 2, 0, 3).reshape(len(at), 3 * PATCH, -1)  # row and colour
    found = np.zeros((9 * PATCH + 1,) * 2)
    for first in range(columns.start, columns.stop, _PIECE):
        n = min(_PIECE, columns.stop - first)
        patches = np.empty((len(at), 9 * PATCH + 1, n), np.float32)
        patches[:, -1] = 1
        for x in range(PATCH):  # columns come first here, which is three copies in place of nine
            patches[:, 3 * PATCH * x :][:, : 3 * PATCH] = lines[..., first + x : first + x + n]
        found += by.products(patches).sum(0, dtype=np.float64)
    return found[_ROWS_FIRST[:, None], _ROWS_FIRST]


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches of a painting: the mean of its pixels (3,), and the covariance (27, 27)."""

    mean: Array64
    covariance: Array64

    @staticmethod
    def of_sums(found: Array64, center: Array) -> Patches:
        """From :func:`sums`."""
        mean = found[-1, :-1] / found[-1, -1]
        covariance = found[:-1, :-1] / found[-1, -1] - np.outer(mean, mean)
        return Patches(center + mean.reshape(-1, 3).mean(0), covariance)

    @staticmethod
    def of(level: Cells, by: Computing) -> Patches:
        """Of all of it, but see :class:`Places`."""
        places = Places.of(level.height, level.width)
        center = level.planes_at(np.array(places.rows[::8], np.intp)).mean((1, 2))  # about: what is taken away for the sums is given back
        return Patches.of_sums(sums(level, center, places, by), center)


class Computing(Protocol):
    """Who computes: :class:`~scumble.engine.Engine`."""

    def products(self, rows: Array) -> Array:
        """(N, C, K) -> (N, C, C): sums of products."""
        ...

    def raised(self, level: Cells, change: Array) -> Cells:
        """``level`` + ``change`` (3, ⌈H/2⌉, ⌈W/2⌉), bilinearly enlarged; around the picture there may be anything."""
        ...

    def filtered(self, level: Cells, kernel: Array, bias: Array) -> Cells:
        """``kernel`` (12, 12, 3, 3) and ``bias`` (12,); around the picture there may be anything."""
        ...


def finish(cells: Cells, wanted: Array, by: Computing, frozen: Array | None = None, freeze: Array | None = None) -> tuple[Array, Array]:
    """(3, H, W) with the texture that is ``wanted`` (T,), not clipped, and the filters (F,) that did it.

    ``frozen`` ones replace them to the share ``freeze`` in [0, 1], (F,). What lies around the picture in ``cells`` is overwritten.
    """
    filters = unchanging() if frozen is None else frozen.astype(np.float32)
    shares = np.zeros(len(PASSES)) if frozen is None or freeze is None else passes(freeze).min(1)

    def measure(n: int, level: Cells) -> None:
        if shares[n] < 1 and min(level.height, level.width) >= LEAST_SIDE:
            measured, held = filter_of_pass(n, Patches.of(level, by), wanted, filters), passes(filters)[n]
            held[:] = measured + np.float32(shares[n]) * (held - measured)

    level = unfiltered(cells, filters, by, len(PASSES) - 1, measure)
    measure(len(PASSES) - 1, level)
    return _filtered(level, filters, len(PASSES) - 1, by).planes, filters


def unfiltered(cells: Cells, filters: Array, by: Computing, last: int, measure: Callable[[int, Cells], None] | None = None) -> Cells:
    """What the filter of pass ``last`` is measured on: the filters before it have been there.

    ``measure`` sets each of these in time; it is told the pass, and what its filter is measured on.
    """
    coarser = [cells.edged().halved()]
    for _ in range(SCALES - 2):
        coarser.insert(0, halved(coarser[0]))
    level = Cells.of(coarser[0])
    for n, (scale, following) in enumerate(pairwise(PASSES[: last + 1])):
        if measure:
            measure(n, level)
        level = _filtered(level, filters, n, by)
        if following > scale:
            change = level.planes - coarser[scale]
            level = by.raised(cells if following == SCALES - 1 else Cells.of(coarser[following]), change)
        level = level.edged()
    return level


def filter_of_pass(n: int, own: Patches, wanted: Array, filters: Array) -> Array:
    """Bias and kernel (3 + 225,) of pass ``n``, from the patches that it meets; of the ``filters`` (F,) those before it are known."""
    again = n > 0 and PASSES[n - 1] == PASSES[n]
    return monge_filter(own, scales(wanted)[PASSES[n]], _noise(passes(filters)[n - 1]) if again else RIDGE * np.eye(9 * PATCH))


def _noise(passed: Array) -> Array64:
    """What a filter has made of the ridge, (27, 27). Else the next pass would take what is left of it for the painting's, and what the
    first one refused to amplify be amplified after all.
    """
    kernel, wide = passed[3:].reshape(3, 3, _SPAN, _SPAN), PATCH + _SPAN - 1
    rows = np.zeros((PATCH, PATCH, 3, 3, wide, wide))
    for y in range(PATCH):
        for x in range(PATCH):
            rows[y, x, :, :, y : y + _SPAN, x : x + _SPAN] = kernel
    rows = rows.reshape(9 * PATCH, -1)
    return RIDGE * (rows @ rows.T)


def _pyramid(planes: Array) -> list[Array]:
    found = [planes]
    for _ in range(SCALES - 1):
        found.append(halved(found[-1]))
    return found[::-1]


def _filtered(level: Cells, filters: Array, n: int, by: Computing) -> Cells:
    part = passes(filters)[n]
    return by.filtered(level, np.append(part[3:], np.float32(0))[_of_cells()], part[:3].repeat(4))


@lru_cache(maxsize=1)
def _of_cells() -> NDArray[np.intp]:
    """Which of a kernel's (3, 3, 5, 5) numbers stands where in that of cells, (12, 12, 3, 3); where none does, the one after the last."""
    p, o, d = np.ogrid[:2, :2, -1:2]
    step = _SPAN // 2 + 2 * d + o - p  # from row p of a cell to row o of the one d further
    y, x = step[:, None, :, None, :, None], step[None, :, None, :, None, :]  # (p, q, o, u, dy, dx), u and q as o and p
    known = (y >= 0) & (y < _SPAN) & (x >= 0) & (x < _SPAN)
    at = np.where(known, _SPAN * y + x, _KERNEL)[:, :, None] + _SPAN * _SPAN * np.arange(9).reshape(3, 1, 1, 3, 1, 1, 1, 1)
    return np.minimum(at, _KERNEL).reshape(12, 12, 3, 3)


def unchanging() -> Array:
    """Filters (F,) that leave everything as it is."""
    return np.tile(_SAME, len(PASSES))


def scales(vector: Array) -> Array:
    """A texture as rows, scale by scale, the coarsest first; a view."""
    return vector.reshape(SCALES, -1)


def passes(vector: Array) -> Array:
    """Filters as rows, pass by pass; a view."""
    return vector.reshape(len(PASSES), -1)


def monge_filter(own: Patches, wanted: NDArray[np.floating], noise: Array64) -> Array:
    """Bias and kernel (3 + 225,) that carry a painting's patches, ``noise`` (27, 27) among them, to those of a mean and autocovariance
    (3 + 9·D,).

    Averaged over the places that a pixel has in a patch.
    """
    n = PATCH
    a, b = own.covariance + noise, of_patches(wanted[3:].reshape(-1, 3, 3))
    patch_map = monge_map(a, b).reshape(n, n, 3, n, n, 3)
    kernel = np.zeros((3, 3, _SPAN, _SPAN))
    for y in range(n):
        for x in range(n):
            kernel[:, :, n - 1 - y : 2 * n - 1 - y, n - 1 - x : 2 * n - 1 - x] += patch_map[y, x].transpose(0, 3, 1, 2)
    kernel /= n * n
    bias = wanted[:3] - kernel.sum((2, 3)) @ own.mean
    return np.concatenate([bias, kernel.ravel()]).astype(np.float32)


def monge_map(a: Array64, b: Array64) -> Array64:
    """The symmetric A with A·a·A = b, of two covariances (C, C).

    For a = L·Lᵀ and b = M·Mᵀ every M·Q·L⁻¹ with an orthogonal Q does the second; Q = the polar factor of Mᵀ·L does the first. So there
    is no eigendecomposition: BLAS shares that out among threads even when it is as small as here, and they go on waiting for more while
    the convolutions want the processor. A 1024 pixel picture took a third longer.
    """
    left, right = _factor(a), _factor(b)
    return right @ _polar(right.T @ left) @ np.linalg.inv(left)


def _factor(a: Array64) -> Array64:
    """L with L·Lᵀ = a; what rounding made negative counts as :data:`RIDGE`."""
    try:
        return np.asarray(np.linalg.cholesky(a), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(a)
        return np.asarray(vectors * np.sqrt(np.maximum(values, RIDGE)), np.float64)


def _polar(x: Array64) -> Array64:
    """The orthogonal factor of an invertible x (C, C), by scaled Newton steps (Higham 1986; 2008, section 8.6)."""
    for _ in range(20):  # of which it takes 5 to 9
        inverse = np.linalg.inv(x).T
        scale = (np.vdot(inverse, inverse) / np.vdot(x, x)) ** 0.25
        x, before = scale / 2 * x + inverse / (2 * scale), x
        if np.abs(x - before).max() < 1e-5:  # what is left then is about the square of that
            break
    return x


def of_patches(covariances: NDArray[np.floating]) -> Array64:
    """Autocovariance (D, 3, 3) -> covariance of patches (27, 27), the ridge added; rows and columns in the order (y, x, channel)."""
    both = np.concatenate([covariances, covariances.transpose(0, 2, 1)]).astype(np.float64)
    size = PATCH * PATCH
    blocks = both[patch_index()].reshape(size, size, 3, 3).transpose(0, 2, 1, 3).reshape(size * 3, size * 3)
    return blocks + RIDGE * np.eye(size * 3)


def _of_offsets(patches: Array64) -> Array64:
    """The inverse of :func:`of_patches`: the mean over all pairs of places that are equally far apart."""
    size = PATCH * PATCH
    blocks = (patches - RIDGE * np.eye(size * 3)).reshape(size, 3, size, 3).transpose(0, 2, 1, 3).reshape(-1, 3, 3)
    index = np.array(patch_index())
    return np.stack([blocks[index == k].mean(0) for k in range(len(OFFSETS))])


@lru_cache(maxsize=1)
def patch_index() -> list[int]:
    """For each pair of places in a patch, which of the :data:`OFFSETS` lies between them; counted on from these, turned over."""

    def at(dy: int, dx: int) -> int:
        return OFFSETS.index((dy, dx)) if (dy, dx) >= (0, 0) else len(OFFSETS) + OFFSETS.index((-dy, -dx))

    cells = [(y, x) for y in range(PATCH) for x in range(PATCH)]
    return [at(v - y, u - x) for y, x in cells for v, u in cells]


def mixed(textures: Sequence[Array], weights: Sequence[float]) -> Array:
    """Poured together, as :func:`~scumble.fusion.mixture` does: how far the means lie apart counts as covariance."""
    w = np.asarray(weights, np.float64) / sum(weights)
    parts = np.stack([t.reshape(SCALES, -1) for t in textures]).astype(np.float64)
    mixture = np.einsum("i,iks->ks", w, parts)
    apart = parts[..., :3] - mixture[None, :, :3]
    spread = np.einsum("i,ika,ikb->kab", w, apart, apart)
    mixture[:, 3:] += np.tile(spread.reshape(SCALES, 9), len(OFFSETS))
    return mixture.astype(np.float32).ravel()


def between(textures: Sequence[Array], weights: Sequence[float]) -> Array:
    """Half-way, as :func:`~scumble.fusion.barycenter` is: as sharp as each of them."""
    found: list[Array64] = []
    for k in range(SCALES):
        parts = [scales(t)[k].astype(np.float64) for t in textures]
        gaussians = [Moments(np.tile(p[:3], PATCH * PATCH), of_patches(p[3:].reshape(-1, 3, 3))) for p in parts]
        middle = barycenter(gaussians, weights)
        found.append(np.concatenate([middle.mean[:3], _of_offsets(middle.covariance).ravel()]))
    return np.concatenate(found).astype(np.float32)
