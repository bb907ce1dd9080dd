"""The descent by which pixels are refined: L-BFGS without a line search.

Liu & Nocedal 1989, *On the limited memory BFGS method for large scale optimization*; where it departs from that, and why:

- The Hessian that it begins with at every step is a diagonal one, by the root of each number's recent squared gradients as in Adam: numbers
  that few features depend on have small gradients and little curvature.
- Every evaluation is a step. A line search spends two or three to a step, and with the last pair's own scale the full step is nearly
  always one that a search would take; where it is not, it is cut to :data:`LONGEST`. If a step has led up, the next one is made from
  where that began, half as long, and knows the curvature between the two. Without that photographs of 640 pixels and more
  swung to and fro: of six, three came to losses of 0.11 to 0.22 after 25 steps, to 0.10 with it.

The loss is not random, so curvature that was met stays met. Three pairs of 224 x 224 pixels came to a loss of 0.1395 after 25 steps and
0.113 after 75, with Adam to 0.146 and 0.120.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

PAIRS = 12
"""Steps that are remembered; with 20 the losses are 0.5 % lower, with 8 as much higher."""
PAIR_BYTES = 32
"""Of memory for each of them and each pixel: two pyramids of three colours."""
LONGEST = 3.0
"""How far numbers may move in one step, on average over a group, relative to its rate."""
LEAST = 0.2
"""A step that would be as short a share of a full one is made wherever it leads."""
_MEMORY = 0.9
"""Share of the squared gradients before in those of which the root is taken."""
_FLOOR = 0.03
"""Added to that root, relative to the mean over its group."""

Vector = list[Tensor]


class Descent:
    """Moves ``groups`` of numbers in place, each at its own rate: how far they go in the first step. ``pairs`` is how many steps are
    remembered; with none it goes down the gradient, each number at its own pace.
    """

    def __init__(self, groups: Sequence[Tensor], rates: Sequence[float], pairs: int = PAIRS) -> None:
        self.groups, self.rates = list(groups), list(rates)
        self._squares = [torch.zeros_like(g) for g in groups]
        self._steps: deque[tuple[Vector, Vector, float]] = deque(maxlen=pairs)
        """How far the numbers went, by how much the gradient changed, and 1 over the product of both."""
        self._before: tuple[Vector, Vector] | None = None
        self._taken, self._loss, self._share = 0, math.inf, 1.0

    @torch.no_grad()
    def step(self, gradient: Vector, loss: float) -> None:
        """One step down from where the numbers are now, and ``gradient`` and ``loss`` are these. If the last step led up, it is taken back
        first.
        """
        at = [g.clone() for g in self.groups]
        if self._before is not None:
            moved, changed = (_less(now, then) for now, then in zip((at, gradient), self._before, strict=True))
            product = _dot(moved, changed)
            if product > 0:  # else the loss is not convex between the two, and a step by it would lead up
                self._steps.append((moved, changed, 1 / product))
        if self._before is not None and loss > self._loss and self._share > LEAST:
            self._share /= 2
            at, gradient = self._before
            for group, then in zip(self.groups, at, strict=True):
                group.copy_(then)
        else:
            self._loss, self._share = loss, min(1.0, 2 * self._share)
            self._before = (at, gradient)
            self._taken += 1
            for square, g in zip(self._squares, gradient, strict=True):
                square.mul_(_MEMORY).addcmul_(g, g, value=1 - _MEMORY)
        paces = self._paces()

        direction, shares = [g.clone() for g in gradient], list[float]()
        for moved, changed, inverse in reversed(self._steps):
            shares.append(inverse * _dot(moved, direction))
            _add(direction, changed, -shares[-1])
        scale = 1.0
        if self._steps:
            moved, changed, inverse = self._steps[-1]
            scale = 1 / (inverse * _dot(changed, [p * c for p, c in zip(paces, changed, strict=True)]))
        for d, pace in zip(direction, paces, strict=True):
            d.mul_(pace).mul_(scale)
        for (moved, changed, inverse), share in zip(self._steps, reversed(shares), strict=True):
            _add(direction, moved, share - inverse * _dot(changed, direction))

        length = max(float(d.abs().mean()) / rate for d, rate in zip(direction, self.rates, strict=True))
        _add(self.groups, direction, -min(self._share, LONGEST / max(length, 1e-12)))

    def _paces(self) -> Vector:
        paces: Vector = []
        for square, rate in zip(self._squares, self.rates, strict=True):
            root = (square / (1 - _MEMORY**self._taken)).sqrt_()
            paces.append(rate / (root + _FLOOR * root.mean() + 1e-12))
        return paces


def _dot(a: Vector, b: Vector) -> float:
    return sum(float(torch.dot(x.flatten(), y.flatten())) for x, y in zip(a, b, strict=True))


def _less(a: Vector, b: Vector) -> Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


def _add(to: Vector, what: Vector, times: float) -> None:
    for x, y in zip(to, what, strict=True):
        x.add_(y, alpha=times)
