"""Bytes to samples and metadata."""

from __future__ import annotations

import importlib
import io
import json
import logging
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from scumble._formats.kinds import FORMATS, TITLES, Array, Metadata, Raster, deep_is_there, require_deep
from scumble._formats.tags import (
    TRAILER,
    as_bytes,
    as_dpi,
    described_by_tags,
    orientation_of,
    packet_of,
    recipe_in_xmp,
    tiff_tags,
    upright_exif,
    upright_xmp,
)
from scumble.errors import InputError, MissingExtraError, ScumbleError

log = logging.getLogger(__name__)


def read(stream: BinaryIO, name: str, max_pixels: int) -> Raster:
    """Decode the first picture in a seekable stream; ``name`` is what messages call it. Raises InputError, MissingExtraError."""
    format, head = _identify(stream, name)
    with _damage_as_input_error(name, format):
        tags = tiff_tags(stream) if format == "TIFF" else None
        if tags is not None:
            _check_size(name, int(tags[256]), int(tags[257]), max_pixels)
            tell_of_pages(stream, name)
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
            if format in MOVING and is_animated(image):
                log.warning("%s moves, and its first frame alone is taken; for all of them: scumble video", name)
            if tags is not None:  # else Pillow, before it allocates memory for a TIFF, compares with its own limit
                image.im = Image.new(image.mode, (int(tags[256]), int(tags[257]))).im
            image.load()
            if tags is not None:
                image.info.pop("xmp", None)  # loading turned it and left its XMP as it was
            raster = raster_of(image, deep_png=_png_samples(stream) if deep else None)
        metadata = replace(raster.metadata, format=format)
        if tags is not None:  # Pillow's plug-in turns a TIFF and then forgets its tags; ours were read before
            metadata = described_by_tags(metadata, tags, raster.samples.shape)
    return replace(raster, metadata=metadata)


def raster_of(image: Image.Image, *, deep_png: Array | None = None) -> Raster:
    """The samples and metadata of a loaded Pillow image of any mode; ``deep_png`` stands in for what Pillow cut to 8 bits."""
    samples, alpha, space = _mode_samples(image)
    if deep_png is not None:
        samples, alpha = _split_alpha(deep_png)
        space = "GRAY" if samples.shape[2] == 1 else "RGB"
        if (key := image.info.get("transparency")) is not None and alpha is None:
            alpha = np.where((samples == np.asarray(key)).all(axis=2), 0, 65535).astype(np.uint16)
    exif, xmp = image.info.get("exif"), packet_of(image)
    if exif is None and (lines := str(image.info.get("Raw profile type exif", "")).split()):  # what ImageMagick wrote before PNG had eXIf
        try:
            exif = bytes.fromhex("".join(lines[2:]))
        except ValueError:
            log.warning("damaged EXIF is left out")
    orientation = orientation_of(exif, xmp)
    samples = _turned(samples, orientation)
    alpha = None if alpha is None else _turned(alpha, orientation)
    metadata = Metadata(
        format=image.format if image.format in FORMATS else None,
        bits=8 if samples.dtype == np.uint8 else 16,
        grey=space == "GRAY",
        icc_profile=image.info.get("icc_profile") or None,
        exif=upright_exif(exif, *samples.shape[:2]),
        xmp=upright_xmp(xmp),
        dpi=as_dpi(image.info.get("dpi")),
    )
    return Raster(samples, alpha, space, metadata)


def read_recipe(stream: BinaryIO, name: str) -> dict[str, Any]:
    """The recipe in a picture's metadata; pixels are not decoded. InputError when there is none."""
    format, _ = _identify(stream, name)
    with _damage_as_input_error(name, format):
        text = None
        if format == "BMP":
            stream.seek(0)
            text = stream.read().rpartition(TRAILER)[2]
        elif format == "TIFF":
            text = recipe_in_xmp(as_bytes(tiff_tags(stream).get(700)))
        else:
            image = _open_lazily(stream, name, format, None)
            if format == "GIF":
                text = image.info.get("comment", b"").rpartition(TRAILER)[2]
            else:
                text = image.info.get("scumble") or recipe_in_xmp(packet_of(image))
    try:
        recipe = json.loads(text or b"")
    except ValueError:
        recipe = None
    if not isinstance(recipe, dict):
        raise InputError(f"{name} holds no recipe; only pictures that Scumble painted do")
    return recipe


