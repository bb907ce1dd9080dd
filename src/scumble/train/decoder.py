"""Train the decoders: first each block to undo the eye's own, then all of them to paint as a chain.

A block is trained on features as they are and on fused ones, which no picture has. Of those it can't know what they come from; but looked
at again they should be what they were, and their statistics the style's. All of it is measured between two neighbouring levels, so blocks
don't wait for each other, and what one fails at is not what the next one has to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from scumble.cascade import OWN
from scumble.engine import EYE_MULTIPLE
from scumble.errors import in_range
from scumble.fusion import Moments, affine
from scumble.fusion import moments as measure
from scumble.nets.decoder import Decoder
from scumble.nets.eye import LEVELS, Eye
from scumble.nets.finish import autocovariances, finish
from scumble.nets.losses import content_loss, total_variation
from scumble.train.data import Crops, read_pictures, recolored
from scumble.train.eye import SETS
from scumble.train.generator import STYLE_ZOOM
from scumble.train.judge import Balance, Judge, grid_loss, moments, style_distance
from scumble.train.loop import Recipe, fit, seeded
from scumble.train.settings import at_least, on_device, sides

RECIPE = Recipe(steps=2500, learning_rate=2e-3, warm_up=30, ema=0.995)
CASCADE = Recipe(steps=3500, learning_rate=1e-3, warm_up=50, ema=0.995)
METHODS = ("ot", "wct", "adain", "ot", "linear")
"""Fused by in turn, step after step."""
_RIDGE = 1e-4
"""Added to products before they are inverted, relative to their mean."""


def unexplained(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference as a share of the variance of ``b``: the same scale at every level."""
    return (a - b).square().mean() / b.var().clamp_min(1e-6)


