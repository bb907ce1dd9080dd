"""Losses between feature maps (N, C, H, W) and what they should be: pure functions, differentiable, free of scale.

Every loss is a share of its target ("half of the target's energy is wrong"), so one set of weights suits all styles,
all levels and all encoders: multiplying features and target by a number changes nothing. The papers' own losses are
sums over channels and positions, whose weights have to be found again for every layer and every style.

Features may be float16 or bfloat16: sums over positions are done in float32, or float64 for float64 input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-12
"""Keeps a quotient finite where a target is all zeros; far below any real activation's square."""
_FLOOR = 1e-6
"""Variance added to every channel, as a share of the target's mean variance, where a square root is differentiated."""


_ALIKE = 1e-5
"""Share of features' energy below which what tells a cell from the others is no layout."""
CELLS = 16
"""A side of the grid on which layouts are compared."""


class MomentsLike(Protocol):
    """What a Style holds for each level: ``mean`` (C,) and ``covariance`` (C, C), NumPy arrays."""

    @property
    def mean(self) -> Any: ...

    @property
    def covariance(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean (N, C) and covariance (N, C, C) of features over their positions; N is 1 where one target serves a whole batch."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def measure(cls, features: Tensor) -> Statistics:
        """Statistics of each picture in the batch; features (N, C, H, W)."""
        f = _positions(features)
        mean = f.mean(2)
        centred = f - mean[:, :, None]
        return cls(mean, centred @ centred.mT / f.shape[2])

    @classmethod
    def from_moments(cls, moments: MomentsLike, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Statistics:
        """From NumPy ``mean`` (C,) and ``covariance`` (C, C), as in a Style; the result has N = 1."""
        mean, covariance = (torch.as_tensor(a, dtype=dtype, device=device)[None] for a in (moments.mean, moments.covariance))
        return cls(mean, covariance)

    @property
    def second_moment(self) -> Tensor:
        """E[f fᵀ] = Σ + μ μᵀ, (N, C, C): the Gram matrix divided by the number of positions."""
        return self.covariance + self.mean[:, :, None] * self.mean[:, None, :]

    @property
    def variance(self) -> Tensor:
        """(N, C)."""
        return self.covariance.diagonal(dim1=1, dim2=2)


StyleLoss = Callable[[Tensor, Statistics], Tensor]


def _positions(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H*W), in float32 at least. No copy for channels-last features."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return features.flatten(2)


def _instance_normalised(features: Tensor) -> Tensor:
    f = _positions(features)
    f = f - f.mean(2, keepdim=True)
    return f * normalising_factor(f.square().mean(2))[:, :, None]


def normalising_factor(variance: Tensor) -> Tensor:
    """What brings channels of these variances (N, C) to unit variance, (N, C)."""
    # the floor is a share of the mean over channels: a channel that is all but constant says nothing, and must not be
    # blown up to unit variance
    return (variance + 1e-4 * variance.mean(1, keepdim=True) + _TINY).rsqrt()


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of instance-normalised features; 0 = the same layout, 2 = unrelated.

    Both are (N, C, H, W); the target may have N = 1. Gatys et al. 2016 (eq. 1) compare raw features; normalising each
    channel over positions first (Ulyanov et al. 2016, eq. 4) takes colour and contrast, which are style, out of it.
    """
    return (_instance_normalised(features) - _instance_normalised(target)).square().mean()


def structure_loss(features: Tensor, target: Tensor) -> Tensor:
    """By how much self-similarity on a grid of :data:`CELLS` × :data:`CELLS` cells differs (after CFSD, Chung et al. 2024); 0 = the same
    layout.

    Both are (N, C, H, W). The content loss is a mean over places and channels, and does not see whether parts still stand out from each
    other.
    """
    return layouts_differ(F.adaptive_avg_pool2d(features, CELLS), F.adaptive_avg_pool2d(target, CELLS))


def layouts_differ(cells: Tensor, target: Tensor, temperature: float = 0.1) -> Tensor:
    """The same of features' means over cells, (N, C, h, w): the Kullback-Leibler divergence of the softmax of cosine similarities."""

    def logs(f: Tensor) -> Tensor:
        f = f.flatten(2).transpose(1, 2)
        # a cell like all others has no direction: of one colour's, which rounding made, the gradient was a million times any other's
        floor = _ALIKE * f.square().sum(2).mean(1)[:, None, None] + _TINY
        f = f - f.mean(1, keepdim=True)
        f = f * (f.square().sum(2, keepdim=True) + floor).rsqrt()
        return F.log_softmax(f @ f.transpose(1, 2) / temperature, 2)

    p, q = logs(cells), logs(target)
    return (p.exp() * (p - q)).sum(2).mean()


def second_moment_loss(features: Tensor, target: Statistics) -> Tensor:
    """‖M − M'‖² / ‖M'‖² for second moments M = F Fᵀ / (H W), averaged over the batch.

    The style loss of Gatys et al. 2016 (eq. 4), whose Gram matrix is H W · M, relative to its target.
    """
    f = _positions(features)
    return _second_moments_differ(f @ f.mT / f.shape[2], target)


def _second_moments_differ(own: Tensor, target: Statistics) -> Tensor:
    wanted = target.second_moment
    return ((own - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2)).clamp_min(_TINY)).mean()


def mean_moment_loss(features: Tensor, target: Statistics) -> Tensor:
    """‖μ − μ'‖² / ‖μ'‖² + ‖M − M'‖² / ‖M'‖² for means and second moments, averaged over the batch.

    Of VGG-19's channels, few are strong, and by second moments alone the many others' means hardly count.
    """
    f = _positions(features)
    return _means_and_moments_differ(f.mean(2), f @ f.mT / f.shape[2], target)


def _means_and_moments_differ(mean: Tensor, second: Tensor, target: Statistics) -> Tensor:
    means = (mean - target.mean).square().sum(1) / target.mean.square().sum(1).clamp_min(_TINY)
    return means.mean() + _second_moments_differ(second, target)


def mean_std_loss(features: Tensor, target: Statistics) -> Tensor:
    """(‖μ − μ'‖² + ‖σ − σ'‖²) / (‖μ'‖² + ‖σ'‖²), averaged over the batch.

    Huang & Belongie 2017 (eq. 13) and Li et al. 2017 (batch-normalisation statistics, eq. 13) give the two their own
    sums; one common denominator keeps a level with hardly any variance from counting twice.
    """
    f = _positions(features)
    mean = f.mean(2)
    return _means_and_stds_differ(mean, (f - mean[:, :, None]).square().mean(2), target)


def _means_and_stds_differ(mean: Tensor, variance: Tensor, target: Statistics) -> Tensor:
    floor = _FLOOR * target.variance.mean(1, keepdim=True) + _TINY
    std = (variance + floor).sqrt()
    wanted = (target.variance + floor).sqrt()
    energy = target.mean.square().sum(1) + wanted.square().sum(1)
    return (((mean - target.mean).square().sum(1) + (std - wanted).square().sum(1)) / energy).mean()


def wasserstein2(features: Tensor, target: Statistics) -> Tensor:
    """Squared 2-Wasserstein distance of Gaussians, relative to the target's energy; averaged over the batch.

    (‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ'^½ Σ Σ'^½)^½)) / (‖μ'‖² + tr Σ')   (Dowson & Landau 1982, eq. 16; for styles Mroueh 2019)

    The trace of a square root is the sum of the roots of the eigenvalues, whose gradient needs no quotients of differences
    of eigenvalues; so unlike the gradient of the root itself it stays stable where eigenvalues coincide. Both
    covariances get a floor of 1e-6 of the target's mean variance. The matrices are small, so they are done on the CPU in
    float64, on every device.
    """
    return _gaussians_differ(Statistics.measure(features), target)


def _gaussians_differ(own: Statistics, target: Statistics) -> Tensor:
    mean, sigma = own.mean.cpu().double(), own.covariance.cpu().double()
    wanted_mean, wanted = target.mean.cpu().double(), target.covariance.cpu().double()
    if not torch.isfinite(sigma).all():
        return (own.mean.sum() * math.nan).float()  # the decomposition would raise, and hide which loss it was
    n = sigma.shape[1]
    floor = (_FLOOR * wanted.diagonal(dim1=1, dim2=2).mean(1) + _TINY)[:, None, None] * torch.eye(n, dtype=torch.float64)
    sigma, wanted = sigma + floor, wanted + floor
    values, vectors = torch.linalg.eigh(wanted)
    root = (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mT
    inner = root @ sigma @ root
    eigenvalues = torch.linalg.eigvalsh((inner + inner.mT) / 2)
    # rounding can put the smallest eigenvalues, whose true value is the floor's square at least, below it or below zero
    overlap = eigenvalues.clamp_min(floor[:, :1, 0].square()).sqrt().sum(1)
    trace, wanted_trace = (s.diagonal(dim1=1, dim2=2).sum(1) for s in (sigma, wanted))
    distance = (mean - wanted_mean).square().sum(1) + trace + wanted_trace - 2 * overlap
    relative = distance / (wanted_mean.square().sum(1) + wanted_trace)
    return relative.mean().to(own.mean)


def sliced_wasserstein(features: Tensor, target: Tensor, rng: torch.Generator, directions: int = 32) -> Tensor:
    """Squared sliced Wasserstein distance between the positions of two feature maps, relative to the target's energy.

    Both are (N, C, H, W), the target of any height and width; it compares the whole distributions, beyond their first two
    moments (Heitz et al. 2021, eq. 5, with quantiles interpolated linearly where the sizes differ). ``rng`` is a CPU generator.
    """
    f, t = _positions(features), _positions(target)
    draws = torch.randn(directions, f.shape[1], generator=rng).to(f)
    units = draws / draws.norm(dim=1, keepdim=True)
    own, wanted = (units @ f).sort(2).values, (units @ t).sort(2).values
    if own.shape[2] != wanted.shape[2]:
        wanted = torch.nn.functional.interpolate(wanted, size=own.shape[2], mode="linear", align_corners=True)
    return ((own - wanted).square().mean((1, 2)) / wanted.square().mean((1, 2)).clamp_min(_TINY)).mean()


def total_variation(x: Tensor) -> Tensor:
    """Mean absolute difference of vertical neighbours plus that of horizontal ones (Rudin, Osher & Fatemi 1992, anisotropic).

    2 for a checkerboard of zeros and ones; 0 along an axis of one pixel.
    """
    vertical, horizontal = x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]
    return sum((d.abs().sum() / max(1, d.numel()) for d in (vertical, horizontal)), start=x.new_zeros(()))


STYLE_LOSSES: dict[str, StyleLoss] = {
    "moments": second_moment_loss,
    "mean_moments": mean_moment_loss,
    "mean_std": mean_std_loss,
    "wasserstein": wasserstein2,
}
"""By the names under which :func:`scumble.nets.refine.refine` and training offer them."""

STYLE_DISTANCES: dict[str, Callable[[Statistics, Statistics], Tensor]] = {
    "moments": lambda own, target: _second_moments_differ(own.second_moment, target),
    "mean_moments": lambda own, target: _means_and_moments_differ(own.mean, own.second_moment, target),
    "mean_std": lambda own, target: _means_and_stds_differ(own.mean, own.variance, target),
    "wasserstein": _gaussians_differ,
}
"""The same losses where the features' own statistics are at hand, as of pictures that are seen tile by tile."""
