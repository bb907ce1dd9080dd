"""Picture: files <-> float arrays. The only module that opens or writes image files (containers are in ``_formats``).

Inside a Picture all is upright sRGB. What the file was (profile, EXIF, XMP, bits, resolution) is kept aside and given back on saving.
"""

from __future__ import annotations

import io
import json
import logging
import os
import secrets
import stat
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms

from scumble import _formats
from scumble._formats import FORMATS, SUFFIXES, Metadata, Raster
from scumble.errors import InputError, UsageError, in_range

__all__ = ["DEFAULT_MAX_PIXELS", "SUFFIXES", "Metadata", "Picture", "Source", "read_recipe"]

log = logging.getLogger(__name__)

DEFAULT_MAX_PIXELS = 200_000_000

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
Floats: TypeAlias = NDArray[np.float32]


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

    ``pixels``: (H, W, 3) float32 in [0, 1]; ``alpha``: (H, W) float32 in [0, 1], 1 is opaque, or None. Both are read only.
    Where alpha is 0, pixels hold the nearest visible colours, so that nothing bleeds in from what nobody sees.
    """

    pixels: Floats
    alpha: Floats | None = None
    metadata: Metadata = field(default_factory=Metadata)
    excess: Excess | None = None

    def __post_init__(self) -> None:
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
            view = values.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

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
        stream, name = _stream_of(source)
        with stream:
            try:
                return _picture_of(_formats.read(stream, name, max_pixels), name)
            except MemoryError as error:
                raise InputError(f"{name} does not fit into memory; free some or give a smaller picture") from error
            except OSError as error:
                raise InputError(f"{name} cannot be read ({_reason(error)}); check the file") from error

    @classmethod
    def from_array(cls, array: ArrayLike) -> Picture:
        """A picture from sRGB values: H x W, or H x W x C with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels.

        uint8 and uint16 at full scale, bool, or float in [0, 1]; UsageError for anything else, NaN included.
        """
        values = np.asarray(array)
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
        """A picture from a Pillow image of any mode, with the profile, EXIF and XMP that it carries."""
        return _picture_of(_formats.raster_of(image), "the picture")

    def with_pixels(self, pixels: ArrayLike) -> Picture:
        """The same picture painted anew: (H, W, 3) floats, clipped to [0, 1]; alpha and metadata stay.

        Raises UsageError if the size differs or a value is NaN.
        """
        values = np.asarray(pixels, dtype=np.float32)
        if values.shape != self.pixels.shape:
            raise UsageError(f"pixels must be {self.height} x {self.width} x 3 like the picture; got shape {values.shape}")
        return replace(self, pixels=np.clip(values, 0, 1))

    def resized(self, width: int, height: int) -> Picture:
        """The picture at another size in pixels, antialiased (Lanczos with support 3)."""
        if width < 1 or height < 1:
            raise UsageError(f"a picture needs at least 1 x 1 pixels; got {width} x {height}")

        def resample(channel: Floats) -> Floats:
            return np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), Image.Resampling.LANCZOS))

        whole = self._with_excess()
        pixels, excess = _split_gamut(np.stack([resample(whole[..., channel]) for channel in range(3)], axis=-1))
        alpha = None if self.alpha is None else np.clip(resample(self.alpha), 0, 1)
        return Picture(pixels, alpha, self.metadata, excess if self.excess is not None else None)

    def to_array(self) -> NDArray[np.uint8]:
        """uint8 sRGB, H x W x 3, or H x W x 4 with alpha."""
        return _quantized(self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha]), 8)

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
        samples, icc = self._samples(key, depth)
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
        target = Path(path)
        if target.suffix.lower() not in SUFFIXES:
            raise UsageError(f"cannot save as {str(path)!r}; the suffix must be one of {', '.join(SUFFIXES)}")
        place = _checked_target(target, overwrite=overwrite)
        data = self.encode(target.suffix, quality=quality, recipe=recipe, bits=bits)
        _write_whole(place, data, overwrite=overwrite)
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

    def _samples(self, format: str, depth: int) -> tuple[NDArray[Any], bytes | None]:
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
        samples = _quantized(pixels, depth)
        if alpha is not None:
            samples = np.dstack([samples, _quantized(alpha, depth)])
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


def read_recipe(source: Source) -> dict[str, Any]:
    """The recipe that ``Picture.save`` stored in a picture; InputError if there is none."""
    stream, name = _stream_of(source)
    with stream:
        return _formats.read_recipe(stream, name)


def _picture_of(raster: Raster, name: str) -> Picture:
    whole, icc = _to_srgb(raster, name)
    alpha = None if raster.alpha is None else _unit(raster.alpha)
    if alpha is not None:
        _fill_hidden(whole, alpha > 0)
    pixels, excess = (whole, None) if icc is None else _split_gamut(whole)
    return Picture(pixels, alpha, replace(raster.metadata, icc_profile=icc), excess)


def _unit(samples: NDArray[Any]) -> Floats:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    return np.true_divide(samples, np.iinfo(samples.dtype).max, dtype=np.float32)


def _quantized(values: Floats, bits: int) -> NDArray[Any]:
    white = np.float32(2**bits - 1)
    return (values * white + np.float32(0.5)).astype(np.uint8 if bits == 8 else np.uint16)


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


# Colour ---------------------------------------------------------------------------------------------------------------

# Colourants of sRGB (IEC 61966-2-1), adapted to the D50 white of the profile connection space
_SRGB_TO_XYZ = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
_STEPS = 65535


class _BrokenProfileError(Exception):
    """The profile's bytes make no sense, or not for these pixels."""


