"""How well it went, in numbers.

Content, structure and style are distances in the features of the eye; they pull against each other, so compare pictures at
equal content or at equal style. SSIM, PSNR, :func:`grid` and :func:`halo` look at the pixels alone. All are blind to beauty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.engine import Engine
from scumble.errors import UsageError, must_be
from scumble.fusion import NOISE_FLOOR, Moments, moments
from scumble.picture import Picture
from scumble.style import Blend, Style, at_reference

Array = NDArray[np.floating[Any]]

CELLS = 16
"""Structure is compared on a grid of this many cells a side."""

TEMPERATURE = 0.1
"""Of the softmax over cosine similarities in :func:`structure_distance`."""

WINDOW = 64
"""Side of the windows that :func:`grid` takes spectra of: periods of 2, 4 and 8 pixels fall on whole frequencies, 32, 16 and 8."""

REDUCED = 4
"""By how much :func:`halo` reduces pictures: strokes finer than that are not meant."""

_SIDE, _PACE = 28, 7
"""Of its windows, and how far they are apart, in reduced pixels."""

_FLAT = 0.07
"""Neighbours in a reduced content that differ by less belong to a flat place."""

_FALL = 3.0
"""Reduced pixels over which a halo falls to a third: 12 of the picture's."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in the reference code of SSIM
_STEP_VARIANCE = (1 / 255) ** 2 / 12
"""Variance of rounding to 8 bits: a spectrum below that of its noise is nothing that a file could hold."""


@dataclass(frozen=True)
class Scores:
    """One painted picture against its content and its style."""

    content: float
    """:func:`content_distance`: 0 is the same picture, about 2 an unrelated one."""
    structure: float
    """:func:`structure_distance`: 0 is the same layout."""
    style: float
    """:func:`style_distance`: 0 is the same statistics, the untouched photograph about 1 to 3."""
    ssim: float
    """:func:`ssim` with the content: 1 is the same picture."""
    halo: float
    """:func:`halo`, in 8-bit steps: photographs themselves have about 1."""


def score(painted: Picture, content: Picture, style: Style | Blend, engine: Engine | None = None) -> Scores:
    """Measure ``painted`` against the picture it was made of and the style it was made in.

    Pictures above 720² pixels are scaled down to that first, the size at which styles are measured. ``content`` may have another
    size than ``painted``, not another shape (UsageError). Transparency is ignored.
    """
    for picture in (painted, content):
        must_be("what is scored must be a Picture (Picture.open reads files)", picture, Picture)
    must_be("the style of a score must be a Style (Style.open takes names and files) or a blend of them", style, Style, Blend)
    style = style.blended()
    longer, other = (painted.width, content.width) if painted.width >= painted.height else (painted.height, content.height)
    factor = longer / other
    if abs(content.width * factor - painted.width) > 1 or abs(content.height * factor - painted.height) > 1:
        raise UsageError(
            f"painted and content must have the same shape; got {painted.width} x {painted.height} and {content.width} x {content.height}"
        )
    painted = at_reference(painted)
    if content.size != painted.size:
        content = content.resized(width=painted.width, height=painted.height)
    a, b = painted.pixels, content.pixels
    engine = engine or Engine()
    taps, own = engine.eye(a), engine.eye(b)
    return Scores(
        content_distance(taps[3], own[3]),
        structure_distance(taps[2], own[2]),
        style_distance([moments(t) for t in taps], style.levels),
        ssim(a, b),
        halo(a, b),
    )


def content_distance(features: Array, others: Array) -> float:
    """Mean squared distance of instance-normalised features, (C, h, w) both, meant for relu4_1.

    Normalising takes each channel's mean and contrast out (Huang & Belongie 2017: they are style). Where a layer of a network
    would add a constant to the variance, we hold it above the noise floor of :mod:`scumble.fusion`: the scale of features is arbitrary.
    """
    if features.shape != others.shape:
        raise UsageError(f"features must have the same shape; got {features.shape} and {others.shape}")
    return float(np.mean((_normalized(features) - _normalized(others)) ** 2))


def structure_distance(features: Array, others: Array) -> float:
    """KL divergence between self-similarity maps, mean over the cells of a 16×16 grid, in nats; features (C, h, w), meant for relu3_1.

    A cell's map is the softmax of the cosines between it and all cells, after the mean over the picture is taken away: which parts
    belong together, whatever they look like. Self-similarity as content is Kolkin et al.'s (2019, STROTSS, eq. 9); as a
    divergence of distributions, after CFSD (Chung et al. 2024, Style Injection in Diffusion).
    """
    p, q = _log_affinity(features), _log_affinity(others)
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))


def style_distance(levels: Sequence[Moments], style: Sequence[Moments]) -> float:
    """Mean over the levels of ‖μ − μ'‖ / ‖μ'‖ + ‖M − M'‖ / ‖M'‖, μ the mean and M = Σ + μ μᵀ the second moment (Gram matrix).

    Primed is the style. Relative norms give every level the same say, whatever the scale of its features.
    """
    total = 0.0
    for a, b in zip(levels, style, strict=True):
        total += _relative(a.mean, b.mean) + _relative(_second_moment(a), _second_moment(b))
    return total / len(style)


