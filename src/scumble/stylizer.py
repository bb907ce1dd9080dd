"""The one flow, from Picture and Style to Picture: paint, refine, keep colours, mask, alpha back."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from inspect import signature
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeGuard

import numpy as np
from numpy.typing import NDArray

from scumble import passes, tiling
from scumble.color import keep_color as keep_content_color
from scumble.engine import Engine
from scumble.errors import MissingExtraError, UsageError, in_range, must_be, one_of, whole
from scumble.fusion import METHODS as FUSION_METHODS
from scumble.light import keep_light
from scumble.mask import MaskLike, composite, masks_of
from scumble.passes import Ground
from scumble.picture import DEFAULT_MAX_PIXELS, Picture
from scumble.style import A_STYLE, REFERENCE, Blend, Style, at_reference, is_name, works_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
StyleLike = str | os.PathLike[str] | Picture | Style | Blend
_Pictures: TypeAlias = str | os.PathLike[str] | Picture
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

METHODS = ("generator", *FUSION_METHODS)
QUALITIES = {"draft": 0, "good": 0, "fine": 25, "best": 75}
"""Steps by which pixels are optimised in the end. A draft is painted in one pass; for the others that is looked at and painted anew."""
STYLE_FITS = ("own", "stretch")
ENCODERS = ("eye", "vgg16", "vgg19")
"""Of which layers can be named after a colon, see :mod:`scumble.nets.vgg`."""
LARGEST = 1.5
"""Without a style scale, pictures are painted at their own size up to this many times the reference, larger ones at that:
above it strokes would get finer and finer until the eye sees none."""
DETAILED = 64_000_000
"""Pixels above which what is finer than the brush is painted, too: who zooms in would else see a tinted photograph."""
MEMORY = 2_500_000_000
"""Bytes that a net may take for a picture which is held in memory, unless another budget is given."""


class Stylizer:
    """Paints pictures. Nets are loaded at first use and kept; encode a Style once and hand it in for every picture.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, … see :class:`~scumble.engine.Engine`.
        threads: for one picture; None is all cores.
        max_pixels: of a style's or a mask's file that is opened by its path; a larger one is refused.
    """

    def __init__(self, device: str = "auto", threads: int | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.engine = Engine(device, threads)
        self.max_pixels = int(in_range("max-pixels", whole("max-pixels", max_pixels), 1, 1e18))

    def style(self, source: StyleLike) -> Style:
        """A Style from whatever names one: a library name, a picture, a folder, a ``.style`` file, a Picture, a Style, a blend."""
        if isinstance(source, (Style, Blend)):
            return source.blended()
        if isinstance(source, Picture):
            return Style.from_image(source, engine=self.engine)
        return Style.open(source, engine=self.engine, max_pixels=self.max_pixels)

    def seen(self, source: StyleLike, brush: Brush, height: int, width: int) -> Seen:
        """A style as a picture of (height, width) is painted with it; UsageError if ``brush`` wants pictures of it where there are none."""
        if not _is_pictures(source):
            if brush.style_fit == "stretch":
                raise UsageError(
                    "style-fit 'stretch' needs the style as a picture or a folder; names, .style files and blends hold but numbers"
                )
            if brush.refine.steps and brush.refine.encoder != "eye":
                raise UsageError(
                    "encoders other than 'eye' need the style as a picture or a folder; names and .style files hold statistics of the eye"
                    " alone"
                )
            return Seen(self.style(source), list)
        if brush.style_fit == "own":
            return Seen(self.style(source), lambda: _pictures(source, self.max_pixels))
        pictures = _pictures(source, self.max_pixels, (height, width))
        return Seen(Style.pooled([Style.of_pixels(p, self.engine) for p in pictures]), lambda: pictures)

    def __call__(
        self,
        content: Picture,
        style: StyleLike | Sequence[StyleLike],
        *,
        strength: float = 1.0,
        method: str = "generator",
        style_scale: float | None = None,
        style_fit: str = "own",
        keep_color: float = 0.0,
        keep_light: float = 0.0,
        grain: float = 1.0,
        mask: MaskLike | Sequence[MaskLike] | None = None,
        quality: str = "good",
        steps: int | None = None,
        encoder: str = "eye",
        size: int | None = None,
        detail: str | None = None,
        statistics: str = "thumbnail",
        memory: int | None = None,
        progress: Progress | None = None,
        preview: Callable[[Array], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Picture:
        """Paint ``content`` in the manner of ``style``; the result has its size, alpha, profile and metadata.

        Args:
            style: one style, or as many as there are masks.
            strength: 0 gives the content back, 1 is the style; above it the content counts for less, at 2 least.
            method: ``generator`` (one pass), or how features are fused: ``linear``, ``adain``, ``wct``, ``ot``.
            style_scale: width of the brush relative to the picture, 0.25 to 4, the same at any resolution; 1 is the brush that
                the work has when both pictures are equally large. None: the brush's own width in pixels, for pictures up to 1080² pixels.
            style_fit: the style's pictures in their ``own`` shape, or each in that of the ``content`` (``stretch``), as where both are
                squeezed to one size before they are compared.
            keep_color: 0 takes the style's colours, 1 keeps the content's (in OKLab: only lightness is painted).
            keep_light: 0 takes the light as the painting has it; 1 puts the style's lights where the content has its own, see
                :mod:`scumble.light`: for faces that a dark style loses, and letters on a ground.
            grain: strokes for what is flat: 1 gives it the noise that photographs have before it is painted, 0 none, up to 4 more.
            mask: a Mask, or the path of a picture: white is painted, black stays; with several, each is painted with its own style.
            quality: ``draft`` is one pass; ``good`` looks at what that lacks of the style and paints once more (the fusion methods lack
                nothing, and paint once); ``fine`` and ``best`` go on to optimise the pixels (needs ``scumble[torch]``).
            steps: steps of that optimisation, in place of ``quality``'s 0, 0, 25 and 75.
            encoder: whose features the refinement is measured in: ``eye``, or ``vgg19`` and the like, see :mod:`scumble.nets.vgg`. The eye
                sees more of a style that is a picture or a folder than of a Style, a name or a blend, which are but statistics.
            size: the longer side of the result in pixels; None is the content's own.
            detail: what is finer than a large picture's reduced size comes from the ``content`` as it is, or is ``painted`` once more at
                full size. None: the content's, and painted above 64 megapixels.
            statistics: in tiles, and for painted detail: ``thumbnail`` are those of the reduced picture, ``exact`` those of the full one.
            memory: bytes that a net may take, refinement included; a pass that would take more is made in tiles. None is 2.5 GB.
            progress: called after every step of the refinement.
            preview: called now and then with the refined pixels so far.
            stop: asked at every step of the refinement; once it says yes, that ends with the best so far.

        Raises:
            UsageError: a setting is out of range, or a name is unknown.
            MissingExtraError: refinement without PyTorch.
        """
        brush = self.brush(
            strength=strength, method=method, style_scale=style_scale, style_fit=style_fit, keep_color=keep_color, keep_light=keep_light,
            grain=grain,
            quality=quality, steps=steps, encoder=encoder, size=size, detail=detail, statistics=statistics, memory=memory,
            progress=progress, preview=preview, stop=stop,
        )  # fmt: skip
        must_be("what is painted must be a Picture, as Picture.open makes one of a file", content, Picture)
        masks, sources = masks_of(mask, self.max_pixels), sources_of(style)
        one_for_each(len(sources), len(masks))
        if size is not None:
            content = content.scaled(size / max(content.size))

        def layer(source: StyleLike) -> Array:
            seen = self.seen(source, brush, content.height, content.width)  # at strength 0 as well: there must be such a style
            painted = self._paint(content.pixels, seen, brush) if strength > 0 else content.pixels
            return keep_content_color(painted, content.pixels, brush.keep_color)

        if not masks:
            return content.with_pixels(layer(sources[0]))
        # each when its turn comes, so that one is held at a time
        layers = repeat(layer(sources[0]), len(masks)) if len(sources) == 1 else map(layer, sources)
        fitting = (mask.resized(height=content.height, width=content.width) for mask in masks)
        return content.with_pixels(composite(content.pixels, zip(layers, fitting, strict=True)))

    def brush(
        self,
        *,
        strength: float,
        method: str,
        style_scale: float | None,
        style_fit: str,
        keep_color: float,
        keep_light: float,
        grain: float,
        quality: str,
        steps: int | None,
        encoder: str,
        size: int | None,
        detail: str | None,
        statistics: str,
        memory: int | None,
        progress: Progress | None = None,
        preview: Callable[[Array], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Brush:
        """Settings of :meth:`__call__`, checked: UsageError for what is out of range or unknown, MissingExtraError as there."""
        in_range("strength", strength, 0.0, 2.0)
        if style_scale is not None:
            in_range("style-scale", style_scale, 0.25, 4.0)
        in_range("keep-color", keep_color, 0.0, 1.0)
        in_range("keep-light", keep_light, 0.0, 1.0)
        in_range("grain", grain, 0.0, 4.0)
        if size is not None:
            in_range("size", whole("size", size), 1, 100_000)
        one_of("style-fit", style_fit, STYLE_FITS)
        one_of("method", method, METHODS)
        one_of("quality", quality, QUALITIES)
        if steps is not None:
            in_range("steps", whole("steps", steps), 0, 100_000)
        if detail is not None:
            one_of("detail", detail, tiling.DETAILS)
        one_of("statistics", statistics, tiling.STATISTICS)
        budget = MEMORY if memory is None else memory
        budget = int(in_range("memory", budget, 1, 1e18))
        encoder = _encoder(encoder)
        for name, call in (("progress", progress), ("preview", preview), ("stop", stop)):
            if call is not None and not callable(call):
                raise UsageError(f"{name} must be a function; got {type(call).__name__}")
        refine = Refinement(QUALITIES[quality] if steps is None else steps, encoder, self.engine.device, budget, progress, preview, stop)
        if strength > 0:
            refine.check()
        return Brush(
            method, strength, style_scale, style_fit, keep_color, keep_light, grain, quality != "draft", detail, statistics, budget, refine
        )

    def _paint(self, pixels: Array, seen: Seen, brush: Brush) -> Array:
        """Paint at the working size, refine there, come back to the picture's own."""
        height, width, _ = pixels.shape
        factor = working_scale(height, width, brush.style_scale)
        small = pixels if factor == 1.0 else resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
        if factor >= 1.0:
            painted = self.painted(small, seen, brush)
            return painted if small is pixels else resize(painted, height, width)
        brush = replace(brush, detail=detail_of(brush.detail, height, width))
        layer = self.layer(small, seen, brush, lambda tile: tiling.sweep_over(pixels, tile, tiling.reach(brush.method)))
        tile = layer.side_within(brush.memory, height, width)
        return tiling.paint(layer, pixels, tile)

    def layer(self, small: Array, seen: Seen, brush: Brush, sweeps: Callable[[int], tiling.Sweep]) -> tiling.Layer:
        """What is laid over a large picture, from its reduced pixels; ``sweeps(tile)`` go over its full ones, for exact statistics."""
        painted = self.painted(small, seen, brush)
        if brush.detail != "painted":
            return tiling.Layer(small, painted)
        ground = Ground.of(small, brush.grain, brush.statistics)
        local = self._frozen(ground.seen, ground.primed, seen.style, brush, brush.memory, sweeps)
        return tiling.Layer(small, painted, local)

    def painted(self, small: Array, seen: Seen, brush: Brush) -> Array:
        """A picture painted at its own size, refined if that is wanted; in tiles where one pass would go beyond the brush's memory."""
        ground = Ground.of(small, brush.grain, brush.statistics)
        needed = ground.area * tiling.bytes_a_pixel(brush.method)
        painted = None if needed > brush.memory else self._in_one_pass(ground, seen.style, brush)
        if painted is None:
            memory = brush.memory if needed > brush.memory else max(needed / 2, tiling.least_memory(brush.method))
            painted = self._in_tiles(ground, seen.style, brush, memory)
        painted = brush.refine.cut_to(*ground.size)(ground.given_back(painted, brush.strength), ground.pixels, seen)
        return ground.cut(keep_light(painted, ground.pixels, brush.keep_light))

    def _in_one_pass(self, ground: Ground, style: Style, brush: Brush) -> Array | None:
        """None if there is not enough memory, after all."""
        try:
            return passes.painted(
                self.engine, ground, style, method=brush.method, strength=brush.strength, look=brush.look, memory=brush.memory
            )
        except Exception as error:
            if not tiling.is_out_of_memory(error):
                raise
            log.warning("out of memory: going on in tiles")
            return None

    def _in_tiles(self, ground: Ground, style: Style, brush: Brush, memory: float) -> Array:
        height, width, _ = ground.seen.shape
        most = min((LARGEST * REFERENCE) ** 2, memory / tiling.bytes_a_pixel(brush.method))
        shrink = min(1.0, (most / (height * width)) ** 0.5)
        thumbnail = resize(ground.seen, max(1, round(height * shrink)), max(1, round(width * shrink)))
        local = self._frozen(thumbnail, ground.primed, style, brush, memory)
        return tiling.paint(local, ground.primed, local.side_within(memory))

    def _frozen(
        self,
        thumbnail: Array,
        small: Array,
        style: Style,
        brush: Brush,
        memory: float,
        sweeps: Callable[[int], tiling.Sweep] | None = None,
    ) -> tiling.Local:
        """With statistics of ``thumbnail``; exact ones are of ``small``, or of what ``sweeps`` go over."""
        return tiling.freeze(
            self.engine, thumbnail, style,
            method=brush.method, strength=brush.strength, look=brush.look, statistics=brush.statistics,
            sweeps=sweeps or (lambda tile: tiling.sweep_over(small, tile, tiling.reach(brush.method))), memory=memory,
        )  # fmt: skip


