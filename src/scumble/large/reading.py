"""A picture file as rows of pixels, top to bottom, by libvips."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble._formats import Metadata, Raster
from scumble._formats.reading import tell_of_pages
from scumble._formats.tags import upright_exif, upright_xmp
from scumble._profiles import is_usable
from scumble.errors import InputError, MissingExtraError
from scumble.picture import Picture
from scumble.tiling import Window

log = logging.getLogger(__name__)

Array = NDArray[np.float32]

MOST_PIXELS = 10_000_000_000
"""A file that claims more is taken for damaged, unless a limit is given."""
_ROWS = 128
"""Rows asked of libvips at once: some MiB of its own memory, whatever the height."""
_SPACES = {"b-w": "GRAY", "grey16": "GRAY", "srgb": "RGB", "rgb": "RGB", "rgb16": "RGB", "cmyk": "CMYK", "multiband": "RGB"}
_CHANNELS = {"GRAY": 1, "RGB": 3, "CMYK": 4}


def is_installed() -> bool:
    """Whether pyvips is there."""
    return find_spec("pyvips") is not None


def load_vips() -> Any:
    """The module ``pyvips``, told to keep no results; MissingExtraError where it is not installed."""
    try:
        vips = importlib.import_module("pyvips")
    except (ImportError, OSError) as error:  # OSError: pyvips is there and its libvips is not
        raise MissingExtraError('pictures that memory cannot hold need pyvips: pip install "scumble[big]"') from error
    vips.cache_set_max(0)
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # it logs what its exceptions say, too
    return vips


class Source:
    """A picture file of any size.

    Args:
        path: what libvips reads, in 8 or 16 bits a channel.
        max_pixels: larger ones are refused.
        size: the longer side to which it is brought as it is read.

    Raises InputError for what can't be read, MissingExtraError without pyvips.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = MOST_PIXELS, size: int | None = None) -> None:
        self.path = Path(path)
        self.size = size
        self._vips = load_vips()
        with self._reading():
            if not self.path.is_file():
                raise InputError(f"there is no file {self.path}; check the path")
            header = self._vips.Image.new_from_file(os.fspath(self.path), access="sequential")
            if header.width * header.height > max_pixels:
                amount = header.width * header.height
                raise InputError(f"{self.path} has {amount:,} pixels; the limit is {max_pixels:,}: raise max-pixels, or make it smaller")
            if str(header.get("vips-loader")).startswith("tiff"):
                with self.path.open("rb") as stream:
                    tell_of_pages(stream, str(self.path))
            self._turn = int(header.get("orientation")) if header.get_typeof("orientation") else 1
            image = self._open()
        self.height, self.width = int(image.height), int(image.width)
        self.reduction = max(self.height, self.width) / max(int(header.height), int(header.width))
        """By how much it is smaller than it is stored."""
        if image.interpretation not in _SPACES or image.format not in ("uchar", "ushort"):
            raise InputError(
                f"{self.path} is of a kind that is not read by rows ({image.interpretation}, {image.format});"
                " save it as RGB, grey or CMYK with 8 or 16 bits per channel"
            )
        self.space = _SPACES[image.interpretation]
        if image.bands < _CHANNELS[self.space]:
            raise InputError(f"{self.path} has {image.bands} channels, which say no colours; save it as RGB or grey")
        self.alpha = image.bands > _CHANNELS[self.space] and self.space != "CMYK"
        self.deep = image.format == "ushort"
        self.metadata = self._metadata(image)

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.height * self.width

    @property
    def row_bytes(self) -> int:
        """Memory of one row of samples."""
        return self.width * (_CHANNELS[self.space] + self.alpha) * (2 if self.deep else 1)

    def reduced(self, height: int, width: int) -> Picture:
        """The whole at a size that memory holds, antialiased, its alpha taken into account."""
        with self._reading():
            image = self._open()
            maximum = 65535.0 if self.deep else 255.0
            kind = image.interpretation
            if self.alpha:
                image = image.premultiply(max_alpha=maximum)
            image = image.cast("float").resize(width / image.width, vscale=height / image.height, kernel="lanczos3")
            if self.alpha:
                image = image.unpremultiply(max_alpha=maximum)
            image = (image.rint() if not self.deep else image).cast("ushort" if self.deep else "uchar").copy(interpretation=kind)
            samples = np.asarray(image.numpy()).reshape(image.height, image.width, -1)
        return self._picture(samples[:height, :width])

    def rows(self) -> Rows:
        """A new reading from the top."""
        return Rows(self)

    def _open(self) -> Any:
        """An image that gives its rows in order. What lies sideways in its file is turned first, which takes a copy on the disk."""
        upright = self._turn in (0, 1)
        image = self._vips.Image.new_from_file(os.fspath(self.path), access="sequential" if upright else "random", fail_on="error")
        if not upright:
            image = image.autorot()
        if self.size is not None:
            scale = self.size / max(image.width, image.height)
            wide, high = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            image = image.resize(wide / image.width, vscale=high / image.height, kernel="lanczos3")
        return image

    def _metadata(self, image: Any) -> Metadata:
        def blob(name: str) -> bytes | None:
            return bytes(image.get(name)) if image.get_typeof(name) else None

        exif = blob("exif-data")
        icc = blob("icc-profile-data")
        if icc is not None and not is_usable(icc, self.space, str(self.path)):
            icc = None
        dpi = (image.xres * 25.4, image.yres * 25.4)
        # of files that say nothing libvips says 1 pixel a millimetre, or 72 dpi, and of a PNG a pixel a metre less than that
        told = image.get_typeof("resolution-unit") != 0 or (abs(dpi[0] - 25.4) > 0.1 and image.xres not in (2.834, 72 / 25.4))
        return Metadata(
            bits=16 if self.deep else 8,
            icc_profile=icc,
            exif=upright_exif(exif, self.height, self.width),
            xmp=upright_xmp(blob("xmp-data")),
            dpi=dpi if told and min(dpi) > 1 else None,
        )

    def _picture(self, samples: NDArray[Any]) -> Picture:
        channels = _CHANNELS[self.space]
        alpha = samples[..., channels] if self.alpha else None
        return Picture.from_raster(Raster(samples[..., :channels], alpha, self.space, self.metadata), str(self.path))

    @contextmanager
    def _reading(self) -> Generator[None, None, None]:
        try:
            yield
        except self._vips.Error as error:
            log.debug("%s: %s", self.path, error)
            raise InputError(
                f"{self.path} is damaged, incomplete or no picture that can be read by rows; get a whole copy of it"
            ) from error


