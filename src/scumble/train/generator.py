"""Train the generator: any style in one pass.

The loss is measured in the distilled teacher's features first (a third of the exact one's cost, so three times the steps in the same
time), and in the exact teacher's to finish (``--judge teacher``): both see second moments and means, relative to the style's own, so
one set of weights suits all styles. The eye can judge where there is no teacher, but it is cheated: at an eye's style distance of 0.55
the teacher saw 0.89. How much the content weighs is not a constant but a controller: it keeps the content distance at a set value, which
is what is asked of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scumble.errors import UsageError, unknown
from scumble.nets.eye import Eye
from scumble.nets.generator import MARGIN, Generator, Shape
from scumble.nets.losses import content_loss, total_variation
from scumble.train.data import Crops, read_pictures
from scumble.train.loop import Recipe, fit, seeded, step_generator
from scumble.train.teacher import Teacher

STYLE_ZOOM = (0.7, 1.5)
"""Windows that styles are measured in, relative to ``style_size``: brushes of many widths are seen."""
WORKS_SHARE = 0.15
"""Of the crops that styles are measured on, those out of ``works``."""

MOVE = 7
"""Pixels by which a content is moved, at most, to see whether it is painted the same: a stride's worth."""

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
    """Features (N, C, H, W) -> mean (N, C) and second moment (N, C, C)."""
    flat = f.flatten(2)
    # divided first: in half precision's formats the sum would lose more than the share does
    return flat.mean(2).float(), (flat @ (flat / flat.shape[2]).transpose(1, 2)).float()


def style_distance(made: list[Tensor], target: list[tuple[Tensor, Tensor]], weights: tuple[float, ...] = (1, 1, 1, 1, 1)) -> Tensor:
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


def structure_distance(made: Tensor, content: Tensor, cells: int = 12, temperature: float = 0.1) -> Tensor:
    """Kullback-Leibler divergence of self-similarity maps on a grid of cells (after CFSD, Chung et al. 2024)."""

    def logs(f: Tensor) -> Tensor:
        f = F.adaptive_avg_pool2d(f, cells).flatten(2).transpose(1, 2)
        f = F.normalize(f - f.mean(1, keepdim=True), dim=2)
        return F.log_softmax(f @ f.transpose(1, 2) / temperature, 2)

    p, q = logs(made), logs(content)
    return (p.exp() * (p - q)).sum(2).mean()


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


def motion_loss(painted: Tensor, other: Tensor, moved: tuple[int, int], border: int = MARGIN) -> Tensor:
    """Mean absolute difference of two paintings of one scene where both show it, one seen ``moved`` (rows, columns) further on.

    What flickers when a camera pans: nets with strides paint a moved picture differently (Zhang 2019, "Making convolutional networks
    shift-invariant again"). ``border`` pixels, where the padding shows, don't count.
    """
    (rows, columns), (h, w) = moved, painted.shape[2:]
    top, left = border + max(rows, 0), border + max(columns, 0)
    bottom, right = h - border + min(rows, 0), w - border + min(columns, 0)
    return (painted[:, :, top:bottom, left:right] - other[:, :, top - rows : bottom - rows, left - columns : right - columns]).abs().mean()


@dataclass(frozen=True)
class Lesson:
    """Styles to paint in: the generator's input, and what the judge wants to see."""

    vector: Tensor
    target: list[tuple[Tensor, Tensor]]

    def split(self) -> list[Lesson]:
        """One a style, in half the memory (bfloat16: second moments go beyond half precision's range)."""
        return [
            Lesson(self.vector[i : i + 1], [(m[i : i + 1].bfloat16(), g[i : i + 1].bfloat16()) for m, g in self.target])
            for i in range(len(self.vector))
        ]

    @staticmethod
    def joined(parts: list[Lesson]) -> Lesson:
        """Several as one batch, in float32."""
        target = [
            (torch.cat([m for m, _ in level]).float(), torch.cat([g for _, g in level]).float())
            for level in zip(*(p.target for p in parts), strict=True)
        ]
        return Lesson(torch.cat([p.vector for p in parts]), target)


class Balance:
    """The content's weight, steered so that the content distance stays at ``target`` (an integral controller)."""

    def __init__(self, target: float, weight: float = 0.4) -> None:
        self.target = target
        self.memory = {"content_weight": weight}

    def update(self, distance: float) -> float:
        """The weight for the next step, after ``distance`` in this one."""
        self.memory["content_weight"] = min(10.0, max(0.05, self.memory["content_weight"] * math.exp(0.05 * (distance - self.target))))
        return self.memory["content_weight"]


