"""Where tiles go until all are there, what is known of them after ``kill -9``, and the file that they become, by libvips."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shutil
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble._files import checked_target, put_in_place, reason
from scumble._formats import Metadata, check_sides, format_named
from scumble._formats.tags import tiff_tags, with_recipe
from scumble.errors import InputError, UsageError
from scumble.large.reading import load_vips
from scumble.tiling import Window

log = logging.getLogger(__name__)

FORMATS = ("TIFF", "PNG", "JPEG")
_VERSION = 1
_JPEG_PACKET = 65_504
_UNKNOWN_DPI = (72.0, 72.0)
"""What EXIF says where the resolution is unknown (2.32, 4.6.4)."""


def checked_format(target: Path, height: int, width: int) -> str:
    """The format of a target that is written by rows; UsageError for another one, or for one that can't hold the size."""
    kind = format_named(target.suffix)
    if kind not in FORMATS:
        raise UsageError(f"a picture of {height * width / 1e6:.0f} megapixels is written as .tif, .png or .jpg; got {target.name!r}")
    check_sides(kind, height, width, "save as PNG or TIFF")
    return kind


class Canvas:
    """Samples (H, W, bands) on the disk, in a hidden folder beside the target, with one byte a tile that says whether it is done.

    Args:
        target: what will be written.
        identity: all that decides the pixels, as JSON values: what was begun can be gone on with only if it is the same.
        resume: take up what is there, if anything is; else it is thrown away by :meth:`begin`, so that a run that is refused costs nothing.

    UsageError if what is there was begun otherwise, InputError if it is damaged.
    """

    def __init__(self, target: Path, identity: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        self.place = checked_target(target, overwrite=overwrite)
        self.folder = _folder(self.place)
        self.overwrite = overwrite
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.state: dict[str, Any] = {}
        self.arrays: dict[str, NDArray[Any]] = {}
        self.made = False
        """Whether this run has made the folder, and what is in it."""
        if resume and is_begun(self.place):
            self._take_up()

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return bool(self.state)

    def begin(self, height: int, width: int, bands: int, bits: int, tile: int, tiles: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Claim the disk space; ``arrays`` are kept with it. InputError where there is not enough."""
        size = height * width * bands * bits // 8
        try:
            free, before = shutil.disk_usage(self.place.parent).free, self.folder / "canvas"
            if before.is_file():
                free += before.stat().st_size
            if free < size:
                raise InputError(
                    f"{self.place} takes {size / 1e9:.1f} GB beside it while it is painted; {free / 1e9:.1f} GB are free: free some space"
                )
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(exist_ok=True)
            self.made = True
            offset = _blank(self.folder / "canvas", height, width, bands, bits)
            with (self.folder / "arrays.npz").open("wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            (self.folder / "done").write_bytes(bytes(tiles))
            shape = {"height": height, "width": width, "bands": bands, "bits": bits, "tile": tile, "tiles": tiles, "offset": offset}
            self.state = {"version": _VERSION, "identity": self.identity, **shape}
            part = self.folder / "state.json.part"
            part.write_text(json.dumps(self.state), "utf-8")
            part.replace(self.folder / "state.json")
        except OSError as error:
            raise InputError(f"cannot write beside {self.place} ({reason(error)}); free space, or choose another place") from error
        self.arrays = dict(arrays)

    def done(self) -> list[bool]:
        """Of each tile, whether it is there."""
        return [b == 1 for b in (self.folder / "done").read_bytes()]

    def put(self, number: int, window: Window, samples: NDArray[Any]) -> None:
        """One tile (h, w, bands). Only when it is safe on the disk it counts as done."""
        state = self.state
        shape = (state["height"], state["width"], state["bands"])
        try:
            # mapped for a moment: pages that stay mapped would count as this process's memory
            canvas = np.memmap(self.folder / "canvas", f"u{state['bits'] // 8}", "r+", state["offset"], shape)
            canvas[window.slices] = samples
            canvas.flush()
            del canvas
            with (self.folder / "done").open("r+b") as file:
                file.seek(number)
                file.write(b"\1")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write beside {self.place} ({reason(error)}); free space, then go on with --resume") from error

    def finish(self, format: str, metadata: Metadata, recipe: str, quality: int = 95) -> None:
        """All tiles become the file, under its name only when it is whole."""
        vips = load_vips()
        part = self.folder / f"whole{self.place.suffix}"
        try:
            _give_back_memory()
            image = vips.Image.new_from_file(os.fspath(self.folder / "canvas"), access="sequential").copy()
            _describe(image, vips, format, metadata, recipe)
            across, down = metadata.dpi or _UNKNOWN_DPI
            image = image.copy(xres=across / 25.4, yres=down / 25.4)
            # libvips makes an EXIF of its own, for the resolution
            keep = ["icc", "xmp", *(["exif"] if metadata.exif is not None else [])]
            if format == "TIFF":
                image.tiffsave(
                    os.fspath(part), tile=True, tile_width=256, tile_height=256, pyramid=True, bigtiff=True,
                    compression="deflate", predictor="horizontal",
                )  # fmt: skip
            elif format == "PNG":
                image.pngsave(os.fspath(part), keep=":".join(keep))
            else:
                image.jpegsave(os.fspath(part), Q=quality, subsample_mode="off", keep=":".join(keep))
            del image
            if metadata.dpi is None:
                _take_back_resolution(part, format)
            with part.open("r+b") as file:
                os.fsync(file.fileno())
            put_in_place(part, self.place, overwrite=self.overwrite)
        except vips.Error as error:
            raise InputError(f"cannot write {self.place} ({_why(error)}); free space, then go on with --resume") from error
        shutil.rmtree(self.folder, ignore_errors=True)

    def give_up(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take_up(self) -> None:
        try:
            state = json.loads((self.folder / "state.json").read_text("utf-8"))
            then = state["identity"]
            keys = dict.fromkeys([*self.identity, *then])
            other = [key for key in keys if then.get(key) != self.identity.get(key)] if state["version"] == _VERSION else ["version"]
            if other:
                raise UsageError(f"{self.place} was begun otherwise ({', '.join(other)}); give the same, or begin again without --resume")
            with np.load(self.folder / "arrays.npz") as arrays:
                self.arrays = {key: arrays[key] for key in arrays.files}
            size = state["height"] * state["width"] * state["bands"] * state["bits"] // 8
            if (self.folder / "canvas").stat().st_size < size + state["offset"]:
                raise ValueError("the canvas is cut off")
            if (self.folder / "done").stat().st_size != state["tiles"]:
                raise ValueError("not every tile is known")
            self.state = state
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, UsageError):
                raise
            raise InputError(f"what is finished of {self.place} can't be read any more; begin again without --resume") from error


def _take_back_resolution(path: Path, format: str) -> None:
    """It stands in PNG and TIFF of libvips: its unit becomes unknown, which is all that there is to be said."""
    with path.open("rb+") as file:
        if format == "PNG":
            at, size, kind = 8, 0, b""
            while kind not in (b"pHYs", b"IDAT"):
                file.seek(at)
                size, kind = struct.unpack(">I4s", file.read(8))
                at += 12 + size
            if kind == b"pHYs":
                file.seek(at - 4 - size)
                chunk = file.read(size - 1) + b"\0"
                file.seek(at - 4 - size)
                file.write(chunk + struct.pack(">I", zlib.crc32(kind + chunk)))
        elif format == "TIFF":
            order = "<" if file.read(2) == b"II" else ">"
            file.seek(8)
            (at,) = struct.unpack(order + "Q", file.read(8))  # BigTIFF, as it was written
            file.seek(at)
            (count,) = struct.unpack(order + "Q", file.read(8))
            tags = [tag for tag, *_ in struct.iter_unpack(order + "HHQ8x", file.read(20 * count))]
            if 296 in tags:
                file.seek(at + 8 + 20 * tags.index(296) + 12)
                file.write(struct.pack(order + "H", 1))


def is_begun(target: Path) -> bool:
    """Whether an earlier run has left something beside ``target`` with which to go on."""
    return (_folder(target) / "state.json").is_file()


def _folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.parts")


def _blank(path: Path, height: int, width: int, bands: int, bits: int) -> int:
    """An uncompressed TIFF to write tiles into; returns where its rows begin, which then follow one another without a gap.

    A file of bare samples libvips would map into memory as a whole, and every page it has read counts as memory of the process; a TIFF
    it reads.
    """
    vips = load_vips()
    blank = vips.Image.black(width, height, bands=bands).cast("ushort" if bits == 16 else "uchar")
    try:
        blank.copy(interpretation="rgb16" if bits == 16 else "srgb").tiffsave(os.fspath(path), bigtiff=True)
    except vips.Error as error:
        raise InputError(f"cannot write into {path.parent} ({_why(error)}); free space, or choose another place") from error
    with path.open("rb") as file:
        found = tiff_tags(file)
    offsets, row = np.atleast_1d(found[273]), width * bands * bits // 8
    rows = int(found.get(278, height))
    if (offsets != offsets[0] + np.arange(len(offsets)) * rows * row).any():
        raise InputError(f"the TIFF that libvips wrote into {path.parent} has gaps; this Scumble does not know that libvips")
    return int(offsets[0])


def _why(error: Exception) -> str:
    """What the system had against it, where it was that: libvips tells all of the steps that failed for it."""
    told = re.search(r"system error: (.+)", str(error))
    return (told[1] if told else " ".join(str(error).split())).lower()


def _give_back_memory() -> None:
    """What tiles have left free, the C library may keep: 0.8 GB after 400 megapixels. Writing needs some of its own."""
    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has nothing that is called None
        ctypes.CDLL(None).malloc_trim(0)  # glibc's; elsewhere there is no such name


def _describe(image: Any, vips: Any, format: str, metadata: Metadata, recipe: str) -> None:
    """Profile, EXIF and XMP with the recipe. What libvips puts into a TIFF is no EXIF: there the EXIF is left out."""
    xmp = with_recipe(metadata.xmp, recipe)
    if format == "JPEG" and len(xmp or b"") > _JPEG_PACKET:
        xmp = with_recipe(None, recipe)
        log.warning("a JPEG cannot hold more than 64 KB of XMP: the picture's own is left out")
    exif = None if metadata.exif is None else b"Exif\0\0" + metadata.exif
    if format == "TIFF" and exif is not None:
        log.warning("EXIF is left out: a tiled TIFF is written without; PNG and JPEG hold it")
        exif = None
    for name, value in (("icc-profile-data", metadata.icc_profile), ("exif-data", exif), ("xmp-data", xmp)):
        if value is not None:
            image.set_type(vips.GValue.blob_type, name, value)