def train_decoder(
    pack: Path,
    eye: Eye,
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    level: int | None = None,
    start: Decoder | None = None,
    size: int = 192,
    batch: int = 4,
    device: str = "cpu",
) -> Decoder:
    """Each block against the eye's block that it undoes; crops of ``size`` pixels.

    ``level`` trains that block alone, the others as they are in ``start``; None trains all.
    """
    on_device(device)
    sides(EYE_MULTIPLE, size=size)
    at_least(2, batch=batch)  # half as many are fused
    pictures = Crops([p for n in SETS for p in read_pictures(pack / n)], device)
    held = Crops([p for n in SETS for p in read_pictures(pack / n, held_out=True, limit=16)], device)
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    decoder = (start or seeded(Decoder, recipe.seed)).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    levels = range(1, 6) if level is None else (level,)
    for k in range(1, 6):
        decoder.block(k).requires_grad_(k in levels)

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert isinstance(model, Decoder)
        x, y = (
            recolored(pictures.batch(n, size, rng), rng, 0.4).contiguous(memory_format=torch.channels_last) for n in (batch, batch // 2)
        )
        with torch.no_grad():
            taps, styles = [x, *eye(x, max(levels))], eye(y, max(levels))
        loss = x.new_zeros(())
        numbers: dict[str, Tensor] = {}
        for k in levels:
            tap, style = taps[k], styles[k - 1]
            mixed = fused(tap[: len(y)], measured(style), METHODS[step % len(METHODS)])
            made = model.block(k)(torch.cat([tap, mixed]).contiguous(memory_format=torch.channels_last))
            seen = eye.block(k, made)
            inverse = unexplained(made[:batch], taps[k - 1])
            again = unexplained(seen[:batch], tap) + 0.5 * unexplained(seen[batch:], mixed.clamp_min(0))
            statistics = style_distance([seen[batch:]], [moments(style)], (1,))
            numbers |= {f"inverse{k}": inverse.detach(), f"again{k}": again.detach(), f"statistics{k}": statistics.detach()}
            loss = loss + inverse + again + statistics
        return loss, numbers

    @torch.no_grad()
    def validate(model: nn.Module, step: int) -> Mapping[str, float]:
        """Peak signal-to-noise ratio in dB of held-out crops, from each level."""
        assert isinstance(model, Decoder)
        x = held.batch(16, size, torch.Generator().manual_seed(7))
        taps = eye(x)
        return {
            f"psnr{k}": float(-10 * (model(taps[k - 1], k).clamp(0, 1) - x).square().mean((1, 2, 3)).log10().mean()) for k in range(1, 6)
        }

    trained = fit(decoder, loss_of, recipe, folder, validate=validate, validate_minutes=8)
    assert isinstance(trained, Decoder)
    return trained


def measured(features: Tensor) -> list[Moments]:
    """Of each sample of (N, C, h, w)."""
    return [measure(f.float().cpu().numpy()) for f in features]


def fused(features: Tensor, styles: list[Moments], method: str) -> Tensor:
    """Features (N, C, h, w) with the statistics of ``styles``, one a sample.

    The map is made outside of autograd, which then believes that stronger features before it are stronger features after it, when a map
    made anew takes that back. So a gradient loses its linear regression on what the map gave: all that a linear change before it could do.
    """
    maps = [affine(method, content, style, 1.0) for content, style in zip(measured(features.detach()), styles, strict=True)]
    out: list[Tensor] = []
    for f, m in zip(features, maps, strict=True):
        matrix = torch.from_numpy(m.matrix).to(f)
        diagonal = matrix.ndim == 1
        mapped = torch.einsum("dc,chw->dhw", matrix.diag() if diagonal else matrix, f) + torch.from_numpy(m.offset).to(f)[:, None, None]
        if mapped.requires_grad:
            mapped.register_hook(partial(_unregressed, on=mapped.detach(), diagonal=diagonal))
        out.append(mapped)
    return torch.stack(out).contiguous(memory_format=torch.channels_last)


def _unregressed(gradient: Tensor, *, on: Tensor, diagonal: bool) -> Tensor:
    """What is left of (C, h, w) when its least-squares fit by an affine map of ``on``, or of each channel alone, is taken away."""
    g, z = ((t - t.mean((1, 2), keepdim=True)).flatten(1).double() for t in (gradient, on))
    if diagonal:
        energy = z.square().sum(1, keepdim=True)
        fit = (g * z).sum(1, keepdim=True) / (energy + _RIDGE * energy.mean()) * z
    else:
        products = z @ z.T
        ridge = _RIDGE * products.diagonal().mean() * torch.eye(len(z)).to(products)
        fit = torch.linalg.solve(products + ridge, z @ g.T).T @ z
    return (g - fit).to(gradient).reshape(gradient.shape)


def train_cascade(
    pack: Path,
    eye: Eye,
    decoder: Decoder,
    folder: Path,
    recipe: Recipe = CASCADE,
    *,
    judge: str = "eye",
    teacher_folder: Path | None = None,
    size: int = 240,
    batch: int = 2,
    style_size: int = 256,
    content_target: float = 0.62,
    device: str = "cpu",
    bfloat16: bool = False,
) -> Decoder:
    """Go on training the whole chain as :func:`scumble.cascade.paint` uses it, fused at every level.

    The painted picture is finished and judged: its statistics should be the style's, its layout the content's. Every third step one of
    the batch is left unfused and must come back as it was, or the decoder would forget to reconstruct.

    Args:
        judge: in whose features losses are measured, see :class:`~scumble.train.judge.Judge`.
        size: side of the content's crops in pixels.
        style_size: side of the crops that styles are measured on.
        content_target: the content distance to hold, see :class:`~scumble.train.judge.Balance`.
        bfloat16: networks (not losses, nor what is fused) in bfloat16.
    """
    on_device(device)
    sides(EYE_MULTIPLE, size=size)
    sides(style_size=style_size)
    at_least(2, batch=batch)  # one in every third is left unfused
    in_range("content-target", content_target, 0, 10)
    last = torch.channels_last
    contents = Crops(read_pictures(pack / "content.tar"), device)
    works = Crops([p for n in SETS[1:] for p in read_pictures(pack / n)], device)
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    decoder = decoder.to(device).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    watching = Judge.named(judge, teacher_folder, device, bfloat16, eye)
    balance = Balance(content_target)

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        assert isinstance(model, Decoder)
        same = int(step % 3 == 1)
        x = contents.batch(batch, size, rng, zoom=(0.8, 2.0)).contiguous(memory_format=last)
        y = recolored(works.batch(batch - same, style_size, rng, zoom=STYLE_ZOOM), rng).contiguous(memory_format=last)
        with torch.no_grad():
            styles = [measured(tap) for tap in eye(y)]
            target = watching.target(y)
            with watching.cast():
                taps, wanted = eye(x), watching.layout(x[same:])
        painted = taps[4].float()
        for k in range(5, 0, -1):
            if k < 5:
                painted = torch.lerp(painted, taps[k - 1].float(), OWN[k - 1])
            mixed = fused(painted[same:], styles[k - 1], METHODS[step % len(METHODS)])
            with watching.cast():
                painted = model.block(k)(torch.cat([painted[:same], mixed]).contiguous(memory_format=last))
            painted = painted.float()
        painted = torch.cat([painted[:same], finish(painted[same:], x[same:], autocovariances(y))[0]])
        made = [t[same:] for t in watching.seen(painted)]
        content = content_loss(made[watching.at].float(), wanted.float())
        with watching.cast():
            style = style_distance(made[: len(LEVELS)], target)
        identity = (painted[:same] - x[:same]).abs().mean() if same else x.new_zeros(())
        over, grid = (painted - painted.clamp(0, 1)).square().mean(), grid_loss(painted[same:])
        weight = balance.update(float(content.detach()))
        loss = 2 * style + weight * content + 4 * identity + 0.05 * total_variation(painted) + 0.3 * grid + 10 * over
        parts = {"style": style, "content": content, "identity": 3 * identity, "grid": grid, "over": over}
        return loss, {k: v.detach() for k, v in parts.items()} | {"weight": weight}

    trained = fit(decoder, loss_of, recipe, folder, memory=balance.memory)
    assert isinstance(trained, Decoder)
    return trained
