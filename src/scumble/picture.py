"""Picture: files <-> float arrays. The only module that opens or writes image files.

What it stands on: ``_formats`` (containers and metadata), ``_profiles`` (colours), ``_files`` (whole or not at all).

Inside a Picture all is upright sRGB. What the file was (profile, EXIF, XMP, bits, resolution) is kept aside and given back on saving.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from scumble import _formats
from scumble._files import Source, checked_target, reason, stream_of, write_whole
from scumble._formats import FORMATS, SUFFIXES, Metadata, Raster
from scumble._profiles import Floats, quantized, read_profile, to_srgb, unit
from scumble.errors import InputError, ScumbleError, UsageError, in_range, must_be, whole

__all__ = ["DEFAULT_MAX_PIXELS", "SUFFIXES", "Metadata", "Picture", "Source", "fitted_size", "read_recipe", "read_size"]

log = logging.getLogger(__name__)

DEFAULT_MAX_PIXELS = 200_000_000


@dataclass(frozen=True, eq=False)
class Excess:
    """How far the file's colours lie outside sRGB, at the pixels where they do (most pictures: nowhere).

    Painting happens in [0, 1], so a Display P3 red would come back paler even from pixels that nobody touched. The excess is added
    again on saving, in full where a pixel still has the colour it had, and fading to nothing as it moves ``_REPAINTED`` away:
    a soft mask then fades it, too, instead of cutting an edge.
    """

    index: NDArray[np.intp]  # (N,) into the picture's H * W pixels
    inside: Floats  # (N, 3) the colour clipped to sRGB, as it stood in Picture.pixels
    beyond: Floats  # (N, 3) what clipping took away


_REPAINTED = 16 / 255


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """An upright picture in sRGB, with all that its file said besides.

    ``pixels``: (H, W, 3) float32 in [0, 1]; ``alpha``: (H, W) float32 in [0, 1], 1 is opaque, or None; else UsageError. Both are read
    only, and copied if somebody could still write to them.
    Where alpha is 0, pixels hold the nearest visible colours, so that nothing bleeds in from what nobody sees.
    """

    pixels: Floats
    alpha: Floats | None = None
    metadata: Metadata = field(default_factory=Metadata)
    excess: Excess | None = None

    def __post_init__(self) -> None:
        must_be("pixels must be an array (Picture.open reads files, from_pil takes Pillow's images)", self.pixels, np.ndarray)
        must_be("alpha must be an array or None", self.alpha, np.ndarray, NoneType)
        must_be("metadata must be a Metadata", self.metadata, Metadata)
        shape = self.pixels.shape
        if self.pixels.ndim != 3 or shape[2] != 3 or 0 in shape or self.pixels.dtype != np.float32:
            raise UsageError(f"pixels must be H x W x 3 float32, at least 1 x 1; got shape {shape} of {self.pixels.dtype}")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != np.float32):
            raise UsageError(f"alpha must be {shape[0]} x {shape[1]} float32; got shape {self.alpha.shape} of {self.alpha.dtype}")
        for name in ("pixels", "alpha"):
            values = getattr(self, name)
            if values is None:
                continue
            low, high = float(values.min()), float(values.max())  # NaN wins in both
            if not (low >= 0 and high <= 1):
                raise UsageError(f"{name} must be between 0 and 1; got {low:g} to {high:g}")
            object.__setattr__(self, name, read_only(values))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # arrays come writeable out of a pickle or a deep copy, and nobody else has them
        for name in ("pixels", "alpha"):
            if state[name] is not None:
                object.__setattr__(self, name, read_only(sealed(state[name])))

    def __repr__(self) -> str:
        kind = "" if self.metadata.format is None else f", {FORMATS[self.metadata.format].title}"
        return f"Picture({self.width} x {self.height}{', alpha' if self.alpha is not None else ''}, {self.metadata.bits} bits{kind})"

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), the order of the array's shape."""
        return self.height, self.width

    @classmethod
    def open(cls, source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
        """Read a JPEG, PNG, WebP, TIFF, BMP, GIF (first frame), AVIF or HEIC from a path, from bytes or from a binary file object.

        The format is told by the content, not by the suffix. More than ``max_pixels`` are refused before anything is decoded.
        Raises InputError for what can't be read, MissingExtraError for HEIC without ``scumble[heif]``.
        """
        in_range("max-pixels", max_pixels, 1, 1e18)
        stream, name = stream_of(source)
        with stream:
            try:
                return _picture_of(_formats.read(stream, name, max_pixels), name)
            except MemoryError as error:
                raise InputError(f"{name} does not fit into memory; free some or give a smaller picture") from error
            except OSError as error:
                raise InputError(f"{name} cannot be read ({reason(error)}); check the file") from error

    @classmethod
    def from_array(cls, array: ArrayLike) -> Picture:
        """A picture from sRGB values: H x W, or H x W x C with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels.

        uint8 and uint16 at full scale, bool, or float in [0, 1]; UsageError for anything else, NaN included.
        """
        values = as_array(array)
        if values.ndim not in (2, 3) or 0 in values.shape or (values.ndim == 3 and values.shape[2] > 4):
            raise UsageError(f"an array must be H x W or H x W x 1 to 4, at least 1 x 1; got shape {values.shape}")
        if values.dtype == np.bool_:
            values = values.astype(np.uint8) * np.uint8(255)
        elif values.dtype.kind == "f":
            low, high = float(values.min()), float(values.max())
            if not (low >= 0 and high <= 1):
                raise UsageError(f"a float array must be between 0 and 1 (numpy.clip it first); got {low:g} to {high:g}")
            values = values.astype(np.float32)
        elif values.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise UsageError(f"an array must be uint8, uint16, bool or float; got {values.dtype}")
        values = values.reshape(*values.shape[:2], -1)
        even = values.shape[2] % 2 == 0
        samples, alpha = (values[..., :-1], values[..., -1]) if even else (values, None)
        grey = samples.shape[2] == 1
        metadata = Metadata(bits=16 if values.dtype == np.uint16 else 8, grey=grey)
        return _picture_of(Raster(samples, alpha, "GRAY" if grey else "RGB", metadata), "the array")

    @classmethod
    def from_pil(cls, image: Image.Image) -> Picture:
        """A picture from a Pillow image of any mode, with the profile, EXIF and XMP that it carries.

        UsageError for what is none; InputError for one that is closed, or whose file turns out to be damaged when it is decoded.
        """
        must_be("from_pil takes a Pillow image; files are for Picture.open, arrays for from_array", image, Image.Image)
        try:
            raster = _formats.raster_of(image)
        except (ScumbleError, MemoryError):
            raise
        except Exception as error:  # any of a dozen, as from the decoders of files
            told = reason(error) or type(error).__name__
            raise InputError(f"the Pillow image cannot be read ({told}); open it again, from a whole file") from error
        return _picture_of(raster, "the picture")

    @classmethod
    def from_raster(cls, raster: Raster, name: str) -> Picture:
        """A picture from decoded samples and what their file said; ``name`` is what messages call it."""
        return _picture_of(raster, name)

    def with_pixels(self, pixels: ArrayLike) -> Picture:
        """The same picture painted anew: (H, W, 3) floats, clipped to [0, 1]; alpha and metadata stay.

        Raises UsageError if the size differs or a value is NaN.
        """
        values = as_array(pixels, np.float32)
        if values.shape != self.pixels.shape:
            raise UsageError(f"pixels must be {self.height} x {self.width} x 3 like the picture; got shape {values.shape}")
        return replace(self, pixels=sealed(np.clip(values, 0, 1)))

    def scaled(self, factor: float) -> Picture:
        """The picture ``factor`` times as large each way, in whole pixels, one at least; see :meth:`resized`."""
        return self.resized(width=max(1, round(self.width * factor)), height=max(1, round(self.height * factor)))

    def resized(self, *, width: int, height: int) -> Picture:
        """The picture at another size in pixels, antialiased (Lanczos with support 3). UsageError unless both are whole and at least 1."""
        width, height = whole("width", width), whole("height", height)
        if width < 1 or height < 1:
            raise UsageError(f"a picture needs at least 1 x 1 pixels; got {width} x {height}")

        def resample(channel: Floats) -> Floats:
            return np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), Image.Resampling.LANCZOS))

        wide = self._with_excess()
        pixels, excess = _split_gamut(np.stack([resample(wide[..., channel]) for channel in range(3)], axis=-1))
        alpha = None if self.alpha is None else sealed(np.clip(resample(self.alpha), 0, 1))
        return Picture(sealed(pixels), alpha, self.metadata, excess if self.excess is not None else None)

    def to_array(self) -> NDArray[np.uint8]:
        """uint8 sRGB, H x W x 3, or H x W x 4 with alpha."""
        return quantized(self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha]), 8)

    def to_pil(self) -> Image.Image:
        """An 8-bit Pillow image in sRGB, mode RGB or RGBA, without metadata."""
        return Image.fromarray(self.to_array())

    def encode(self, format: str, *, quality: int = 95, recipe: Mapping[str, Any] | None = None, bits: int | None = None) -> bytes:
        """The bytes of a file, the same bytes each time.

        ``format``: a name or suffix ('png', '.jpg'). ``quality``: 1 to 100 for JPEG, WebP, AVIF and HEIC. ``recipe``: JSON values to be
        stored in the metadata. ``bits``: 8 or 16 per channel; None is as in the source where the format can. Colours return to the
        source's profile where the format holds one; JPEG and BMP, which know no alpha, get the picture over white.
        Raises UsageError, MissingExtraError (16 bits without ``scumble[deep]``), InputError (the encoder refused).
        """
        key = _formats.format_named(format)
        in_range("quality", quality, 1, 100)
        depth = self._depth(key, bits)
        samples, icc = self.samples(key, depth)
        metadata = replace(self.metadata, icc_profile=icc)
        return _formats.write(key, samples, metadata, quality=int(quality), recipe=_recipe_text(recipe))

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        quality: int = 95,
        overwrite: bool = False,
        recipe: Mapping[str, Any] | None = None,
        bits: int | None = None,
    ) -> Path:
        """Write a file, whole or not at all, in the format of its suffix; the other settings are those of ``encode``.

        Raises InputError if the target exists (unless ``overwrite``) or can't be written, UsageError for an unknown suffix.
        """
        must_be("a picture is saved under a path", path, str, os.PathLike)
        target = Path(path)
        _formats.check_suffix(target)
        place = checked_target(target, overwrite=overwrite)
        data = self.encode(target.suffix, quality=quality, recipe=recipe, bits=bits)
        write_whole(place, data, overwrite=overwrite)
        return target

    def _depth(self, format: str, bits: int | None) -> int:
        kind = FORMATS[format]
        if bits not in (None, 8, 16):
            raise UsageError(f"bits must be 8 or 16; got {bits!r}")
        if bits == 16:
            if not kind.deep:
                raise UsageError(f"{kind.title} holds 8 bits per channel; for 16 save as PNG or TIFF")
            _formats.require_deep()
        if bits is None and kind.deep and self.metadata.bits == 16:
            if _formats.deep_is_there():
                return 16
            log.warning('the picture has 16 bits per channel and is written with 8; to keep all of them: pip install "scumble[deep]"')
        return bits or 8

    def samples(self, format: str, depth: int) -> tuple[NDArray[Any], bytes | None]:
        """What the file shall hold, (H, W, 1..4) unsigned, and the profile in which that is meant."""
        kind = FORMATS[format]
        alpha = self.alpha if kind.alpha else None
        grey = (
            self.metadata.grey
            and (2 if alpha is not None else 1) in kind.grey
            and bool(np.array_equal(self.pixels[..., 0], self.pixels[..., 1]) and np.array_equal(self.pixels[..., 0], self.pixels[..., 2]))
        )
        profile = read_profile(self.metadata.icc_profile) if self.metadata.icc_profile and kind.profile else None
        if profile is not None and profile.space == "GRAY" and not grey:
            profile = None  # a profile for grey says nothing about colours
        pixels = self.pixels if profile is None else self._with_excess()
        if self.alpha is not None and alpha is None:
            cover = self.alpha[..., None]
            pixels = pixels * cover + (1 - cover)
        if profile is not None:
            pixels = profile.pack(pixels)
        if grey:
            pixels = pixels[..., 1:2]
        samples = quantized(pixels, depth)
        if alpha is not None:
            samples = np.dstack([samples, quantized(alpha, depth)])
        return samples, None if profile is None else profile.icc

    def _with_excess(self) -> Floats:
        """Pixels with the source's colours outside sRGB, hence partly outside [0, 1]."""
        if self.excess is None:
            return self.pixels
        pixels = self.pixels.reshape(-1, 3).copy()
        now = pixels[self.excess.index]
        kept = 1 - np.abs(now - self.excess.inside).max(axis=1, keepdims=True) / np.float32(_REPAINTED)
        pixels[self.excess.index] = now + self.excess.beyond * np.maximum(kept, 0)
        return pixels.reshape(self.pixels.shape)


