"""What a picture file says besides its pixels: EXIF, XMP, TIFF tags, resolution, and our recipe."""

from __future__ import annotations

import logging
import math
import re
import struct
from contextlib import suppress
from dataclasses import replace
from html import unescape
from typing import Any, BinaryIO

from PIL import Image

from scumble._formats.kinds import Metadata

log = logging.getLogger(__name__)


# TIFF tags about how samples are stored (or, as ICC and XMP, kept elsewhere): they describe one file, not the picture
STORAGE = {
    *(*range(254, 269), *range(273, 282), 284, *range(288, 293), 301, *range(317, 348)),
    *(*range(512, 522), *range(529, 533), 559, 700, 34377, 34675, 37724, 50838, 50839),
}


def tiff_tags(stream: BinaryIO) -> Image.Exif:
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


def described_by_tags(metadata: Metadata, tags: Image.Exif, shape: tuple[int, ...]) -> Metadata:
    """``metadata`` with what a TIFF's tags say of a picture of this shape; tags about storage are left out."""
    icc, xmp = as_bytes(tags.get(34675)), as_bytes(tags.get(700))
    unit = {2: 1.0, 3: 2.54}.get(tags.get(296, 2))
    dpi = None if unit is None or 282 not in tags or 283 not in tags else as_dpi((tags[282] * unit, tags[283] * unit))
    for tag in set(tags) & STORAGE:
        del tags[tag]
    exif = None
    if set(tags) - {282, 283, 296}:  # resolution alone is in dpi already
        tags.bigtiff = False
        try:
            exif = upright_exif(tags.tobytes(), *shape[:2])
        except Exception as error:  # Pillow packs whatever it unpacked and fails in as many ways as tags can be wrong
            log.warning("unreadable EXIF tags are left out: %s", error)
    return replace(metadata, icc_profile=icc or None, exif=exif, xmp=upright_xmp(xmp), dpi=dpi)


def as_bytes(value: Any) -> bytes | None:
    """A tag's value as bytes, if it is that or numbers."""
    return value if isinstance(value, bytes) else bytes(value) if isinstance(value, tuple) else None


def as_dpi(value: Any) -> tuple[float, float] | None:
    """Resolution (across, down) in dots an inch; None if it is no sensible pair of numbers."""
    try:
        across, down = float(value[0]), float(value[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return (across, down) if all(math.isfinite(x) and 0.5 <= x < 65535 for x in (across, down)) else None


_TIFF_MAGIC = {b"II*\0": "<", b"MM\0*": ">"}
_XMP_ORIENTATION = rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))(\d+)"""


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """EXIF's orientation, else XMP's, else 1. Not by Pillow, which gives up on a picture whose EXIF is damaged."""
    block = _bare(exif)
    with suppress(KeyError, struct.error):
        order = _TIFF_MAGIC[block[:4]]
        entries = directory(block, struct.unpack_from(order + "I", block, 4)[0], order)
        place = entries[0x0112]
        kind = struct.unpack_from(order + "H", block, place + 2)[0]
        if kind in (3, 4):  # of any other type it is no orientation, and _patch would leave it to turn the picture once more
            return struct.unpack_from(order + "HI"[kind - 3], block, place + 8)[0]
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
        entries = directory(block, first, order)
        for tag, value in ((0x0112, 1), (0x0100, width), (0x0101, height)):
            _patch(block, entries.get(tag), value, order)
        if 0x8769 in entries:
            details = directory(block, struct.unpack_from(order + "I", block, entries[0x8769] + 8)[0], order)
            _patch(block, details.get(0xA002), width, order)
            _patch(block, details.get(0xA003), height, order)
        following = first + 2 + 12 * struct.unpack_from(order + "H", block, first)[0]
        if following + 4 <= len(block) and (second := struct.unpack_from(order + "I", block, following)[0]):
            thumbnail = directory(block, second, order)
            if 0x0201 in thumbnail and 0x0202 in thumbnail:
                start, length = (struct.unpack_from(order + "I", block, thumbnail[tag] + 8)[0] for tag in (0x0201, 0x0202))
                end = min(len(block), start + length)
                block[start:end] = bytes(max(0, end - start))
            struct.pack_into(order + "I", block, following, 0)
    except (KeyError, struct.error):
        log.warning("damaged EXIF is left out")
        return None
    return bytes(block)


def directory(block: bytes | bytearray, offset: int, order: str) -> dict[int, int]:
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
TRAILER = b"scumble:"


def packet_of(image: Image.Image) -> bytes | None:
    """The XMP packet; Pillow before 11 has it under other names."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    for marker, body in getattr(image, "applist", ()) if packet is None else ():
        if marker == "APP1" and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            packet = body[29:]
    return packet.encode() if isinstance(packet, str) else packet


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """XMP of a picture that has been turned upright, without our recipe."""
    if xmp is None:
        return None
    own_form = re.escape(_DESCRIPTION).replace(b"%s", b"[^<]*")
    xmp = re.sub(own_form + rb"""|<scumble:recipe>[^<]*</scumble:recipe>|\sscumble:recipe=("[^"]*"|'[^']*')""", b"", xmp.rstrip(b"\0"))
    xmp = re.sub(_XMP_ORIENTATION, rb"\g<1>1", xmp)
    return None if xmp in (b"", _PACKET % b"") else xmp


def with_recipe(xmp: bytes | None, recipe: str | None) -> bytes | None:
    """XMP with the recipe in it; a packet of its own where there was none."""
    if recipe is None:
        return xmp
    text = recipe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode("ascii")
    closing = None if xmp is None else re.search(rb"</([\w.-]+:)?RDF\s*>", xmp)
    if xmp is None or closing is None:
        return _PACKET % (_DESCRIPTION % text)
    return xmp[: closing.start()] + _DESCRIPTION % text + xmp[closing.start() :]


def recipe_in_xmp(xmp: bytes | None) -> str | None:
    """The recipe, also where another program has turned our element into an attribute."""
    found = re.search(rb"""scumble:recipe(?:=(["'])(.*?)\1|>([^<]*)<)""", xmp or b"", re.DOTALL)
    return unescape((found[2] or found[3] or b"").decode()) if found else None
