"""Train the decoders: first to undo the eye (reconstruction alone, no style data), then mended on fused features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scumble.cascade import OWN
from scumble.fusion import Moments, affine
from scumble.fusion import moments as measure
from scumble.nets.decoder import Decoder
from scumble.nets.eye import Eye
from scumble.nets.losses import content_loss
from scumble.train.data import Crops, read_pictures
from scumble.train.judge import moments, style_distance
from scumble.train.loop import Recipe, fit, seeded

RECIPE = Recipe(steps=2000, learning_rate=2e-3, warm_up=30, ema=0.99)
MEND = Recipe(steps=800, learning_rate=5e-4, warm_up=20, ema=0.99)


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
    size: int = 128,
    batch: int = 8,
    device: str = "cpu",
) -> Decoder:
    """Reconstruction. ``level`` trains that block alone, the others as they are in ``start``; None trains the whole chain.

    Half of each batch gives every block the true features, the other half what the block before it made, so the
    blocks learn to work alone and in a chain at the price of one pass.
    """
    names = ("content.tar", "style.tar", "style_small.tar")
    crops = Crops([p for n in names for p in read_pictures(pack / n)], device)
    held = Crops([p for n in names for p in read_pictures(pack / n, held_out=True, limit=16)], device)
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    decoder = (start or seeded(Decoder, recipe.seed)).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if level is not None:
        for k in range(1, 6):
            decoder.block(k).requires_grad_(k == level)

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert isinstance(model, Decoder)
        x = crops.batch(batch, size, rng).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            taps = eye(x)
        h = taps[4]
        half = batch // 2
        loss = x.new_zeros(())
        numbers: dict[str, Tensor] = {}
        for k in range(5, 1, -1):
            made = model.block(k)(h)
            numbers[f"relu{k - 1}_1"] = unexplained(made, taps[k - 2])
            loss = loss + numbers[f"relu{k - 1}_1"]
            h = torch.cat([taps[k - 2][:half], made[half:]])
        y = model.block(1)(h)
        numbers["pixel"] = unexplained(y, x) + F.l1_loss(y, x) / x.std()
        numbers["feature"] = sum((unexplained(a, b) for a, b in zip(eye(y, 4), taps, strict=False)), x.new_zeros(()))
        loss = loss + numbers["pixel"] + 0.25 * numbers["feature"]
        return loss, {k: v.detach() for k, v in numbers.items()}

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


def fused(features: Tensor, styles: list[Moments], method: str) -> Tensor:
    """Features (N, C, h, w) with the statistics of ``styles``, one a sample. Gradients flow through the map, not through its making."""
    maps = [affine(method, measure(f.detach().float().cpu().numpy()), s, 1.0) for f, s in zip(features, styles, strict=True)]
    out = []
    for f, m in zip(features, maps, strict=True):
        matrix = torch.from_numpy(m.matrix).to(f)
        matrix = torch.diag(matrix) if matrix.ndim == 1 else matrix
        out.append(torch.einsum("dc,chw->dhw", matrix, f) + torch.from_numpy(m.offset).to(f)[:, None, None])
    return torch.stack(out).contiguous(memory_format=torch.channels_last)


def mend_decoder(
    pack: Path,
    eye: Eye,
    decoder: Decoder,
    folder: Path,
    recipe: Recipe = MEND,
    *,
    methods: tuple[str, ...] = ("wct", "ot"),
    size: int = 144,
    batch: int = 4,
    content_weight: float = 0.3,
    device: str = "cpu",
) -> Decoder:
    """Go on training on fused features, which no picture of the reconstruction ever had.

    The decoded picture is looked at again: its statistics should be the style's, its layout the content's. One sample of
    each batch is left unfused and must come back as it was, or the decoder would forget to reconstruct.
    """
    contents = Crops(read_pictures(pack / "content.tar"), device)
    works = Crops([p for n in ("style.tar", "style_small.tar") for p in read_pictures(pack / n)], device)
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    decoder = decoder.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert isinstance(model, Decoder)
        x = contents.batch(batch, size, rng).contiguous(memory_format=torch.channels_last)
        y = works.batch(batch, size, rng).contiguous(memory_format=torch.channels_last)
        method = methods[step % len(methods)]
        with torch.no_grad():
            taps, style_taps = eye(x), eye(y)
            styles = [[measure(t.cpu().numpy()) for t in tap[1:]] for tap in style_taps]
            target = [moments(t[1:]) for t in style_taps]
        h = taps[4]
        for k in range(5, 0, -1):
            if k < 5:
                h = torch.lerp(h, taps[k - 1], OWN)
            h = model.block(k)(torch.cat([h[:1], fused(h[1:], styles[k - 1], method)]))
        seen = eye(h)
        style = style_distance([t[1:] for t in seen], target)
        content = content_loss(seen[3][1:], taps[3][1:])
        identity = unexplained(h[:1], x[:1])
        over = (h - h.clamp(0, 1)).square().mean()
        loss = style + content_weight * content + identity + 10 * over
        return loss, {"style": style.detach(), "content": content.detach(), "identity": identity.detach(), "over": over.detach()}

    trained = fit(decoder, loss_of, recipe, folder)
    assert isinstance(trained, Decoder)
    return trained
