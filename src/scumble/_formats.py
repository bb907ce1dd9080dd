"""Picture files as containers: samples and metadata in, bytes out. What the samples mean as colours is ``picture``'s matter.

Pillow's plug-ins are called one by one instead of through ``PIL.Image.open``: that function compares every picture with the
process-wide ``MAX_IMAGE_PIXELS``, which is not ours to change (other threads rely on it) and would warn about pictures that
our own limit allows. Called directly, a plug-in reads the header only, we compare, and then it decodes.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import math
import re
import struct
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from html import unescape
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble.errors import InputError, MissingExtraError, ScumbleError, UsageError

Array = NDArray[Any]

log = logging.getLogger(__name__)


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
_TITLES = ", ".join(format.title for format in FORMATS.values())


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
    lower = name.lower()
    for key, format in FORMATS.items():
        if lower in (key.lower(), format.title.lower()) or f".{lower.lstrip('.')}" in format.suffixes:
            return key
    raise UsageError(f"unknown picture format {name!r}; allowed: {', '.join(SUFFIXES)}")


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


# Reading --------------------------------------------------------------------------------------------------------------


def read(stream: BinaryIO, name: str, max_pixels: int) -> Raster:
    """Decode the first picture in a seekable stream; ``name`` is what messages call it. Raises InputError, MissingExtraError."""
    format, head = _identify(stream, name)
    with _damage_as_input_error(name, format):
        tags = _tiff_tags(stream) if format == "TIFF" else None
        if tags is not None:
            _check_size(name, int(tags[256]), int(tags[257]), max_pixels)
        elif format in ("PNG", "WEBP"):  # of an empty PNG Pillow only says that it is none; for a WebP it allocates memory on opening
            _check_size(name, *_header_size(format, head), max_pixels)
        deep = _is_deep_colour(format, head, tags)
        if deep and not deep_is_there():
            log.warning('%s has 16 bits per channel and is read with 8; to keep all of them: pip install "scumble[deep]"', name)
            deep = False
        if deep and tags is not None:
            raster = _read_deep_tiff(stream, tags)
        else:
            image = _open_lazily(stream, name, format, tags)
            _check_size(name, *image.size, max_pixels)
            if tags is not None:  # else Pillow, before it allocates memory for a TIFF, compares with its own limit
                image.im = Image.new(image.mode, (int(tags[256]), int(tags[257]))).im
            image.load()
            if tags is not None:
                image.info.pop("xmp", None)  # loading turned it and left its XMP as it was
            raster = raster_of(image, deep_png=_png_samples(stream) if deep else None)
        metadata = replace(raster.metadata, format=format)
        if tags is not None:  # Pillow's plug-in turns a TIFF and then forgets its tags; ours were read before
            metadata = _described_by_tags(metadata, tags, raster.samples.shape)
    return replace(raster, metadata=metadata)


def raster_of(image: Image.Image, *, deep_png: Array | None = None) -> Raster:
    """The samples and metadata of a loaded Pillow image of any mode; ``deep_png`` stands in for what Pillow cut to 8 bits."""
    samples, alpha, space = _mode_samples(image)
    if deep_png is not None:
        samples, alpha = _split_alpha(deep_png)
        space = "GRAY" if samples.shape[2] == 1 else "RGB"
        if (key := image.info.get("transparency")) is not None and alpha is None:
            alpha = np.where((samples == np.asarray(key)).all(axis=2), 0, 65535).astype(np.uint16)
    exif, xmp = image.info.get("exif"), _packet_of(image)
    if exif is None and (lines := str(image.info.get("Raw profile type exif", "")).split()):  # what ImageMagick wrote before PNG had eXIf
        exif = bytes.fromhex("".join(lines[2:]))
    orientation = _orientation(exif, xmp)
    samples = _turned(samples, orientation)
    alpha = None if alpha is None else _turned(alpha, orientation)
    metadata = Metadata(
        format=image.format if image.format in FORMATS else None,
        bits=8 if samples.dtype == np.uint8 else 16,
        grey=space == "GRAY",
        icc_profile=image.info.get("icc_profile") or None,
        exif=upright_exif(exif, *samples.shape[:2]),
        xmp=_upright_xmp(xmp),
        dpi=_dpi(image.info.get("dpi")),
    )
    return Raster(samples, alpha, space, metadata)


def read_recipe(stream: BinaryIO, name: str) -> dict[str, Any]:
    """The recipe in a picture's metadata; pixels are not decoded. InputError when there is none."""
    format, _ = _identify(stream, name)
    with _damage_as_input_error(name, format):
        text = None
        if format == "BMP":
            stream.seek(0)
            text = stream.read().rpartition(_TRAILER)[2]
        elif format == "TIFF":
            text = _recipe_in_xmp(_bytes(_tiff_tags(stream).get(700)))
        else:
            image = _open_lazily(stream, name, format, None)
            if format == "GIF":
                text = image.info.get("comment", b"").rpartition(_TRAILER)[2]
            else:
                text = image.info.get("scumble") or _recipe_in_xmp(_packet_of(image))
    try:
        recipe = json.loads(text or b"")
    except ValueError:
        recipe = None
    if not isinstance(recipe, dict):
        raise InputError(f"{name} holds no recipe; only pictures that Scumble painted do")
    return recipe


