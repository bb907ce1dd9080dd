"""Colour profiles: samples of a file to sRGB floats and back.

Profiles made of curves and a matrix (Display P3, Adobe RGB, ProPhoto, most cameras and screens; ICC.1:2022 section 8.3) are computed
here in floats, unclipped. Those made of look-up tables go through Little CMS, in the 8 bits that Pillow offers.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from scumble._formats import Raster

log = logging.getLogger(__name__)

Floats: TypeAlias = NDArray[np.float32]

# Colourants of sRGB (IEC 61966-2-1), adapted to the D50 white of the profile connection space
_SRGB_TO_XYZ = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
_STEPS = 65535


class _BrokenProfileError(Exception):
    """The profile's bytes make no sense, or not for these pixels."""


@dataclass(frozen=True, eq=False)
class Profile:
    """An ICC profile as a way to sRGB and back; ``space`` is GRAY, RGB, CMYK or LAB."""

    icc: bytes
    space: str
    curves: tuple[NDArray[np.float64], ...] = ()  # native n / 65535 -> linear light; none: look-up tables
    to_linear_srgb: NDArray[np.float64] | None = None
    is_srgb: bool = False

    def unpack(self, samples: NDArray[Any]) -> Floats:
        """(H, W, C) samples of ``space``, of any scale -> (H, W, 3) sRGB, not clipped."""
        if self.is_srgb:
            return unit(np.broadcast_to(samples, (*samples.shape[:2], 3)))
        if not self.curves:
            return unit(np.asarray(self._through_cms(samples, forward=True)))
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
            native = np.asarray(self._through_cms(quantized(np.clip(pixels, 0, 1), 8), forward=False))
            return unit(np.broadcast_to(native.reshape(*pixels.shape[:2], -1), pixels.shape))
        grid = np.linspace(0, 1, _STEPS + 1)
        back = None if self.to_linear_srgb is None else np.linalg.inv(self.to_linear_srgb).T

        def band(rows: NDArray[Any]) -> NDArray[Any]:
            linear = _linear_from_srgb(rows.astype(np.float64))
            linear = linear if back is None else linear @ back
            return np.stack([np.interp(linear[..., i], curve, grid) for i, curve in enumerate(self.curves)], axis=-1)

        return _in_bands(band, pixels)

    def _through_cms(self, samples: NDArray[Any], *, forward: bool) -> Image.Image:
        mode = {"GRAY": "L"}.get(self.space, self.space)
        samples = quantized(unit(samples), 8)
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
    return replace(profile, is_srgb=bool(np.abs(profile.unpack(lattice) - unit(lattice)).max() < 0.5 / 255))


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


def to_srgb(raster: Raster, name: str) -> tuple[Floats, bytes | None]:
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
        return unit(np.asarray(image.convert("RGB"))), None
    pixels = unit(raster.samples)
    return (np.repeat(pixels, 3, axis=2) if space == "GRAY" else pixels), None


def is_usable(icc: bytes, space: str, name: str) -> bool:
    """Whether a profile says something about samples of ``space``; if not, a warning that names the picture."""
    try:
        profile = read_profile(icc)
    except _BrokenProfileError as error:
        log.warning("%s: the colour profile is ignored: %s", name, error)
        return False
    if profile.space != space and (profile.space, space) != ("RGB", "GRAY"):
        log.warning("%s: the colour profile is ignored: it is for %s, the picture is %s", name, profile.space, space)
        return False
    return True


def _leads_back(profile: Profile) -> bool:
    """Whether colours can be brought back; a scanner's profile, say, may only lead from its colours to ours."""
    try:
        profile.pack(np.zeros((1, 1, 3), np.float32))
    except (ImageCms.PyCMSError, OSError, ValueError):
        log.info("the colour profile leads one way only; the picture will be saved in sRGB")
        return False
    return True


def unit(samples: NDArray[Any]) -> Floats:
    """Samples of any depth as floats in [0, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    return np.true_divide(samples, np.iinfo(samples.dtype).max, dtype=np.float32)


def quantized(values: Floats, bits: int) -> NDArray[Any]:
    """Floats in [0, 1] as samples of 8 or 16 bits."""
    white = np.float32(2**bits - 1)
    return (values * white + np.float32(0.5)).astype(np.uint8 if bits == 8 else np.uint16)