@dataclass(frozen=True, eq=False)
class Profile:
    """An ICC profile as a way to sRGB and back; ``space`` is GRAY, RGB, CMYK or LAB.

    Profiles made of curves and a matrix (Display P3, Adobe RGB, ProPhoto, most cameras and screens; ICC.1:2022 section 8.3) are computed
    here in floats, unclipped. Those made of look-up tables go through Little CMS, in the 8 bits that Pillow offers.
    """

    icc: bytes
    space: str
    curves: tuple[NDArray[np.float64], ...] = ()  # native n / 65535 -> linear light; none: look-up tables
    to_linear_srgb: NDArray[np.float64] | None = None
    is_srgb: bool = False

    def unpack(self, samples: NDArray[Any]) -> Floats:
        """(H, W, C) samples of ``space``, of any scale -> (H, W, 3) sRGB, not clipped."""
        if self.is_srgb:
            return _unit(np.broadcast_to(samples, (*samples.shape[:2], 3)))
        if not self.curves:
            return _unit(np.asarray(self._through_cms(samples, forward=True)))
        steps = samples.astype(np.uint16) * np.uint16(257) if samples.dtype == np.uint8 else samples
        if steps.dtype != np.uint16:
            steps = np.rint(steps * _STEPS).astype(np.uint16)

        def band(rows: NDArray[Any]) -> NDArray[Any]:
            linear = np.stack([curve[rows[..., min(i, rows.shape[2] - 1)]] for i, curve in enumerate(self.curves)], axis=-1)
            return _srgb_from_linear(linear if self.to_linear_srgb is None else linear @ self.to_linear_srgb.T)

        return _in_bands(band, steps)

    def pack(self, pixels: Floats) -> Floats:
        """(H, W, 3) sRGB, possibly outside [0, 1] -> (H, W, 3) in this profile, clipped to [0, 1]."""
        if self.is_srgb:
            return np.clip(pixels, 0, 1)
        if not self.curves:
            native = np.asarray(self._through_cms(_quantized(np.clip(pixels, 0, 1), 8), forward=False))
            return _unit(np.broadcast_to(native.reshape(*pixels.shape[:2], -1), pixels.shape))
        grid = np.linspace(0, 1, _STEPS + 1)
        back = None if self.to_linear_srgb is None else np.linalg.inv(self.to_linear_srgb).T

        def band(rows: NDArray[Any]) -> NDArray[Any]:
            linear = _linear_from_srgb(rows.astype(np.float64))
            linear = linear if back is None else linear @ back
            return np.stack([np.interp(linear[..., i], curve, grid) for i, curve in enumerate(self.curves)], axis=-1)

        return _in_bands(band, pixels)

    def _through_cms(self, samples: NDArray[Any], *, forward: bool) -> Image.Image:
        mode = {"GRAY": "L"}.get(self.space, self.space)
        samples = _quantized(_unit(samples), 8)
        image = Image.frombytes(mode if forward else "RGB", (samples.shape[1], samples.shape[0]), samples.tobytes())
        own, srgb = ImageCms.getOpenProfile(io.BytesIO(self.icc)), ImageCms.createProfile("sRGB")
        from_profile, to_profile = (own, srgb) if forward else (srgb, own)
        converted = ImageCms.profileToProfile(
            image,
            from_profile,
            to_profile,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB" if forward else mode,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return cast(Image.Image, converted)


@lru_cache(maxsize=8)
def read_profile(icc: bytes) -> Profile:
    """A profile from its bytes (ICC.1:2022, section 7). Raises _BrokenProfileError."""
    try:
        space = {b"GRAY": "GRAY", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "LAB"}[icc[16:20]]
        if icc[36:40] != b"acsp":
            raise _BrokenProfileError("it does not say that it is one")
        (count,) = struct.unpack_from(">I", icc, 128)
        tags = {icc[at : at + 4]: struct.unpack_from(">II", icc, at + 4) for at in range(132, 132 + 12 * min(count, 256), 12)}
        bodies = {tag: icc[start : start + size] for tag, (start, size) in tags.items()}
        profile = Profile(icc, space)
        wanted = (b"rTRC", b"gTRC", b"bTRC") if space == "RGB" else (b"kTRC",)
        if icc[20:24] == b"XYZ " and b"A2B0" not in bodies and all(tag in bodies for tag in wanted):
            profile = _matrix_profile(icc, space, bodies, wanted)
    except (KeyError, struct.error, ValueError, np.linalg.LinAlgError) as error:
        raise _BrokenProfileError(f"it cannot be parsed ({error})") from error
    if not profile.curves:
        try:
            profile._through_cms(np.zeros((1, 1, {"GRAY": 1, "CMYK": 4}.get(space, 3)), np.uint8), forward=True)  # pyright: ignore[reportPrivateUsage]
        except (ImageCms.PyCMSError, OSError, ValueError, ImportError) as error:
            raise _BrokenProfileError(str(error)) from error
    return profile


def _matrix_profile(icc: bytes, space: str, bodies: Mapping[bytes, bytes], wanted: tuple[bytes, ...]) -> Profile:
    curves = tuple(_curve(bodies[tag]) for tag in wanted)
    if space == "GRAY":
        return Profile(icc, space, curves * 3)
    columns = [np.array(struct.unpack_from(">3i", bodies[tag], 8)) / 65536 for tag in (b"rXYZ", b"gXYZ", b"bXYZ")]
    colourants = np.stack(columns, axis=1)
    # Both whites are D50 up to rounding; made equal, so that greys stay exactly grey
    colourants *= (_SRGB_TO_XYZ.sum(axis=1) / colourants.sum(axis=1))[:, None]
    matrix = np.linalg.inv(_SRGB_TO_XYZ) @ colourants
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1e4:
        raise ValueError("its colourants span no colours")
    profile = Profile(icc, space, curves, matrix)
    # Many files carry some sRGB profile. If it moves no colour by half a step of 8 bits, skipping it is faster and lossless
    levels = np.linspace(0, _STEPS, 9).astype(np.uint16)
    lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    return replace(profile, is_srgb=bool(np.abs(profile.unpack(lattice) - _unit(lattice)).max() < 0.5 / 255))


def _curve(body: bytes) -> NDArray[np.float64]:
    """A tone curve (curveType or parametricCurveType, ICC.1:2022 sections 10.6 and 10.18) at 65 536 steps, never falling."""
    x = np.linspace(0, 1, _STEPS + 1)
    if body[:4] == b"curv":
        (count,) = struct.unpack_from(">I", body, 8)
        points = np.array(struct.unpack_from(f">{count}H", body, 12), dtype=np.float64)
        y = x if count == 0 else x ** (points[0] / 256) if count == 1 else np.interp(x, np.linspace(0, 1, count), points / 65535)
    elif body[:4] == b"para":
        (kind,) = struct.unpack_from(">H", body, 8)
        g, a, b, c, d, e, f = _parameters(kind, body)
        with np.errstate(all="ignore"):
            y = np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)
    else:
        raise ValueError("its tone curve is of an unknown kind")
    y = np.maximum.accumulate(np.clip(y, 0, 1))
    if not np.isfinite(y).all() or y[-1] <= y[0]:
        raise ValueError("its tone curve is flat")
    return y


