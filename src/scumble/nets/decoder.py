"""The decoders: from the eye's features back to the level above, down to pixels.

The classic cascade (Li et al. 2017, Universal Style Transfer) keeps one whole decoder a level and encodes the picture anew
before each. Here one chain of five blocks serves all levels, block k undoing exactly what lies between tap k-1 and tap k
of the eye (as PhotoWCT², Chiu & Gurari 2022, does): fusing at all five levels costs one encoding and one decoding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scumble.nets.eye import WIDTHS, conv3

HIDDEN = 32
"""Channels between the first tap and RGB. Without them, fused features, which no picture has, had an error of 0.39 and not 0.31 in their
statistics when they were looked at again (held-out crops, three minutes of training)."""


class Block(nn.Module):
    """Tap k, (N, C_k, h, w) -> tap k-1, (N, C_{k-1}, 2h, 2w); the eye's block k mirrored. Block 1 gives RGB of the same size."""

    def __init__(self, level: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.level = level
        c = widths[level - 1]
        inner, out = (widths[level - 2], widths[level - 2]) if level > 1 else (HIDDEN, 3)
        self.first = conv3(c, inner)
        self.rest = nn.ModuleList([conv3(inner, out) for _ in range({1: 1, 2: 1, 3: 1, 4: 3, 5: 3}[level])])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        if self.level == 1:
            return self.rest[0](x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear")  # nearest left a weave on flat skies
        for conv in self.rest:
            x = F.relu(conv(x))
        return x


class Decoder(nn.Module):
    """All five blocks; ``forward(x, level)`` runs from tap ``level`` to RGB (not clipped)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(k, widths) for k in range(1, 6)])
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        last = self.block(1).rest[0]
        assert isinstance(last, nn.Conv2d)
        nn.init.xavier_normal_(last.weight, gain=0.5)
        assert last.bias is not None
        nn.init.constant_(last.bias, 0.45)

    def block(self, level: int) -> Block:
        return self.blocks[level - 1]  # pyright: ignore[reportReturnType]

    def forward(self, x: Tensor, level: int = 5) -> Tensor:
        for k in range(level, 0, -1):
            x = self.block(k)(x)
        return x
