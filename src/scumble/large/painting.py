"""The one flow for a picture that memory can't hold: reduce, paint the reduced one, lay it over the full one tile by tile, write."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble.cascade import FrozenMaps
from scumble.color import keep_color as keep_content_color
from scumble.engine import Engine
from scumble.errors import UsageError, in_range, must_be
from scumble.fusion import AffineMap
from scumble.large.reading import MOST_PIXELS, Rows, Source, sweeps
from scumble.large.writing import Canvas, checked_format
from scumble.mask import Mask, composite
from scumble.picture import Picture, sealed
from scumble.recipe import file_sha256
from scumble.style import Style
from scumble.stylizer import DETAILED, Brush, Seen, StyleLike, Stylizer, defaults, detail_of, one_for_each, sources_of, working_scale
from scumble.tiling import LEAST_TILE, Layer, Local, Window, least_memory, partition, reach, resampled

log = logging.getLogger(__name__)

Array = NDArray[np.float32]

STREAMED = DETAILED
"""Pixels above which a picture is painted by rows: held whole it would take 5 GB."""
MEMORY = 1_200_000_000
"""Bytes, unless another budget is given: with what libraries take beyond the estimate, 1.5 GB are not reached."""
PROCESS = 260_000_000
"""Bytes that Python, the libraries and the nets take before the first pixel. Measured: 190 to 230 MB."""
_LARGEST_TILE = 2048
_LARGEST_MASK = 4096
"""Longer side of a mask in pixels; finer ones are reduced."""


@dataclass(frozen=True)
class Plan:
    """How a picture will be painted."""

    tile: int
    """Side of a tile in pixels, overlap left out."""
    tiles: int
    estimate: int
    """Bytes of memory at the peak."""
    budget: int


class TooLittleMemoryError(UsageError):
    """A budget in which a picture can't be painted by rows; ``least``, in bytes, is one in which it can."""

    def __init__(self, width: int, height: int, least: int, budget: int) -> None:
        self.least = least
        needed, given = math.ceil(least / 1e6), budget / 1e6
        super().__init__(
            f"a picture of {width} x {height} pixels takes {needed} MB at the least; got {given:.0f} MB: raise it with --memory"
        )


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    width: int
    height: int
    plan: Plan
    resumed: int
    """Tiles that were there already."""