def _parameters(kind: int, body: bytes) -> tuple[float, ...]:
    """The five kinds of parametric curve, all written as the last: (a x + b)^g + e from d on, c x + f below."""
    if kind > 4:
        raise ValueError("its tone curve is of an unknown kind")
    v = [n / 65536 for n in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", body, 12)]
    if kind == 0:
        return v[0], 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if kind in (1, 2):
        e = v[3] if kind == 2 else 0.0
        return v[0], v[1], v[2], 0.0, -v[2] / v[1] if v[1] else 0.0, e, e
    return (*v[:5], 0.0, 0.0) if kind == 3 else tuple(v)


def _srgb_from_linear(x: NDArray[Any]) -> NDArray[Any]:
    """The curve of IEC 61966-2-1, odd around 0 and unbounded, so that colours outside sRGB survive the way to and fro."""
    size = np.abs(x)
    return np.copysign(np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055), x)


def _linear_from_srgb(x: NDArray[Any]) -> NDArray[Any]:
    size = np.abs(x)
    return np.copysign(np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4), x)


def _in_bands(convert: Callable[[NDArray[Any]], NDArray[Any]], image: NDArray[Any]) -> Floats:
    """``convert`` over bands of rows: float64 for the whole of a large picture would cost several times its size."""
    out = np.empty((*image.shape[:2], 3), np.float32)
    rows = max(1, 2**18 // image.shape[1])
    for top in range(0, image.shape[0], rows):
        out[top : top + rows] = convert(image[top : top + rows])
    return out


def _to_srgb(raster: Raster, name: str) -> tuple[Floats, bytes | None]:
    """Pixels in sRGB, not clipped, and the profile if the way back exists."""
    icc, space = raster.metadata.icc_profile, raster.space
    if icc is not None:
        try:
            profile = read_profile(icc)
            if profile.space != space and (profile.space, space) != ("RGB", "GRAY"):
                raise _BrokenProfileError(f"it is for {profile.space}, the picture is {space}")
            samples = raster.samples
            if profile.space != space:
                samples = np.repeat(samples, 3, axis=2)
            pixels = profile.unpack(samples)
        except _BrokenProfileError as error:
            log.warning("%s: the colour profile is ignored: %s", name, error)
        else:
            return pixels, icc if profile.space in ("RGB", "GRAY") and _leads_back(profile) else None
    if space in ("CMYK", "LAB"):
        image = Image.frombytes(space, (raster.samples.shape[1], raster.samples.shape[0]), raster.samples.tobytes())
        if space == "LAB":
            lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            image = cast(Image.Image, ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
        return _unit(np.asarray(image.convert("RGB"))), None
    pixels = _unit(raster.samples)
    return (np.repeat(pixels, 3, axis=2) if space == "GRAY" else pixels), None


def _leads_back(profile: Profile) -> bool:
    """Whether colours can be brought back; a scanner's profile, say, may only lead from its colours to ours."""
    try:
        profile.pack(np.zeros((1, 1, 3), np.float32))
    except (ImageCms.PyCMSError, OSError, ValueError):
        log.info("the colour profile leads one way only; the picture will be saved in sRGB")
        return False
    return True


def _split_gamut(whole: Floats) -> tuple[Floats, Excess | None]:
    """Pixels clipped to [0, 1] and what that took away, if more than a tenth of a step of 16 bits."""
    pixels = np.clip(whole, 0, 1)
    index = np.flatnonzero((np.abs(whole - pixels) > 1.5e-6).any(axis=2))
    if index.size == 0:
        return pixels, None
    inside = pixels.reshape(-1, 3)[index]
    return pixels, Excess(index, inside, whole.reshape(-1, 3)[index] - inside)


# Files ----------------------------------------------------------------------------------------------------------------


def _stream_of(source: Source) -> tuple[BinaryIO, str]:
    """A seekable stream of our own, and what messages call it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), "the picture"
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            stream = path.open("rb")
            if not stream.seekable():
                with stream:
                    return io.BytesIO(stream.read()), str(path)
            return stream, str(path)
        except FileNotFoundError:
            raise InputError(f"there is no file {path}; check the path") from None
        except IsADirectoryError:
            raise InputError(f"{path} is a folder; give a picture file") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            if path.is_dir():  # what Windows calls a denied permission
                raise InputError(f"{path} is a folder; give a picture file") from None
            if isinstance(error, PermissionError):
                raise InputError(f"{path} may not be read; change its permissions") from None
            raise InputError(f"{str(path)!r} cannot be read ({_reason(error)}); check the path") from error
    if not hasattr(source, "read"):
        raise UsageError(f"a picture must be a path, bytes or a binary file object; got {type(source).__name__}")
    try:
        data: Any = source.read()
    except (OSError, ValueError) as error:
        raise InputError(f"the picture cannot be read ({_reason(error)}); check the file object") from error
    if not isinstance(data, bytes):
        raise UsageError("a file object must be opened in binary mode ('rb')")
    return io.BytesIO(data), "the picture"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:]


def _recipe_text(recipe: Mapping[str, Any] | None) -> str | None:
    if recipe is None:
        return None
    try:
        return json.dumps(dict(recipe), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a recipe must hold JSON values only ({error})") from error


def _checked_target(target: Path, *, overwrite: bool) -> Path:
    """Where to write; what can go wrong with it is said before the work of encoding."""
    try:
        if not target.parent.is_dir():
            raise InputError(f"cannot write {target}: there is no folder {target.parent}; make it first")
        if target.is_dir():
            raise InputError(f"cannot write {target}: it is a folder; give a file name")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise InputError(f"{target} exists already; allow overwriting (--overwrite) or choose another name")
        return target.resolve() if overwrite else target  # overwriting a link means what it points to
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"cannot write {str(target)!r} ({_reason(error)}); choose another name") from error


def _write_whole(target: Path, data: bytes, *, overwrite: bool) -> None:
    """Bytes into a hidden file beside the target, onto the disk, and only then under the target's name."""
    temporary = target.parent / f".scumble-{secrets.token_hex(8)}.part"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                with suppress(OSError):
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                temporary.replace(target)
            else:
                _claim(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":
            with suppress(OSError):
                folder = os.open(target.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
    except FileExistsError:
        raise InputError(f"{target} exists already; allow overwriting (--overwrite) or choose another name") from None
    except OSError as error:
        raise InputError(f"cannot write {target} ({_reason(error)}); free space, change permissions or choose another place") from error


def _claim(temporary: Path, target: Path) -> None:
    """Move to a name that nobody else has; a second writer gets FileExistsError, however close the race.

    A hard link does both at once. Where the file system has none, the name is reserved by an empty file first: killed in that instant
    (and only there), the process leaves it behind.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        target.open("xb").close()
        try:
            temporary.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
