"""The one flow, from Picture and Style to Picture: paint, refine, keep colours, mask, alpha back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scumble import cascade
from scumble.color import keep_color as keep_content_color
from scumble.engine import Engine
from scumble.errors import MissingExtraError, UsageError, in_range, unknown
from scumble.fusion import METHODS as FUSION_METHODS
from scumble.mask import Mask, composite
from scumble.picture import DEFAULT_MAX_PIXELS, Picture
from scumble.style import REFERENCE, Blend, Style, at_reference, pictures_in

Array = NDArray[np.float32]
StyleLike = str | os.PathLike[str] | Picture | Style | Blend
Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""

METHODS = ("generator", *FUSION_METHODS)
QUALITIES = ("draft", "fine", "best")
LARGEST = 1.5
"""Without a style scale, pictures are painted at their own size up to this many times the reference, larger ones at that:
above it strokes would get finer and finer until the eye sees none."""


class Stylizer:
    """Paints pictures. Nets are loaded at first use and kept; encode a Style once and hand it in for every picture.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, … see :class:`~scumble.engine.Engine`.
        threads: for one picture; None is all cores.
    """

    def __init__(self, device: str = "auto", threads: int | None = None) -> None:
        self.engine = Engine(device, threads)

    def style(self, source: StyleLike) -> Style:
        """A Style from whatever names one: a library name, a picture, a folder, a ``.style`` file, a Picture, a Style, a blend."""
        if isinstance(source, (Style, Blend)):
            return source.blended()
        if isinstance(source, Picture):
            return Style.from_image(source, engine=self.engine)
        return Style.open(source, engine=self.engine)

    def __call__(
        self,
        content: Picture,
        style: StyleLike | Sequence[StyleLike],
        *,
        strength: float = 1.0,
        method: str = "generator",
        style_scale: float | None = None,
        keep_color: float = 0.0,
        mask: Mask | Sequence[Mask] | None = None,
        quality: str = "draft",
        steps: int | None = None,
        encoder: str = "eye",
        size: int | None = None,
        progress: Progress | None = None,
        preview: Callable[[Array], None] | None = None,
    ) -> Picture:
        """Paint ``content`` in the manner of ``style``; the result has its size, alpha, profile and metadata.

        Args:
            style: one style, or as many as there are masks.
            strength: 0 gives the content back, 1 is the style as trained, up to 2 exaggerates.
            method: ``generator`` (one pass), or how features are fused: ``linear``, ``adain``, ``wct``, ``ot``.
            style_scale: width of the brush relative to the picture, 0.25 to 4, the same at any resolution; 1 is the brush that
                the work has when both pictures are equally large. None: the brush's own width in pixels, for pictures up to 1080² pixels.
            keep_color: 0 takes the style's colours, 1 keeps the content's (in OKLab: only lightness is painted).
            mask: white is painted, black stays; with several, each is painted with its own style.
            quality: ``draft`` is one pass; ``fine`` and ``best`` go on to optimise the pixels (needs ``scumble[torch]``).
            steps: how many steps of that, in place of ``quality``'s.
            encoder: whose features the refinement is measured in: ``eye``, or ``vgg19`` and the like, see :mod:`scumble.nets.vgg`.
            size: the longer side of the result in pixels; None is the content's own.
            progress: called after every step of the refinement.
            preview: called now and then with the refined pixels so far.

        Raises:
            UsageError: a setting is out of range, or a name is unknown.
            MissingExtraError: refinement without PyTorch.
        """
        in_range("strength", strength, 0.0, 2.0)
        in_range("keep-color", keep_color, 0.0, 1.0)
        if style_scale is not None:
            in_range("style-scale", style_scale, 0.25, 4.0)
        if method not in METHODS:
            raise UsageError(unknown("method", method, METHODS))
        if quality not in QUALITIES:
            raise UsageError(unknown("quality", quality, QUALITIES))
        if steps is not None:
            in_range("steps", steps, 0, 100_000)
        if size is not None:
            in_range("size", size, 1, 100_000)
            factor = size / max(content.width, content.height)
            content = content.resized(max(1, round(content.width * factor)), max(1, round(content.height * factor)))
        masks = [] if mask is None else [mask] if isinstance(mask, Mask) else list(mask)
        sources: list[StyleLike] = [style] if isinstance(style, (str, os.PathLike, Picture, Style, Blend)) else list(style)
        if len(sources) != 1 and len(sources) != len(masks):
            raise UsageError(f"there must be one style, or one for each mask; got {len(sources)} styles and {len(masks)} masks")

        refine = _Refinement(quality, steps, encoder, self.engine.device, progress, preview)
        layers: list[Array] = []
        for source in sources:
            painted = self._paint(content.pixels, source, method, strength, style_scale, refine) if strength > 0 else content.pixels
            layers.append(keep_content_color(painted, content.pixels, keep_color))
        if not masks:
            return content.with_pixels(layers[0])
        if len(layers) == 1:
            layers = layers * len(masks)
        shape = (content.height, content.width)
        return content.with_pixels(composite(content.pixels, [(layer, m.resized(*shape)) for layer, m in zip(layers, masks, strict=True)]))

    def _paint(
        self, pixels: Array, source: StyleLike, method: str, strength: float, style_scale: float | None, refine: _Refinement
    ) -> Array:
        """Paint at the working size, refine there, come back to the picture's own."""
        style = self.style(source)
        height, width, _ = pixels.shape
        factor = working_scale(height, width, style_scale)
        small = pixels if factor == 1.0 else resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
        painted = self._draft(small, style, method, strength)
        if strength < 1:
            # what the nets can't give back of the content even when they are asked for nothing else is put back as the style recedes:
            # without it half the strength was further from the content than the whole (fusion, early decoders)
            unmoved = self._draft(small, style, method, 0.0)
            painted = np.clip(painted + np.float32(1 - strength) * (small - unmoved), 0.0, 1.0, dtype=np.float32)
        painted = refine(painted, small, style, lambda: _pictures(source))
        if small is pixels:
            return painted
        painted = resize(painted, height, width)
        if factor < 1.0:  # what the smaller picture could not hold: the content's own finest detail
            painted = np.clip(painted + (pixels - resize(small, height, width)), 0.0, 1.0, dtype=np.float32)
        return painted

    def _draft(self, pixels: Array, style: Style, method: str, strength: float) -> Array:
        """One pass of ``method``, as the nets give it."""
        if method != "generator":
            return cascade.paint(self.engine, pixels, style, method=method, strength=strength)[0]
        modulation = self.engine.modulation(style.vector)
        if strength != 1.0:
            own = self.engine.modulation(Style(cascade.content_moments(self.engine, pixels)).vector)
            modulation = own + np.float32(strength) * (modulation - own)
        return self.engine.paint(pixels, modulation)[0]


