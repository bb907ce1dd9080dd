"""The classic path: encode, fuse coarse to fine, decode.

One encoding and one decoding serve all five levels: the features that a decoder block makes are fused with the style at
their own level before the next block takes them. Without a learned style in any of the nets, every style is as good as any other.
What comes out is finished as the generator's paintings are, see :mod:`scumble.finish`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scumble import finish, guided
from scumble.engine import EYE_MULTIPLE, Engine
from scumble.fusion import AffineMap, affine, moments
from scumble.style import Style

Array = NDArray[np.float32]

OWN = (0.41, 0.27, 0.30, 0.33)
"""At relu1_1 to relu4_1, the share of the content's own features in what is fused; the rest is what the decoder made of the level above,
which is all that Li et al. 2017 have, who lose the content. Found by gradient descent, along with the decoders'
weights, from a quarter each."""


@dataclass(frozen=True)
class FrozenMaps:
    """What a picture's statistics and a style made of each other: the affine map of every level, coarse to fine."""

    maps: tuple[AffineMap, ...]
    filters: Array | None = None
    """Of the finish, (F,); None where there is none."""


def paint(
    engine: Engine,
    pixels: Array,
    style: Style,
    *,
    method: str = "wct",
    strength: float = 1.0,
    frozen: FrozenMaps | None = None,
    taps: Sequence[Array] | None = None,
) -> tuple[Array, FrozenMaps]:
    """Picture (H, W, 3) in [0, 1] -> painted picture of the same size, clipped to [0, 1], and the maps that were used.

    ``method`` is a key of :data:`scumble.fusion.METHODS`, ``strength`` its α in [0, 2]. With ``frozen`` maps nothing is
    measured, and the result at a pixel depends on its neighbourhood alone. ``taps`` are what the eye sees in ``pixels``, if that is known.
    """
    painted, maps = unfinished(engine, pixels, style, method=method, strength=strength, frozen=frozen, taps=taps)
    filters = frozen.filters if frozen else None
    if frozen is None and style.texture is not None and strength > 0:
        # α along the straight line from the identity, as the maps
        nothing = finish.unchanging(finish.patch_of(style.texture))
        share = np.full(len(nothing), max(0.0, 1.0 - strength), np.float32)
        painted, filters = finish.finish(finish.Cells.of(painted), guided.guide(pixels), style.texture, engine, nothing, share)
    elif filters is not None:
        painted, _ = finish.finish(finish.Cells.of(painted), guided.guide(pixels), None, engine, filters)
    return np.clip(painted, 0.0, 1.0).transpose(1, 2, 0), FrozenMaps(maps, filters)


def unfinished(
    engine: Engine,
    pixels: Array,
    style: Style,
    *,
    method: str,
    strength: float,
    frozen: FrozenMaps | None = None,
    taps: Sequence[Array] | None = None,
) -> tuple[Array, tuple[AffineMap, ...]]:
    """What the nets themselves make of it: planes (3, H, W), not clipped, and the maps; see :func:`paint`."""
    height, width, _ = pixels.shape
    taps = engine.eye(pixels) if taps is None else taps
    # what lies beyond the picture (its edge, repeated up to a multiple of the stride) must not count in its statistics
    rows, columns = -(-height // EYE_MULTIPLE) * EYE_MULTIPLE, -(-width // EYE_MULTIPLE) * EYE_MULTIPLE
    features = taps[-1]
    maps: list[AffineMap] = []
    for level in range(5, 0, -1):
        if level < 5:
            features += np.float32(OWN[level - 1]) * (taps[level - 1] - features)
        if frozen is None:
            _, h, w = features.shape
            inside = features[:, : max(1, round(h * height / rows)), : max(1, round(w * width / columns))]
            maps.append(affine(method, moments(inside), style.levels[level - 1], strength))
        else:
            maps.append(frozen.maps[5 - level])
        features = engine.decode(level, maps[-1].apply(features))
    return features[:, :height, :width], tuple(maps)


def unfused(engine: Engine, pixels: Array, maps: Sequence[AffineMap]) -> Array:
    """Picture (H, W, 3) in [0, 1] -> features (C, h, w) of the first level, coarse to fine, for which there is no map yet.

    They are those of which :func:`paint` takes the moments there. h and w are of the picture with its edge repeated up to a multiple of 16.
    """
    taps = engine.eye(pixels)
    features = taps[-1]
    for level, affine_map in zip((5, 4, 3, 2), maps, strict=False):
        features = engine.decode(level, affine_map.apply(features))
        features += np.float32(OWN[level - 2]) * (taps[level - 2] - features)
    return features