_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "BMP": b"BM", "GIF": b"GIF8"}


def _identify(stream: BinaryIO, name: str) -> tuple[str, bytes]:
    """The format by its first bytes, never by its suffix, and those bytes."""
    stream.seek(0)
    head = stream.read(64)
    if not head:
        raise InputError(f"{name} is empty (0 bytes); give a picture: {_TITLES}")
    for format, magic in _MAGIC.items():
        if head.startswith(magic):
            return format, head
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF", head
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP", head
    if head[4:8] == b"ftyp":
        end = min(len(head), int.from_bytes(head[:4], "big"))
        brands = {head[i : i + 4] for i in range(8, end, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF", head
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIF", head
    raise InputError(f"{name} is not a picture that can be read; allowed: {_TITLES}")


@contextmanager
def _damage_as_input_error(name: str, format: str) -> Generator[None, None, None]:
    """Decoders meet a damaged file with any of a dozen exceptions (some undocumented); a user needs one sentence."""
    title = FORMATS[format].title
    try:
        yield
    except (ScumbleError, MemoryError):
        raise
    except Exception as error:
        log.debug("%s: %r", name, error)
        raise InputError(f"{name} is a damaged or incomplete {title} file; get a whole copy of it") from error


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width} x {height} pixels; a picture needs at least 1 x 1")
    if width * height > max_pixels:
        amount, limit = (f"{n / 1e6:.6g}" for n in (width * height, max_pixels))
        raise InputError(f"{name} is {width} x {height} = {amount} megapixels; the limit is {limit}: raise it with --max-pixels")


def _header_size(format: str, head: bytes) -> tuple[int, int]:
    """Width and height from a PNG's IHDR or the first chunk of a WebP (RFC 9649, sections 2.5 to 2.7)."""
    if format == "PNG":
        return struct.unpack(">II", head[16:24])
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


class _InSmallPieces(io.BytesIO):
    """A WebP for Pillow's plug-in, which compares the size in the first 30 bytes with Pillow's limit if it gets them in one piece.

    We have compared them with ours; from two pieces it does not (a stream may always return less than asked), and decodes.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 16))


def _open_lazily(stream: BinaryIO, name: str, format: str, tags: Image.Exif | None) -> Image.Image:
    try:
        module, factory = FORMATS[format].plugin
        plugin = getattr(importlib.import_module(module), factory)
    except ImportError as error:
        title = FORMATS[format].title
        cure = 'pillow-heif: pip install "scumble[heif]"' if format == "HEIF" else 'a newer Pillow: pip install "pillow>=11.3"'
        raise MissingExtraError(f"{title} pictures need {cure}") from error
    stream.seek(0)
    try:
        return plugin(_InSmallPieces(stream.read()) if format == "WEBP" else stream, "")
    except SyntaxError as error:
        if tags is None or 258 not in tags:
            raise
        bits = tags[258] if isinstance(tags[258], tuple) else (tags[258],)
        raise InputError(
            f"{name} is a TIFF of a kind that cannot be read ({'+'.join(map(str, bits))} bits per pixel); save it with 8 bits per channel"
        ) from error


def _is_deep_colour(format: str, head: bytes, tags: Image.Exif | None) -> bool:
    """16 bits in two or more channels: what Pillow silently cuts to 8 (16-bit grey it reads in full)."""
    if format == "PNG":
        return head[24] == 16 and head[25] != 0
    if tags is None:
        return False
    bits = tags.get(258, 1)
    if bits == 16:
        return tags.get(262) == 0  # white is zero: Pillow would show the negative
    return isinstance(bits, tuple) and set(bits) == {16} and tags.get(262) in (0, 1, 2) and tags.get(339, 1) in (1, (1,) * len(bits))


def _png_samples(stream: BinaryIO) -> Array:
    stream.seek(0)
    return require_deep()[0].png_decode(stream.read())


def _read_deep_tiff(stream: BinaryIO, tags: Image.Exif) -> Raster:
    stream.seek(0)
    with require_deep()[1].TiffFile(stream) as file:
        page = file.pages[0]
        samples: Array = page.asarray()
        separate, extra = page.planarconfig == 2, tuple(int(kind) for kind in page.extrasamples)
    if separate:
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim == 2:
        samples = samples[..., None]
    colours = samples.shape[2] - len(extra)
    # 1 and 2 mean opacity (1: multiplied into the colours); 0 is a channel that says nothing about itself, as in Pillow
    alpha = samples[..., colours] if extra and extra[0] in (1, 2) else None
    samples = samples[..., :colours] if colours in (1, 3) else samples[..., :3]
    if tags.get(262) == 0:  # white is zero
        samples = 65535 - samples
    if alpha is not None and extra[0] == 1:
        opacity = np.maximum(alpha, 1)[..., None].astype(np.float32)
        samples = np.minimum(samples / opacity, 1).astype(np.float32)
        alpha = (alpha / np.float32(65535)).astype(np.float32)
    orientation = tags.get(274) or _orientation(None, _bytes(tags.get(700)))
    samples = _turned(samples, orientation)
    alpha = None if alpha is None else _turned(alpha, orientation)
    space = "GRAY" if samples.shape[2] == 1 else "RGB"
    return Raster(samples, alpha, space, Metadata(bits=16, grey=space == "GRAY"))


_CONVERT = {"1": "L", "La": "LA", "P": "RGB", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}


def _mode_samples(image: Image.Image) -> tuple[Array, Array | None, str]:
    """Samples (H, W, C), alpha (H, W) or None and colour space of any Pillow mode."""
    mode = image.mode
    if mode in ("CMYK", "LAB"):
        return np.asarray(image), None, mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        samples = np.asarray(image)
        key = image.info.get("transparency")
        alpha = None if not isinstance(key, int) else np.where(samples == key, 0, 1)
        samples = samples.astype(np.uint16) if mode.startswith("I;16") else _with_guessed_white(samples, image)
        if alpha is not None:
            alpha = (alpha * 65535).astype(np.uint16) if samples.dtype == np.uint16 else alpha.astype(np.float32)
        return samples[..., None], alpha, "GRAY"
    grey = mode in ("1", "L", "LA", "La")
    see_through = image.has_transparency_data and mode not in ("LA", "La", "RGBA", "RGBa", "PA")
    samples, alpha = _split_alpha(np.asarray(image.convert("RGBA" if see_through else _CONVERT.get(mode, mode))))
    return (samples[..., :1] if grey else samples), alpha, "GRAY" if grey else "RGB"


def _with_guessed_white(samples: Array, image: Image.Image) -> Array:
    """Greys in [0, 1] from modes I and F, neither of which says what white is.

    A 16-bit PNG does (older Pillow opens it as I); otherwise white is the smallest customary one that the brightest sample fits under.
    """
    if not np.isfinite(samples).all():
        raise InputError("the picture holds values that are no numbers (NaN or infinite); replace them first")
    if image.format == "PNG":
        white = 65535.0
    else:
        customary = [1.0] * (image.mode == "F") + [255.0, 65535.0, 2.0**31 - 1]
        peak = float(samples.max())
        white = next((white for white in customary if peak <= white), peak)
    scaled = np.clip(samples / white, 0, 1)
    return np.rint(scaled * white).astype(np.uint8 if white == 255 else np.uint16) if white in (255, 65535) else scaled.astype(np.float32)


def _split_alpha(samples: Array) -> tuple[Array, Array | None]:
    """(H, W) or (H, W, 1..4) -> colours (H, W, 1|3) and alpha (H, W)."""
    if samples.ndim == 2:
        samples = samples[..., None]
    return (samples, None) if samples.shape[2] % 2 else (samples[..., :-1], samples[..., -1])


_TURNS: dict[int, Callable[[Array], Array]] = {  # EXIF 2.32, tag 0x0112: where the stored row 0 and column 0 are to be seen
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def _turned(samples: Array, orientation: Any) -> Array:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return samples if turn is None else np.ascontiguousarray(turn(samples))


# Metadata -------------------------------------------------------------------------------------------------------------

# TIFF tags about how samples are stored (or, as ICC and XMP, kept elsewhere): they describe one file, not the picture
_STORAGE = {
    *(*range(254, 269), *range(273, 282), 284, *range(288, 293), 301, *range(317, 348)),
    *(*range(512, 522), *range(529, 533), 559, 700, 34377, 34675, 37724, 50838, 50839),
}


def _tiff_tags(stream: BinaryIO) -> Image.Exif:
    """The first directory of a TIFF or BigTIFF as Pillow reads it for EXIF, which works for samples that its plug-in rejects."""
    stream.seek(0)
    head = stream.read(16)
    tags = Image.Exif()
    if b"+" in head[2:4]:
        tags.bigtiff, tags.endian = True, "<" if head[:2] == b"II" else ">"
        tags.load_from_fp(stream, int(struct.unpack(tags.endian + "Q", head[8:])[0]))
    else:
        stream.seek(0)
        tags.load_from_fp(stream)
    return tags


def _described_by_tags(metadata: Metadata, tags: Image.Exif, shape: tuple[int, ...]) -> Metadata:
    icc, xmp = _bytes(tags.get(34675)), _bytes(tags.get(700))
    unit = {2: 1.0, 3: 2.54}.get(tags.get(296, 2))
    dpi = None if unit is None or 282 not in tags or 283 not in tags else _dpi((tags[282] * unit, tags[283] * unit))
    for tag in set(tags) & _STORAGE:
        del tags[tag]
    exif = None
    if set(tags) - {282, 283, 296}:  # resolution alone is in dpi already
        tags.bigtiff = False
        try:
            exif = upright_exif(tags.tobytes(), *shape[:2])
        except Exception as error:  # Pillow packs whatever it unpacked and fails in as many ways as tags can be wrong
            log.warning("unreadable EXIF tags are left out: %s", error)
    return replace(metadata, icc_profile=icc or None, exif=exif, xmp=_upright_xmp(xmp), dpi=dpi)


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else bytes(value) if isinstance(value, tuple) else None


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        across, down = float(value[0]), float(value[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return (across, down) if all(math.isfinite(x) and 0.5 <= x < 65535 for x in (across, down)) else None


_TIFF_MAGIC = {b"II*\0": "<", b"MM\0*": ">"}
_XMP_ORIENTATION = rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))(\d+)"""


def _orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """EXIF's orientation, else XMP's, else 1. Not by Pillow, which gives up on a picture whose EXIF is damaged."""
    block = _bare(exif)
    with suppress(KeyError, struct.error):
        order = _TIFF_MAGIC[block[:4]]
        entries = _directory(block, struct.unpack_from(order + "I", block, 4)[0], order)
        return struct.unpack_from(order + "H", block, entries[0x0112] + 8)[0]
    found = re.search(_XMP_ORIENTATION, xmp or b"")
    return int(found[2]) if found else 1


def _bare(exif: bytes | None) -> bytes:
    return re.sub(rb"^(Exif\0\0){1,2}", b"", exif or b"")


def upright_exif(exif: bytes | None, height: int, width: int) -> bytes | None:
    """EXIF that fits upright pixels of this size: orientation 1, true size, and no thumbnail of what the picture was before.

    Patched where it stands, because writing the block anew would move the maker's notes, whose offsets only the maker knows.
    """
    block = bytearray(_bare(exif))
    if not block:
        return None
    try:
        order = _TIFF_MAGIC[bytes(block[:4])]
        first = struct.unpack_from(order + "I", block, 4)[0]
        entries = _directory(block, first, order)
        for tag, value in ((0x0112, 1), (0x0100, width), (0x0101, height)):
            _patch(block, entries.get(tag), value, order)
        if 0x8769 in entries:
            details = _directory(block, struct.unpack_from(order + "I", block, entries[0x8769] + 8)[0], order)
            _patch(block, details.get(0xA002), width, order)
            _patch(block, details.get(0xA003), height, order)
        following = first + 2 + 12 * struct.unpack_from(order + "H", block, first)[0]
        if following + 4 <= len(block) and (second := struct.unpack_from(order + "I", block, following)[0]):
            thumbnail = _directory(block, second, order)
            if 0x0201 in thumbnail and 0x0202 in thumbnail:
                start, length = (struct.unpack_from(order + "I", block, thumbnail[tag] + 8)[0] for tag in (0x0201, 0x0202))
                end = min(len(block), start + length)
                block[start:end] = bytes(max(0, end - start))
            struct.pack_into(order + "I", block, following, 0)
    except (KeyError, struct.error):
        log.warning("damaged EXIF is left out")
        return None
    return bytes(block)


def _directory(block: bytes | bytearray, offset: int, order: str) -> dict[int, int]:
    """Where the 12-byte entry of each tag stands in a TIFF block."""
    (count,) = struct.unpack_from(order + "H", block, offset)
    places = range(offset + 2, offset + 2 + 12 * count, 12)
    return {struct.unpack_from(order + "HHII", block, place)[0]: place for place in places}


def _patch(block: bytearray, place: int | None, value: int, order: str) -> None:
    if place is None:
        return
    kind = struct.unpack_from(order + "H", block, place + 2)[0]
    if kind == 3 and value < 65536:
        struct.pack_into(order + "HH", block, place + 8, value, 0)
    elif kind == 4:
        struct.pack_into(order + "I", block, place + 8, value)


_PACKET = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_DESCRIPTION = (
    b'<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" rdf:about="" xmlns:scumble="urn:scumble:1.0/">'
    b"<scumble:recipe>%s</scumble:recipe></rdf:Description>"
)
_TRAILER = b"scumble:"


def _packet_of(image: Image.Image) -> bytes | None:
    """The XMP packet; Pillow before 11 has it under other names."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    for marker, body in getattr(image, "applist", ()) if packet is None else ():
        if marker == "APP1" and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            packet = body[29:]
    return packet.encode() if isinstance(packet, str) else packet


def _upright_xmp(xmp: bytes | None) -> bytes | None:
    if xmp is None:
        return None
    own_form = re.escape(_DESCRIPTION).replace(b"%s", b"[^<]*")
    xmp = re.sub(own_form + rb"""|<scumble:recipe>[^<]*</scumble:recipe>|\sscumble:recipe=("[^"]*"|'[^']*')""", b"", xmp.rstrip(b"\0"))
    xmp = re.sub(_XMP_ORIENTATION, rb"\g<1>1", xmp)
    return None if xmp in (b"", _PACKET % b"") else xmp


