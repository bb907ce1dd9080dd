"""What training judges a painting by, one style or many: style, content, and all that must not show.

Everything is measured in the features of a :class:`Judge`, in second moments and means, relative to the style's own, so one set of weights
suits all styles. How much the content weighs is not a constant but a controller: it keeps the content distance at a set value, which is
what is asked of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scumble.errors import UsageError, unknown
from scumble.nets.eye import LEVELS
from scumble.nets.finish import Autocovariance, finish
from scumble.nets.generator import Generator
from scumble.nets.losses import content_loss, structure_loss, total_variation
from scumble.nets.sight import Connoisseur, Critic, load_sight
from scumble.nets.vgg import frozen
from scumble.train.data import Crops
from scumble.train.teacher import Teacher

JUDGES = ("eye", "sight", "distilled", "teacher")

MOVE = 7
"""Pixels by which a content is moved, at most, to see whether it is painted the same: a stride's worth."""

STRUCTURE = 0.35
"""What the structure distance weighs, where style weighs 2. It sees what the content distance, a mean over places and channels, does not:
that parts stand out from each other. Two styles tuned to for 75 steps, without and at 0.3 (content, structure, style): 0.490, 0.614,
0.570 and 0.476, 0.526, 0.574; 0.479, 0.559, 0.480 and 0.446, 0.458, 0.486."""

BORDER = 32
"""Pixels at the edge of a crop, which training does not mirror, where the padding shows."""

Target = Sequence[tuple[Tensor, Tensor]]
"""Mean (N, C) and second moment (N, C, C) at each of a judge's taps."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Frozen nets: taps from fine to coarse, where style is seen, and one, where layout is."""

    name: str
    taps: Callable[[Tensor], list[Tensor]]
    layout: Callable[[Tensor], Tensor]
    """What the content is compared in, equal to ``taps(x)[at]`` or cheaper: the teacher's exact taps would cost as much as all the rest."""
    device: str = "cpu"
    bfloat16: bool = False
    at: int = 3
    """Which of the taps that is; style is seen in the first five."""

    @staticmethod
    def named(name: str, teacher: Path | None = None, device: str = "cpu", bfloat16: bool = False, eye: nn.Module | None = None) -> Judge:
        """One of :data:`JUDGES`, on ``device``: ``eye`` is the installed one if none is given, the others lie in the folder ``teacher``.

        UsageError if there is none of that name, or no folder for it.
        """
        if name not in JUDGES:
            raise UsageError(unknown("judge", name, JUDGES))
        if name == "eye":
            if eye is not None:
                net = frozen(eye, device)
                return Judge(name, net, lambda x: net(x)[3], device, bfloat16)
            critic = Critic(load_sight(device))
            return Judge(name, critic, critic.layout_of, device, bfloat16, critic.layout)
        if name == "sight":
            sight = load_sight(device)
            return Judge(name, Connoisseur(sight), Critic(sight).layout_of, device, bfloat16)
        if teacher is None:
            raise UsageError(f"the judge {name!r} needs the teacher networks: name their folder with --teacher, or let the eye judge")
        nets = Teacher(teacher, exact=name == "teacher", padded=False).to(device).eval()
        return Judge(name, nets, lambda x: nets.deep(x)[0], device, bfloat16)

    def cast(self) -> torch.autocast:
        """The precision in which nets run; losses stay in float32."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16)

    def seen(self, x: Tensor) -> list[Tensor]:
        """The taps of (N, 3, H, W) in [0, 1]."""
        with self.cast():
            return [t if self.bfloat16 else t.float() for t in self.taps(x)]

    @torch.no_grad()
    def target(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What a painting in the style of ``x`` (N, 3, H, W) should measure."""
        return [moments(t) for t in self.seen(x)[: len(LEVELS)]]


@dataclass(frozen=True, eq=False)
class Views:
    """Contents (N, 3, H, W), the same seen a moment ``later``, and by how many (rows, columns) it has ``moved``."""

    contents: Tensor
    later: Tensor
    moved: tuple[int, int]

    @staticmethod
    def drawn(contents: Crops, n: int, size: int, rng: torch.Generator) -> Views:
        """Of random crops."""
        x, later, moved = moved_apart(contents.batch(n, size + 2 * MOVE, rng, zoom=(0.8, 2.0)), rng)
        last = torch.channels_last
        return Views(x.contiguous(memory_format=last), later.contiguous(memory_format=last), moved)


