"""The formats: what their files are called and what they can hold; what a file comes to when it is read."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scumble.errors import MissingExtraError, UsageError, must_be

Array = NDArray[Any]


@dataclass(frozen=True)
class Format:
    """One file format: what its files are called and what they can hold."""

    title: str
    suffixes: tuple[str, ...]
    plugin: tuple[str, str]  # module and factory: (stream, name) -> lazily opened image
    longest: int  # side, in pixels
    alpha: bool = True
    grey: tuple[int, ...] = ()  # numbers of channels in which it can hold a picture without colours
    profile: bool = True
    deep: bool = False  # 16 bits per channel


FORMATS = {
    "JPEG": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), ("PIL.JpegImagePlugin", "jpeg_factory"), 65_500, alpha=False, grey=(1,)),
    "PNG": Format("PNG", (".png",), ("PIL.PngImagePlugin", "PngImageFile"), 2**31 - 1, grey=(1, 2), deep=True),
    "WEBP": Format("WebP", (".webp",), ("PIL.WebPImagePlugin", "WebPImageFile"), 16_383),
    "TIFF": Format("TIFF", (".tif", ".tiff"), ("PIL.TiffImagePlugin", "TiffImageFile"), 2**31 - 1, grey=(1, 2), deep=True),
    "BMP": Format("BMP", (".bmp",), ("PIL.BmpImagePlugin", "BmpImageFile"), 2**31 - 1, alpha=False, grey=(1,), profile=False),
    "GIF": Format("GIF", (".gif",), ("PIL.GifImagePlugin", "GifImageFile"), 65_535, grey=(1,), profile=False),
    "AVIF": Format("AVIF", (".avif",), ("PIL.AvifImagePlugin", "AvifImageFile"), 65_535, grey=(1,)),
    "HEIF": Format("HEIC", (".heic", ".heif"), ("pillow_heif", "HeifImageFile"), 65_535, grey=(1,)),
}
SUFFIXES: tuple[str, ...] = tuple(suffix for format in FORMATS.values() for suffix in format.suffixes)
TITLES = ", ".join(format.title for format in FORMATS.values())


@dataclass(frozen=True)
class Metadata:
    """What a picture file says besides its pixels.

    ``format``: a key of FORMATS or None. ``bits``: 8 or 16 per channel. ``grey``: the file has no colour channels.
    ``exif``: a TIFF block without the ``Exif`` prefix; ``xmp``: an XML packet; both upright (orientation 1) and without recipe.
    ``dpi``: across and down.
    """

    format: str | None = None
    bits: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True)
class Raster:
    """Decoded, upright samples: (H, W, 1|3|4) in ``space`` GRAY, RGB, CMYK or LAB; uint8, uint16, or float32 in [0, 1].

    ``alpha`` is (H, W) in the same type, not multiplied into the samples.
    """

    samples: Array
    alpha: Array | None
    space: str
    metadata: Metadata


def format_named(name: str) -> str:
    """The key in FORMATS for a format's name or suffix ('jpg', '.JPG', 'JPEG'), else a UsageError with all that is allowed."""
    must_be(f"a picture format must be one of {', '.join(SUFFIXES)}", name, str)
    lower = name.lower()
    for key, format in FORMATS.items():
        if lower in (key.lower(), format.title.lower()) or f".{lower.lstrip('.')}" in format.suffixes:
            return key
    raise UsageError(f"unknown picture format {name!r}; allowed: {', '.join(SUFFIXES)}")


def check_suffix(path: str | os.PathLike[str], more: str = "") -> None:
    """UsageError if no picture can be saved under a name that ends so; ``more`` is advice."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot save as {os.fspath(path)!r}; the suffix must be one of {', '.join(SUFFIXES)}{more}")


def check_sides(format: str, height: int, width: int, cure: str) -> None:
    """UsageError if the sides are longer than those that ``format``, a key of FORMATS, can hold; ``cure`` says what to do then."""
    kind = FORMATS[format]
    if max(height, width) > kind.longest:
        raise UsageError(f"{kind.title} holds at most {kind.longest} pixels a side; got {width} x {height}: {cure}")


def require_deep() -> tuple[Any, Any]:
    """The modules ``imagecodecs`` and ``tifffile``, else a MissingExtraError that says what to install."""
    try:
        return importlib.import_module("imagecodecs"), importlib.import_module("tifffile")
    except ImportError as error:
        raise MissingExtraError('16 bits per channel need imagecodecs and tifffile: pip install "scumble[deep]"') from error


def deep_is_there() -> bool:
    """Whether 16-bit colours can be read and written here."""
    try:
        require_deep()
    except MissingExtraError:
        return False
    return True