def _with_recipe(xmp: bytes | None, recipe: str | None) -> bytes | None:
    if recipe is None:
        return xmp
    text = recipe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode("ascii")
    closing = None if xmp is None else re.search(rb"</([\w.-]+:)?RDF\s*>", xmp)
    if xmp is None or closing is None:
        return _PACKET % (_DESCRIPTION % text)
    return xmp[: closing.start()] + _DESCRIPTION % text + xmp[closing.start() :]


def _recipe_in_xmp(xmp: bytes | None) -> str | None:
    """The recipe, also where another program has turned our element into an attribute."""
    found = re.search(rb"""scumble:recipe(?:=(["'])(.*?)\1|>([^<]*)<)""", xmp or b"", re.DOTALL)
    return unescape((found[2] or found[3] or b"").decode()) if found else None


# Writing --------------------------------------------------------------------------------------------------------------


def write(format: str, samples: Array, metadata: Metadata, *, quality: int, recipe: str | None) -> bytes:
    """A whole file from samples (H, W, 1..4), uint8 or uint16, with the metadata that the format can hold; ``recipe`` is ASCII JSON."""
    height, width, channels = samples.shape
    kind = FORMATS[format]
    if max(height, width) > kind.longest:
        raise UsageError(f"{kind.title} holds at most {kind.longest} pixels a side; got {width} x {height}: save as PNG or TIFF")
    metadata = replace(metadata, exif=upright_exif(metadata.exif, height, width))
    if format == "PNG":
        return _write_png(samples, metadata, recipe)
    if format == "TIFF":
        return _write_tiff(samples, metadata, recipe)
    image = _gif_palette(samples) if format == "GIF" and channels == 4 else _image(samples)
    fine = quality >= 90  # from here on a user pays for colour edges, so they are not halved in resolution
    options: dict[str, Any] = {}
    if kind.profile:
        options["quality"] = quality
        if metadata.icc_profile:
            options["icc_profile"] = metadata.icc_profile
        if metadata.exif:
            options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.dpi and format in ("JPEG", "BMP"):
        options["dpi"] = metadata.dpi
    if format == "JPEG":
        options |= {"subsampling": 0 if fine else 2, "extra": _jpeg_xmp(metadata.xmp, recipe)}
        if len(options.get("exif", b"")) > 65_533:
            log.warning("EXIF of %d bytes is too long for JPEG and is left out", len(options.pop("exif")))
    elif format in ("WEBP", "AVIF", "HEIF") and (xmp := _with_recipe(metadata.xmp, recipe)):
        options["xmp"] = xmp
    if format == "AVIF" and channels >= 3:
        options["subsampling"] = "4:4:4" if fine else "4:2:0"
    if format == "HEIF":
        options["chroma"] = 444 if fine else 420
    if format == "GIF" and recipe is not None:
        options["comment"] = _TRAILER + recipe.encode("ascii")
    data = _encoded(image, format, options)
    if format == "BMP" and recipe is not None:
        # A BMP names the place of its pixels and its whole length, so text behind the pixels is legal and travels with the file
        data += _TRAILER + recipe.encode("ascii")
        data = data[:2] + struct.pack("<I", len(data)) + data[6:]
    return data


