"""The generator: content pixels and a style's statistics in, painted pixels out, in one pass.

An encoder-decoder that does nearly all of its work at an eighth of the resolution, in blocks of a depthwise convolution, a
modulated normalisation (adaptive instance normalisation, Huang & Belongie 2017) and two 1×1 convolutions (the order of ConvNeXt,
Liu et al. 2022), of which the style makes the second: a fixed matrix and a low-rank one of its own, so that a style decides how
features are mixed and not just how strong each is (as linear style transfer, Li et al. 2019, at a sixteenth of its cost). On the way
up the style sums its kernels from a few dozen learnt ones (conditionally parameterised convolutions, Yang et al. 2019): fitted to one
style alone, those of :attr:`Generator.touch2` lowered the style loss more than all blocks' mixing matrices did.

Nothing but the picture itself is ever held at full resolution. Up-sampling is bilinear with a convolution after it, folded into
one sub-pixel convolution (:class:`UpConv`). A free sub-pixel convolution prints a grid; in ours the two phases of the bilinear
filter are mirror images, so a stationary input gives a stationary output whatever the weights. What the decoder can't carry, the
finest detail of the content, reaches the picture through gains that the style sets, so that no path from content to pixels
escapes the style.

**Frozen statistics.** ``paint`` returns the mean and variance that its normalisations measured, and takes them: with them
given, the net is purely local, and what lies further than :data:`REACH` pixels away has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 8
"""Height and width must be multiples of this; callers pad by mirroring and crop."""

MARGIN = 8
"""Callers mirror this many pixels around the picture and crop them away. Convolutions at a quarter and an eighth of the size repeat the
edge: zeros around features are an edge that no picture has, and one without edges of its own, a product on a white ground, was
painted with a frame of them. The last two convolutions, on the largest maps, do pad with zeros, which reach three of the margin's four
cells of 2 × 2 pixels."""

RING = 1
"""Pixels around those that are painted that the first windows see: they have a side of 6 pixels and are 4 apart."""

REACH = 128
"""How far a pixel sees when statistics are frozen, rounded up to a multiple of :data:`MULTIPLE`."""


LIMIT = 6.0
"""Standard deviations beyond which training draws normalised features back. A net that normalises may learn to smuggle strength
past the normalisation in single spikes (the droplets of Karras et al. 2020, StyleGAN2, section 2): they show as glowing blots.
Cutting them at painting time instead took a quarter of the time of a 512 pixel picture."""

PACE = 16.0
"""How much faster than the rest what a strength above 1 changes is learnt (equalised learning rates, Karras et al. 2018). It is seen in
one step of three alone; at the others' pace a thousand steps changed a modulation by a tenth of what a style does."""


@dataclass(frozen=True)
class Shape:
    """Channels at half, quarter and eighth resolution, the number of blocks, and how the style enters."""

    half: int = 16
    quarter: int = 32
    eighth: int = 64
    blocks: int = 4
    window: int = 5
    """Side of the depthwise windows at an eighth of the resolution; 3 at a quarter."""
    widen: int = 2
    rank: int = 8
    """Of what a style adds to a mixing matrix."""
    kernels: int = 32
    """How many each of the convolutions on the way up has the style sum its own from."""
    style: int = 736
    """Length of a style vector: mean and standard deviation of the eye's 16 + 32 + 64 + 128 + 128 channels."""
    hidden: int = 256
    beyond: int = 48
    """Rank of what a strength above 1 changes in the hidden layer."""


