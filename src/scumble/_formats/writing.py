"""Samples and metadata to bytes."""

from __future__ import annotations

import importlib
import io
import logging
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from scumble._formats.kinds import FORMATS, Array, Metadata, check_sides, require_deep
from scumble._formats.tags import STORAGE, TRAILER, directory, upright_exif, with_recipe
from scumble.errors import InputError, MissingExtraError, UsageError

log = logging.getLogger(__name__)


def write(format: str, samples: Array, metadata: Metadata, *, quality: int, recipe: str | None) -> bytes:
    """A whole file from samples (H, W, 1..4), uint8 or uint16, with the metadata that the format can hold; ``recipe`` is ASCII JSON."""
    height, width, channels = samples.shape
    kind = FORMATS[format]
    check_sides(format, height, width, "save as PNG or TIFF")
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
    elif format in ("WEBP", "AVIF", "HEIF") and (xmp := with_recipe(metadata.xmp, recipe)):
        options["xmp"] = xmp
    if format == "AVIF" and channels >= 3:
        options["subsampling"] = "4:4:4" if fine else "4:2:0"
    if format == "HEIF":
        options["chroma"] = 444 if fine else 420
    if format == "GIF" and recipe is not None:
        options["comment"] = TRAILER + recipe.encode("ascii")
    data = _encoded(image, format, options)
    if format == "BMP" and recipe is not None:
        # A BMP names the place of its pixels and its whole length, so text behind the pixels is legal and travels with the file
        data += TRAILER + recipe.encode("ascii")
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
    wanted = with_recipe(xmp, recipe)
    for packet in (wanted, xmp, with_recipe(None, recipe)):
        if packet is not None and len(packet) <= 65_504:
            if packet != wanted:
                log.warning("a JPEG cannot hold %s: more than 64 KB", "the recipe" if packet == xmp else "the XMP packet")
            body = b"http://ns.adobe.com/xap/1.0/\0" + packet
            return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return b""


def _write_png(samples: Array, metadata: Metadata, recipe: str | None) -> bytes:
    """Pixels by a library, metadata by us: it is the same few chunks for 8 and 16 bits."""
    if samples.dtype == np.uint16:
        data: bytes = require_deep()[0].png_encode(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))
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
        places = directory(data, struct.unpack_from(order + "I", data, 4)[0], order)
        for tag, place in places.items():
            kind, count, value = struct.unpack_from(order + "HII", data, place + 2)
            size = count * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}.get(kind, 2**32)
            if tag not in STORAGE and (size <= 4 or value + size <= len(data)):  # a tag that points nowhere would make the file unreadable
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
    if xmp := with_recipe(metadata.xmp, recipe):
        add(700, 1, len(xmp), xmp)
    if metadata.icc_profile:
        add(34675, 7, len(metadata.icc_profile), metadata.icc_profile)
    data.extend(bytes(len(data) % 2))
    if len(data) >= 2**32 - 2**20:
        raise UsageError(f"TIFF holds at most 4 GB; {width} x {height} pixels need more: save as PNG")
    struct.pack_into(order + "I", data, 4, len(data))
    data.extend(struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4))
    return bytes(data)