def read_only(values: Any) -> Floats:
    """``values`` as float32 that nobody can write to: themselves where that holds already, see :func:`sealed`, else a copy."""
    below = values
    while isinstance(below, np.ndarray) and not below.flags.writeable:
        below = below.base
    kept = isinstance(values, np.ndarray) and values.dtype == np.float32 and not isinstance(below, np.ndarray)
    return (values if kept else sealed(np.array(values, np.float32))).view()  # of a view nobody can take the seal off


def sealed(fresh: Floats) -> Floats:
    """``fresh``, made read only with all that it is a view of. For arrays that nobody else holds: a large picture is not copied."""
    below: Any = fresh
    while isinstance(below, np.ndarray):
        below.flags.writeable = False
        below = below.base
    return fresh


def as_array(given: ArrayLike, dtype: type[np.generic] | None = None) -> NDArray[Any]:
    """As an array of this machine's byte order; UsageError for what NumPy makes none of."""
    try:
        array = np.asarray(given, dtype)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor of PyTorch that is still being trained
        raise UsageError(f"an array must be made of numbers in rows of equal length; got {type(given).__name__}") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def fitted_size(height: int, width: int, longer: int | None) -> tuple[int, int]:
    """(height, width) in whole pixels, one at least, when the longer side is to have ``longer`` of them; None: as they are."""
    factor = 1 if longer is None else longer / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def read_size(source: Source) -> tuple[int, int]:
    """(height, width) of a picture file as its pixels are stored, from its header alone; InputError as for ``Picture.open``."""
    stream, name = stream_of(source)
    with stream:
        return _formats.read_size(stream, name)


