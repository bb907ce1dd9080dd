"""Tune the generator to one style, from one picture of it and a few photographs, in a minute.

The generator predicts from a style's statistics how to paint it. What it predicts is good for any style and best for none: moved
freely, gains, biases and the kernels of the way up (5 539 numbers of the 40 355 that a style sets) gain more in a hundred steps than the
whole net does in thousands, and as much as when the mixing matrices move as well. Those numbers are kept with the style, as an offset
to what is predicted, so strength, blends and frozen statistics work as they do without; all of the net's weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scumble.engine import EYE_MULTIPLE
from scumble.errors import UsageError, in_range
from scumble.fusion import Moments
from scumble.nets.finish import narrow, of_texture
from scumble.nets.generator import MULTIPLE, Generator
from scumble.nets.vgg import load_encoder
from scumble.picture import Picture
from scumble.style import Style, Tuning, at_reference
from scumble.train.data import Crops
from scumble.train.export import generator_id, load_generator
from scumble.train.generator import missed_in
from scumble.train.judge import Balance, Judge, Views, painting_loss
from scumble.train.loop import Recipe, fit
from scumble.train.settings import at_least, sides

RECIPE = Recipe(steps=120, learning_rate=5e-3, warm_up=5, ema=0.9, clip=0.0, log_every=20)

CONTENT_WEIGHT = 0.9
"""What the content distance weighs, where style weighs 2. Held at a distance of 0.6 in place of a weight, twelve styles came to the same
balance."""

KEPT = 0.7
"""How much of what was learnt is kept. It was learnt on other photographs than those that will be painted. 24 pairs, their twelve styles
practised (content, structure, style): 0.464, 0.304, 0.543 without, 0.465, 0.298, 0.522 with 0.6 of it, 0.470, 0.298, 0.520 with 0.7,
0.476, 0.300, 0.519 with 0.8, 0.490, 0.306, 0.520 with all of it: drafts, practised as drafts. Practised as what is painted after a look,
drafts with 0.7 of it have 0.461, 0.296, 0.520, and that itself 0.470, 0.304, 0.507, with larger patches 0.503."""


class _Offset(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(start)


@torch.no_grad()
def _start(style: Style, painter: Generator, earlier: Generator | None) -> Tensor:
    """Where tuning begins (1, T): at nothing, or at what the style set with ``earlier`` in so far as it can be tuned."""
    if earlier is None or style.tuning is None:
        return torch.zeros(1, painter.tunable)
    vector, learnt = torch.from_numpy(style.vector)[None], torch.from_numpy(style.tuning.offset.astype(np.float32))[None]
    moved = earlier.modulation(vector, learnt) - painter.modulation(vector)
    first = 2 * sum(painter.norms)
    return torch.cat([moved[:, :first], moved[:, first + painter.modulations - painter.tunable :]], 1)


def tune(
    style: Style,
    photos: Crops,
    judge: Judge,
    target: Sequence[tuple[Tensor, Tensor]],
    recipe: Recipe = RECIPE,
    *,
    content_weight: float = CONTENT_WEIGHT,
    size: int = 256,
    batch: int = 2,
    earlier: Generator | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Style:
    """``style`` with a tuning by which the installed generator paints ``photos`` in it better.

    Args:
        judge: in whose features; the teacher is the best one, the sight and the eye need nothing but this package.
        target: what ``judge`` should measure: :func:`target_of_style` for the eye, else :func:`target_of_pictures`.
        content_weight: pulls towards the content's layout.
        size: side of the photographs' square crops in pixels.
        earlier: the generator that ``style`` has a tuning for, to go on from that: what is predicted now and what was then may differ.
        progress: called with (steps done, steps in all, loss).
    """
    sides(MULTIPLE, size=size)
    at_least(1, batch=batch)
    in_range("content-weight", content_weight, 0, 100)
    device = judge.device
    painter = load_generator().eval().requires_grad_(False)
    start = _start(style, painter, earlier).to(device) / KEPT
    painter = painter.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    eye = load_encoder("eye", device=device)
    vector = torch.from_numpy(style.vector)[None].to(device)
    target = [(mean.to(device), second.to(device)) for mean, second in target]
    # of smaller patches, though larger ones are painted with: half as many more seconds brought 0.001 of style distance, 0.004 of content
    wanted = None if style.texture is None else narrow(of_texture(torch.from_numpy(style.texture)[None].to(device)))
    balance = Balance(0.0, content_weight, pace=0.0)

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        assert isinstance(model, _Offset)
        views = Views.drawn(photos, batch, size, rng)
        # practised is what is shown: the second painting, after a look at the first
        plain = painter.modulation(vector, model.offset).detach().expand(batch, -1)
        missed = missed_in(painter, eye, views.contents, plain, vector.expand(batch, -1), wanted)
        modulation = painter.modulation(vector.expand(batch, -1), model.offset.expand(batch, -1), missed=missed)
        loss, numbers, _ = painting_loss(painter, judge, views, modulation, target, wanted, balance)
        if progress is not None:
            progress(step + 1, recipe.steps, float(loss.detach()))
        return loss, numbers

    with TemporaryDirectory() as folder:  # a minute's work needs no checkpoint that outlives it
        found = fit(_Offset(start), loss_of, recipe, Path(folder), memory=balance.memory)
    assert isinstance(found, _Offset)
    offset = (KEPT * found.offset.detach()[0].cpu().numpy()).astype(np.float16)
    return replace(style, tuning=Tuning(offset, generator_id()))


def practise(
    style: Style,
    photos: Sequence[Picture],
    pictures: Sequence[Picture] = (),
    recipe: Recipe = RECIPE,
    progress: Callable[[int, int, float], None] | None = None,
) -> Style:
    """``style`` tuned on ``photos``, a handful will do, with nothing but what comes with this package.

    With the ``pictures`` that the style was made from the sight judges, which predicts VGG-19's features; what a Style holds by itself are
    the eye's statistics, so without them the eye does. UsageError if there are no photographs.
    """
    if not photos:
        raise UsageError("tuning needs one photograph at least; got none")
    judge = Judge.named("sight" if pictures else "eye")
    target = target_of_pictures(judge, pictures) if pictures else target_of_style(style)
    return tune(style, crops_of(photos), judge, target, recipe, progress=progress)


def target_of_style(style: Style) -> list[tuple[Tensor, Tensor]]:
    """Means (1, C) and second moments (1, C, C) that the eye should see: a Style holds them."""

    def moments(level: Moments) -> tuple[Tensor, Tensor]:
        second: NDArray[np.float64] = level.covariance + np.outer(level.mean, level.mean)
        return torch.from_numpy(level.mean.astype(np.float32))[None], torch.from_numpy(second.astype(np.float32))[None]

    return [moments(level) for level in style.levels]


def target_of_pictures(judge: Judge, pictures: Sequence[Picture]) -> list[tuple[Tensor, Tensor]]:
    """The same as any ``judge`` sees them, of one picture or the mean of several, each at the size at which styles are measured."""
    seen = [judge.target(_pixels(picture, judge.device)) for picture in pictures]
    return [tuple(torch.stack(parts).mean(0) for parts in zip(*level, strict=True)) for level in zip(*seen, strict=True)]  # pyright: ignore[reportReturnType]


def crops_of(photos: Sequence[Picture], device: str = "cpu") -> Crops:
    """Photographs to practise on, none larger than :data:`~scumble.style.REFERENCE` pixels squared."""
    reduced = [np.rint(at_reference(p).pixels.transpose(2, 0, 1) * 255).astype(np.uint8) for p in photos]
    return Crops([torch.from_numpy(np.ascontiguousarray(p)) for p in reduced], device)


def _pixels(picture: Picture, device: str) -> Tensor:
    x = at_reference(picture).pixels
    height, width = (max(EYE_MULTIPLE, n // EYE_MULTIPLE * EYE_MULTIPLE) for n in x.shape[:2])
    return torch.from_numpy(np.array(x[:height, :width].transpose(2, 0, 1)))[None].to(device).contiguous(memory_format=torch.channels_last)
