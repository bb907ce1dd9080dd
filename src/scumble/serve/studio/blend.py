"""Blends for previews: what :meth:`scumble.style.Blend.blended` gives, in a hundredth of the time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scumble import finish
from scumble.fusion import Moments
from scumble.serve.limits import Cache
from scumble.style import Style, blended_tuning

Float64 = NDArray[np.float64]

_ROOTS: Cache[bytes, tuple[Float64, ...]] = Cache(64)  # half a MB each


def blended_quickly(terms: Sequence[tuple[float, Style]]) -> Style:
    """The styles between which ``terms`` (weight, style) say: means as in the barycentre, covariance (Σ wᵢ Σᵢ^½)², and so the texture.

    That is where the barycentre's iteration begins, and its answer when the covariances commute. Painted with it, a photograph of
    512 × 512 pixels differed from that of the barycentre by 0.1 to 0.5 of 255 steps on average (three pairs of styles and a blend of
    three), where the styles themselves lie 35 to 95 apart; the iteration takes half a second, too long for a slider.
    """
    if len(terms) == 1:
        return terms[0][1]
    total = sum(weight for weight, _ in terms)
    levels: list[Moments] = []
    for k in range(5):
        root = sum(weight / total * _roots(style)[k] for weight, style in terms)
        mean = sum(weight / total * style.levels[k].mean for weight, style in terms)
        levels.append(Moments(np.asarray(mean), np.asarray(root) @ np.asarray(root)))
    textured = [(weight, style.texture) for weight, style in terms if style.texture is not None and weight > 0]
    texture = finish.between([t for _, t in textured], [w for w, _ in textured], quick=True) if textured else None
    return Style(tuple(levels), "+".join(style.name for _, style in terms), tuning=blended_tuning(terms), texture=texture)


def _roots(style: Style) -> tuple[Float64, ...]:
    return _ROOTS.get(style.vector.tobytes(), lambda: tuple(_root(level.covariance) for level in style.levels))


def _root(covariance: Float64) -> Float64:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