def painting_loss(
    generator: Generator,
    judge: Judge,
    views: Views,
    modulation: Tensor,
    target: Target,
    wanted: Sequence[Autocovariance] | None,
    balance: Balance,
    same: int = 0,
    ease: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor | float], Tensor]:
    """Paint ``views`` with ``modulation`` (N, M) and finish them; the loss, its parts by name, and the paintings (N, 3, H, W).

    ``wanted`` is what the finish gives them, of all N or 1 for all; None: they are not finished.

    The first ``same`` of them are not compared with content and ``target`` (which has N − ``same``, or 1 for all). The weights of content
    and structure are divided by ``ease``; only at 1 does the content's distance steer the ``balance``.
    """
    beyond: list[Tensor] = []
    painted, statistics = generator.paint(views.contents, modulation, excess=beyond)
    excess = torch.stack(beyond).sum()
    one = slice(-1, None)  # of the batch: painting all of it twice took as long as the judge's second look at it
    later = generator.paint(views.later[one], modulation[one], statistics[one], 1.0)[0]
    if wanted is not None:
        painted, filters = finish(painted, views.contents, wanted)
        its = [(mean[one], covariance[one]) for mean, covariance in wanted]
        later = finish(later, views.later[one], its, [f and (f[0][one], f[1][one]) for f in filters])[0]
    motion = motion_loss(painted[one], later, views.moved)
    made = [t[same:] for t in judge.seen(painted)]
    with torch.no_grad(), judge.cast():
        layout = judge.layout(views.contents[same:]).float()
    content = content_loss(made[judge.at].float(), layout)
    structure = structure_loss(made[judge.at].float(), layout)
    with judge.cast():
        style = style_distance(made[: len(LEVELS)], target)
    over = (painted - painted.clamp(0, 1)).square().mean()
    grid = grid_loss(painted[same:])
    weight = balance.update(float(content.detach())) if ease == 1.0 else balance.weight / ease
    kept = weight * content + STRUCTURE / ease * structure
    loss = 2 * style + kept + 0.05 * total_variation(painted) + 0.3 * grid + 2 * motion + 10 * (over + excess)
    parts = {"style": style, "content": content, "structure": structure, "grid": grid, "motion": motion, "over": over, "excess": excess}
    return loss, {k: v.detach() for k, v in parts.items()} | {"weight": weight}, painted


class _Moments(torch.autograd.Function):
    """A second moment's gradient is one product with its symmetric part, where autograd makes two, and adds the mean's to them. Rows are
    positions and columns channels, which is how channels-last features lie: nothing is copied. An exact judge takes two thirds of the time
    so, forwards and back.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor) -> tuple[Tensor, Tensor]:
        n, c, h, w = f.shape
        rows = f.permute(0, 2, 3, 1).reshape(n, h * w, c)
        ctx.save_for_backward(rows)
        ctx.shape = f.shape
        one = rows.new_full((n, 1, h * w), 1.0)
        # products sum in float32 and are rounded once, so they may be divided afterwards: bfloat16 has float32's range
        return (one @ rows)[:, 0].float() / (h * w), (rows.mT @ rows).float() / (h * w)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        n, c, h, w = ctx.shape
        of_mean, of_second = (g / (h * w) for g in gradients)
        symmetric = (of_second + of_second.mT).to(rows.dtype)
        back = torch.baddbmm(of_mean.to(rows.dtype)[:, None], rows, symmetric)
        return back.reshape(n, h, w, c).permute(0, 3, 1, 2)


def moments(f: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, C, H, W) -> mean (N, C) and second moment (N, C, C), in float32."""
    found: tuple[Tensor, Tensor] = _Moments.apply(f)  # pyright: ignore[reportAssignmentType]
    return found


