"""The finish in PyTorch, for training: :mod:`scumble.finish` says what it is, and a test holds both together.

Roots of matrices are found by iteration, so gradients go through the maps: with maps that are taken as given, a net learns what the
next map takes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scumble import gamut
from scumble.finish import GAMUT_SCALE, LEAST_SIDE, PASSES, RIDGE, SCALES, WIDE, Places, narrower, offsets, patch_index, side_of
from scumble.nets.guided import Fit, halved

Autocovariance = tuple[Tensor, Tensor]
"""Mean (N, 3), and covariances (N, D, 3, 3) between a pixel and the one at each of the offsets, whose number says of what patches."""
Filter = tuple[Tensor, Tensor]
"""Kernel (N, 3, 3, S, S) and bias (N, 3)."""

_ITERATIONS, _MORE = 22, 33
"""Of the root's iteration: what a condition of 6e4 takes (:data:`RIDGE` beside the variance of 75 numbers), and what its square does."""


def autocovariances(x: Tensor) -> list[Autocovariance]:
    """Of (N, 3, H, W), at every scale of its own pyramid, the coarsest first: what a style asks for."""
    return [_autocovariance(level) for level in _pyramid(x)]


def narrow(wanted: Sequence[Autocovariance]) -> list[Autocovariance]:
    """The same of smaller patches."""
    kept = narrower()
    return [(mean, covariance if covariance.shape[1] == len(kept) else covariance[:, kept]) for mean, covariance in wanted]


def joined(*parts: Sequence[Autocovariance]) -> list[Autocovariance]:
    """Of several batches as one."""
    return [(torch.cat([m for m, _ in scale]), torch.cat([c for _, c in scale])) for scale in zip(*parts, strict=True)]


def of_texture(texture: Tensor) -> list[Autocovariance]:
    """What Styles ask for, (N, T), as :func:`autocovariances`."""
    rows = texture.double().reshape(len(texture), SCALES, -1)
    return [(rows[:, k, :3], rows[:, k, 3:].reshape(len(rows), -1, 3, 3)) for k in range(SCALES)]


def finish(
    x: Tensor,
    content: Tensor,
    wanted: Sequence[Autocovariance],
    filters: Sequence[Filter | None] | None = None,
    every_patch: bool = False,
) -> tuple[Tensor, list[Filter | None]]:
    """Paintings (N, 3, H, W) of ``content`` with the autocovariances that are ``wanted``, and the filters that did it: their own, or
    those that were given (``wanted`` says then but what colours there are).

    With ``every_patch`` all are measured and not as many as suffice, which an exported graph, where sizes are not known, could not choose.
    """
    used: list[Filter | None] = []
    levels = _pyramid(x)
    order = PASSES[side_of(wanted[0][1].shape[1])] if filters is None else next(o for o in PASSES.values() if len(o) == len(filters))
    x, last = levels[0], 0
    for n, scale in enumerate(order):
        h, w = levels[scale].shape[2:]
        if scale > last:
            x = levels[scale] + F.interpolate(x - levels[last], scale_factor=2, mode="bilinear")[:, :, :h, :w]
        found, measurable = None, min(h, w) >= LEAST_SIDE
        if filters is not None:
            found = filters[n]
        elif measurable:
            patch = side_of(wanted[scale][1].shape[1])
            step = 1 if every_patch else Places.of(h, w, patch).rows.step
            alone = scale == SCALES - 1 and order.count(scale) == 1
            found = _filter(*_patches(x, patch, step), wanted[scale], used[-1] if n and scale == last else None, alone)
        if found is not None:
            x = _filtered(x, *found)
        used.append(found)
        if scale == 0 and measurable:
            x = x + Fit(content)(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False), 2)[:, :, :h, :w]  # so that no halo goes on
        if scale == GAMUT_SCALE and measurable:
            x = _drawn_back(x, *wanted[scale])
        last = scale
    return x, used


