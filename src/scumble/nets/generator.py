"""The generator: content pixels and a style's statistics in, painted pixels out, in one pass.

An encoder-decoder whose normalisations are modulated by the style (adaptive instance normalisation, Huang & Belongie 2017;
conditional instance normalisation, Dumoulin et al. 2017). Most of its work happens at an eighth of the resolution, and
nothing but the picture itself is ever held at full resolution.

Two choices are ours. Up-sampling is bilinear with a convolution after it, folded into one sub-pixel convolution
(:class:`UpConv`). A free sub-pixel convolution prints a grid; in ours the two phases of the bilinear filter are mirror images,
so a stationary input gives a stationary output whatever the weights. And what the decoder can't carry, the finest
detail of the content, reaches the picture through gains that the style sets, so that no path from content to
pixels escapes the style.

**Frozen statistics.** ``paint`` returns the mean and variance that its normalisations measured, and takes them: with them
given, the net is purely local.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 8
"""Height and width must be multiples of this; callers pad by mirroring and crop."""

MARGIN = 16
"""Convolutions pad with zeros (padding by replication is a third of the time in ONNX Runtime), so callers mirror this many
pixels around the picture and crop them away: what zeros do to a border stays outside."""


@dataclass(frozen=True)
class Shape:
    """Channels at half, quarter and eighth resolution, and the number of residual blocks."""

    half: int = 16
    quarter: int = 56
    eighth: int = 80
    mix: int = 48
    blocks: int = 3
    style: int = 736
    """Length of a style vector: mean and standard deviation of the eye's 16 + 32 + 64 + 128 + 128 channels."""
    hidden: int = 256


def conv(c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, or divides it by ``stride`` where it is a multiple of that."""
    return nn.Conv2d(c_in, c_out, size, stride=stride, padding=(size - 1) // 2)


def double(x: Tensor) -> Tensor:
    """Twice as high and as wide, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


# hi-res pixel 2i+p sees, through tap k of a 3-tap filter on the bilinearly doubled signal, these shares of low-res i-1, i, i+1
_PHASES = torch.tensor(
    [[[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.0, 0.75, 0.25]], [[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]]]
)


class UpConv(nn.Module):
    """Bilinear doubling and then a 3×3 convolution, computed as one convolution at the low resolution and a shuffle.

    Equal to the two steps but for the outermost pixels, at the same number of multiplications and without the wide
    full-resolution tensor between them.
    """

    phases: Tensor

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(c_out))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.register_buffer("phases", _PHASES.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        o, c = self.weight.shape[:2]
        kernel = torch.einsum("pka,qlb,ockl->opqcab", self.phases, self.phases, self.weight).reshape(4 * o, c, 3, 3)
        x = F.conv2d(x, kernel, self.bias.repeat_interleave(4), padding=1)
        return F.pixel_shuffle(x, 2)


class Generator(nn.Module):
    """``paint(x, modulation(style))``; see the module's text."""

    style_mean: Tensor
    style_std: Tensor

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = s = shape or Shape()
        self.stem = conv(3, s.half, 4, stride=2)
        self.down4 = conv(s.half, s.quarter, 4, stride=2)
        self.down8 = conv(s.quarter, s.eighth, 4, stride=2)
        self.blocks = nn.ModuleList([nn.ModuleList([conv(s.eighth, s.eighth), conv(s.eighth, s.eighth)]) for _ in range(s.blocks)])
        self.up8 = conv(s.eighth, s.quarter, 1)
        self.mix4 = conv(s.quarter, s.mix)
        self.up4 = UpConv(s.mix, s.half)
        self.up2 = UpConv(s.half, 3)
        # every normalised place, in the order in which paint() visits them: (channels)
        self.norms = (s.quarter, s.eighth, *(s.eighth for _ in range(2 * s.blocks)), s.quarter, s.mix, s.half)
        self.modulations = 2 * sum(self.norms) + 3
        self.register_buffer("style_mean", torch.zeros(s.style))
        self.register_buffer("style_std", torch.ones(s.style))
        self.style1 = nn.Linear(s.style, s.hidden)
        self.style2 = nn.Linear(s.hidden, s.hidden)
        self.style3 = nn.Linear(s.hidden, self.modulations)
        nn.init.normal_(self.style3.weight, std=0.05 / s.hidden**0.5)
        nn.init.zeros_(self.style3.bias)
        for c in self.modules():
            if isinstance(c, nn.Conv2d):
                nn.init.kaiming_normal_(c.weight, nonlinearity="relu")
                assert c.bias is not None
                nn.init.zeros_(c.bias)
        nn.init.xavier_normal_(self.up2.weight, gain=0.5)

    @property
    def statistics(self) -> int:
        """Length of the statistics vector: mean and variance of every normalised channel."""
        return 2 * sum(self.norms)

    def modulation(self, style: Tensor) -> Tensor:
        """Style vectors (N, 736), mean then standard deviation level by level -> gains and biases (N, M)."""
        z = ((style - self.style_mean) / self.style_std).clamp(-6, 6)
        z = F.relu(self.style1(z))
        z = F.relu(self.style2(z))
        return self.style3(z)

    def paint(self, x: Tensor, modulation: Tensor, frozen: Tensor | None = None, freeze: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """RGB (N, 3, H, W) in [0, 1] -> painted RGB of the same size (not clipped), and the statistics (N, S) that were used.

        ``freeze`` in [0, 1] is the share of ``frozen`` in the statistics: 0 measures, 1 takes the given ones.
        """
        used: list[Tensor] = []
        at_m = at_s = 0

        def norm(h: Tensor) -> Tensor:
            nonlocal at_m, at_s
            c = h.shape[1]
            mean = h.mean((2, 3))
            var = (h * h).mean((2, 3)) - mean * mean
            if frozen is not None:
                mean = mean + freeze * (frozen[:, at_s : at_s + c] - mean)
                var = var + freeze * (frozen[:, at_s + c : at_s + 2 * c] - var)
            used.extend((mean, var))
            gain = (1 + modulation[:, at_m : at_m + c]) * torch.rsqrt(var.clamp_min(0) + 1e-4)
            bias = modulation[:, at_m + c : at_m + 2 * c] - mean * gain
            at_m, at_s = at_m + 2 * c, at_s + 2 * c
            return h * gain[:, :, None, None] + bias[:, :, None, None]

        skip = norm(self.down4(F.relu(self.stem(x))))
        h = F.relu(norm(self.down8(F.relu(skip))))
        for first, second in self.blocks:  # pyright: ignore[reportGeneralTypeIssues]
            h = h + norm(second(F.relu(norm(first(h)))))
        h = double(norm(self.up8(h))) + skip
        h = norm(self.mix4(F.relu(h)))
        h = norm(self.up4(F.relu(h)))
        painted = self.up2(F.relu(h)) + 0.5
        fine = x - double(F.avg_pool2d(x, 2))
        return painted + fine * (1 + modulation[:, at_m : at_m + 3])[:, :, None, None], torch.cat(used, 1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.paint(x, self.modulation(style))[0]
