"""What refinement minimises, with its gradient, for pictures of any size in bounded memory.

The loss sees a picture through global sums alone: the mean and the covariance of each tap of the encoder, the content tap's product with
the content's own, and the total variation. So it can be had tile by tile, and exactly: a first sweep adds up the sums; of those few
numbers autograd gives the derivatives; and as every sum is at most quadratic in the features, these say in closed form what pulls at each
feature, which a second sweep takes back to the pixels, one tile's graph at a time. Nothing is approximated: tiles overlap by as far as the
encoder sees. A picture that fits is one tile, whose graph is kept between the sweeps: one pass each way, as autograd alone would take.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scumble import errors
from scumble.nets.eye import LEVELS
from scumble.nets.losses import CELLS, STYLE_DISTANCES, MomentsLike, Statistics, layouts_differ, normalising_factor
from scumble.windows import ALIGNED, LEAST_TILE, Window, is_out_of_memory, largest_side, partition, too_small

log = logging.getLogger(__name__)

SMALLEST = 32
"""Encoders are shown at least this many pixels each way, and multiples of ``ALIGNED``; the picture's edge is repeated to get there."""
ROOT_FLOOR = 1e-4
"""Relative squared distance (1 % of the target) below which a level counts as reached."""
REACH = 160
"""How far an encoder that does not say so itself is taken to see, in pixels: as far as VGG-19 does down to pool5 (149), in whole cells."""
WHOLE_BYTES = 250
"""Memory for each pixel of the picture that refinement takes whatever the tiles are: pixels, gradient, the pyramid, what the descent knows.
Measured on a CPU at 1500²: 205, the content's features left out."""
PEAK = 1.65
"""Memory of a pass forth and back, relative to what autograd keeps of the one forth (bytes a pixel: 623 for the eye, 984 where the sight
lends it its layout, 1089 where it predicts the style as well, 1544 for VGG-19). Measured on a CPU at 1500²: 1.5 to 1.6."""
_PROBE = 128
_STRIDES = (0.7548776662466927, 0.5698402909980532)
"""Shares of a tile by which its origin moves on from step to step, down and across: Roberts' R2 sequence (2018), in which neighbours
in time are far apart and no place comes back soon."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A picture's loss."""

    total: float
    terms: dict[str, float]
    """Its parts, without their weights."""
    gradient: Tensor | None
    """Of ``total`` with respect to the pixels, in their shape."""


@dataclass(frozen=True, eq=False)
class _Slope:
    """The loss's derivative with respect to a tap's features f at one position, times the number of positions.

    It is matrix · f + offset + content · t, where t are the content's normalised features; and where layouts are compared, ``cells``
    (1, C, CELLS, CELLS) is that with respect to the means over cells, once and not times the positions.
    """

    matrix: Tensor
    offset: Tensor
    content: Tensor
    cells: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _View:
    """A tile as the encoder sees it."""

    pixels: Tensor
    """The tile with its overlap, (1, 3, h, w); the leaf to which gradients go."""
    place: tuple[slice, ...]
    """Where these are in the picture."""
    taps: list[Tensor]
    """Features (1, C_k, h_k, w_k) of the tile alone."""
    cells: list[tuple[slice, ...]]
    """Where these are in the picture's."""
    variation: Tensor
    """The tile's share in the total variation."""


class _Sums:
    """Of one tap's features over all positions, in float64: number, sum, sum of outer products, or the diagonal alone of that."""

    def __init__(self, channels: int, diagonal: bool) -> None:
        self.count, self.diagonal = 0, diagonal
        self.first = torch.zeros(channels, dtype=torch.float64)
        self.second = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        count = features.shape[2] * features.shape[3]
        if count == 0:
            return
        # centred in the tile: outer products of features far from zero would lose the covariance to rounding
        if self.diagonal:
            variance, center = torch.var_mean(features.detach()[0], (1, 2), correction=0)
            mean, covariance = center.cpu().double(), variance.cpu().double().diag()
        else:
            own = Statistics.measure(features.detach())
            mean, covariance = own.mean[0].cpu().double(), own.covariance[0].cpu().double()
        self.count += count
        self.first += count * mean
        self.second += count * (covariance + mean.outer(mean))

    def statistics(self) -> Statistics:
        mean = self.first / self.count
        return Statistics(mean[None], (self.second / self.count - mean.outer(mean))[None])