def double(x: Tensor) -> Tensor:
    """Twice as high and as wide, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


# hi-res pixel 2i+p sees, through tap k of a 3-tap filter on the bilinearly doubled signal, these shares of low-res i-1, i, i+1
_PHASES = torch.tensor(
    [[[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.0, 0.75, 0.25]], [[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]]]
)


def shuffle(x: Tensor) -> Tensor:
    """Pixel shuffle by 2, rows by a transposition and columns by stacking: in ONNX Runtime 0.6 ms, by two transpositions 1.2, by
    DepthToSpace 2.1.
    """
    n, c, h, w = x.shape
    left, right = (half.transpose(2, 3) for half in x.reshape(n, c // 4, 2, 2, h, w).unbind(3))
    return torch.stack([left, right], 5).reshape(n, c // 4, 2 * h, 2 * w)


class UpConv(nn.Module):
    """Bilinear doubling and then a 3×3 convolution, computed as one convolution at the low resolution, the shuffle left to the caller.

    Equal to the two steps but for the outermost pixels, at the same number of multiplications and without the wide
    full-resolution tensor between them.
    """

    phases: Tensor

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(c_out))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.register_buffer("phases", torch.einsum("pka,qlb->klpqab", _PHASES, _PHASES).reshape(9, 36), persistent=False)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(N, C, h, w) -> (N, 4·O, h, w), to be shuffled to (N, O, 2h, 2w); ``weight`` (N, O·C·9) are kernels for each of the N."""
        o, c = self.weight.shape[:2]
        of_each = (self.weight if weight is None else weight).reshape(-1, o, c, 9)
        kernel = (of_each @ self.phases).reshape(-1, o, c, 4, 9).transpose(2, 3).reshape(-1, c, 3, 3)
        bias = self.bias.repeat_interleave(4)
        if len(of_each) == 1:
            return F.conv2d(x, kernel, bias, padding=1)
        n, _, h, w = x.shape
        return F.conv2d(x.reshape(1, -1, h, w), kernel, bias.repeat(n), padding=1, groups=n).reshape(n, 4 * o, h, w)


def _fine_filter() -> Tensor:
    """What the 3×3 binomial blur takes away, each 2×2 cell's four pixels as channels: (12, 3, 4, 4), stride 2.

    Every phase has the same filter, so unlike block means it leaves no grid.
    """
    blur = torch.tensor([0.25, 0.5, 0.25])
    sharp = -blur[:, None] * blur[None]
    sharp[1, 1] += 1
    kernel = torch.zeros(3, 2, 2, 3, 4, 4)
    for c in range(3):
        for p in range(2):
            for q in range(2):
                kernel[c, p, q, c, p : p + 3, q : q + 3] = sharp
    return kernel.reshape(12, 3, 4, 4)


def _edged(x: Tensor, n: int) -> Tensor:
    """Its edge repeated ``n`` times."""
    return F.pad(x, (n, n, n, n), mode="replicate")