def detail_of(asked: str | None, height: int, width: int) -> str:
    """What is ``asked`` for, or what suits the size: how much memory there is must not decide how it looks."""
    return asked or ("painted" if height * width > DETAILED else "content")


def working_scale(height: float, width: float, style_scale: float | None) -> float:
    """By how much a picture is resized before it is painted, so that the brush has the width that is asked for."""
    side = (height * width) ** 0.5
    if style_scale is None:
        return min(1.0, LARGEST * REFERENCE / side)
    in_range("style-scale", style_scale, 0.25, 4.0)
    return REFERENCE / (style_scale * side)


def resize(pixels: Array, height: int, width: int) -> Array:
    """Antialiased, clipped to [0, 1]."""
    return Picture.from_array(pixels).resized(width=width, height=height).pixels


@dataclass(frozen=True)
class Seen:
    """A style as it is painted with."""

    style: Style
    pictures: Callable[[], list[Array]]
    """Its own pixels, at the size at which styles are measured; none if only statistics are at hand."""


@dataclass(frozen=True)
class Brush:
    """How a layer is painted: settings of :meth:`Stylizer.__call__` that are checked already."""

    method: str
    strength: float
    style_scale: float | None
    style_fit: str
    keep_color: float
    keep_light: float
    grain: float
    look: bool
    """Whether what a first painting lacks of the style is looked for."""
    detail: str | None
    """None: as :func:`detail_of` says."""
    statistics: str
    memory: int
    refine: Refinement