def ssim(pixels: Array, others: Array) -> float:
    """Structural similarity of two pictures (H, W, 3) in [0, 1]: 1 is equal.

    Wang et al. 2004, eq. 13, on luma (BT.601): Gaussian window of 11×11 with σ = 1.5, K₁ = 0.01, K₂ = 0.03, mean over the windows that
    lie inside. Pictures with a side below 11 pixels are continued by mirroring, to have any window at all.
    """
    _check_pair(pixels, others)
    x, y = _luma(pixels), _luma(others)
    if min(x.shape) < 11:
        x, y = (np.pad(v, 5, mode="symmetric") for v in (x, y))
    mx, my = _blurred(x), _blurred(y)
    vx, vy, covariance = _blurred(x * x) - mx * mx, _blurred(y * y) - my * my, _blurred(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(similarity.mean())


def psnr(pixels: Array, others: Array) -> float:
    """Peak signal-to-noise ratio in dB of two pictures (H, W, 3) in [0, 1]; infinite if they are equal."""
    _check_pair(pixels, others)
    error = float(np.mean((pixels - others) ** 2, dtype=np.float64))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def grid(pixels: Array) -> float:
    """How far a picture (H, W, 3) in [0, 1] shows a grid with a period of 2, 4 or 8 pixels: 1 is not at all.

    Nets that up-sample by steps of two leave such grids, and the eye of a viewer finds them in every flat area. Power spectra
    of Hann windows of 64×64, half overlapping, are averaged over the picture (Welch 1967). The measure is the power at a period over
    the geometric mean of that 3 to 6 frequencies beside it, root mean square over the frequencies of the other axis; the worst of
    both axes and three periods. The ratio comes first, else coarse content, which has most of the power, would hide a grid. A
    picture of few windows has a noisy spectrum: one without a grid can reach 1.5 at 128×128 pixels. UsageError below 64×64.
    """
    _check(pixels)
    height, width = pixels.shape[:2]
    if min(height, width) < WINDOW:
        raise UsageError(f"grid needs a picture of at least {WINDOW} x {WINDOW} pixels; got {width} x {height}")
    luma, half = _luma(pixels), WINDOW // 2
    hann = np.hanning(WINDOW + 1)[:-1]
    taper = np.outer(hann, hann)
    power, count = np.zeros((WINDOW, WINDOW)), 0
    windows = np.lib.stride_tricks.sliding_window_view(luma, (WINDOW, WINDOW))[::half, ::half]
    for row in windows:  # a strip at a time: all windows together would be four pictures of complex numbers
        flat = (row - row.mean((1, 2), keepdims=True)) * taper
        power += np.sum(np.abs(np.fft.fft2(flat)) ** 2, axis=0)
        count += len(row)
    power = power / count + _STEP_VARIANCE * np.sum(taper**2)
    worst = 0.0
    for spectrum in (power, power.T):
        for period in (2, 4, 8):
            k = WINDOW // period
            beside = spectrum[[(k + side * step) % WINDOW for step in range(3, 7) for side in (-1, 1)]]
            ratio = spectrum[k] / np.exp(np.log(beside).mean(0))
            worst = max(worst, float(np.sqrt(np.mean(ratio**2))))
    return worst


def halo(pixels: Array, content: Array) -> float:
    """How strongly a painting's flat places change colour towards an edge, where the ``content``'s do not: mean amplitude in 8-bit steps.

    Both are (H, W, 3) in [0, 1] and equally large. In overlapping windows of 112 pixels what is painted where the content is flat is
    explained by the content's colour there and by exp(−d / 12), d the distance in pixels from where the nearest edge ends, some 10 pixels
    beside it; the amplitude is that of the latter, root mean square over red, green and blue. Photographs beside themselves have 1 to 2;
    rims that are seen at a glance 10 and more. 0 where there is no edge beside a flat place.
    """
    _check_pair(pixels, content)
    painted, c = (_reduced(v) for v in (pixels, content))
    c = _smoothed(c)
    steps = np.zeros(c.shape[:2])
    steps[1:] = np.abs(np.diff(c, axis=0)).max(2)
    steps[:, 1:] = np.maximum(steps[:, 1:], np.abs(np.diff(c, axis=1)).max(2))
    distance = _distances(_widened(steps > _FLAT), 4 * round(_FALL))
    ridge = np.diag([0, 0.3, 0.3, 0.3, 0.05]) * 1e-3  # where the content has but one colour, it explains nothing
    found: list[float] = []
    for top in range(0, distance.shape[0] - _SIDE + 1, _PACE):
        for left in range(0, distance.shape[1] - _SIDE + 1, _PACE):
            window = np.s_[top : top + _SIDE, left : left + _SIDE]
            d = distance[window]
            flat = d > 0
            if flat.mean() < 0.45 or (flat & (d < _FALL)).sum() < 40 or (d > 8).sum() < 60:
                continue  # too little to tell one from the other
            d = d[flat]
            by = np.column_stack([np.ones(len(d)), 3 * c[window][flat], np.exp(-d / _FALL)])
            amplitude = np.linalg.solve(by.T @ by + len(d) * ridge, by.T @ painted[window][flat])[-1]
            found.append(float(np.sqrt(np.mean(amplitude**2))))
    return 255 * float(np.mean(found)) if found else 0.0


def _reduced(pixels: Array) -> NDArray[np.float64]:
    """Means of cells, without the rest that makes no whole one."""
    height, width = (n // REDUCED * REDUCED for n in pixels.shape[:2])
    cells = np.asarray(pixels[:height, :width], np.float64).reshape(height // REDUCED, REDUCED, width // REDUCED, REDUCED, 3)
    return cells.mean((1, 3))


def _smoothed(x: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis in (0, 1):
        edged = np.pad(x, [(int(k == axis),) * 2 for k in range(3)], mode="edge") if x.size else x
        n = x.shape[axis]
        x = sum((w * edged.take(range(k, k + n), axis) for k, w in enumerate((0.25, 0.5, 0.25))), start=np.zeros(()))
    return x


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """By one place in all eight directions."""
    around = np.pad(mask, 1)
    h, w = mask.shape
    return np.any([around[y : y + h, x : x + w] for y in range(3) for x in range(3)], axis=0)


def _distances(edges: NDArray[np.bool_], most: int) -> NDArray[np.float64]:
    """From the nearest edge, along octagons, no more than ``most``: 0 on an edge."""
    found = np.where(edges, 0.0, float(most))
    reached = edges
    for d in range(1, most):
        if d % 2:  # straight and diagonal steps in turn: between a square and a diamond lies what is nearly a circle
            around = np.pad(reached, 1)
            now = reached | around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
        else:
            now = _widened(reached)
        found[now & ~reached] = d
        reached = now
    return found


def _normalized(features: Array) -> Array:
    x = np.asarray(features, np.float64)
    centred = x - x.mean((1, 2), keepdims=True)
    floor = NOISE_FLOOR * np.mean(x * x) or 1.0
    return centred / np.sqrt(np.maximum(np.mean(centred**2, axis=(1, 2), keepdims=True), floor))


def _log_affinity(features: Array) -> Array:
    """(C, h, w) -> (cells, cells): logarithm of the softmax over each row."""
    cells = _pooled(features, CELLS).reshape(len(features), -1).T  # (C, 16, 16) -> (256, C)
    cells = cells - cells.mean(0)
    cells = cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-12)
    logits = cells @ cells.T / TEMPERATURE
    return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))  # cosines over 0.1: no exponential overflows


def _pooled(features: Array, cells: int) -> Array:
    """Adaptive average pooling, (C, h, w) -> (C, cells, cells): cell i covers ⌊i h / cells⌋ to ⌈(i + 1) h / cells⌉, whatever h is."""

    def averages(size: int) -> Array:
        first = np.arange(cells) * size // cells
        last = -(-(np.arange(cells) + 1) * size // cells)
        inside = (np.arange(size) >= first[:, None]) & (np.arange(size) < last[:, None])
        return inside / inside.sum(1, keepdims=True)

    _, height, width = features.shape
    return averages(height) @ np.asarray(features, np.float64) @ averages(width).T


def _second_moment(m: Moments) -> NDArray[np.float64]:
    return m.covariance + np.outer(m.mean, m.mean)


def _relative(value: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(value - reference) / max(float(np.linalg.norm(reference)), 1e-12))


def _luma(pixels: Array) -> NDArray[np.float64]:
    return np.asarray(pixels, np.float64) @ _LUMA


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Gaussian of 11×11 with σ = 1.5, separably, where it lies inside: (h, w) -> (h - 10, w - 10)."""
    tap = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    tap /= tap.sum()
    rows, columns = image.shape[0] - 10, image.shape[1] - 10
    across = np.zeros((image.shape[0], columns))
    for i, t in enumerate(tap):
        across += t * image[:, i : i + columns]
    both = np.zeros((rows, columns))
    for i, t in enumerate(tap):
        both += t * across[i : i + rows]
    return both


def _check(pixels: Array) -> None:
    must_be("pixels must be an array (H, W, 3), such as the pixels of a Picture", pixels, np.ndarray)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype.kind != "f":  # differences of whole numbers would wrap
        raise UsageError(f"pixels must be (H, W, 3) floats in [0, 1]; got shape {pixels.shape} of {pixels.dtype}")


def _check_pair(pixels: Array, others: Array) -> None:
    for one in (pixels, others):
        _check(one)
    if pixels.shape != others.shape:
        raise UsageError(f"pictures must be equally large; got {pixels.shape} and {others.shape}")