def _window(inside: Tensor | Sequence[int], cell: int, x: Tensor) -> Tensor:
    """Weights (h * w, 1) of the positions of a map with ``cell`` of them to 8 pixels of what is painted of a ringed ``x``: equal inside, 0
    outside, 1 in sum.
    """

    def share(first: Tensor | int, end: Tensor | int, n: int) -> Tensor:
        at = torch.arange(n * cell // MULTIPLE, device=x.device)
        chosen = ((at >= first * cell) & (at < end * cell)).to(x.dtype)
        return chosen / chosen.sum()

    height, width = (n - 2 * RING for n in x.shape[2:])
    rows, columns = share(inside[0], inside[1], height), share(inside[2], inside[3], width)
    return (rows[:, None] * columns).reshape(-1, 1)


class Block(nn.Module):
    """Depthwise window, modulated normalisation, widening, mixing by a matrix that the style has a part in."""

    def __init__(self, channels: int, window: int, widen: int) -> None:
        super().__init__()
        self.wide = channels * widen
        self.depthwise = nn.Conv2d(channels, channels, window, groups=channels)
        self.widen = nn.Conv2d(channels, self.wide, 1)
        self.mix = nn.Parameter(torch.randn(channels, self.wide) * 0.5 / self.wide**0.5)
        with torch.no_grad():  # near the identity: the block starts from what is there
            self.depthwise.weight.mul_(0.5)
            self.depthwise.weight[:, :, window // 2, window // 2] += 1


class Generator(nn.Module):
    """``paint(x, modulation(style))``; see the module's text."""

    style_mean: Tensor
    style_std: Tensor
    fine: Tensor

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = s = shape or Shape()
        self.stem = nn.Conv2d(3, s.quarter, 4 + 2 * RING, stride=4)
        self.reduce = nn.Conv2d(s.quarter, s.quarter, 4, stride=2, groups=s.quarter)
        self.down8 = nn.Conv2d(s.quarter, s.eighth, 1)
        self.blocks = nn.ModuleList([Block(s.eighth, s.window, s.widen) for _ in range(s.blocks)])
        self.up8 = nn.Conv2d(s.eighth, s.quarter, 1)
        self.blocks4 = nn.ModuleList([Block(s.quarter, 3, s.widen)])
        self.up4 = nn.Conv2d(s.quarter, s.half, 1, bias=False)  # the normalisation after it would take it away
        self.touch2 = UpConv(s.half, s.half)
        self.up2 = UpConv(s.half, 3)
        self.register_buffer("fine", _fine_filter(), persistent=False)
        self.norms = (s.quarter, *(s.eighth for _ in range(s.blocks)), s.quarter, s.half)
        """Channels of every normalised place, in the order in which ``paint`` visits them."""
        self.matrices = (*(((s.eighth, s.widen * s.eighth),) * s.blocks), (s.quarter, s.widen * s.quarter))
        """Shapes of the mixing matrices, in the order in which ``paint`` visits them."""
        self.ways = (self.up8, self.up4, self.touch2)
        """Convolutions whose kernels the style sums, in the order in which ``paint`` visits them."""
        self.register_buffer("style_mean", torch.zeros(s.style))
        self.register_buffer("style_std", torch.ones(s.style))
        self.style1 = nn.Linear(s.style, s.hidden)
        self.style2 = nn.Linear(s.hidden, s.hidden)
        self.gains = nn.Linear(s.hidden, 2 * sum(self.norms) + 3)
        self.left = nn.Linear(s.hidden, s.rank * sum(o for o, _ in self.matrices))
        self.right = nn.Linear(s.hidden, s.rank * sum(i for _, i in self.matrices))
        self.shares = nn.Linear(s.hidden, s.kernels * len(self.ways))
        self.kernels = nn.ParameterList([torch.randn(s.kernels, c.weight.numel()) * 0.06 / c.weight[0].numel() ** 0.5 for c in self.ways])
        for layer in (self.gains, self.left, self.shares):
            nn.init.normal_(layer.weight, std=0.05 / s.hidden**0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.right.weight, std=0.2 / s.hidden**0.5)
        nn.init.normal_(self.right.bias, std=0.3)
        for c in (self.stem, self.down8, self.up8, self.up4, *(b.widen for b in (*self.blocks, *self.blocks4))):
            assert isinstance(c, nn.Conv2d)
            nn.init.kaiming_normal_(c.weight, nonlinearity="relu")
            if c.bias is not None:
                nn.init.zeros_(c.bias)
        nn.init.xavier_normal_(self.up2.weight, gain=0.5)
        self.look = nn.Parameter(torch.full((s.style,), 0.6))
        """How far to go, for each number of a style vector, for what a painting missed of it."""
        self.beyond = nn.Sequential(nn.Linear(s.hidden, s.beyond, bias=False), nn.Linear(s.beyond, s.hidden))
        for p in self.beyond[1].parameters():  # strength changes nothing at first
            nn.init.zeros_(p)

    @property
    def modulations(self) -> int:
        """Length of what a style comes to: gains and biases, mixing matrices, kernels, three gains for the finest detail."""
        return sum(self._parts)

    @property
    def _parts(self) -> list[int]:
        return [*(c for n in self.norms for c in (n, n)), *(o * i for o, i in self.matrices), *(c.weight.numel() for c in self.ways), 3]

    @property
    def _groups(self) -> list[int]:
        """The same, all gains and biases as one, and all matrices."""
        *parts, sharpness = self._parts
        pairs, ways = 2 * len(self.norms), len(self.ways)
        return [sum(parts[:pairs]), sum(parts[pairs:-ways]), *parts[-ways:], sharpness]

    @property
    def _is_gain(self) -> list[float]:
        """1 where a style's gain stands among gains and biases: as far as it is from 1 is what a style says."""
        return [is_gain for n in self.norms for is_gain in (1.0,) * n + (0.0,) * n]

    @property
    def tunable(self) -> int:
        """Length of an offset: the modulations but for the mixing matrices, which lie in the middle."""
        return self.modulations - sum(o * i for o, i in self.matrices)

    @property
    def statistics(self) -> int:
        """Length of the statistics vector: mean and variance of every normalised channel."""
        return 2 * sum(self.norms)

    def modulation(self, style: Tensor, offset: Tensor | None = None, beyond: Tensor | float = 0.0, missed: Tensor | None = None) -> Tensor:
        """Style vectors (N, 736), mean then standard deviation level by level -> gains, biases, mixing matrices and kernels (N, M).

        ``offset`` (N, T) is what was learnt for a style in addition, see :mod:`scumble.train.tuning`. ``beyond`` in [0, 1], a number
        or (N, 1), is by how much the strength is above 1: the content counts for less then, as it did in training. ``missed`` (N, 736) is
        the style vector less that of a picture painted without it: the second painting comes out closer.
        """
        if missed is not None:
            style = style + self.look * missed
        z = ((style - self.style_mean) / self.style_std).clamp(-6, 6)
        z = F.relu(self.style1(z))
        z = F.relu(self.style2(z) + PACE * beyond * self.beyond(z))
        left, right = self.left(z), self.right(z)
        rank, at_l, at_r = self.shape.rank, 0, 0
        gains = self.gains(z)
        parts = [gains[:, :-3]]
        for block, (o, i) in zip((*self.blocks, *self.blocks4), self.matrices, strict=True):
            a = left[:, at_l : at_l + rank * o].reshape(-1, o, rank)
            b = right[:, at_r : at_r + rank * i].reshape(-1, rank, i)
            at_l, at_r = at_l + rank * o, at_r + rank * i
            assert isinstance(block, Block)
            parts.append((block.mix + a @ b).flatten(1))
        shares = self.shares(z).split(self.shape.kernels, 1)
        parts += [way.weight.flatten() + share @ kernels for way, share, kernels in zip(self.ways, shares, self.kernels, strict=True)]
        found = torch.cat([*parts, gains[:, -3:]], 1)
        if offset is None:
            return found
        first = 2 * sum(self.norms)
        untouched = offset.new_zeros(len(offset), self.modulations - self.tunable)
        return found + torch.cat([offset[:, :first], untouched, offset[:, first:]], 1)

    def paint(
        self,
        x: Tensor,
        modulation: Tensor,
        frozen: Tensor | None = None,
        freeze: Tensor | float = 0.0,
        inside: Tensor | Sequence[int] | None = None,
        excess: list[Tensor] | None = None,
        shuffled: bool = True,
        ringed: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """RGB (N, 3, H, W) in [0, 1] -> painted RGB of the same size (not clipped), and the statistics (N, S) that were used.

        ``freeze`` in [0, 1], a number or (S,), is the share of ``frozen`` in the statistics: 0 measures, 1 takes the given ones.
        ``inside`` = (top, bottom, left, right) in cells of 8 pixels is the window in which they are measured.
        ``excess`` is given, for every normalised place, by how much features go beyond :data:`LIMIT` (mean of squares): a loss.
        Not ``shuffled`` to pixels it is (N, 12, H/2, W/2), as :class:`scumble.finish.Cells` has it. ``x`` may come ``ringed`` by
        :data:`RING` pixels, of which there is no painting; else its edge is repeated there.
        """
        if not ringed:
            x = _edged(x, RING)
        used: list[Tensor] = []
        pairs = [c for n in self.norms for c in (n, n)]
        affine, rest, up8, up4, touch2, sharpness = modulation.split(self._groups, 1)
        matrices = iter(rest.split([o * i for o, i in self.matrices], 1))
        gains = iter((affine + affine.new_tensor(self._is_gain))[..., None].split(pairs, 1))
        share = torch.as_tensor(freeze, dtype=x.dtype, device=x.device).expand(self.statistics)[:, None]
        if frozen is None:
            kept = given = None
        else:  # exact at both ends, which a step towards what is given would not be
            kept, given = iter((1 - share).split(pairs)), iter((share * frozen[..., None]).split(pairs, 1))

        def settled(measured: Tensor) -> Tensor:
            if kept is not None and given is not None:
                measured = next(kept) * measured + next(given)
            used.append(measured)
            return measured

        # a weighted sum and not a cut-out window: in ONNX Runtime a cut copies the map, rows first and then columns
        counted = {cell: None if inside is None else _window(inside, cell, x) for cell in (1, 2)}

        def norm(h: Tensor, cell: int) -> tuple[Tensor, Tensor]:
            """Of (N, C, P), what to multiply with and what to add, (N, C, 1)."""
            weight = counted[cell]
            mean = h.mean(2, keepdim=True) if weight is None else h @ weight
            square = (h * h).mean(2, keepdim=True) if weight is None else (h * h) @ weight
            mean, var = settled(mean), settled(square - mean * mean)
            scale = torch.rsqrt(var.clamp_min(0) + 1e-4)
            if excess is not None:
                excess.append(F.relu(((h - mean) * scale).abs() - LIMIT).square().mean())
            gain = next(gains) * scale
            return gain, next(gains) - mean * gain

        def shaped(h: Tensor, size: Sequence[int]) -> Tensor:
            return h.reshape(len(x), -1, *size)  # and not unflatten, which a trace would remember one size of

        def block(b: Block, h: Tensor, size: Sequence[int], cell: int) -> Tensor:
            """Of (N, C, P), a map of that size."""
            seen = b.depthwise(_edged(shaped(h, size), b.depthwise.kernel_size[0] // 2)).flatten(2)
            gain, bias = norm(seen, cell)
            # the normalisation is folded into the widening, which takes a fifth less time of ONNX Runtime than a convolution after it
            widen = b.widen.weight.flatten(1)
            assert b.widen.bias is not None
            wide = F.relu((widen * gain.transpose(1, 2)) @ seen + (widen @ bias + b.widen.bias[:, None]))
            return h + next(matrices).reshape(-1, h.shape[1], b.wide) @ wide

        skip = self.stem(x)
        quarter, skip = skip.shape[2:], skip.flatten(2)
        gain, bias = norm(skip, 2)
        skip = skip * gain + bias
        h = F.relu(self.down8(self.reduce(_edged(F.relu(shaped(skip, quarter)), 1))))
        eighth, h = h.shape[2:], h.flatten(2)
        for b in self.blocks:
            h = block(b, h, eighth, 1)  # pyright: ignore[reportArgumentType]
        assert self.up8.bias is not None
        h = up8.reshape(-1, *self.up8.weight.shape[:2]) @ h + self.up8.bias[:, None]
        h = double(shaped(h, eighth)).flatten(2) + skip
        for b in self.blocks4:
            h = block(b, h, quarter, 2)  # pyright: ignore[reportArgumentType]
        h = up4.reshape(-1, *self.up4.weight.shape[:2]) @ h
        gain, bias = norm(h, 2)
        h = shuffle(F.relu(self.touch2(shaped(F.relu(h * gain + bias), quarter), touch2)))
        # gains before the convolution and the middle grey in it: what is left, a sum of two, ONNX Runtime makes in its own layout
        fine = F.conv2d(x * (1 + sharpness)[:, :, None, None], self.fine, x.new_full((12,), 0.5), stride=2)
        painted = fine + self.up2(h)
        return shuffle(painted) if shuffled else painted, torch.cat(used, 1)[..., 0]

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.paint(x, self.modulation(style))[0]
