"""The fit to the photograph in PyTorch, for training and refinement: :mod:`scumble.guided` says what it is; a test holds both together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from scumble.guided import CELL, RIDGE, WINDOW, solved
from scumble.pyramid import TAPS


def guide(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 3, ⌈H/16⌉, ⌈W/16⌉)."""
    return halved(halved(F.avg_pool2d(pixels, CELL // 4, ceil_mode=True, count_include_pad=False)))


def halved(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, ⌈h/2⌉, ⌈w/2⌉), as :func:`scumble.pyramid.halved`."""
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    padded = F.pad(x, (1, 2, 1, 2), mode="replicate")
    # one channel, which an exported graph knows whatever it knows of the sizes
    found = F.conv2d(padded.flatten(0, 1)[:, None], (taps[:, None] * taps)[None, None], stride=2)
    return found.reshape(*x.shape[:2], *found.shape[2:])


class Fit:
    """By how much paintings of a content (N, 3, H, W) are changed where they are fitted to it."""

    def __init__(self, content: Tensor) -> None:
        g = guide(content).double()
        upper = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
        mean = _means(g)
        squares = _means(torch.stack([g[:, i] * g[:, j] for i, j in upper], 1)).unbind(1)
        squares = [s - mean[:, i] * mean[:, j] + (RIDGE if i == j else 0.0) for s, (i, j) in zip(squares, upper, strict=True)]
        self._guide, self._mean, self._weights = g, mean, solved(squares, (g - mean).unbind(1))

    def __call__(self, coarse: Tensor, scale: int, times: int = 1) -> Tensor:
        """Of the means of cells (N, 3, h, w), fitted so many ``times``; enlarged bilinearly by ``scale``."""
        before, g, mean = coarse.double(), self._guide, self._mean
        p = before
        for _ in range(times):
            p_mean = _means(p)
            p = p_mean + sum((_means(p * g[:, i : i + 1]) - p_mean * mean[:, i : i + 1]) * self._weights[i][:, None] for i in range(3))
        return F.interpolate((p - before).to(coarse), scale_factor=scale, mode="bilinear")


def _means(x: Tensor) -> Tensor:
    """Of windows, as far as there is anything: by matrices, as ONNX Runtime pools in single precision alone, in which two colours have no
    inverse.
    """
    near = [(at[:, None] - at).abs() <= WINDOW for at in (torch.arange(n, device=x.device) for n in x.shape[2:])]
    rows, columns = (band.to(x.dtype) / band.sum(1, keepdim=True) for band in near)
    return rows @ x @ columns.T