class Objective:
    """content weight · L_content + style weight · mean over levels of √L_style + tv weight · TV + structure weight · L_structure, see
    :func:`scumble.nets.refine.refine`.

    Args:
        encoder: frozen; its device is where the work is done.
        content: (1, 3, H, W) in [0, 1].
        style: mean and covariance at each of the encoder's taps, but for a last one that only content is compared at.
        style_loss: a key of :data:`scumble.nets.losses.STYLE_DISTANCES`.
        content_level: the tap at which content and structure are compared; the last one if there are fewer.
        weights: of content, style, total variation and structure.
        memory: bytes that a refinement may take in all; None sets no limit.
        bfloat16: whether the encoder computes in it; what is measured of its features does not.

    Raises:
        UsageError: the style was measured with another encoder, or ``memory`` does not do for the smallest tiles.
    """

    def __init__(
        self,
        encoder: nn.Module,
        content: Tensor,
        style: Sequence[MomentsLike],
        style_loss: str,
        content_level: int,
        weights: tuple[float, float, float, float],
        memory: float | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.encoder, self.weights, self.bfloat16, self._warned = encoder, weights, bfloat16, False
        self.distance = STYLE_DISTANCES[style_loss]
        self.names: Sequence[str] = getattr(encoder, "layers", LEVELS)
        self.style = [Statistics.from_moments(m, dtype=torch.float64) for m in style]
        self.height, self.width = content.shape[2:]
        self.padded = padded_size(self.height, self.width)
        self.channels, self.strides, kept = self._probed(content)
        given = [s.mean.shape[1] for s in self.style]
        self.content_level = min(content_level, len(self.channels) - 1)
        # styles need not be measured where content alone is compared, beyond all the rest
        styled = self.channels[:-1] if len(given) == self.content_level == len(self.channels) - 1 else self.channels
        if styled != given:
            raise errors.UsageError(
                f"the encoder's taps have {self.channels} channels and the style's statistics {given}; measure the style with this encoder"
            )
        self.aligned = max(ALIGNED, *self.strides)
        self.reach = math.ceil(getattr(encoder, "reach", REACH) / self.aligned) * self.aligned
        self.tile = sys.maxsize if memory is None else self._tile_within(memory, kept * PEAK)
        stride = self.strides[self.content_level]
        self.bins = [_bins(n // stride).to(content.device) for n in self.padded]
        self.content, self.layout = self._trying_smaller(lambda: self._of_content(content))
        self.content_energy = self.content.square().mean((2, 3), dtype=torch.float64)[0].cpu()

    def __call__(self, x: Tensor, step: int = 0, *, gradient: bool = True) -> Judged:
        """The loss of pixels (1, 3, H, W). ``step`` says where tiles begin; MemoryError when not even tiles of 128 pixels can be had."""
        return self._trying_smaller(lambda: self._judged(x.detach(), step, gradient))

    def _judged(self, x: Tensor, step: int, gradient: bool) -> Judged:
        tiles = self._tiles(step)
        once = gradient and len(tiles) == 1
        sums = [_Sums(n, diagonal=level >= len(self.style)) for level, n in enumerate(self.channels)]
        products = torch.zeros(self.channels[self.content_level], dtype=torch.float64)
        layout = torch.zeros_like(self.layout)
        variation = 0.0
        view = None
        for tile in tiles:
            view = self._view(x, tile, graph=once)
            for each, tap in zip(sums, view.taps, strict=True):
                each.add(tap)
            tap, cells = view.taps[self.content_level].detach(), view.cells[self.content_level]
            products += (tap * self.content[cells]).sum((2, 3), dtype=torch.float64)[0].cpu()
            layout += self._layout(tap, cells)
            variation += view.variation.item()
        terms, total, slopes = self._differentiated([s.statistics() for s in sums], products / sums[self.content_level].count, layout)
        terms["total variation"] = variation
        total += self.weights[2] * variation
        if not gradient or not math.isfinite(total):
            return Judged(total, terms, None)
        out = torch.zeros_like(x)
        kept = view if once else None
        view = None
        for tile in tiles:
            view = kept or self._view(x, tile, graph=True)
            self._pull(view, slopes, [s.count for s in sums])
            assert view.pixels.grad is not None
            out[view.place] += view.pixels.grad
        return Judged(total, terms, out)

    def _view(self, x: Tensor, tile: Window, *, graph: bool) -> _View:
        outer = tile.grown(self.reach, *self.padded)
        place = _slices(Window(outer.top, min(outer.bottom, self.height), outer.left, min(outer.right, self.width)))
        inside = tile.within(outer)
        pixels = x[place].detach().requires_grad_(graph)
        with torch.set_grad_enabled(graph):
            below, right = outer.height - pixels.shape[2], outer.width - pixels.shape[3]
            seen = F.pad(pixels, (0, right, 0, below), mode="replicate") if below or right else pixels
            taps = [tap[_slices(inside, s)] for tap, s in zip(self._encoded(seen), self.strides, strict=True)]
            variation = self._variation(pixels, inside)
        return _View(pixels, place, taps, [_slices(tile, s) for s in self.strides], variation)

    def _encoded(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            taps: list[Tensor] = self.encoder(x)
        return [tap.float() for tap in taps] if self.bfloat16 else taps

    def _probed(self, like: Tensor) -> tuple[list[int], list[int], float]:
        """Channels and strides of the encoder's taps, and the bytes that autograd keeps for each pixel."""
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        x = like.new_zeros(1, 3, _PROBE, _PROBE).requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            taps = self._encoded(x)
        for parameter in self.encoder.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        return [t.shape[1] for t in taps], [_PROBE // t.shape[2] for t in taps], sum(kept.values()) / _PROBE**2

    def _variation(self, pixels: Tensor, inside: Window) -> Tensor:
        """Of a tile and its step to the next one below and on the right, as a share in :func:`scumble.nets.losses.total_variation`."""
        down = pixels[:, :, inside.top : inside.bottom + 1, inside.left : inside.right]
        across = pixels[:, :, inside.top : inside.bottom, inside.left : inside.right + 1]
        vertical = (down[:, :, 1:] - down[:, :, :-1]).abs().sum() / max(1, 3 * (self.height - 1) * self.width)
        return vertical + (across[..., 1:] - across[..., :-1]).abs().sum() / max(1, 3 * self.height * (self.width - 1))

    def _differentiated(self, own: list[Statistics], product: Tensor, layout: Tensor) -> tuple[dict[str, float], float, list[_Slope]]:
        """Content, structure and style losses, their weighted sum, and its derivatives; ``product`` is the mean of content tap times
        content, (C,), and ``layout`` that tap's means over cells.
        """
        leaves = [t.requires_grad_() for s in own for t in (s.mean, s.covariance)] + [product.requires_grad_(), layout.requires_grad_()]
        with torch.enable_grad():
            # mean of (f̂ - t)² = f̂² - 2 f̂ t + t² over positions, where f̂ is normalised and t has no mean
            variance = own[self.content_level].variance
            factor = normalising_factor(variance)
            losses = {"content loss": (factor.square() * variance - 2 * factor * product + self.content_energy).mean()}
            losses["structure loss"] = layouts_differ(layout, self.layout)
            for name, statistics, target in zip(self.names, own, self.style, strict=False):
                losses[f"style loss at {name}"] = (self.distance(statistics, target).clamp_min(0) + ROOT_FLOOR).sqrt()
            content, structure, *style = losses.values()
            total = self.weights[0] * content + self.weights[1] * torch.stack(style).mean() + self.weights[3] * structure
        terms = {name: loss.item() for name, loss in losses.items()}
        if not torch.isfinite(total):
            return terms, total.item(), []
        *slopes, by_product, by_layout = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        found: list[_Slope] = []
        for mean, by_mean, by_covariance in zip((s.mean.detach()[0] for s in own), slopes[::2], slopes[1::2], strict=True):
            matrix = by_covariance[0] + by_covariance[0].T
            found.append(_Slope(matrix, by_mean[0] - matrix @ mean, torch.zeros_like(product)))
        found[self.content_level] = replace(found[self.content_level], content=by_product, cells=by_layout)
        return terms, total.item(), found

    def _pull(self, view: _View, slopes: list[_Slope], counts: list[int]) -> None:
        """Take the derivatives with respect to a tile's features back to its pixels."""
        pulls: list[Tensor] = []
        for level, (tap, slope, count) in enumerate(zip(view.taps, slopes, counts, strict=True)):
            if level >= len(self.style):
                each = (slope.matrix.diagonal() / count).to(tap)[None, :, None, None]
                pull = torch.addcmul((slope.offset / count).to(tap)[None, :, None, None], tap.detach(), each)
            else:
                # channels last on both sides: features come so, and no copy is made
                rows = tap.detach().permute(0, 2, 3, 1)
                pull = F.linear(rows, (slope.matrix / count).to(tap), (slope.offset / count).to(tap)).permute(0, 3, 1, 2)
            if level == self.content_level:
                pull += self.content[view.cells[level]] * (slope.content / count).to(tap)[None, :, None, None]
                assert slope.cells is not None
                rows, columns = self._bins_of(view.cells[level])
                pull += rows.mT.to(tap) @ slope.cells.to(tap) @ columns.to(tap)
            pulls.append(pull)
        torch.autograd.backward([*view.taps, view.variation], [*pulls, view.variation.new_tensor(self.weights[2])])

    def _layout(self, tap: Tensor, place: tuple[slice, ...]) -> Tensor:
        """A tile's share (1, C, CELLS, CELLS), float64, in the means over cells of a tap."""
        rows, columns = self._bins_of(place)
        return (rows.to(tap) @ tap @ columns.mT.to(tap)).cpu().double()

    def _bins_of(self, place: tuple[slice, ...]) -> tuple[Tensor, Tensor]:
        rows, columns = (b[:, along] for b, along in zip(self.bins, place[2:], strict=True))
        return rows, columns

    def _of_content(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """The content's features, of which each channel has mean 0 and variance 1, (1, C, h, w); before that, their means over cells."""
        stride = self.strides[self.content_level]
        out = content.new_empty(1, self.channels[self.content_level], *(n // stride for n in self.padded))
        for tile in self._tiles(0):
            view = self._view(content, tile, graph=False)
            out[view.cells[self.content_level]] = view.taps[self.content_level]
        layout = self._layout(out, (slice(None),) * 4)
        out -= out.mean((2, 3), keepdim=True)
        out *= normalising_factor(out.square().mean((2, 3)))[:, :, None, None]
        return out, layout

    def _tiles(self, step: int) -> list[Window]:
        """They begin elsewhere at each step: should rounding leave a trace at an edge, the next step's has its own elsewhere."""
        cells = self.tile // self.aligned
        row, column = (
            0 if self.tile >= length else int(step * stride % 1 * cells) * self.aligned
            for length, stride in zip(self.padded, _STRIDES, strict=True)
        )
        return partition(*self.padded, self.tile, (row, column))

    def _tile_within(self, memory: float, each: float) -> int:
        """The largest tile with which all stays within ``memory`` bytes, where one takes ``each`` bytes a pixel."""
        fixed = WHOLE_BYTES * self.height * self.width
        if fixed + each * self.padded[0] * self.padded[1] <= memory:
            return sys.maxsize
        try:
            return largest_side(memory - fixed, math.ceil(each), self.reach)
        except errors.UsageError:
            least = fixed + each * (LEAST_TILE + 2 * self.reach) ** 2
            raise errors.UsageError(
                f"refining {self.width} x {self.height} pixels takes {least / 1e6:.0f} MB at the least; it has {memory / 1e6:.0f} MB:"
                " raise it with --memory, or paint with --quality draft"
            ) from None

    def _trying_smaller(self, work: Callable[[], Any]) -> Any:
        """Out of memory, ``work`` is begun anew with tiles half as large, which stay so."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                side = min(self.tile, max(self.padded))
                if side < 2 * LEAST_TILE:
                    raise too_small() from error
            if not self._warned:
                log.warning("out of memory: refining in smaller tiles")
            self._warned = True
            self.tile = math.ceil(side / 2 / self.aligned) * self.aligned


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The size at which encoders are shown a picture."""
    return max(SMALLEST, math.ceil(height / ALIGNED) * ALIGNED), max(SMALLEST, math.ceil(width / ALIGNED) * ALIGNED)


def padded(x: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) at that size, their last row and column repeated."""
    height, width = padded_size(*x.shape[2:])
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate")


def _bins(n: int) -> Tensor:
    """(CELLS, n): means of n numbers over as many parts of them, as PyTorch's adaptive pooling takes them."""
    return F.adaptive_avg_pool1d(torch.eye(n), CELLS).T


def _slices(window: Window, stride: int = 1) -> tuple[slice, ...]:
    """What cuts the window's part out of a tensor (1, C, H / stride, W / stride)."""
    rows, columns = (slice(a // stride, b // stride) for a, b in ((window.top, window.bottom), (window.left, window.right)))
    return slice(None), slice(None), rows, columns
