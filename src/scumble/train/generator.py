"""Train the generator: any style in one pass.

The loss is measured in the eye's features first (a quarter of the teacher's cost, so four times the steps in the same
time), and in the teacher's features to finish (``--judge teacher``): both see second moments and means, relative to the style's own, so
one set of weights suits all styles. How much the content weighs is not a constant but a controller: it keeps the content
distance at a set value, which is what is asked of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scumble.nets.eye import Eye
from scumble.nets.generator import Generator, Shape
from scumble.nets.losses import content_loss, total_variation
from scumble.train.data import Crops, read_pictures
from scumble.train.loop import Recipe, fit
from scumble.train.teacher import Teacher

RECIPE = Recipe(steps=20000, learning_rate=1e-3, warm_up=100, ema=0.995)


@torch.no_grad()
def style_vector(taps: list[Tensor]) -> Tensor:
    """Means and standard deviations of the eye's five taps, level by level, (N, 736)."""
    parts = []
    for t in taps:
        flat = t.flatten(2)
        mean = flat.mean(2)
        parts += [mean, (flat.square().mean(2) - mean.square()).clamp_min(0).sqrt()]
    return torch.cat(parts, 1)


def moments(f: Tensor) -> tuple[Tensor, Tensor]:
    flat = f.flatten(2)
    return flat.mean(2), flat @ flat.transpose(1, 2) / flat.shape[2]


def style_distance(made: list[Tensor], target: list[tuple[Tensor, Tensor]], weights: tuple[float, ...] = (1, 1, 1, 1, 1)) -> Tensor:
    """Mean over the levels of |m−m'|/|m'| + |M−M'|/|M'|, M the second moments (N, C, C): 0 = same statistics.

    The norms are not squared (as Gatys et al. 2016 have it): near the goal a square stops pushing.
    """
    total = made[0].new_zeros(())
    for w, f, (m, g) in zip(weights, made, target, strict=True):
        mean, gram = moments(f)
        total = total + w * ((mean - m).norm(dim=1) / (m.norm(dim=1) + 1e-4) + (gram - g).flatten(1).norm(dim=1) / (g.flatten(1).norm(dim=1) + 1e-4)).mean()
    return total / sum(weights)


def structure_distance(made: Tensor, content: Tensor, cells: int = 12, temperature: float = 0.1) -> Tensor:
    """Kullback-Leibler divergence of self-similarity maps on a grid of cells (after CFSD, Chung et al. 2024)."""

    def logs(f: Tensor) -> Tensor:
        f = F.adaptive_avg_pool2d(f, cells).flatten(2).transpose(1, 2)
        f = F.normalize(f - f.mean(1, keepdim=True), dim=2)
        return F.log_softmax(f @ f.transpose(1, 2) / temperature, 2)

    p, q = logs(made), logs(content)
    return (p.exp() * (p - q)).sum(2).mean()


class Balance:
    """The content's weight, steered so that the content distance stays at ``target`` (an integral controller)."""

    def __init__(self, target: float, weight: float = 1.0) -> None:
        self.target, self.weight = target, weight

    def update(self, distance: float) -> float:
        self.weight = min(10.0, max(0.05, self.weight * math.exp(0.02 * (distance - self.target))))
        return self.weight


def train_generator(
    pack: Path,
    eye: Eye,
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    judge: str = "eye",
    teacher_folder: Path | None = None,
    shape: Shape | None = None,
    start: Generator | None = None,
    warm_steps: int = 400,
    size: int = 144,
    batch: int = 4,
    content_target: float = 0.45,
    device: str = "cpu",
    validate: Callable[[Generator, int], Mapping[str, float]] | None = None,
    validate_minutes: float = 15.0,
) -> Generator:
    """Train (or go on training what ``folder`` holds); returns the moving average.

    Args:
        judge: ``eye`` or ``teacher``: whose features the losses are measured in.
        warm_steps: first steps as an auto-encoder, the content being its own style; without that head start colours take thousands of steps to come.
        size: side of the square crops in pixels.
        content_target: the content distance to hold, see :class:`Balance`.
    """
    contents = Crops([p for p in read_pictures(pack / "content.tar")], device)
    styles = Crops([p for n in ("style.tar", "style_small.tar") for p in read_pictures(pack / n)], device)
    last = torch.channels_last
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    see: nn.Module = eye
    if judge == "teacher":
        assert teacher_folder is not None
        see = Teacher(teacher_folder).to(device).eval()
    generator = start or Generator(shape)
    generator = generator.to(device).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    if start is None:
        generator.style_mean, generator.style_std = _standardise(eye, styles, size)
    balance = Balance(content_target)
    state = folder / "balance.txt"
    if state.exists():
        balance.weight = float(state.read_text())

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        assert isinstance(model, Generator)
        x = contents.batch(batch, size, rng).contiguous(memory_format=last)
        warming = step < warm_steps
        with torch.no_grad():
            if warming:
                y, v = x, style_vector(eye(x))
            else:
                y = styles.batch(batch, size, rng, zoom=(1.0, 1.8)).contiguous(memory_format=last)
                # a quarter of the batch is asked for itself: without it strength 0 has nothing to stand on
                same = max(1, batch // 4) if step % 2 else 0
                y[:same] = x[:same]
                v = style_vector(eye(y))
        painted = model(x, v)
        over = (painted - painted.clamp(0, 1)).square().mean()
        if warming:
            l1 = (painted - x).abs().mean()
            return 4 * l1 + over, {"identity": l1.detach(), "over": over.detach()}
        with torch.no_grad():
            taps_x = see(x)
            taps_y = see(y)
            target = [moments(t) for t in taps_y]
        made = see(painted)
        style = style_distance([t[same:] for t in made], [(m[same:], g[same:]) for m, g in target])
        content = content_loss(made[3][same:], taps_x[3][same:])
        structure = structure_distance(made[2][same:], taps_x[2][same:])
        identity = (painted[:same] - x[:same]).abs().mean() if same else x.new_zeros(())
        weight = balance.update(float(content.detach()))
        loss = 2 * style + weight * (content + 0.5 * structure) + 4 * identity + 10 * over + 0.05 * total_variation(painted)
        if step % 50 == 0:
            state.write_text(repr(weight))
        return loss, {"style": style.detach(), "content": content.detach(), "structure": structure.detach(), "identity": 2 * identity.detach(), "weight": weight, "over": over.detach()}

    def check(model: nn.Module, step: int) -> Mapping[str, float]:
        assert validate is not None
        assert isinstance(model, Generator)
        return validate(model, step)

    trained = fit(generator, loss_of, recipe, folder, validate=check if validate else None, validate_minutes=validate_minutes)
    assert isinstance(trained, Generator)
    return trained


@torch.no_grad()
def _standardise(eye: Eye, styles: Crops, size: int, n: int = 512) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(54321)
    v = torch.cat([style_vector(eye(styles.batch(16, size, rng))) for _ in range(n // 16)])
    return v.mean(0), v.std(0).clamp_min(1e-3)