def working_scale(height: int, width: int, style_scale: float | None) -> float:
    """By how much a picture is resized before it is painted, so that the brush has the width that is asked for."""
    side = (height * width) ** 0.5
    if style_scale is None:
        return min(1.0, LARGEST * REFERENCE / side)
    return REFERENCE / (style_scale * side)


def resize(pixels: Array, height: int, width: int) -> Array:
    """Antialiased, clipped to [0, 1]."""
    return Picture.from_array(pixels).resized(width, height).pixels


class _Refinement:
    """Steps of optimisation after the painting; without steps it hands back what it was given."""

    def __init__(
        self, quality: str, steps: int | None, encoder: str, device: str, progress: Progress | None, preview: Callable[[Array], None] | None
    ) -> None:
        self.wanted = steps != 0 and (steps is not None or quality != "draft")
        self.quality, self.steps, self.encoder, self.device, self.progress, self.preview = (
            quality,
            steps,
            encoder,
            device,
            progress,
            preview,
        )

    def __call__(self, painted: Array, content: Array, style: Style, pictures: Callable[[], list[Array]]) -> Array:
        """``pictures`` gives the style's own pixels, which encoders other than the eye have to see."""
        if not self.wanted:
            return painted
        try:
            from scumble.nets.refine import QUALITY, refine, style_statistics
            from scumble.nets.vgg import load_encoder
        except ImportError as e:
            raise MissingExtraError('quality "fine" and "best" need PyTorch: pip install "scumble[torch]"') from e
        encoder = load_encoder(self.encoder, device="cuda" if self.device == "cuda" else "cpu")
        statistics = style.levels if self.encoder == "eye" else style_statistics(encoder, pictures())
        steps = QUALITY[self.quality] if self.steps is None else self.steps
        return refine(painted, content, statistics, encoder, steps=steps, progress=self.progress, preview=self.preview).pixels


def _pictures(source: StyleLike) -> list[Array]:
    """The pixels behind a style, at the size at which styles are measured; UsageError if only statistics are at hand."""
    if isinstance(source, Picture):
        pictures = [source]
    elif isinstance(source, (Style, Blend)) or not Path(source).exists() or Path(source).suffix == ".style":
        raise UsageError(
            "encoders other than 'eye' need the style as a picture or a folder; names and .style files hold statistics of the eye alone"
        )
    else:
        path = Path(source)
        pictures = [Picture.open(p) for p in (pictures_in(path) if path.is_dir() else [path])]
    return [at_reference(p).pixels for p in pictures]


@lru_cache(maxsize=2)
def _stylizer(device: str) -> Stylizer:
    return Stylizer(device)


def stylize(
    content: str | os.PathLike[str] | bytes | Picture,
    style: StyleLike | Sequence[StyleLike],
    *,
    device: str = "auto",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    **settings: object,
) -> Picture:
    """Paint one picture; the settings are those of :meth:`Stylizer.__call__`.

    >>> scumble.stylize("photo.jpg", "great-wave", strength=0.8).save("out.jpg")  # doctest: +SKIP
    """
    picture = content if isinstance(content, Picture) else Picture.open(content, max_pixels=max_pixels)
    return _stylizer(device)(picture, style, **settings)  # pyright: ignore[reportArgumentType]