def paint(
    source: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    target: str | os.PathLike[str],
    *,
    painter: Stylizer | None = None,
    masks: Sequence[Picture] = (),
    feather: float = 0.0,
    invert_mask: bool = False,
    max_pixels: int = MOST_PIXELS,
    overwrite: bool = False,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    interrupted: Callable[[], int | None] = lambda: None,
    planned: Callable[[Plan, int, int], None] | None = None,
    tiles: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Outcome:
    """Paint a file of any size into another one, within a budget of memory.

    The picture is reduced to its working size and painted there (:meth:`Stylizer.painted`), refinement included; then that is laid over
    the full one, window by window.

    Args:
        source: what libvips reads.
        styles: one, or as many as masks.
        target: TIFF (tiled, pyramidal, BigTIFF), PNG or JPEG, by its suffix.
        masks: white is painted; finer ones than 4096 pixels a side are reduced to that.
        feather: in pixels of the picture as it is stored.
        resume: go on with what an interrupted run left beside the target; only unfinished tiles are painted. Picture, styles, masks and
            settings must be the same, ``memory`` aside, and so must the ``recipe``.
        recipe: to be stored in the file. What it says of ``content``, ``styles``, ``masks`` and ``settings`` stands for these when a run is
            resumed.
        interrupted: after the painting, says after which step a refinement was cut short; that goes into the recipe.
        planned: called with the plan, the height and the width before anything is painted.
        tiles: called with (tiles done, tiles in all).
        settings: those of :class:`Stylizer`.

    Raises:
        UsageError: a setting is out of range, the budget is too small, or what is to be resumed was begun otherwise.
        InputError: the file can't be read, or the target not written.
        MissingExtraError: pyvips is not installed.
    """
    painter = painter or Stylizer()
    given: dict[str, Any] = {**defaults(), **settings}
    budget = int(MEMORY if given["memory"] is None else in_range("memory", given["memory"], 1, 1e18))
    given["memory"] = max(1, budget - PROCESS)
    brush = painter.brush(**given)
    for path in (source, target):
        must_be("a large picture is read from a path and written to one", path, str, os.PathLike)
    for mask in masks:
        must_be("a large picture's mask must be a Picture, as Picture.open makes one of a file", mask, Picture)
    must_be("feather must be a number of pixels", feather, Real)
    try:
        json.dumps(recipe, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a recipe must hold what JSON can, to be written into the file ({error})") from error
    styles = sources_of(styles)
    one_for_each(len(styles), len(masks))
    picture = Source(source, max_pixels=max_pixels, size=given["size"])
    brush = replace(brush, detail=detail_of(brush.detail, picture.height, picture.width))
    format = checked_format(Path(target), picture.height, picture.width)
    seen = [painter.seen(style, brush, picture.height, picture.width) for style in styles]
    job = _Job(painter, picture, brush, seen, [_fitted(m, picture, feather, invert_mask) for m in masks])

    def text() -> str:
        cut = interrupted()
        return json.dumps({**(recipe or {}), **({} if cut is None else {"interrupted": cut})}, allow_nan=False)

    canvas = Canvas(Path(target), _identity(recipe, job, given), resume=resume, overwrite=overwrite)
    try:
        return job.run(canvas, format, text, budget, planned, tiles)
    except BaseException as error:
        if canvas.made and not (canvas.begun and any(canvas.done())):
            canvas.give_up()
        elif canvas.begun and isinstance(error, KeyboardInterrupt):
            log.warning("stopped with %d of %d tiles done: --resume goes on from there", sum(canvas.done()), len(canvas.done()))
        raise


class _Job:
    """One picture and how it is painted."""

    def __init__(self, painter: Stylizer, source: Source, brush: Brush, seen: Sequence[Seen], masks: Sequence[Mask]) -> None:
        self.painter, self.source, self.brush, self.seen, self.masks = painter, source, brush, seen, masks
        self.factor = working_scale(source.height, source.width, brush.style_scale)
        if self.factor >= 1.0:
            raise UsageError(
                f"a picture of {source.pixels / 1e6:.3g} megapixels is painted by rows only where its brush is wider than its pixels;"
                " give a larger --style-scale or more --memory"
            )

    def run(
        self,
        canvas: Canvas,
        format: str,
        recipe: Callable[[], str],
        budget: int,
        planned: Callable[[Plan, int, int], None] | None,
        tiles: Callable[[int, int], None] | None,
    ) -> Outcome:
        """Paint what is not done, and write the file."""
        source, seen, (height, width) = self.source, self.seen, (self.source.height, self.source.width)
        if canvas.begun:
            layers = _layers_of(canvas.arrays, self.painter.engine, [one.style for one in seen])
            plan = self._plan(layers, budget, canvas.state["tile"])
        else:
            small = source.reduced(max(1, round(height * self.factor)), max(1, round(width * self.factor))).pixels
            self._plan([_likeness(small, self.painter.engine, one.style, self.brush) for one in seen], budget, None)  # or say so at once
            over = sweeps(source, lambda tile: partition(height, width, tile), reach(self.brush.method))
            layers = [self.painter.layer(small, one, self.brush, over) for one in seen] if self.brush.strength > 0 else []
            plan = self._plan(layers, budget, None)
            deep = source.deep and format != "JPEG"
            bands = 4 if source.alpha and format != "JPEG" else 3
            canvas.begin(height, width, bands, 16 if deep else 8, plan.tile, plan.tiles, _arrays_of(layers))
        if planned is not None:
            planned(plan, height, width)
        done = canvas.done()
        resumed = sum(done)
        self._paint_tiles(canvas, layers, format, plan.tile, tiles)
        pixel = source.rows().picture(Window(0, 1, 0, 1))  # for what is true of all of them
        canvas.finish(format, replace(pixel.metadata, icc_profile=pixel.samples(format, canvas.state["bits"])[1]), recipe())
        return Outcome(width, height, plan, resumed)

    def _plan(self, layers: Sequence[Layer], budget: int, tile: int | None) -> Plan:
        """The largest tile within the budget, or what ``tile`` takes. A row of tiles is held as samples, one tile as floats."""
        source = self.source
        overlap = max((layer.overlap(source.height, source.width) for layer in layers), default=0)
        each = max((layer.bytes_a_pixel for layer in layers), default=60) + 12 * len(layers) + 24
        fixed = PROCESS + sum(2 * 4 * layer.small.size for layer in layers) + sum(4 * m.weights.size for m in self.masks)

        def estimate(side: int) -> int:
            high, wide = (min(side + 2 * overlap, n) for n in (source.height, source.width))
            return fixed + (high + 256) * source.row_bytes + high * wide * each

        least = max(estimate(LEAST_TILE), PROCESS + least_memory(self.brush.method))
        if tile is None and least > budget:
            raise TooLittleMemoryError(source.width, source.height, least, budget)
        side = tile or max(side for side in range(LEAST_TILE, _LARGEST_TILE + 1, 64) if estimate(side) <= budget)
        return Plan(side, len(partition(source.height, source.width, side)), estimate(side), budget)

    def _paint_tiles(
        self, canvas: Canvas, layers: Sequence[Layer], format: str, tile: int, tiles: Callable[[int, int], None] | None
    ) -> None:
        height, width = self.source.height, self.source.width
        overlap = max((layer.overlap(height, width) for layer in layers), default=0)
        windows, done = partition(height, width, tile), canvas.done()
        if tiles is not None:
            tiles(sum(done), len(windows))
        rows: Rows | None = None
        for number, window in enumerate(windows):
            if done[number]:
                continue
            rows = rows or self.source.rows()
            rows.forget(window.grown(overlap + 16, height, width).top)
            canvas.put(number, window, self._samples(rows, window, layers, format, canvas.state["bits"]))
            done[number] = True
            if tiles is not None:
                tiles(sum(done), len(windows))

    def _samples(self, rows: Rows, window: Window, layers: Sequence[Layer], format: str, bits: int) -> NDArray[Any]:
        """One tile as it will stand in the file."""
        height, width = self.source.height, self.source.width
        content = rows.picture(window)
        painted = [
            keep_content_color(
                layer.paint_window(window, lambda w: rows.picture(w).pixels, height, width), content.pixels, self.brush.keep_color
            )
            for layer in layers
        ] or [content.pixels]
        if self.masks:
            cuts = [_cut(mask, window, height, width) for mask in self.masks]
            painted = painted * len(cuts) if len(painted) == 1 else painted
            painted = [composite(content.pixels, list(zip(painted, cuts, strict=True)))]
        return content.with_pixels(painted[0]).samples(format, bits)[0]


def _likeness(small: Array, engine: Engine, style: Style, brush: Brush) -> Layer:
    """A layer that takes as much memory as the one that will be painted."""
    if brush.detail == "content" or brush.strength == 0:
        return Layer(small, small)
    none = np.empty(0, np.float32)
    return Layer(small, small, Local(engine, ((1.0, none if brush.method == "generator" else None, none),), 0.0, style))


def _identity(recipe: Mapping[str, Any] | None, job: _Job, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common for one to go on with the other's tiles: all that decides the pixels, and no budget of memory."""
    free = ("memory", "threads", "max_pixels")
    identity: dict[str, Any] = {
        "content": file_sha256(job.source.path),
        "styles": [one.style.digest for one in job.seen],
        "masks": [hashlib.sha256(np.ascontiguousarray(mask.weights).data).hexdigest() for mask in job.masks],
        "settings": {name: value if isinstance(value := settings[name], (str, NoneType)) else float(value) for name in defaults()},
        **(recipe or {}),
    }
    if isinstance(identity["settings"], Mapping):
        identity["settings"] = {k: v for k, v in identity["settings"].items() if k not in free}
    return identity


def _fitted(mask: Picture, source: Source, feather: float, invert: bool) -> Mask:
    scale = min(1.0, _LARGEST_MASK / max(source.height, source.width))
    size = (max(1, round(source.height * scale)), max(1, round(source.width * scale)))
    return Mask.from_picture(mask, size, feather=feather * scale * source.reduction, invert=invert)


def _cut(mask: Mask, window: Window, height: int, width: int) -> Mask:
    """A window of a mask that is smaller than the picture, interpolated linearly."""
    y, x = mask.height / height, mask.width / width
    box = (window.left * x, window.top * y, window.right * x, window.bottom * y)
    weights = resampled(mask.weights[..., None], window.height, window.width, box, Image.Resampling.BILINEAR)[..., 0]
    return Mask(sealed(np.clip(weights, 0.0, 1.0)))


def _arrays_of(layers: Sequence[Layer]) -> dict[str, NDArray[Any]]:
    """Layers as arrays by name, for an interrupted run to go on with the very same."""
    arrays: dict[str, NDArray[Any]] = {}
    for n, layer in enumerate(layers):
        arrays |= {f"{n}.small": layer.small, f"{n}.painted": layer.painted}
        if layer.detail is None:
            continue
        arrays[f"{n}.weights"] = np.array([layer.detail.content, *(weight for weight, _, _ in layer.detail.passes)])
        for k, (_, modulation, frozen) in enumerate(layer.detail.passes):
            if isinstance(frozen, FrozenMaps):
                for level, affine in enumerate(frozen.maps):
                    arrays |= {f"{n}.{k}.matrix{level}": affine.matrix, f"{n}.{k}.offset{level}": affine.offset}
                if frozen.filters is not None:
                    arrays[f"{n}.{k}.filters"] = frozen.filters
            else:
                assert modulation is not None
                arrays |= {f"{n}.{k}.modulation": modulation, f"{n}.{k}.frozen": frozen}
    return arrays


def _layers_of(arrays: Mapping[str, NDArray[Any]], engine: Engine, styles: Sequence[Style]) -> list[Layer]:
    """The inverse."""
    layers: list[Layer] = []
    for n, style in enumerate(styles):
        if f"{n}.small" not in arrays:
            return layers
        detail = None
        if f"{n}.weights" in arrays:
            content, *weights = (float(w) for w in arrays[f"{n}.weights"])
            passes: list[tuple[float, Array | None, Array | FrozenMaps]] = []
            for k, weight in enumerate(weights):
                if f"{n}.{k}.modulation" in arrays:
                    passes.append((weight, arrays[f"{n}.{k}.modulation"], arrays[f"{n}.{k}.frozen"]))
                else:
                    maps = (AffineMap(arrays[f"{n}.{k}.matrix{level}"], arrays[f"{n}.{k}.offset{level}"]) for level in range(5))
                    passes.append((weight, None, FrozenMaps(tuple(maps), arrays.get(f"{n}.{k}.filters"))))
            detail = Local(engine, tuple(passes), content, style)
        layers.append(Layer(arrays[f"{n}.small"], arrays[f"{n}.painted"], detail))
    return layers