class Rows:
    """Windows of a source, from one reading: each begins no higher than what :meth:`forget` was last told."""

    def __init__(self, source: Source) -> None:
        self._source = source
        with source._reading():  # pyright: ignore[reportPrivateUsage]
            image = source._open()  # pyright: ignore[reportPrivateUsage]
            self._region = source._vips.Region.new(image)  # pyright: ignore[reportPrivateUsage]
        self._bands = int(image.bands)
        self._type = np.uint16 if source.deep else np.uint8
        self._held: list[NDArray[Any]] = []  # blocks of rows, in order
        self._top = self._bottom = 0

    def forget(self, top: int) -> None:
        """No row above ``top`` will be asked for again."""
        while self._held and self._top + len(self._held[0]) <= top:
            self._top += len(self._held.pop(0))

    def picture(self, window: Window) -> Picture:
        """The pixels of a window, in sRGB, with their alpha."""
        self._read_to(window.bottom)
        parts: list[NDArray[Any]] = []
        at = self._top
        for block in self._held:
            low, high = max(window.top, at), min(window.bottom, at + len(block))
            if low < high:
                parts.append(block[low - at : high - at, window.left : window.right])
            at += len(block)
        return self._source._picture(np.concatenate(parts))  # pyright: ignore[reportPrivateUsage]

    def _read_to(self, bottom: int) -> None:
        source = self._source
        with source._reading():  # pyright: ignore[reportPrivateUsage]
            while self._bottom < bottom:
                count = min(_ROWS, source.height - self._bottom)
                block = np.frombuffer(self._region.fetch(0, self._bottom, source.width, count), self._type)
                self._held.append(block.reshape(count, source.width, self._bands))
                self._bottom += count


def sweeps(source: Source, tiles: Callable[[int], list[Window]], reach: int) -> Callable[[int], Any]:
    """For exact statistics: every call of what it gives reads the file once, in tiles of a side."""

    def over(tile: int) -> Callable[[], Generator[tuple[Window, Window, Array], None, None]]:
        def sweep() -> Generator[tuple[Window, Window, Array], None, None]:
            rows = source.rows()
            for window in tiles(tile):
                outer = window.grown(reach, source.height, source.width)
                rows.forget(outer.top)
                yield window, outer, rows.picture(outer).pixels

        return sweep

    return over