JUDGES = ("eye", "distilled", "teacher")


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
    size: int = 128,
    batch: int = 4,
    style_size: int = 192,
    works: Path | None = None,
    cache: int = 0,
    content_target: float = 0.7,
    device: str = "cpu",
    bfloat16: bool = False,
    validate: Callable[[Generator, Eye], Mapping[str, float]] | None = None,
    validate_minutes: float = 15.0,
) -> Generator:
    """Train (or go on training what ``folder`` holds); returns the moving average.

    Args:
        judge: ``eye``, ``distilled`` or ``teacher``: in whose features losses are measured, see :class:`~scumble.train.teacher.Teacher`.
        warm_steps: first steps as an auto-encoder, the content being its own style; without them colours take thousands of steps to come.
        size: side of the content's square crops in pixels. Larger ones paint whole pictures better, as the statistics of
            a deep level on a small crop are mostly chance: begin at 128, end with the pack's whole pictures at 288.
        style_size: side of the crops that styles are measured on, in pixels; 288 to end with.
        works: a folder of further styles, larger than those of the pack: there brushes are as wide as users' pictures have them.
        cache: so many style crops are seen by eye and judge once and their statistics kept (1.2 MB each);
            0 draws fresh ones in every step, the better choice on a GPU.
        content_target: the content distance to hold, see :class:`Balance`; on crops of 128 pixels it is 1.6 times that on whole pictures.
        bfloat16: networks (not losses) in bfloat16: on GPUs, and on processors that have it, a third less time.
        validate: called with the moving average and the eye; see :meth:`scumble.train.validation.Pairs.validate`.
    """
    if judge not in JUDGES:
        raise UsageError(unknown("judge", judge, JUDGES))
    if judge != "eye" and teacher_folder is None:
        raise UsageError(f"the judge {judge!r} needs the teacher networks: name their folder with --teacher, or let the eye judge")
    contents = Crops(read_pictures(pack / "content.tar"), device)
    painted_by_hand = [p for n in ("style.tar", "style_small.tar") for p in read_pictures(pack / n)]
    if works is not None:
        larger = read_pictures(works)
        painted_by_hand += larger * max(1, round(WORKS_SHARE / (1 - WORKS_SHARE) * len(painted_by_hand) / len(larger)))
    styles = Crops(painted_by_hand, device)
    last = torch.channels_last
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    teacher = None
    if judge != "eye" and teacher_folder is not None:
        teacher = Teacher(teacher_folder, exact=judge == "teacher", padded=False).to(device).eval()
    generator = start or seeded(lambda: Generator(shape), recipe.seed)
    generator = generator.to(device).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    if start is None:
        generator.style_mean, generator.style_std = _standardise(eye, styles, style_size)
    balance = Balance(content_target)

    def cast() -> torch.autocast:
        return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16)

    def seen(x: Tensor) -> list[Tensor]:
        with cast():
            return [t if bfloat16 else t.float() for t in (eye(x) if teacher is None else teacher(x))]

    def drawn(n: int, rng: torch.Generator) -> Lesson:
        y = styles.batch(n, style_size, rng, zoom=STYLE_ZOOM).contiguous(memory_format=last)
        with torch.no_grad():
            return Lesson(style_vector(eye(y)), [moments(t) for t in seen(y)])

    kept = [part for i in range(cache // batch) for part in drawn(batch, step_generator(recipe.seed + 1, i)).split()]

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        assert isinstance(model, Generator)
        x, later, moved = moved_apart(contents.batch(batch, size + 2 * MOVE, rng, zoom=(0.8, 2.0)), rng)
        x, later = x.contiguous(memory_format=last), later.contiguous(memory_format=last)
        if step < warm_steps:
            with torch.no_grad():
                own = style_vector(eye(x))
            painted = model(x, own)
            l1, over = (painted - x).abs().mean(), (painted - painted.clamp(0, 1)).square().mean()
            return 4 * l1 + over, {"identity": l1.detach(), "over": over.detach()}
        # every other step one of the batch is asked for itself: without it strength 0 has nothing to stand on
        same = step % 2
        lesson = (
            Lesson.joined([kept[i] for i in torch.randint(len(kept), (batch - same,), generator=rng).tolist()])
            if kept
            else drawn(batch - same, rng)
        )
        with torch.no_grad():
            own = [style_vector(eye(x[:same]))] if same else []
        modulation = model.modulation(torch.cat([*own, lesson.vector]))
        beyond: list[Tensor] = []
        painted, statistics = model.paint(x, modulation, excess=beyond)
        excess = torch.stack(beyond).sum()
        motion = motion_loss(painted, model.paint(later, modulation, statistics, 1.0)[0], moved)
        made = [t[same:] for t in seen(painted)]
        with torch.no_grad(), cast():  # the exact relu3_1 of the content would cost as much as all the rest
            wanted = eye(x[same:])[3] if teacher is None else teacher.deep(x[same:])[0]
        content = content_loss(made[3].float(), wanted.float())
        with cast():
            style = style_distance(made, lesson.target)
        over = (painted - painted.clamp(0, 1)).square().mean()
        identity = (painted[:same] - x[:same]).abs().mean() if same else x.new_zeros(())
        grid = grid_loss(painted[same:])
        weight = balance.update(float(content.detach()))
        smooth = 0.05 * total_variation(painted) + 0.3 * grid + 2 * motion
        loss = 2 * style + weight * content + 4 * identity + smooth + 10 * (over + excess)
        numbers = {"style": style, "content": content, "grid": grid, "motion": motion, "identity": 2 * identity, "over": over}
        numbers["excess"] = excess
        return loss, {k: v.detach() for k, v in numbers.items()} | {"weight": weight}

    def check(model: nn.Module, step: int) -> Mapping[str, float]:
        assert validate is not None
        assert isinstance(model, Generator)
        return validate(model, eye)

    trained = fit(
        generator, loss_of, recipe, folder, validate=check if validate else None, validate_minutes=validate_minutes, memory=balance.memory
    )
    assert isinstance(trained, Generator)
    return trained


@torch.no_grad()
def _standardise(eye: Eye, styles: Crops, size: int, n: int = 512) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(54321)
    v = torch.cat([style_vector(eye(styles.batch(16, size, rng, zoom=STYLE_ZOOM))) for _ in range(n // 16)])
    return v.mean(0), v.std(0).clamp_min(1e-3)
