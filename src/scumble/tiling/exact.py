"""The statistics of a picture that is seen tile by tile: exactly those that one pass over the whole would measure.

Normalisations are nested: what the second one measures depends on what the first one did. So one sweep over all tiles is needed for
each of them. In sweep k the places before k are frozen to what was found, and place k is measured in every tile's own part, overlap left
out; means and second moments, weighted by pixels, then add up to the picture's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from scumble import cascade, finish, guided
from scumble.engine import GENERATOR_MULTIPLE, Engine
from scumble.fusion import AffineMap, Moments, affine, moments
from scumble.style import Style
from scumble.windows import Window

Array = NDArray[np.float32]

Sweep = Callable[[], Iterable[tuple[Window, Window, Array]]]
"""Gives (tile, tile with overlap, the latter's pixels) for all tiles of a picture, anew at each call."""


def generator_statistics(engine: Engine, modulation: Array, sweep: Sweep) -> Array:
    """What the generator and the finish measure in the whole picture, (S,); one sweep for each normalised place, and for each pass."""
    net, wanted = np.split(modulation, [engine.modulations])
    known = _normalisations(engine, net, sweep)
    if not len(wanted):
        return known
    share, spun = np.ones(len(known), np.float32), finish.is_wide(wanted)

    def unfinished(pixels: Array) -> finish.Cells:
        return engine.unfinished(pixels, net, known, share, spun=spun)[0]

    return np.concatenate([known, _filters(engine, unfinished, wanted, 1.0, sweep)])


def _normalisations(engine: Engine, modulation: Array, sweep: Sweep) -> Array:
    found = np.zeros(2 * sum(engine.norms), np.float32)
    known = np.zeros_like(found)
    at = 0
    for channels in engine.norms:
        weight, mean, square = 0.0, np.zeros(channels), np.zeros(channels)
        for inner, outer, pixels in sweep():
            # the engine measures whole cells of its stride; the few rows and columns beyond the last one count nowhere, as untiled
            inside = inner.within(outer)
            rows, columns = (n // GENERATOR_MULTIPLE * GENERATOR_MULTIPLE for n in (inside.height, inside.width))
            window = (inside.top, inside.top + max(rows, GENERATOR_MULTIPLE), inside.left, inside.left + max(columns, GENERATOR_MULTIPLE))
            statistics = engine.unfinished(pixels, modulation, found, known, window)[1]
            m, v = (statistics[at + k * channels : at + (k + 1) * channels].astype(np.float64) for k in (0, 1))
            share = float((window[1] - window[0]) * (window[3] - window[2]))
            weight, mean, square = weight + share, mean + share * m, square + share * (v + m * m)
        mean, square = mean / weight, square / weight
        found[at : at + channels] = mean
        found[at + channels : at + 2 * channels] = np.maximum(square - mean * mean, 0)
        known[at : at + 2 * channels] = 1
        at += 2 * channels
    return found


def _filters(engine: Engine, unfinished: Callable[[Array], finish.Cells], wanted: Array, alpha: float, sweep: Sweep) -> Array:
    """Of the finish, as far as ``alpha`` in [0, 1] from doing nothing; ``unfinished`` is pixels (h, w, 3) -> what is finished."""
    patch = finish.patch_of(wanted)
    filters = finish.unchanging(patch)
    finish.set_gamut(filters, wanted, 1 - alpha)
    height, width = np.max([(inner.bottom, inner.right) for inner, _, _ in sweep()], axis=0).tolist()
    for n, scale in enumerate(finish.PASSES[patch]):
        cell = 2 ** (finish.SCALES - 1 - scale)
        if min(height, width) <= (finish.LEAST_SIDE - 1) * cell:
            continue
        center, found = finish.scales(wanted)[scale][:3], np.zeros(())
        for inner, outer, pixels in sweep():
            level = finish.unfiltered(unfinished(pixels), guided.guide(pixels), filters, engine, n)
            window = (inner.top // cell, -(-inner.bottom // cell), inner.left // cell, -(-inner.right // cell))
            places = finish.Places.of(-(-height // cell), -(-width // cell), patch, window)
            found = found + finish.sums(level, center, places.seen_from(outer.top // cell, outer.left // cell), engine)
        held, own = finish.passes(filters)[n], finish.Patches.of_sums(found, center)
        held += np.float32(alpha) * (finish.filter_of_pass(n, own, wanted, filters) - held)
    return filters


def fusion_maps(engine: Engine, style: Style, method: str, strength: float, sweep: Sweep) -> cascade.FrozenMaps:
    """What ``method`` and the finish make of the whole picture's moments; one sweep for each of the five levels, and for each pass."""
    maps: list[AffineMap] = []
    for level in range(5, 0, -1):
        stride, count, first, second = 2 ** (level - 1), 0, 0.0, 0.0
        for inner, outer, pixels in sweep():
            features = cascade.unfused(engine, pixels, maps)
            # as untiled: what repeats the edge up to a multiple of the stride counts nowhere
            rows, columns = (
                slice((start - corner) // stride, max(1, round(stop / stride)) - corner // stride)
                for start, stop, corner in ((inner.top, inner.bottom, outer.top), (inner.left, inner.right, outer.left))
            )
            own = moments(features[:, rows, columns])
            share = features[0, rows, columns].size
            count, first = count + share, first + share * own.mean
            second = second + share * (own.covariance + np.outer(own.mean, own.mean))
        mean = np.asarray(first / count)
        maps.append(affine(method, Moments(mean, second / count - np.outer(mean, mean)), style.levels[level - 1], strength))
    found = cascade.FrozenMaps(tuple(maps))
    if style.texture is None:
        return found

    def unfinished(pixels: Array) -> finish.Cells:
        return finish.Cells.of(cascade.unfinished(engine, pixels, style, method=method, strength=strength, frozen=found)[0])

    return cascade.FrozenMaps(found.maps, _filters(engine, unfinished, style.texture, min(strength, 1.0), sweep))
