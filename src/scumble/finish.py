"""The finish: a painting is given the style's own colours and strokes, so far as second-order statistics know them, in closed form.

At every scale of a pyramid, from coarse to fine, the patches of a painting are carried to those of the style as one Gaussian to another
(the Monge map: Olkin & Pukelsheim 1982; as the first step of texture synthesis: Galerne, Leclaire & Rabin 2018, "A texture synthesis
model based on semi-discrete optimal transport in patch space"), and a pixel becomes the mean of what the patches around it say. Averaged
so, a linear map of patches is a convolution, with one kernel for each pass: these given, a pixel depends on its neighbourhood alone. A
net that paints in one pass can't see what statistics its own painting has; this can, and costs a few convolutions of three channels.

Patches are described by autocovariances: those between a pixel and the ones around it, of which the covariance of a stationary texture's
patches is made. A texture (T,) is mean and autocovariance at every scale, of patches with a side of :data:`WIDE` or :data:`NARROW` pixels,
which its length says; filters (F,) are bias and kernel of every pass, and last the gamut.

Filters ring at edges, as the net does: at the coarsest scale, after its pass, the painting is fitted to the photograph
(:mod:`scumble.guided`), so that no halo goes on to the finer ones. At the next one, a quarter of the size, colours that the style has not
are drawn back (:mod:`scumble.gamut`): what is a patch there stays so at the finer scales, and what is a stroke comes at these.

What is painted is held as :class:`Cells`, as the net hands it over: 12 channels at half the size are convolved in half the time of 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import isqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scumble import gamut, guided
from scumble.fusion import Moments, barycenter
from scumble.pyramid import TAPS, halved

Array = NDArray[np.float32]
Array64 = NDArray[np.float64]

NARROW, WIDE = 3, 5
"""Sides of patches in pixels: where it has to be quick, drafts and films, and where it has to be good. 24 pairs painted after a look and
finished with patches of 3 (content, structure, style): 0.470, 0.305, 0.525; of 5 0.480, 0.314, 0.512, or 0.516 at the same content; of 5 at
the finest scale alone 0.471, 0.304, 0.519; of 7 at the two finest 0.480, 0.310, 0.518."""
SCALES = 4
"""An eighth of the size, a quarter, half and all of it. A sixteenth as well moved the layout, and brought no more."""
PASSES = {NARROW: (0, 1, 2, 3), WIDE: (0, 1, 2, 3, 3)}
"""Of which scales, in this order. Means of what patches say have less contrast than the patches: what one pass leaves to do at the finest
scale, a second does (style distance 0.559 to 0.545, content 0.469 to 0.474). All of it twice came to 0.538 at 0.481, which is no farther
out on the line between the two; all but the finest scale twice to 0.548 at 0.482. Where it has to be quick one pass goes as much
further (:func:`further`): 24 drafts 0.457, 0.291, 0.550 where two passes had 0.457, 0.292, 0.549, in a seventh less time. For wide
patches, whose means lose more, half as far again is too little, 0.473, 0.307, 0.526 in place of 0.470, 0.303, 0.520, and twice as far too
much, 0.480, 0.314, 0.560."""
RIDGE = 1e-4
"""Added to the variance of every pixel of a patch on both sides: noise below 0.01 is not amplified."""

GAMUT_SCALE = 1
"""Where colours are drawn back to the style's: at the coarsest scale as well 24 pairs came to 0.465, 0.295, 0.517 in place of 0.463,
0.294, 0.517, at the coarsest alone lips are still neon, and at half the size strokes are drawn back as well."""
GAMUT = 10
"""Numbers of a gamut: mean (3), upper triangle of the covariance (6), and the share by which what lies outside is drawn back."""

LEAST_SIDE = 16
"""Below this many pixels a side there is too little to measure: such a scale is left as it is."""
REACH = 80 + guided.REACH
"""Pixels around a pixel that have a say in it: four of the kernel in each pass and one of the enlargement at each scale, 79 in all, 7 of
the halvings, and what the fit to the photograph sees, 96 of the 112 that it says."""
AROUND = 2
"""Cells of 2 × 2 pixels beyond a picture's edge that a filter sees."""
_PIECE = 1024
"""Of how many patches products are summed in single precision."""
_MEASURED = 32_768
"""Patches that suffice: of larger pictures those of every second row are measured, or third, and so on. Half as many take a millisecond
less at 512 × 512, and 24 pairs come to 0.463, 0.296, 0.521 in place of 0.461, 0.294, 0.517. Single autocovariances of so few places would
not do: their differences are what is fine in a texture, and each would come from other places."""