def style_distance(made: list[Tensor], target: Target, weights: tuple[float, ...] = (1, 1, 1, 1, 1)) -> Tensor:
    """Mean over the levels of |m−m'|/|m'| + |M−M'|/|M'|, M the second moments (N, C, C): 0 = same statistics.

    The norms are not squared (as Gatys et al. 2016 have it): near the goal a square stops pushing.
    """
    total = made[0].new_zeros(())
    for w, f, (m, g) in zip(weights, made, target, strict=True):
        mean, gram = moments(f)
        total = (
            total
            + w
            * (
                (mean - m).norm(dim=1) / (m.norm(dim=1) + 1e-4) + (gram - g).flatten(1).norm(dim=1) / (g.flatten(1).norm(dim=1) + 1e-4)
            ).mean()
        )
    return total / sum(weights)


def grid_loss(painted: Tensor, tolerance: float = 1.2) -> Tensor:
    """How far the spectrum of (N, 3, H, W) sticks out at periods of 2, 4 and 8 pixels over the lines beside them.

    The logarithm of the ratio, beyond a ``tolerance`` that photographs have as well; mean over axes and periods.
    """
    y = painted.mean(1)
    y = y - y.mean((1, 2), keepdim=True)
    windows = [torch.hann_window(n, device=y.device) for n in y.shape[1:]]
    power = torch.fft.fft2(y * windows[0][:, None] * windows[1]).abs().square()
    total = painted.new_zeros(())
    for axis in (1, 2):
        line = power.mean(3 - axis)
        n = line.shape[1]
        for period in (p for p in (2, 4, 8) if n // p >= 6):  # lines beside it there must be
            k = n // period
            beside = torch.cat([line[:, k - 6 : k - 2], line[:, k + 3 : min(k + 7, n)]], 1).mean(1)
            total = total + F.relu((line[:, k - 1 : k + 2].amax(1) / (beside + 1e-8)).clamp_min(1e-3).log() - math.log(tolerance)).mean()
    return total / 6


def moved_apart(x: Tensor, rng: torch.Generator, reach: int = MOVE, noise: float = 2 / 255) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Two crops of (N, 3, H + 2·reach, W + 2·reach): the middle, and one (rows, columns) further on with a film camera's noise."""
    h, w = (n - 2 * reach for n in x.shape[2:])
    rows, columns = torch.randint(-reach, reach + 1, (2,), generator=rng).tolist()
    other = x[:, :, reach + rows : reach + rows + h, reach + columns : reach + columns + w]
    grain = torch.randn(other.shape, generator=rng).to(x.device) * noise
    return x[:, :, reach : reach + h, reach : reach + w], (other + grain).clamp(0, 1), (rows, columns)


def motion_loss(painted: Tensor, other: Tensor, moved: tuple[int, int], border: int = BORDER) -> Tensor:
    """Mean absolute difference of two paintings of one scene where both show it, one seen ``moved`` (rows, columns) further on.

    What flickers when a camera pans: nets with strides paint a moved picture differently (Zhang 2019, "Making convolutional networks
    shift-invariant again"). ``border`` pixels, where the padding shows, don't count.
    """
    (rows, columns), (h, w) = moved, painted.shape[2:]
    border = min(border, h // 4, w // 4)  # of crops of 64 pixels nothing would be left
    top, left = border + max(rows, 0), border + max(columns, 0)
    bottom, right = h - border + min(rows, 0), w - border + min(columns, 0)
    return (painted[:, :, top:bottom, left:right] - other[:, :, top - rows : bottom - rows, left - columns : right - columns]).abs().mean()


class Balance:
    """The content's weight, steered so that the content distance stays at ``target`` (an integral controller); at a ``pace`` of 0 it stays
    what it is.
    """

    def __init__(self, target: float, weight: float = 0.4, pace: float = 0.05) -> None:
        self.target, self.pace = target, pace
        self.memory = {"content_weight": weight}

    @property
    def weight(self) -> float:
        """As it stands."""
        return self.memory["content_weight"]

    def update(self, distance: float) -> float:
        """The weight for the next step, after ``distance`` in this one; one that is not a number changes nothing."""
        if not math.isfinite(distance):
            return self.weight
        self.memory["content_weight"] = min(10.0, max(0.05, self.weight * math.exp(self.pace * (distance - self.target))))
        return self.weight