@dataclass(frozen=True)
class Refinement:
    """Steps of optimisation after the painting; without steps it hands back what it was given."""

    steps: int
    encoder: str
    device: str
    memory: int
    progress: Progress | None
    preview: Callable[[Array], None] | None
    stop: Callable[[], bool] | None

    def check(self) -> None:
        """UsageError for an encoder or a device that there is not, MissingExtraError without PyTorch. Nothing if ``steps`` is 0."""
        if self.steps == 0:
            return
        if find_spec("torch") is None:
            raise MissingExtraError('quality "fine" and "best" need PyTorch: pip install "scumble[torch]"')
        if self.encoder != "eye" or self.device == "cuda":  # PyTorch takes a second to load
            from scumble.nets.refine import device_for
            from scumble.nets.vgg import parse_spec

            parse_spec(self.encoder)
            device_for(self.device)

    def cut_to(self, height: int, width: int) -> Refinement:
        """The same, of which the upper left alone is shown."""
        preview = self.preview
        return self if preview is None else replace(self, preview=lambda pixels: preview(pixels[:height, :width]))

    def __call__(self, painted: Array, content: Array, seen: Seen) -> Array:
        """Without pictures of the style its statistics are what is aimed at, in the eye's own channels."""
        if self.steps == 0:
            return painted
        from scumble.nets.refine import device_for, refine, style_statistics
        from scumble.nets.sight import Connoisseur, Critic, load_sight
        from scumble.nets.vgg import load_encoder

        device, pictures = device_for(self.device), seen.pictures()
        judge = Connoisseur if pictures else Critic
        encoder = judge(load_sight(device)) if self.encoder == "eye" else load_encoder(self.encoder, device=device)
        statistics = style_statistics(encoder, pictures) if pictures else seen.style.levels
        return refine(
            painted, content, statistics, encoder, steps=self.steps, memory=self.memory, progress=self.progress, preview=self.preview,
            stop=self.stop,
        ).pixels  # fmt: skip