def _image(samples: Array) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))


def _encoded(image: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    title = FORMATS[format].title
    try:
        if format == "HEIF":
            try:
                heif = importlib.import_module("pillow_heif")
            except ImportError as error:
                raise MissingExtraError('HEIC pictures need pillow-heif: pip install "scumble[heif]"') from error
            heif.from_pillow(image).save(buffer, **options)
        else:
            image.save(buffer, format, **options)
    except KeyError as error:  # Pillow has no writer of that name
        raise MissingExtraError(f'{title} pictures need a newer Pillow: pip install "pillow>=11.3"') from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"a picture of {image.width} x {image.height} pixels cannot be written as {title} ({error}); try PNG") from error
    return buffer.getvalue()


def _gif_palette(samples: Array) -> Image.Image:
    """255 colours and one for nothing: a GIF's pixel is there or not, so alpha is cut at one half."""
    palette = _image(samples[..., :3]).quantize(255)
    indices = np.where(samples[..., 3] < 128, 255, np.asarray(palette)).astype(np.uint8)
    image = Image.frombytes("P", palette.size, indices.tobytes())
    image.putpalette((palette.getpalette() or [])[: 255 * 3])
    image.info["transparency"] = 255
    return image


def _jpeg_xmp(xmp: bytes | None, recipe: str | None) -> bytes:
    """The APP1 segment, at most 64 KB: when it cannot hold all, the user's own packet goes before the recipe."""
    wanted = _with_recipe(xmp, recipe)
    for packet in (wanted, xmp, _with_recipe(None, recipe)):
        if packet is not None and len(packet) <= 65_504:
            if packet != wanted:
                log.warning("a JPEG cannot hold %s: more than 64 KB", "the recipe" if packet == xmp else "the XMP packet")
            body = b"http://ns.adobe.com/xap/1.0/\0" + packet
            return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return b""