@lru_cache
def offsets(patch: int) -> tuple[tuple[int, int], ...]:
    """Half of the (rows, columns) between pixels of a patch; the other half is these turned over."""
    return tuple((dy, dx) for dy in range(patch) for dx in range(1 - patch, patch) if (dy, dx) >= (0, 0))


def texture_size(patch: int) -> int:
    """T, the length of a texture: means and autocovariances at all scales."""
    return SCALES * (3 + 9 * len(offsets(patch)))


def filters_size(patch: int) -> int:
    """F, the length of all passes' filters and biases, and of the gamut."""
    return len(PASSES[patch]) * (3 + 9 * (2 * patch - 1) ** 2) + GAMUT


def side_of(covariances: int) -> int:
    """The side of the patches that have so many :func:`offsets`."""
    return (isqrt(2 * covariances - 1) + 1) // 2


@lru_cache(maxsize=1)
def narrower() -> list[int]:
    """Which of the :func:`offsets` of :data:`WIDE` patches those of :data:`NARROW` ones are."""
    return [offsets(WIDE).index(offset) for offset in offsets(NARROW)]


def patch_of(texture: Array) -> int:
    """The side of the patches that a texture (T,) is of; ValueError if that is none."""
    for patch in (NARROW, WIDE):
        if len(texture) == texture_size(patch):
            return patch
    raise ValueError(f"a texture has {texture_size(NARROW)} or {texture_size(WIDE)} numbers; got {len(texture)}")


def is_wide(texture: Array) -> bool:
    """Whether a texture (T,), or none (0,), is of :data:`WIDE` patches, as stills have; drafts and films have :data:`NARROW` ones."""
    return len(texture) == texture_size(WIDE)


def texture(pixels: Array) -> Array:
    """Of a picture (H, W, 3): mean and autocovariance at every scale, the coarsest first, (T,)."""
    return np.concatenate([autocovariance(level) for level in _pyramid(np.ascontiguousarray(pixels.transpose(2, 0, 1)))])


def narrow(texture: Array) -> Array:
    """The same of smaller patches."""
    if patch_of(texture) == NARROW:
        return texture
    rows = scales(texture)
    kept = rows[:, 3:].reshape(SCALES, -1, 9)[:, narrower()].reshape(SCALES, -1)
    return np.hstack([rows[:, :3], kept]).ravel()


def autocovariance(planes: Array) -> Array:
    """Mean and autocovariance of (3, h, w): (3 + 9·D,).

    Around the picture there is its mean: so the covariance of patches has no negative eigenvalues, however small the picture.
    """
    _, h, w = planes.shape
    mean, apart = planes.mean((1, 2)), w + WIDE - 1
    x = np.zeros((3, h, apart), np.float32)  # what a row lacks to its right is nothing, and so is what the next one has before it
    np.subtract(planes, mean[:, None, None], out=x[..., :w])
    x = x.reshape(3, -1)
    shifts = [dy * apart + dx for dy, dx in offsets(WIDE)]
    # one by one: a product of matrices so narrow takes six times as long
    found = [np.dot(a[: max(0, len(a) - shift)], b[shift:]) for shift in shifts for a in x for b in x]
    return np.concatenate([mean, np.array(found) / (h * w)]).astype(np.float32)


@dataclass(frozen=True)
class Places:
    """Upper left corners of patches: rows from, to and by, and columns from and to."""

    rows: range
    columns: range
    patch: int
    """Their side."""

    @staticmethod
    def of(height: int, width: int, patch: int, window: tuple[int, int, int, int] | None = None) -> Places:
        """Those that are measured of a picture, or of its ``window`` (top, bottom, left, right): enough of them, in whole rows."""
        top, bottom, left, right = window or (0, height, 0, width)
        step = 1 + height * width // _MEASURED
        r = patch - 1
        return Places(range(top + -top % step, min(bottom, height - r), step), range(left, min(right, width - r)), patch)

    def seen_from(self, top: int, left: int) -> Places:
        """The same where the picture begins at another row and column."""
        rows, columns = self.rows, self.columns
        moved = range(rows.start - top, rows.stop - top, rows.step), range(columns.start - left, columns.stop - left)
        return Places(*moved, self.patch)


