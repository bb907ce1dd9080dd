"""Distil the eye: 1×1 heads on its taps learn to predict VGG-19's features on photographs and paintings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scumble.nets.eye import LEVELS, Eye, Heads
from scumble.train.data import Crops, read_pictures
from scumble.train.loop import Recipe, fit, seeded, step_generator
from scumble.train.settings import at_least, on_device, sides
from scumble.train.teacher import Teacher

RECIPE = Recipe(steps=2400, learning_rate=3e-3, warm_up=30, ema=0.99)
SETS = ("content.tar", "style.tar", "style_small.tar")
"""Of the training pack."""


class Pupil(nn.Module):
    """The eye with its heads, as one thing to train and to checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = Eye()
        self.heads = Heads()

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.heads(self.eye(x))


@torch.no_grad()
def channel_scales(teacher: Teacher, pictures: Crops, size: int, n: int = 96) -> list[Tensor]:
    """Mean activation of each teacher channel, (1, C, 1, 1) a level: dividing by it gives Gatys' normalised VGG."""
    rng = torch.Generator().manual_seed(12345)
    total: list[Tensor] | None = None
    for _ in range(n // 8):
        means = [t.mean((0, 2, 3), keepdim=True) for t in teacher(pictures.batch(8, size, rng))]
        total = means if total is None else [a + b for a, b in zip(total, means, strict=True)]
    assert total is not None
    return [(t / (n // 8)).clamp_min(1e-4) for t in total]


def correlations(predicted: list[Tensor], target: list[Tensor]) -> list[float]:
    """Pearson correlation of all activations, a level. In float64: in float32 the sums lose the many small activations of relu1_1."""

    def one(p: Tensor, t: Tensor) -> float:
        p, t = p.double() - p.double().mean(), t.double() - t.double().mean()
        return float((p * t).sum() / (p.square().sum() * t.square().sum()).sqrt())

    return [one(p, t) for p, t in zip(predicted, target, strict=True)]


def train_eye(
    pack: Path,
    teacher_folder: Path,
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    size: int = 144,
    batch: int = 8,
    cache: int = 0,
    device: str = "cpu",
    bfloat16: bool = False,
) -> Pupil:
    """Distil on ``pack``'s ``content.tar``, ``style.tar`` and ``style_small.tar``; checkpoints and logs go to ``folder``.

    The exact teacher costs more than the pupil's own training, so ``cache`` crops can have their targets computed once and
    kept (2.5 MB each at 144 px, half precision). On a GPU 0, fresh crops in every step, is the better choice.
    """
    on_device(device)
    sides(size=size)
    at_least(1, batch=batch)
    at_least(0, cache=cache)
    crops = Crops([p for n in SETS for p in read_pictures(pack / n)], device)
    held = Crops([p for n in SETS for p in read_pictures(pack / n, held_out=True, limit=20)], device)
    teacher = Teacher(teacher_folder).to(device)
    scales = channel_scales(teacher, crops, size)
    pupil = seeded(Pupil, recipe.seed).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def cast() -> torch.autocast:
        return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16)

    @torch.no_grad()
    def targets(x: Tensor) -> list[Tensor]:
        with cast():
            return [t.float() / s for t, s in zip(teacher(x), scales, strict=True)]

    kept: list[tuple[Tensor, list[Tensor]]] = []
    for index in range(cache // batch):
        x = crops.batch(batch, size, step_generator(recipe.seed + 1, index))
        deep = [t.half().permute(0, 2, 3, 1).contiguous() for t in targets(x)[1:]]
        kept += [(x[i], [t[i].clone() for t in deep]) for i in range(batch)]

    def draw(rng: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        if not kept:
            x = crops.batch(batch, size, rng)
            return x, targets(x)
        chosen = [kept[i] for i in torch.randint(len(kept), (batch,), generator=rng).tolist()]
        x = torch.stack([c[0] for c in chosen]).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            shallow = teacher.first(x) / scales[0]  # cheap to compute, dear to keep
        # targets in the pupil's memory layout: a difference across layouts takes longer than the convolutions
        return x, [shallow, *(torch.stack(t).float().permute(0, 3, 1, 2) for t in zip(*(c[1] for c in chosen), strict=True))]

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        x, target = draw(rng)
        numbers = {}
        loss = x.new_zeros(())
        with cast():
            predicted = model(x.contiguous(memory_format=torch.channels_last))
        for level, p, t in zip(LEVELS, predicted, target, strict=True):
            # share of the variance left unexplained: the same scale at every level
            numbers[level] = (p - t).square().mean() / t.var()
            loss = loss + numbers[level]
        return loss, {k: v.detach() for k, v in numbers.items()}

    @torch.no_grad()
    def validate(model: nn.Module, step: int) -> Mapping[str, float]:
        rng = torch.Generator().manual_seed(7)
        predicted, target = [], []
        for _ in range(6):
            x = held.batch(8, size, rng)
            predicted.append(model(x))
            target.append(targets(x))
        return dict(
            zip(
                LEVELS,
                correlations([torch.cat(p) for p in zip(*predicted, strict=True)], [torch.cat(t) for t in zip(*target, strict=True)]),
                strict=True,
            )
        )

    pupil = fit(pupil, loss_of, recipe, folder, validate=validate, validate_minutes=8)
    assert isinstance(pupil, Pupil)
    return pupil
