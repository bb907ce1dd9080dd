"""Distil the sight: channels beside the eye's and heads learn to predict VGG-19's features, also on pictures that were painted.

The eye stays as it is. What is judged by a sight is mostly paintings in the making, so some crops are painted by the installed generator
in the library's styles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scumble import library
from scumble.engine import Engine
from scumble.nets.eye import LEVELS, Eye
from scumble.nets.finish import finish, of_texture
from scumble.nets.generator import MULTIPLE
from scumble.nets.sight import Sight
from scumble.style import Style
from scumble.train.data import Crops, read_pictures
from scumble.train.export import load_generator
from scumble.train.eye import SETS, channel_scales, correlations
from scumble.train.loop import Recipe, fit, seeded, step_generator
from scumble.train.settings import at_least, on_device, sides
from scumble.train.teacher import Teacher

RECIPE = Recipe(steps=6000, learning_rate=8e-4, warm_up=50, ema=0.995)
"""At three times the rate, relu4_1 learns nothing beyond what the eye's own channels tell."""

PAINTED = 3 / 8
"""Share of the crops that are painted."""
HELD = (6, 8, 192)
"""Validated on so many batches of so many crops, and their side in pixels."""
DEAR = 1 / 4
"""Share of the crops that the exact teacher sees as well: it costs ten times as much as the distilled one, and its levels learn faster."""


def train_sight(
    pack: Path,
    teacher_folder: Path,
    eye: Eye,
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    start: Sight | None = None,
    size: int = 160,
    batch: int = 8,
    device: str = "cpu",
    bfloat16: bool = False,
) -> Sight:
    """Distil on ``pack``'s ``content.tar``, ``style.tar`` and ``style_small.tar``; checkpoints and logs go to ``folder``.

    Begins with ``start``, or with heads that are least squares on the channels of ``eye``: heads drawn at random have channels that never
    fire, and those never learn.
    """
    on_device(device)
    sides(MULTIPLE, size=size)
    at_least(1, batch=batch)
    crops = Crops([p for n in SETS for p in read_pictures(pack / n)], device)
    held = Crops([p for n in SETS for p in read_pictures(pack / n, held_out=True, limit=20)], device)
    teacher = Teacher(teacher_folder).to(device)
    scales = channel_scales(teacher, crops, size)
    sight = start or seeded(lambda: Sight(eye), recipe.seed)
    for net in (sight.beside, sight.heads):
        net.requires_grad_(True)
    sight = sight.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def cast() -> torch.autocast:
        return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16)

    @torch.no_grad()
    def targets(x: Tensor) -> list[Tensor]:
        with cast():
            return [t.float() / s for t, s in zip(teacher(x), scales, strict=True)]

    if start is None:
        _solve_heads(sight, lambda i: crops.batch(batch, size, step_generator(recipe.seed + 2, i)), targets)
    generator = load_generator().requires_grad_(False).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    engine = Engine("cpu")
    built_in = [torch.from_numpy(Style.named(name).modulation(engine)) for name, entry in library.entries().items() if entry.path is None]
    modulations = torch.stack(built_in).to(device)
    n_painted, n_dear = round(PAINTED * batch), max(1, round(DEAR * batch))

    @torch.no_grad()
    def drawn(rng: torch.Generator) -> Tensor:
        x = crops.batch(batch, size, rng)
        if n_painted:
            chosen = torch.randint(len(modulations), (n_painted,), generator=rng)
            strength = 0.4 + 0.6 * torch.rand(n_painted, 1, 1, 1, generator=rng).to(device)
            plain = x[-n_painted:].contiguous(memory_format=torch.channels_last)
            net, texture = modulations[chosen.to(device)].tensor_split([generator.modulations], 1)
            painted = finish(generator.paint(plain, net)[0], plain, of_texture(texture))[0].clamp(0, 1)
            x[-n_painted:] = torch.lerp(plain, painted, strength)
        return x[torch.randperm(batch, generator=rng).to(device)].contiguous(memory_format=torch.channels_last)

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = drawn(rng)
        with torch.no_grad(), cast():
            deep = [t.float() / s for t, s in zip(teacher.deep(x), scales[3:], strict=True)]
        wanted = [*targets(x[:n_dear])[:3], *deep]
        with cast():
            predicted = model(x)
        numbers = {level: _unexplained(p[: len(t)].float(), t) for level, p, t in zip(LEVELS, predicted, wanted, strict=True)}
        return torch.stack(list(numbers.values())).sum(), {k: v.detach() for k, v in numbers.items()}

    @torch.no_grad()
    def validate(model: nn.Module, step: int) -> Mapping[str, float]:
        rng = torch.Generator().manual_seed(7)
        batches, n, side = HELD
        seen = [(model(x), targets(x)) for x in (held.batch(n, side, rng) for _ in range(batches))]
        predicted, wanted = ([torch.cat(level) for level in zip(*side, strict=True)] for side in zip(*seen, strict=True))
        return dict(zip(LEVELS, correlations(predicted, wanted), strict=True))

    trained = fit(sight, loss_of, recipe, folder, validate=validate, validate_minutes=8)
    assert isinstance(trained, Sight)
    return trained


def _unexplained(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Share of the variance left unexplained: half of it that of all channels, half the mean of each one's own.

    Content is compared in features whose channels all have one variance, so faint channels have to be right, too.
    """
    errors, variances = (predicted - wanted).square().mean((0, 2, 3)), wanted.var((0, 2, 3))
    return 0.5 * errors.mean() / variances.mean() + 0.5 * (errors / (variances + 0.1 * variances.mean())).mean()


@torch.no_grad()
def _solve_heads(sight: Sight, crops_at: Callable[[int], Tensor], targets: Callable[[Tensor], list[Tensor]], batches: int = 24) -> None:
    """Heads that predict by the eye's own channels alone, in the sense of least squares."""
    products: list[Tensor] = []
    for index in range(batches):
        x = crops_at(index)
        for level, (tap, wanted) in enumerate(zip(sight.eye(x), targets(x), strict=True)):
            a, b = (t.movedim(1, -1).flatten(0, 2).double() for t in (tap, wanted))
            a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
            product = a.T @ torch.cat([a, b], 1)
            products[level : level + 1] = [product + products[level] if index else product]
    for head, product in zip(sight.heads.heads, products, strict=True):
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        n = len(product)
        normal = product[:, :n]
        solved = torch.linalg.solve(normal + 1e-5 * normal.diagonal().mean() * torch.eye(n).to(normal), product[:, n:]).float()
        head.weight.zero_()
        head.weight[:, : n - 1] = solved[:-1].T[:, :, None, None]
        head.bias.copy_(solved[-1])