@cache
def defaults() -> Mapping[str, Any]:
    """Of the settings that :meth:`Stylizer.brush` takes, but for what is called, by name, as :meth:`Stylizer.__call__` has them."""
    found = signature(Stylizer.__call__).parameters
    settings = [name for name, p in signature(Stylizer.brush).parameters.items() if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    return MappingProxyType({name: found[name].default for name in settings})


def _encoder(spec: str) -> str:
    """In small letters; UsageError if there is no such one. Layers are looked at where PyTorch is, in :meth:`Refinement.check`."""
    must_be("encoder must be a text, as 'eye' or 'vgg19'", spec, str)
    name, colon, _ = (spec := spec.strip().lower()).partition(":")
    one_of("encoder", name, ENCODERS)
    if name == "eye" and colon:
        raise UsageError(f"the encoder 'eye' has no layers to choose; got {spec!r}, give 'eye' or layers of vgg16 or vgg19")
    return spec


def one_for_each(styles: int, masks: int) -> None:
    """UsageError unless there is one style, or one for each mask."""
    if styles not in (1, masks or 1):
        raise UsageError(
            f"there must be one style, or one for each mask; got {styles} styles and {masks} masks"
            " (with weights several are blended into one)"
        )


def sources_of(style: StyleLike | Sequence[StyleLike]) -> list[StyleLike]:
    """What names one style, or each of several; UsageError where something can be none."""
    sources = list(style) if isinstance(style, Sequence) and not isinstance(style, (str, bytes)) else [style]
    for source in sources:
        must_be(A_STYLE, source, str, os.PathLike, Picture, Style, Blend)
    return sources


def _is_pictures(source: StyleLike) -> TypeGuard[_Pictures]:
    """Whether there are pixels behind a style, and not statistics alone."""
    if isinstance(source, (Picture, Style, Blend)):
        return isinstance(source, Picture)
    return not is_name(source) and Path(source).suffix != ".style"


def _pictures(source: _Pictures, max_pixels: int, shape: tuple[int, int] | None = None) -> list[Array]:
    """The pixels behind a style, see :func:`~scumble.style.at_reference`."""
    if isinstance(source, Picture):
        pictures = [source]
    else:
        path = Path(source)
        pictures = [Picture.open(p, max_pixels=max_pixels) for p in (works_in(path) if path.is_dir() else [path])]
    return [at_reference(p, shape).pixels for p in pictures]


class Settings(TypedDict, total=False):
    """Those of :meth:`Stylizer.__call__`, so that editors and type checkers know them where they are passed on by name."""

    strength: float
    method: str
    style_scale: float | None
    style_fit: str
    keep_color: float
    keep_light: float
    grain: float
    mask: MaskLike | Sequence[MaskLike] | None
    quality: str
    steps: int | None
    encoder: str
    size: int | None
    detail: str | None
    statistics: str
    memory: int | None
    progress: Progress | None
    preview: Callable[[Array], None] | None
    stop: Callable[[], bool] | None


@lru_cache(maxsize=2)
def _stylizer(device: str, max_pixels: int) -> Stylizer:
    return Stylizer(device, max_pixels=max_pixels)


def stylize(
    content: str | os.PathLike[str] | bytes | Picture,
    style: StyleLike | Sequence[StyleLike],
    *,
    device: str = "auto",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    **settings: Unpack[Settings],
) -> Picture:
    """Paint one picture; the settings are those of :meth:`Stylizer.__call__`.

    >>> scumble.stylize("photo.jpg", "great-wave", strength=0.8).save("out.jpg")  # doctest: +SKIP
    """
    picture = content if isinstance(content, Picture) else Picture.open(content, max_pixels=max_pixels)
    must_be("device must be a text, as 'auto' or 'cpu'", device, str)
    return _stylizer(device, whole("max-pixels", max_pixels))(picture, style, **settings)