def _write_png(samples: Array, metadata: Metadata, recipe: str | None) -> bytes:
    """Pixels by a library, metadata by us: it is the same few chunks for 8 and 16 bits."""
    if samples.dtype == np.uint16:
        data: bytes = require_deep()[0].png_encode(samples[..., 0] if samples.shape[2] == 1 else samples)
    else:
        data = _encoded(_image(samples), "PNG", {})
    chunks: list[tuple[bytes, bytes]] = []
    if metadata.icc_profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in metadata.dpi), 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if recipe is not None:
        chunks.append((b"iTXt", b"scumble\0\0\0\0\0" + recipe.encode("ascii")))
    packed = b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
    return data[:33] + packed + data[33:]  # behind the signature (8 bytes) and IHDR (25)


def _write_tiff(samples: Array, metadata: Metadata, recipe: str | None) -> bytes:
    """A deflated TIFF that begins with the EXIF block itself, which is a TIFF without a picture.

    So its directories, maker's notes included, keep their offsets byte for byte; the directory that adds the picture follows at the end.
    Pillow's writer either leaves pixels uncompressed or loses the EXIF directory, and knows no 16-bit colours.
    """
    if samples.dtype == np.uint16:
        require_deep()  # we could do without, but would then write what we could not read back in full
    height, width, channels = samples.shape
    data = bytearray(metadata.exif or b"II*\0\x08\0\0\0")
    order = "<" if data.startswith(b"II") else ">"
    entries: dict[int, bytes] = {}
    if metadata.exif:
        places = _directory(data, struct.unpack_from(order + "I", data, 4)[0], order)
        for tag, place in places.items():
            kind, count, value = struct.unpack_from(order + "HII", data, place + 2)
            size = count * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}.get(kind, 2**32)
            if tag not in _STORAGE and (size <= 4 or value + size <= len(data)):  # a tag that points nowhere would make the file unreadable
                entries[tag] = bytes(data[place : place + 12])

    def add(tag: int, kind: int, count: int, value: bytes) -> None:
        if len(value) > 4:
            data.extend(bytes(len(data) % 2))
            place = len(data)
            data.extend(value)
            value = struct.pack(order + "I", place)
        entries[tag] = struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")

    def numbers(tag: int, kind: int, *values: int) -> None:
        add(tag, kind, len(values), struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values))

    rows = max(1, 2**18 // (width * channels * samples.itemsize))
    offsets: list[int] = []
    lengths: list[int] = []
    for top in range(0, height, rows):
        strip = samples[top : top + rows].copy()
        strip[:, 1:] -= samples[top : top + rows, :-1]  # the horizontal predictor, modulo 2^8 or 2^16
        packed = zlib.compress(strip.astype(strip.dtype.newbyteorder(order)).tobytes())
        offsets.append(len(data))
        lengths.append(len(packed))
        data.extend(packed)
    numbers(256, 4, width)
    numbers(257, 4, height)
    numbers(258, 3, *[8 * samples.itemsize] * channels)
    numbers(259, 3, 8)
    numbers(262, 3, 1 if channels < 3 else 2)
    numbers(273, 4, *offsets)
    numbers(277, 3, channels)
    numbers(278, 4, rows)
    numbers(279, 4, *lengths)
    numbers(284, 3, 1)
    numbers(317, 3, 2)
    if channels in (2, 4):
        numbers(338, 3, 2)
    if metadata.dpi:
        for tag, dpi in zip((282, 283), metadata.dpi, strict=True):
            add(tag, 5, 1, struct.pack(order + "II", round(dpi * 10_000), 10_000))
        numbers(296, 3, 2)
    if xmp := _with_recipe(metadata.xmp, recipe):
        add(700, 1, len(xmp), xmp)
    if metadata.icc_profile:
        add(34675, 7, len(metadata.icc_profile), metadata.icc_profile)
    data.extend(bytes(len(data) % 2))
    if len(data) >= 2**32 - 2**20:
        raise UsageError(f"TIFF holds at most 4 GB; {width} x {height} pixels need more: save as PNG")
    struct.pack_into(order + "I", data, 4, len(data))
    data.extend(struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4))
    return bytes(data)