@dataclass(frozen=True, eq=False)
class Cells:
    """A picture as cells of 2 × 2 pixels: what a net has that ends in a pixel shuffle, before that."""

    array: Array
    """(12, h, w): channel 4·c + 2·p + q is the colour c of the pixel in row p and column q of a cell."""
    margin: int
    """Rows and columns of cells before the picture begins, :data:`AROUND` at least; so many at least follow after its end."""
    height: int
    width: int
    """Of the picture, in pixels; if odd, half of its last cells lies beyond it."""

    @staticmethod
    def of(planes: Array) -> Cells:
        """Of (3, H, W), with its edge around it."""
        _, height, width = planes.shape
        m = AROUND
        found = Cells(np.empty((12, (height + 1) // 2 + 2 * m, (width + 1) // 2 + 2 * m), np.float32), m, height, width)
        for p in (0, 1):
            for q in (0, 1):
                found._by_place[:, p, q, m : m + (height + 1 - p) // 2, m : m + (width + 1 - q) // 2] = planes[:, p::2, q::2]
        return found.edged()

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the cells that the picture has a part in."""
        m = self.margin
        return slice(m, m + (self.height + 1) // 2), slice(m, m + (self.width + 1) // 2)

    def edged(self) -> Cells:
        """The same, what lies next to the picture overwritten by its edge: :data:`AROUND` cells, which is as far as a filter sees."""
        cells = self._by_place
        rows, columns = self.inside
        for turned, along, odd in ((cells, rows, self.height % 2), (cells.transpose(0, 2, 1, 4, 3), columns, self.width % 2)):
            first, last = along.start, along.stop - 1
            if odd:
                turned[:, 1, :, last] = turned[:, 0, :, last]
            turned[:, :, :, first - AROUND : first] = turned[:, :1, :, first, None]
            turned[:, :, :, last + 1 : last + 1 + AROUND] = turned[:, 1:, :, last, None]
        return self

    def means(self) -> Array:
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

    def rows_at(self, at: NDArray[np.intp]) -> Array:
        """The rows of pixels ``at`` (N,) as (N, 3, W)."""
        cells = self._by_place.transpose(2, 1, 3, 0, 4)[..., self.inside[1]]
        found = np.empty((len(at), 3, 2 * cells.shape[-1]), np.float32)
        for q in (0, 1):
            found[..., q::2] = cells[q][at % 2, self.margin + at // 2]
        return found[..., : self.width]


def sums(level: Cells, center: Array, places: Places, by: Computing) -> Array64:
    """Sums over the patches at ``places``, (C + 1, C + 1) for patches of C numbers: of products of what deviates from ``center``, and of
    that itself.

    Those of a picture's tiles add up to the picture's.
    """
    patch, columns = places.patch, places.columns
    at = np.array(places.rows, np.intp)[:, None] + range(patch)
    lines = level.rows_at(at.ravel())
    lines -= center[:, None]
    lines = lines.reshape(len(at), 3 * patch, -1)  # row and colour
    size = 3 * patch * patch
    found = np.zeros((size + 1,) * 2)
    for first in range(columns.start, columns.stop, _PIECE):
        n = min(_PIECE, columns.stop - first)
        patches = np.empty((len(at), size + 1, n), np.float32)
        patches[:, -1] = 1
        for x in range(patch):  # columns come first here, which is a copy for each and not for each pixel
            patches[:, 3 * patch * x :][:, : 3 * patch] = lines[..., first + x : first + x + n]
        found += by.products(patches).sum(0, dtype=np.float64)
    rows_first = np.append(np.arange(size).reshape(patch, patch, 3).transpose(1, 0, 2), size)
    return found[rows_first[:, None], rows_first]


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches of a painting: the mean of its pixels (3,), and the covariance (C, C)."""

    mean: Array64
    covariance: Array64

    @staticmethod
    def of_sums(found: Array64, center: Array) -> Patches:
        """From :func:`sums`."""
        mean = found[-1, :-1] / found[-1, -1]
        covariance = found[:-1, :-1] / found[-1, -1] - np.outer(mean, mean)
        return Patches(center + mean.reshape(-1, 3).mean(0), covariance)

    @staticmethod
    def of(level: Cells, patch: int, by: Computing) -> Patches:
        """Of all of it, but see :class:`Places`."""
        places = Places.of(level.height, level.width, patch)
        center = level.rows_at(np.array(places.rows[::8], np.intp)).mean((0, 2))  # about: what is taken away for the sums is given back
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
        """``kernel`` (12, 12, K, K), K odd, and ``bias`` (12,); around the picture there may be anything."""
        ...

    def lowered(self, level: Cells) -> Array:
        """(3, ⌈H/2⌉, ⌈W/2⌉), what is :meth:`~Cells.edged` as :func:`~scumble.pyramid.halved` makes it: by :func:`lowering`."""
        ...


def finish(
    cells: Cells, guide: Array, wanted: Array | None, by: Computing, frozen: Array | None = None, freeze: Array | None = None
) -> tuple[Array, Array]:
    """(3, H, W) with the texture that is ``wanted`` (T,), not clipped, and the filters (F,) that did it.

    ``guide`` is the photograph's (:func:`scumble.guided.guide`).
    ``frozen`` filters, of patches of the same size, replace those to the share ``freeze`` in [0, 1], (F,), or wholly if nothing is
    ``wanted``. What lies around the picture in ``cells`` is overwritten.
    """
    if frozen is None:
        assert wanted is not None
        filters = unchanging(patch_of(wanted))
        freeze = np.zeros_like(filters)
    else:
        filters = frozen.astype(np.float32)
        freeze = np.ones_like(filters) if freeze is None else freeze
    shares = passes(freeze).min(1)
    if wanted is not None:
        set_gamut(filters, wanted, freeze[-GAMUT:].min())

    def measure(n: int, level: Cells) -> None:
        if wanted is not None and shares[n] < 1 and min(level.height, level.width) >= LEAST_SIDE:
            measured, held = filter_of_pass(n, Patches.of(level, patch_of(wanted), by), wanted, filters), passes(filters)[n]
            held[:] = measured + np.float32(shares[n]) * (held - measured)

    last = len(shares) - 1
    level = unfiltered(cells, guide, filters, by, last, measure)
    measure(last, level)
    return _filtered(level, filters, last, by).planes, filters


def unfiltered(
    cells: Cells, guide: Array, filters: Array, by: Computing, last: int, measure: Callable[[int, Cells], None] | None = None
) -> Cells:
    """What the filter of pass ``last`` is measured on: the filters before it have been there.

    ``measure`` sets each of these in time; it is told the pass, and what its filter is measured on.
    """
    levels = [cells.edged()]
    coarser: list[Array] = []
    for _ in range(SCALES - 1):
        coarser.insert(0, by.lowered(levels[0]))
        levels.insert(0, Cells.of(coarser[0]))
    level = levels[0]
    for n, (scale, following) in enumerate(pairwise(_order(filters)[: last + 1])):
        if measure:
            measure(n, level)
        level = _filtered(level, filters, n, by)
        measurable = min(level.height, level.width) >= LEAST_SIDE
        if scale == 0 and following > 0 and measurable:
            coarse = level.edged().means()
            level = by.raised(level, guided.fitted(coarse, guide) - coarse)
        if scale == GAMUT_SCALE and measurable:
            _draw_back(level, filters[-GAMUT:])
        if following > scale:
            change = level.planes - coarser[scale]
            level = by.raised(levels[following], change)
        level = level.edged()
    return level


def set_gamut(filters: Array, wanted: Array, freeze: float) -> None:
    """That of a texture (T,) in ``filters`` (F,); what they draw back already counts to the share ``freeze`` in [0, 1]."""
    if freeze < 1:
        row, held = scales(wanted)[GAMUT_SCALE], filters[-GAMUT:]
        held[:9] = np.append(row[:3], row[3:12].reshape(3, 3)[np.triu_indices(3)])
        held[9] = gamut.SHARE + np.float32(freeze) * (held[9] - gamut.SHARE)


def _draw_back(level: Cells, limits: Array) -> None:
    """Its colours towards a gamut (10,), in place."""
    rows, columns = level.inside
    colors = level.array.reshape(3, 4, *level.array.shape[1:])[:, :, rows, columns]
    numbers = limits.tolist()
    for held, found in zip(colors, gamut.drawn_back(colors, numbers[:3], numbers[3:9], numbers[9]), strict=True):
        held[:] = found


def filter_of_pass(n: int, own: Patches, wanted: Array, filters: Array) -> Array:
    """Bias and kernel of pass ``n``, from the patches that it meets; of the ``filters`` (F,) those before it are known."""
    order = _order(filters)
    again = n > 0 and order[n - 1] == order[n]
    noise = _noise(passes(filters)[n - 1]) if again else RIDGE * np.eye(len(own.covariance))
    return monge_filter(own, scales(wanted)[order[n]], noise, alone=order[n] == SCALES - 1 and order.count(order[n]) == 1)


def _noise(passed: Array) -> Array64:
    """What a filter has made of the ridge, (C, C). Else the next pass would take what is left of it for the painting's, and what the
    first one refused to amplify be amplified after all.
    """
    span = _span(passed)
    patch = (span + 1) // 2
    kernel, wide = passed[3:].reshape(3, 3, span, span), patch + span - 1
    rows = np.zeros((patch, patch, 3, 3, wide, wide))
    for y in range(patch):
        for x in range(patch):
            rows[y, x, :, :, y : y + span, x : x + span] = kernel
    # row by row of the kernel: BLAS would share out a product as long as all of it among threads, see :func:`monge_map`
    rows = rows.reshape(3 * patch * patch, 3, wide, wide).transpose(2, 0, 1, 3).reshape(wide, 3 * patch * patch, -1)
    return RIDGE * (rows @ rows.transpose(0, 2, 1)).sum(0)


def _span(filter: Array) -> int:
    """Side of the kernel of a pass, from its bias and kernel (3 + 9·S²,)."""
    return isqrt((len(filter) - 3) // 9)


def _pyramid(planes: Array) -> list[Array]:
    found = [planes]
    for _ in range(SCALES - 1):
        found.append(halved(found[-1]))
    return found[::-1]


def _filtered(level: Cells, filters: Array, n: int, by: Computing) -> Cells:
    part = passes(filters)[n]
    return by.filtered(level, np.append(part[3:], np.float32(0))[_of_cells(_span(part))], part[:3].repeat(4))


@lru_cache
def _of_cells(span: int) -> NDArray[np.intp]:
    """Which of a kernel's (3, 3, S, S) numbers stands where in that of cells, (12, 12, K, K); where none does, the one after the last."""
    far = (span // 2 + 1) // 2
    p, o, d = np.ogrid[:2, :2, -far : far + 1]
    step = span // 2 + 2 * d + o - p  # from row p of a cell to row o of the one d further
    y, x = step[:, None, :, None, :, None], step[None, :, None, :, None, :]  # (p, q, o, u, dy, dx), u and q as o and p
    known = (y >= 0) & (y < span) & (x >= 0) & (x < span)
    none = 9 * span * span
    at = np.where(known, span * y + x, none)[:, :, None] + span * span * np.arange(9).reshape(3, 1, 1, 3, 1, 1, 1, 1)
    return np.minimum(at, none).reshape(12, 12, 2 * far + 1, 2 * far + 1)


@lru_cache(maxsize=1)
def lowering() -> tuple[Array, Array]:
    """The kernels (6, 12, 3, 1) and (3, 6, 1, 3) that halve a picture in cells, :data:`~scumble.pyramid.TAPS` down and then across: half
    the time of a single one.
    """
    taps = np.array([[0, TAPS[0]], TAPS[1:3], [TAPS[3], 0]], np.float32)  # (cell, pixel in it)
    one, two = np.eye(3, dtype=np.float32), np.eye(2, dtype=np.float32)
    return np.einsum("cb,qr,yp->cqbpry", one, two, taps).reshape(6, 12, 3, 1), np.einsum("cb,xq->cbqx", one, taps).reshape(3, 6, 1, 3)


@lru_cache(maxsize=1)
def enlarging() -> Array:
    """The kernel (12, 3, 3, 3) that makes cells of a picture bilinearly."""
    share = np.array([[0.25, 0.75, 0], [0, 0.75, 0.25]], np.float32)  # of the row before, the cell's own and the next, in each of its rows
    return np.einsum("cb,py,qx->cpqbyx", np.eye(3, dtype=np.float32), share, share).reshape(12, 3, 3, 3)


def unchanging(patch: int) -> Array:
    """Filters (F,) that leave everything as it is."""
    found = np.zeros(filters_size(patch), np.float32)
    kernels = passes(found)[:, 3:].reshape(len(PASSES[patch]), 3, 3, -1)
    kernels[:, range(3), range(3), kernels.shape[-1] // 2] = 1
    return found


def scales(vector: Array) -> Array:
    """A texture as rows, scale by scale, the coarsest first; a view."""
    return vector.reshape(SCALES, -1)


def passes(vector: Array) -> Array:
    """Filters as rows, pass by pass, without the gamut; a view."""
    return vector[:-GAMUT].reshape(len(_order(vector)), -1)


def _order(filters: Array) -> tuple[int, ...]:
    """Which scales they are of, one for each pass."""
    return next(order for patch, order in PASSES.items() if len(filters) == filters_size(patch))


def monge_filter(own: Patches, wanted: NDArray[np.floating], noise: Array64, alone: bool = False) -> Array:
    """Bias and kernel (3 + 9·S²,) that carry a painting's patches, ``noise`` (C, C) among them, to those of a mean and autocovariance
    (3 + 9·D,).

    Averaged over the places that a pixel has in a patch; one that is ``alone``, with no second one after it, goes :func:`further`.
    """
    a, b = own.covariance + noise, of_patches(wanted[3:].reshape(-1, 3, 3))
    n = isqrt(len(a) // 3)
    span = 2 * n - 1
    patch_map = monge_map(a, b)
    patch_map = further(patch_map) if alone else patch_map
    kernel = np.bincount(_of_patch_map(n), patch_map.ravel() / (n * n), 9 * span * span).reshape(3, 3, span, span)
    bias = wanted[:3] - kernel.sum((2, 3)) @ own.mean
    return np.concatenate([bias, kernel.ravel()]).astype(np.float32)


@lru_cache
def _of_patch_map(patch: int) -> NDArray[np.intp]:
    """Where in a kernel (3, 3, S, S) the numbers of a map between patches belong, (y, x, channel) by (v, u, channel)."""
    span = 2 * patch - 1
    y, x, to, v, u, of = np.ogrid[:patch, :patch, :3, :patch, :patch, :3]
    return (((3 * to + of) * span + patch - 1 + v - y) * span + patch - 1 + u - x).ravel()


def monge_map(a: Array64, b: Array64) -> Array64:
    """The symmetric A with A·a·A = b, of two covariances (C, C).

    For a = L·Lᵀ and b = M·Mᵀ every M·Q·L⁻¹ with an orthogonal Q does the second; Q = the polar factor of Mᵀ·L does the first. So there
    is no eigendecomposition: BLAS shares that out among threads even when it is as small as here, and they go on waiting for more while
    the convolutions want the processor. A 1024 pixel picture took a third longer.
    """
    left, right = _factor(a), _factor(b)
    return right @ _polar(right.T @ left) @ np.linalg.inv(left)


def further(patch_map: Array64) -> Array64:
    """A + A³·(A - 1)·(A⁴ + 1)⁻¹ of a symmetric A ≥ 0, (C, C): near 1 half as far again from it; less where A takes contrast away, which
    means do of themselves; and never below 0 nor 1 above A, as 3/2·A - 1/2 would be: that turns over what is to go, and makes half as
    much again of noise.
    """
    squared = patch_map @ patch_map
    fourth = squared @ squared
    return patch_map + (fourth - squared @ patch_map) @ np.linalg.inv(fourth + np.eye(len(patch_map)))


def _factor(a: Array64) -> Array64:
    """L with L·Lᵀ = a; what rounding made negative counts as :data:`RIDGE`."""
    try:
        return np.asarray(np.linalg.cholesky(a), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(a)
        return np.asarray(vectors * np.sqrt(np.maximum(values, RIDGE)), np.float64)


def _polar(x: Array64) -> Array64:
    """The orthogonal factor of an invertible x (C, C), by scaled Newton steps (Higham 1986; 2008, section 8.6)."""
    for _ in range(20):  # of which it takes 4 to 7
        inverse = np.linalg.inv(x).T
        scale = (np.vdot(inverse, inverse) / np.vdot(x, x)) ** 0.25
        x, before = scale / 2 * x + inverse / (2 * scale), x
        if np.abs(x - before).max() < 0.1:  # what is left then is about the square of that
            break
    for _ in range(2):  # and after each of these again, in a quarter of the time (Schulz 1933)
        x = 1.5 * x - 0.5 * x @ (x.T @ x)
    return x


def of_patches(covariances: NDArray[np.floating]) -> Array64:
    """Autocovariance (D, 3, 3) -> covariance of patches (C, C), the ridge added; rows and columns in the order (y, x, channel)."""
    both = np.concatenate([covariances, covariances.transpose(0, 2, 1)]).astype(np.float64)
    index = patch_index(side_of(len(covariances)))
    size = len(index)
    blocks = both[index].reshape(size, size, 3, 3).transpose(0, 2, 1, 3).reshape(size * 3, size * 3)
    return blocks + RIDGE * np.eye(size * 3)


def _of_offsets(patches: Array64) -> Array64:
    """The inverse of :func:`of_patches`: the mean over all pairs of places that are equally far apart."""
    size = len(patches) // 3
    blocks = (patches - RIDGE * np.eye(size * 3)).reshape(size, 3, size, 3).transpose(0, 2, 1, 3).reshape(-1, 3, 3)
    patch = isqrt(size)
    index = patch_index(patch).ravel()
    return np.stack([blocks[index == k].mean(0) for k in range(len(offsets(patch)))])


@lru_cache
def patch_index(patch: int) -> NDArray[np.intp]:
    """For each pair of places in a patch, which of its :func:`offsets` lies between them; counted on from these, turned over."""
    known = {offset: k for k, offset in enumerate(offsets(patch))}

    def at(dy: int, dx: int) -> int:
        return known[dy, dx] if (dy, dx) in known else len(known) + known[-dy, -dx]

    cells = [(y, x) for y in range(patch) for x in range(patch)]
    return np.array([[at(v - y, u - x) for v, u in cells] for y, x in cells], np.intp)


def mixed(textures: Sequence[Array], weights: Sequence[float]) -> Array:
    """Poured together, as :func:`~scumble.fusion.mixture` does: how far the means lie apart counts as covariance."""
    w = np.asarray(weights, np.float64) / sum(weights)
    parts = np.stack([scales(t) for t in _alike(textures)]).astype(np.float64)
    mixture = np.einsum("i,iks->ks", w, parts)
    apart = parts[..., :3] - mixture[None, :, :3]
    spread = np.einsum("i,ika,ikb->kab", w, apart, apart)
    mixture[:, 3:].reshape(SCALES, -1, 9)[:] += spread.reshape(SCALES, 1, 9)
    return mixture.astype(np.float32).ravel()


def between(textures: Sequence[Array], weights: Sequence[float], *, quick: bool = False) -> Array:
    """Half-way, as :func:`~scumble.fusion.barycenter` is: as sharp as each of them. ``quick``: where its iteration begins."""
    textures = _alike(textures)
    patch = patch_of(textures[0])
    found: list[Array64] = []
    for k in range(SCALES):
        parts = [scales(t)[k].astype(np.float64) for t in textures]
        gaussians = [Moments(np.tile(p[:3], patch * patch), of_patches(p[3:].reshape(-1, 3, 3))) for p in parts]
        middle = barycenter(gaussians, weights, quick=quick)
        found.append(np.concatenate([middle.mean[:3], _of_offsets(middle.covariance).ravel()]))
    return np.concatenate(found).astype(np.float32)


def _alike(textures: Sequence[Array]) -> Sequence[Array]:
    """All of smaller patches where some are."""
    return textures if len({len(t) for t in textures}) == 1 else [narrow(t) for t in textures]