def read_size(stream: BinaryIO, name: str) -> tuple[int, int]:
    """(height, width) as stored, before any orientation is applied; pixels are not decoded. Raises InputError, MissingExtraError."""
    format, head = _identify(stream, name)
    with _damage_as_input_error(name, format):
        if format == "TIFF":
            tags = tiff_tags(stream)
            width, height = int(tags[256]), int(tags[257])
        elif format in ("PNG", "WEBP"):
            width, height = _header_size(format, head)
        else:
            width, height = _open_lazily(stream, name, format, None).size
    return height, width


def tell_of_pages(stream: BinaryIO, name: str) -> None:
    """A warning that a TIFF holds more than the page that is taken. Smaller versions of a page and masks (tag 254) are none."""
    stream.seek(0)
    head = stream.read(16)
    order, big = "<" if head[:2] == b"II" else ">", b"+" in head[2:4]
    number, link, entry = ("Q", "Q", "HHQI4x") if big else ("H", "I", "HHII")
    seen, pages = set[int](), 0
    try:
        at = struct.unpack_from(order + link, head, 8 if big else 4)[0]
        while at and at not in seen:
            seen.add(at)
            stream.seek(at)
            (count,) = struct.unpack(order + number, stream.read(struct.calcsize(number)))
            entries = stream.read(count * struct.calcsize(order + entry))
            kinds = [value for tag, _, _, value in struct.iter_unpack(order + entry, entries) if tag == 254]
            pages += not any(kind & 0b101 for kind in kinds)
            (at,) = struct.unpack(order + link, stream.read(struct.calcsize(link)))
    except struct.error:  # it breaks off: of what is left the decoder says so
        pass
    if pages > 1:
        log.warning("%s holds %d pages, and the first alone is taken; save the others as files of their own", name, pages)


MOVING = ("GIF", "PNG", "WEBP")
"""Formats that may hold more than one picture, shown one after the other."""


def open_moving(stream: BinaryIO, name: str) -> Image.Image:
    """The first frame of a GIF, PNG or WebP as Pillow has it, which seeks the others; not decoded yet. InputError for what is none."""
    format, _ = _identify(stream, name)
    if format not in MOVING:
        raise InputError(f"{name} is no animation; these are GIF, WebP and PNG")
    with _damage_as_input_error(name, format):
        return _open_lazily(stream, name, format, None)


def is_animated(image: Image.Image) -> bool:
    """Whether there are more frames; not if it breaks off before they can be counted."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception as error:  # IndexError, struct.error, whatever: as in _damage_as_input_error
        log.debug("counting frames: %r", error)
        return False


_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "BMP": b"BM", "GIF": b"GIF8"}


_FILMS = (b"iso", b"mp4", b"avc1", b"qt  ", b"M4V", b"3g", b"dash", b"f4v")
"""How brands of films begin (mp4ra.org); raw photographs and sound come in such boxes, too."""


def _identify(stream: BinaryIO, name: str) -> tuple[str, bytes]:
    """The format by its first bytes, never by its suffix, and those bytes."""
    stream.seek(0)
    head = stream.read(64)
    if not head:
        raise InputError(f"{name} is empty (0 bytes); give a picture: {TITLES}")
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
        is_film = any(brand.startswith(_FILMS) for brand in brands)
    else:
        is_film = head[:4] == b"\x1a\x45\xdf\xa3" or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    if is_film:
        raise InputError(f"{name} is a film; for films: scumble video")
    raise InputError(f"{name} is not a picture that can be read; allowed: {TITLES}")


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
        amount = width * height
        raise InputError(
            f"{name} is {width} x {height} = {amount:,} pixels; the limit is {max_pixels:,}: raise max-pixels, or make it smaller"
        )


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
    orientation = tags.get(274) or orientation_of(None, as_bytes(tags.get(700)))
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
