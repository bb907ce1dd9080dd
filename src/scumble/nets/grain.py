"""Grain in PyTorch, for graphs that need nothing of this library: :mod:`scumble.grain` says what it is; a test holds both together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scumble.grain import GRAIN, squares
from scumble.guided import CELL


class Grain(nn.Module):
    """Noise of up to ``amount`` times :data:`~scumble.grain.GRAIN` for what is flat in pictures (N, 3, H, W)."""

    def __init__(self, amount: float = 1.0) -> None:
        super().__init__()
        self.most = (amount * GRAIN) ** 2
        for k, square in enumerate(squares()):
            self.register_buffer(f"square{k}", torch.tensor(square, dtype=torch.float16), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """In [0, 1], and so is the result."""
        height, width = pixels.shape[2:]
        own = (_means(pixels * pixels) - _means(pixels).square()).mean(1, keepdim=True)
        missing = F.interpolate(F.relu(self.most - own).sqrt(), scale_factor=CELL, mode="bilinear")[:, :, :height, :width]
        rows, columns = (torch.arange(n, device=pixels.device) for n in (height, width))
        noise = sum(square[rows % len(square)][:, columns % len(square)].to(pixels) for square in self.buffers())
        return (pixels + missing * noise).clamp(0, 1)


def _means(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, CELL, ceil_mode=True, count_include_pad=False)