def read_recipe(source: Source) -> dict[str, Any]:
    """The recipe that ``Picture.save`` stored in a picture; InputError if there is none."""
    stream, name = stream_of(source)
    with stream:
        return _formats.read_recipe(stream, name)


def _picture_of(raster: Raster, name: str) -> Picture:
    wide, icc = to_srgb(raster, name)
    alpha = None if raster.alpha is None else sealed(unit(raster.alpha))
    if alpha is not None:
        _fill_hidden(wide, alpha > 0)
    pixels, excess = (wide, None) if icc is None else _split_gamut(wide)
    return Picture(sealed(pixels), alpha, replace(raster.metadata, icc_profile=icc), excess)


def _fill_hidden(pixels: Floats, visible: NDArray[np.bool_]) -> None:
    """Give hidden pixels, in place, the colours of the nearest visible ones, at the resolution of their distance.

    The push-pull pyramid of Gortler et al., The Lumigraph (SIGGRAPH 1996, section 3.4.2): averages of what is visible on the way up, holes
    filled from above on the way down. Linear in the number of pixels, where an exact nearest neighbour is not (without SciPy).
    """
    if not visible.any():
        return
    levels: list[tuple[Floats, NDArray[np.bool_]]] = []
    while not visible.all():
        levels.append((pixels, visible))
        half = (visible.shape[0] + 1) // 2, (visible.shape[1] + 1) // 2
        total, count = np.zeros((*half, 3), np.float32), np.zeros((*half, 1), np.float32)
        for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):  # (H, W) -> (H/2, W/2), the last row or column of an odd size alone
            seen = visible[top::2, left::2, None].astype(np.float32)
            height, width = seen.shape[:2]
            total[:height, :width] += pixels[top::2, left::2] * seen
            count[:height, :width] += seen
        total /= np.maximum(count, 1)
        pixels, visible = total, count[..., 0] > 0
    for fine, seen in reversed(levels):
        rows, columns = np.nonzero(~seen)
        fine[rows, columns] = pixels[rows >> 1, columns >> 1]
        pixels = fine


def _split_gamut(whole: Floats) -> tuple[Floats, Excess | None]:
    """Pixels clipped to [0, 1] and what that took away, if more than a tenth of a step of 16 bits."""
    pixels = np.clip(whole, 0, 1)
    index = np.flatnonzero((np.abs(whole - pixels) > 1.5e-6).any(axis=2))
    if index.size == 0:
        return pixels, None
    inside = pixels.reshape(-1, 3)[index]
    return pixels, Excess(index, inside, whole.reshape(-1, 3)[index] - inside)


def _recipe_text(recipe: Mapping[str, Any] | None) -> str | None:
    if recipe is None:
        return None
    try:
        return json.dumps(dict(recipe), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a recipe must hold JSON values only ({error})") from error