def _drawn_back(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Paintings (N, 3, h, w) within the gamut of styles of so much mean and autocovariance."""
    means = [mean[:, c, None, None].to(x) for c in range(3)]
    rows = covariance[:, 0, :, :, None, None].to(x)
    upper = [rows[:, a, b] for a in range(3) for b in range(a, 3)]
    return torch.stack(gamut.drawn_back(x.unbind(1), means, upper), 1)


def _pyramid(x: Tensor) -> list[Tensor]:
    """(N, 3, H, W) and its halves, the coarsest first."""
    found = [x]
    for _ in range(SCALES - 1):
        x = halved(x)
        found.append(x)
    return found[::-1]


def _autocovariance(x: Tensor) -> Autocovariance:
    """As if there were nothing but the mean around it, which makes the patches' covariance positive however small the picture."""
    x = x.double()  # fifty thousand products in single precision come out wrong by more than the ridge
    mean = x.mean((2, 3), keepdim=True)
    x = x - mean
    h, w = x.shape[2:]
    found = [
        torch.einsum("nahw,nbhw->nab", x[:, :, : h - dy, max(0, -dx) : w - max(0, dx)], x[:, :, dy:, max(0, dx) : w + min(0, dx)])
        for dy, dx in offsets(WIDE)
    ]
    return mean[:, :, 0, 0], torch.stack(found, 1) / (h * w)


def _patches(x: Tensor, patch: int, step: int) -> tuple[Tensor, Tensor]:
    """Mean (N, 3), and the covariance of the patches of every ``step``-th row (N, C, C), rows and columns in the order (y, x, channel)."""
    x, (h, w), r = x.double(), x.shape[2:], patch - 1
    center = x.mean((2, 3), keepdim=True)
    rows = torch.cat([(x - center)[:, :, y : h - r + y : step, u : w - r + u].flatten(2) for y in range(patch) for u in range(patch)], 1)
    mean = rows.mean(2)
    covariance = (rows @ rows.transpose(1, 2)) / rows.shape[2] - mean[:, :, None] * mean[:, None]
    return center[:, :, 0, 0] + mean.reshape(len(x), -1, 3).mean(1), covariance


def _filter(mean: Tensor, covariance: Tensor, wanted: Autocovariance, passed: Filter | None, alone: bool) -> Filter:
    """The Monge map between patches, averaged over the patches that a pixel lies in; ``passed`` has been there at the same scale.

    Without one before or after it, ``alone``, it goes :func:`scumble.finish.further`.
    """
    a = _ridged(covariance) if passed is None else covariance + _noise(passed[0])
    b = _ridged(_of_patches(wanted[1].to(covariance)))
    root, inverse = _roots(a, _ITERATIONS)
    middle = _roots(root @ b @ root, _MORE)[0]
    n = isqrt(a.shape[1] // 3)
    size = 2 * n - 1
    patch_map = inverse @ middle @ inverse
    if alone:
        one = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
        squared = patch_map @ patch_map
        fourth = squared @ squared
        root = _roots(fourth + one, _MORE)[1]  # the exported graph's operations know no inverse
        patch_map = patch_map + (fourth - squared @ patch_map) @ root @ root
    patch_map = patch_map.unflatten(2, (n, n, 3)).unflatten(1, (n, n, 3))  # (N, y, x, a, y', x', b)
    kernel = covariance.new_zeros(len(a), 3, 3, size, size)
    for y in range(n):
        for x in range(n):
            part = patch_map[:, y, x].permute(0, 1, 4, 2, 3)
            kernel = kernel + F.pad(part, (n - 1 - x, x, n - 1 - y, y))
    kernel = kernel / (n * n)
    return kernel, wanted[0].to(mean) - torch.einsum("nabyx,nb->na", kernel, mean)


def _filtered(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    n, (h, w) = len(x), x.shape[2:]
    r = kernel.shape[-1] // 2
    padded = F.pad(x, (r, r, r, r), mode="replicate").reshape(1, n * 3, h + 2 * r, w + 2 * r)
    convolve = _Exported.apply if torch.onnx.is_in_onnx_export() else _convolve
    return convolve(padded, kernel.flatten(0, 1).to(x), bias.flatten().to(x), n).reshape(n, 3, h, w)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.conv2d(x, kernel, bias, groups=groups)


class _Exported(torch.autograd.Function):
    """The exporter refuses a convolution whose kernel it can't tell the size of; ONNX itself doesn't ask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, groups: int) -> Tensor:
        return _convolve(x, kernel, bias, groups)

    @staticmethod
    def symbolic(g: Any, x: Any, kernel: Any, bias: Any, groups: int) -> Any:
        return g.op("Conv", x, kernel, bias, group_i=groups).setType(x.type().with_sizes([None] * 4))


def _of_patches(found: Tensor) -> Tensor:
    """Autocovariance (N, D, 3, 3) -> covariance of patches (N, C, C): block-Toeplitz."""
    index = torch.tensor(patch_index(side_of(found.shape[1])), device=found.device)
    n, size = len(found), len(index)
    both = torch.cat([found, found.transpose(-1, -2)], 1)
    return both[:, index].permute(0, 1, 3, 2, 4).reshape(n, size * 3, size * 3)


def _ridged(a: Tensor) -> Tensor:
    return a + RIDGE * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)


def _noise(kernel: Tensor) -> Tensor:
    """What a kernel has made of the ridge, (N, C, C)."""
    r = kernel.shape[-1] // 2
    n = r + 1
    rows = torch.stack([F.pad(kernel, (x, r - x, y, r - y)) for y in range(n) for x in range(n)], 1).flatten(3).flatten(1, 2)
    return RIDGE * (rows @ rows.transpose(1, 2))


def _roots(a: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Square root of positive definite matrices (N, C, C) and its inverse, by Newton and Schulz (Higham 2008, eq. 6.35)."""
    eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    scale = (a * eye).sum((1, 2), keepdim=True)  # its trace
    y, z = a / scale, eye.expand_as(a)
    for _ in range(iterations):
        t = 1.5 * eye - 0.5 * (z @ y)
        y, z = y @ t, t @ z
    return y * scale.sqrt(), z / scale.sqrt()
