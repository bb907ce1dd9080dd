"""Refinement: from a picture that was painted in one pass to one whose pixels are optimised.

The oldest way of style transfer (Gatys et al. 2016), begun where the quick one ends. Where it departs from the paper, and why:

- Pixels are the sum of a Laplacian pyramid of light and two colours, and its levels are what is moved. A descent that gives every number
  the same pace takes as many steps for a change of palette, which all pixels have to agree on, as for the finest grain, and grain
  comes first. In a pyramid the palette is a few numbers. This also replaces the usual run from small to large pictures, for
  which a style measured at one size has no right targets: here every step is judged at full size.
- The descent is L-BFGS without a line search, see :mod:`scumble.nets.descent`.
- The style loss is the Wasserstein distance of Gaussians by default and not the Gram matrices', see :mod:`scumble.nets.losses`.
- Pixels are fitted to the photograph (:mod:`scumble.guided`) before they are judged, as paintings are: the loss sees neighbourhoods as wide
  as halos and nothing of halos. See :data:`FITS`.
- Of each level's loss the square root counts. Losses of levels that are nearly right would hardly pull any more, and whichever
  level is worst would have all the say; roots weigh relative improvements alike.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scumble import errors
from scumble.fusion import Moments, mixture, moments
from scumble.guided import CELL
from scumble.nets.descent import PAIR_BYTES, PAIRS, Descent
from scumble.nets.guided import Fit, guide
from scumble.nets.losses import STYLE_LOSSES, MomentsLike
from scumble.nets.objective import Objective, padded

log = logging.getLogger(__name__)

Pixels = NDArray[np.float32]

PREVIEWS = 12
"""How often ``preview`` is called in a whole run."""
FITS = 2
"""How often pixels are fitted to the photograph in a row. Six pairs after 25 steps (content, structure, style; halo): 0.471, 0.284, 0.391;
8.1 once, 0.473, 0.282, 0.392; 7.0 twice, 0.477, 0.287, 0.394; 6.9 four times; at the end of the descent alone 0.470, 0.269, 0.401; 7.0."""
_EDGE = 1e-6
"""How near to black or white counts as there: sums over the pyramid round."""
_FINER_RATE = 0.7
"""Learning rate of each scale, relative to the next coarser one."""
_REMEMBERED = 0.2
"""Share of the memory that the descent may take for the steps that it remembers."""
_COLOURS = np.array([[1.6, 1.6, 1.6], [0.5, 0, -0.5], [0.35, -0.7, 0.35]]) / np.sqrt([[3], [2], [6]])
"""Light, red less blue, and both less green, each as long as its pace: what the pyramid's numbers are. Most of a brush stroke is light, and
where red, green and blue move at one pace grain is coloured first. Three pairs had a loss of 0.142 after 25 steps, 0.146 without."""


class NotFiniteError(errors.ScumbleError):
    """The loss was NaN or infinite from the first step on; the text names the part that broke."""


@dataclass(frozen=True, eq=False)
class Refined:
    """What a refinement came to."""

    pixels: Pixels
    """(H, W, 3) float32 in [0, 1]: those with the lowest loss on the way."""
    loss: float
    """Theirs."""
    steps: int
    """How many were taken."""
    interrupted: bool
    """Whether ``stop`` ended it."""


def refine(
    painted: Pixels,
    content: Pixels,
    style: Sequence[MomentsLike],
    encoder: nn.Module,
    *,
    steps: int,
    content_weight: float = 0.2,
    style_weight: float = 1.0,
    tv_weight: float = 0.2,
    structure_weight: float = 0.1,
    style_loss: str | None = None,
    content_level: int | None = None,
    scales: int = 5,
    learning_rate: float = 0.015,
    fit: bool = True,
    bfloat16: bool | None = None,
    seconds: float = math.inf,
    memory: float | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    preview: Callable[[Pixels], None] | None = None,
    stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Refined:
    """Optimise ``painted`` until its features have the style's statistics and the content's layout.

    Minimises content_weight · L_content + style_weight · mean over levels of √L_style + tv_weight · TV + structure_weight · L_structure by
    L-BFGS, the same steps however many there are to be. All losses are relative, so the weights need no tuning from style to style.
    Nothing is drawn at random: on a CPU the same input gives the same bytes, as long as the number of threads is the same.

    Args:
        painted: where to start, (H, W, 3) in [0, 1], any size.
        content: the picture whose layout is to be kept, of the same size.
        style: mean and covariance at each of the encoder's taps but those for layout alone: a Style's ``levels`` for the eye, else see
            :func:`style_statistics`.
        encoder: a frozen net as :func:`scumble.nets.vgg.load_encoder` gives it; the work is done on its device.
        steps: how many; 0 only measures.
        content_weight: pulls towards the content's layout.
        style_weight: pulls towards the style.
        tv_weight: holds down grain.
        structure_weight: keeps parts apart that are apart in the content. Six pairs after 25 steps (content, structure, style), from 0.496,
            0.274, 0.504: 0.527, 0.432, 0.365 without and the content's weight at 0.12, 0.524, 0.328, 0.371 with 0.05, 0.531, 0.302, 0.374
            with 0.15; 0.479, 0.297, 0.384 with 0.1 and the content's weight at 0.2.
        style_loss: a key of :data:`scumble.nets.losses.STYLE_LOSSES`; by default the encoder's own ``style_loss`` if it has one, else
            ``wasserstein``.
        content_level: which tap the content is compared at, counted from 0, the last one if there are fewer; by default the encoder's
            ``layout`` if it has such a number, else 3.
        scales: levels of the pyramid; 1 optimises bare pixels.
        learning_rate: how far the first step goes, in units of the full range of brightness.
        fit: whether what is coarser than strokes is to follow the content's colours, from the start on; else edges get halos.
        bfloat16: whether the encoder computes in it: 25 steps at 512 x 512 took 9.3 seconds in place of 13.2, and losses after 25 and 75
            were the same within 1.5 %. None: where the processor has it, see :func:`has_bfloat16`.
        seconds: a budget of time.
        memory: bytes that this may take; where a step for the whole picture would take more, each is made tile by tile, with the same
            result (:mod:`scumble.nets.objective`). None: no limit but the machine's.
        progress: called with (steps done, steps in all, loss).
        preview: called now and then with the pixels so far, (H, W, 3) in [0, 1].
        stop: asked at every step; once it says yes, the best so far is returned.
        clock: in seconds.

    Raises:
        UsageError: shapes don't fit each other, a setting is out of range, or ``memory`` does not do for the smallest tiles.
        MemoryError: not even those can be had.
        NotFiniteError: the loss is not finite at the very start. Where it ceases to be later, the best so far is returned.
    """
    errors.in_range("steps", errors.whole("steps", steps), 0, 1_000_000)
    errors.in_range("learning rate", learning_rate, 1e-6, 1.0)
    errors.in_range("scales", errors.whole("scales", scales), 1, 16)
    for name, weight in (
        ("content weight", content_weight),
        ("style weight", style_weight),
        ("tv weight", tv_weight),
        ("structure weight", structure_weight),
    ):
        errors.in_range(name, weight, 0.0, 1e6)
    style_loss = str(getattr(encoder, "style_loss", "wasserstein")) if style_loss is None else style_loss
    if style_loss not in STYLE_LOSSES:
        raise errors.UsageError(errors.unknown("style loss", style_loss, STYLE_LOSSES))
    _check_pictures(painted, content)
    device = next(encoder.parameters()).device
    content_level = int(getattr(encoder, "layout", 3)) if content_level is None else content_level
    weights = (content_weight, style_weight, tv_weight, structure_weight)
    bfloat16 = device.type == "cpu" and has_bfloat16() if bfloat16 is None else bfloat16
    pairs, each = PAIRS, PAIR_BYTES * content.shape[0] * content.shape[1]
    if memory is not None:
        pairs = min(PAIRS, int(_REMEMBERED * memory / each))
    target = _tensor(content, device)
    while True:
        left = None if memory is None else memory - pairs * each
        try:
            objective = Objective(encoder, target, style, style_loss, content_level, weights, left, bfloat16)
            break
        except errors.UsageError:  # if there is not room for the smallest tiles beside them, then for fewer
            if pairs == 0:
                raise
            pairs //= 2
    pyramid = _Pyramid(_tensor(painted, device), scales, target if fit else None)
    rates = [learning_rate * _FINER_RATE**k for k in reversed(range(len(pyramid.levels)))]
    descent = Descent(pyramid.levels, rates, pairs)

    start, taken, best, best_loss, interrupted = clock(), 0, painted, math.inf, False
    while True:
        done = taken == steps or clock() - start >= seconds
        with torch.set_grad_enabled(not done):
            x = pyramid.pixels()
        found = objective(x, taken, gradient=not done)
        value = found.total
        if not math.isfinite(value):
            if math.isinf(best_loss):
                raise NotFiniteError(_diagnosis(found.terms))
            log.warning("the loss stopped being finite at step %d; the best result before is kept", taken)
            break
        if value < best_loss:
            best, best_loss = _array(x), value
        if progress is not None:
            progress(taken, steps, value)
        if preview is not None and (taken * PREVIEWS) // max(1, steps) != ((taken - 1) * PREVIEWS) // max(1, steps):
            preview(best.copy())
        interrupted = not done and stop is not None and stop()
        if done or interrupted:
            break
        assert found.gradient is not None
        descent.step(list(torch.autograd.grad(x, pyramid.levels, _inward(found.gradient, x.detach()))), value)
        pyramid.project()
        taken += 1
    return Refined(best, best_loss, taken, interrupted)


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, as far as PyTorch can tell: without them it would take longer."""
    known = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def device_for(name: str) -> str:
    """Where to refine for one of the engine's devices: ``auto`` takes CUDA if PyTorch has it, and what only ONNX Runtime knows is the CPU.

    UsageError for ``cuda`` where there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise errors.UsageError("device 'cuda' is not in the installed PyTorch, or there is no such GPU; refine with --device cpu")
    return "cuda" if name in ("auto", "cuda") and torch.cuda.is_available() else "cpu"


def style_statistics(encoder: nn.Module, pictures: Sequence[Pixels]) -> list[Moments]:
    """The statistics that :func:`refine` wants, measured at each of the encoder's taps.

    A Style holds none but the eye's. ``pictures`` are (H, W, 3) in [0, 1], each as large as its brush strokes should be seen; several are
    pooled with equal weight (:func:`scumble.fusion.mixture`). A tap of the encoder's for ``layout`` alone is left out.
    """
    if not pictures:
        raise errors.UsageError("a style needs one picture at least; got none")
    device = next(encoder.parameters()).device
    measured: list[list[Moments]] = []
    for pixels in pictures:
        _check_picture("style picture", pixels)
        with torch.no_grad():
            taps: list[Tensor] = encoder(padded(_tensor(pixels, device)))[: getattr(encoder, "layout", None)]
        measured.append([moments(t[0].float().cpu().numpy()) for t in taps])
    return [mixture(level, [1.0] * len(level)) for level in zip(*measured, strict=True)]


class _Pyramid:
    """Pixels (1, 3, H, W) as a sum of details at ever coarser scales (Burt & Adelson 1983); ``levels`` is what is optimised, fine first.

    They are fitted to ``content``, if that is given.
    """

    def __init__(self, pixels: Tensor, scales: int, content: Tensor | None = None) -> None:
        self.levels: list[Tensor] = []
        self._fit = None if content is None else Fit(content)
        self._colours = torch.as_tensor(_COLOURS, dtype=pixels.dtype, device=pixels.device)
        pixels = self._split(pixels)
        for _ in range(scales - 1):
            height, width = pixels.shape[2:]
            if max(height, width) <= 2:
                break
            coarse = F.adaptive_avg_pool2d(pixels, (math.ceil(height / 2), math.ceil(width / 2)))
            self.levels.append((pixels - _enlarged(coarse, pixels)).requires_grad_())
            pixels = coarse
        self.levels.append(pixels.clone().requires_grad_())

    def pixels(self) -> Tensor:
        x = self.levels[-1]
        for detail in reversed(self.levels[:-1]):
            x = _enlarged(x, detail) + detail
        x = torch.einsum("cr,nchw->nrhw", self._colours, x)
        if self._fit is not None:
            x = x + self._fit(guide(x), CELL, FITS)[:, :, : x.shape[2], : x.shape[3]]
        return x

    @torch.no_grad()
    def project(self) -> None:
        """Take back what went beyond [0, 1], all of it at the finest scale, where it can be done pixel by pixel."""
        x = self.pixels()
        self.levels[0] += self._split(x.clamp(0, 1) - x)

    def _split(self, pixels: Tensor) -> Tensor:
        return torch.einsum("rc,nrhw->nchw", torch.linalg.inv(self._colours), pixels)


def _inward(gradient: Tensor, x: Tensor) -> Tensor:
    """The ``gradient`` without what leads out of [0, 1], which would be taken back, and be curvature to the descent that is none.

    One number of two hundred; three pairs had a loss of 0.1142 after 75 steps with them, 0.1134 without.
    """
    return gradient.masked_fill(((x < _EDGE) & (gradient > 0)) | ((x > 1 - _EDGE) & (gradient < 0)), 0.0)


def _enlarged(coarse: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(coarse, size=like.shape[2:], mode="bilinear", align_corners=False)


def _tensor(pixels: Pixels, device: torch.device) -> Tensor:
    x = torch.from_numpy(np.array(pixels, np.float32, order="C")).to(device)  # a copy: pictures are read-only
    # (H, W, 3) -> (1, 3, H, W), which leaves the numbers where they are: channels last
    return x.permute(2, 0, 1)[None]


def _array(x: Tensor) -> Pixels:
    return x.detach()[0].permute(1, 2, 0).clamp(0, 1).cpu().numpy().copy()


def _check_picture(name: str, pixels: NDArray[Any]) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise errors.UsageError(f"the {name} must have the shape (H, W, 3); got {pixels.shape}")


def _check_pictures(painted: NDArray[Any], content: NDArray[Any]) -> None:
    _check_picture("painted picture", painted)
    _check_picture("content", content)
    if painted.shape != content.shape:
        raise errors.UsageError(f"painted picture and content must have one size; got {painted.shape[:2]} and {content.shape[:2]}")


def _diagnosis(terms: dict[str, float]) -> str:
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    return f"the refinement can't start: the {broken[0]} is not finite; check the pictures and the style for NaN"
