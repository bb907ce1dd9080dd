"""Masks: what is painted, how strongly, and with which of several styles.

White is painted, black is left as it is, grey is painted at part strength.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scumble._files import Source
from scumble.errors import UsageError, in_range, must_be, whole
from scumble.picture import DEFAULT_MAX_PIXELS, Picture, as_array, read_only, sealed

Float32 = NDArray[np.float32]
Pixels = NDArray[np.floating[Any]]

MOST_FEATHER = 10_000.0
"""Pixels; wider than any picture that is painted whole."""

_BAND = 1 << 20
"""Pixels filtered or blended at a time: bounds the float64 sums to some 10 MiB whatever the mask's size."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A soft mask. UsageError if ``weights`` is not a filled (H, W) array of numbers in [0, 1]; one that can be written to is copied."""

    weights: Float32
    """(H, W) float32 in [0, 1], read only; 1 is painted, 0 is not."""

    def __post_init__(self) -> None:
        try:
            weights = read_only(self.weights)
        except (TypeError, ValueError) as error:
            told = type(self.weights).__name__
            raise UsageError(f"a mask must be an array (Mask.open reads files); got {told}") from error
        if weights.ndim != 2 or 0 in weights.shape:
            raise UsageError(f"a mask must be (height, width) and not empty; got {weights.shape}")
        low, high = float(weights.min()), float(weights.max())
        if not (low >= 0.0 and high <= 1.0):  # also catches NaN
            raise UsageError(f"a mask must be between 0 and 1; got {low:g} to {high:g}")
        object.__setattr__(self, "weights", weights)

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "weights", read_only(sealed(state["weights"])))  # as in Picture

    @property
    def height(self) -> int:
        return self.weights.shape[0]

    @property
    def width(self) -> int:
        return self.weights.shape[1]

    @classmethod
    def open(
        cls,
        source: Source,
        size: tuple[int, int] | None = None,
        *,
        feather: float = 0.0,
        invert: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Mask:
        """A mask from any picture that :class:`~scumble.picture.Picture` can read; see :meth:`from_picture`."""
        return cls.from_picture(Picture.open(source, max_pixels=max_pixels), size, feather=feather, invert=invert)

    @classmethod
    def from_picture(cls, picture: Picture, size: tuple[int, int] | None = None, *, feather: float = 0.0, invert: bool = False) -> Mask:
        """The picture's luminance, times its alpha if it has one; then resized, feathered and inverted, in this order.

        ``size`` is (height, width), usually the content's; None keeps the mask's own. ``feather`` is in pixels of that size, see
        :meth:`feathered`. The luminance is Rec. 709's sum of the sRGB values as they are stored, not of linear light: a mask is
        data, and who paints it 50 % grey means half. InputError for an unreadable file, UsageError for a wrong setting.
        """
        must_be("from_picture takes a Picture; files are for Mask.open, arrays for from_array", picture, Picture)
        weights = picture.pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32)
        if picture.alpha is not None:
            weights *= picture.alpha
        return cls(sealed(np.clip(weights, 0.0, 1.0)))._finished(size, feather, invert)

    @classmethod
    def from_array(cls, array: NDArray[Any], size: tuple[int, int] | None = None, *, feather: float = 0.0, invert: bool = False) -> Mask:
        """A mask from (H, W) or (H, W, 1): bool, uint8 and uint16 over their whole range, floats in [0, 1].

        The settings are those of :meth:`from_picture`. UsageError for other types, shapes and ranges.
        """
        array = as_array(array)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        full = {np.dtype(np.bool_): 1.0, np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(array.dtype)
        if full is None and not np.issubdtype(array.dtype, np.floating):
            raise UsageError(f"a mask must be bool, uint8, uint16 or float; got {array.dtype}")
        return cls(sealed(np.divide(array, full or 1.0, dtype=np.float32)))._finished(size, feather, invert)

    def resized(self, *, height: int, width: int) -> Mask:
        """The mask at another size. UsageError unless both are whole and at least 1.

        Linear interpolation, widened to the scale when shrinking, so that it is antialiased. Sharper kernels overshoot: they would
        lay a rim of paint along the outside of every edge.
        """
        height, width = whole("height", height), whole("width", width)
        if width < 1 or height < 1:
            raise UsageError(f"a mask's size must be at least 1×1; got {width}×{height}")
        if (width, height) == (self.width, self.height):
            return self
        image = Image.fromarray(self.weights).resize((width, height), Image.Resampling.BILINEAR)
        return Mask(sealed(np.clip(np.asarray(image, np.float32), 0.0, 1.0)))

    def feathered(self, pixels: float) -> Mask:
        """The mask with soft edges: a hard edge turns into a slope that reaches ``pixels`` to either side of where it was.

        A Gaussian of σ = pixels / 2, so 95 % of the slope lies within that reach. It is made of three box filters of fractional width
        (Gwosdek et al. 2011, *Theoretical foundations of Gaussian convolution by extended box filtering*): the variance is exact, the
        slope within 2 % of the Gaussian's, the cost does not depend on the radius, and beyond about 3 σ the mask is exactly what it
        was. Borders are replicated: a mask that reaches the picture's edge stays full there. UsageError outside 0 to 10,000.
        """
        in_range("feather", pixels, 0.0, MOST_FEATHER)
        if pixels == 0.0:
            return self
        sigma = pixels / 2.0
        return Mask(sealed(np.ascontiguousarray(_blurred_rows(_blurred_rows(self.weights, sigma).T, sigma).T)))

    def inverted(self) -> Mask:
        """What was painted is left, what was left is painted."""
        return Mask(sealed(1.0 - self.weights))

    def _finished(self, size: tuple[int, int] | None, feather: float, invert: bool) -> Mask:
        try:
            height, width = (self.height, self.width) if size is None else size
        except (TypeError, ValueError) as error:
            raise UsageError(f"size must be (height, width); got {size!r:.80}") from error
        mask = self.resized(height=height, width=width)
        mask = mask.feathered(feather)
        return mask.inverted() if invert else mask


MaskLike: TypeAlias = Mask | str | os.PathLike[str]


def masks_of(given: MaskLike | Sequence[MaskLike] | None, max_pixels: int) -> list[Mask]:
    """One mask or several, each a Mask or the path of a picture; UsageError for anything else."""
    if given is None:
        return []
    masks = list(given) if isinstance(given, Sequence) and not isinstance(given, (str, bytes)) else [given]
    for mask in masks:
        must_be("a mask must be a Mask (Mask.from_array makes one of an array) or the path of a picture", mask, Mask, str, os.PathLike)
    return [mask if isinstance(mask, Mask) else Mask.open(mask, max_pixels=max_pixels) for mask in masks]


def composite(base: Pixels, layers: Iterable[tuple[Pixels, Mask]]) -> Float32:
    """Layers of pixels laid over ``base`` (H, W, 3), each where its mask says: a new float32 array.

    out = Σ wᵢ pᵢ + (1 − Σ wᵢ) base, with wᵢ = mᵢ / max(1, Σ m): a partition of unity. Masks that add up to less than 1 let the base
    through, masks that add up to more share the pixel in proportion, and no seam lies where the one turns into the other. The
    order of layers does not matter, and one is held at a time. Blended as stored, in sRGB, as painting programs do. UsageError for unequal
    sizes.
    """
    if base.ndim != 3 or base.shape[2] != 3:
        raise UsageError(f"base must be (height, width, 3); got {base.shape}")
    total, mixed = np.zeros(base.shape[:2], np.float32), np.zeros(base.shape, np.float32)
    rows = max(1, _BAND // base.shape[1])
    bands = [slice(top, top + rows) for top in range(0, base.shape[0], rows)]
    for number, (pixels, mask) in enumerate(layers, 1):
        _check_layer(number, base, pixels, mask)
        for band in bands:
            mixed[band] += mask.weights[band][..., None] * pixels[band]
        total += mask.weights
    for band in bands:
        mixed[band] /= np.maximum(total[band], 1.0)[..., None]
        mixed[band] += np.maximum(1.0 - total[band], 0.0)[..., None] * base[band]
    return np.clip(mixed, 0.0, 1.0, out=mixed)  # weights sum to 1 within rounding, and a picture allows no 1.0000001


def _check_layer(number: int, base: Pixels, pixels: Pixels, mask: Mask) -> None:
    height, width, _ = base.shape
    if pixels.shape != base.shape:
        raise UsageError(f"layer {number} must have the shape of the base {base.shape}; got {pixels.shape}")
    if mask.weights.shape != (height, width):
        raise UsageError(
            f"the mask of layer {number} must be {width}×{height} like the base; got {mask.width}×{mask.height}:"
            f" resize it with mask.resized(height={height}, width={width})"
        )


def _blurred_rows(weights: Float32, sigma: float) -> Float32:
    """Three extended box filters along the last axis that together have variance σ²; (H, W) -> (H, W), borders replicated.

    The box has 2 r + 1 whole taps and two of weight f < 1 at its ends; r and f are such that its variance is σ²/3 (Gwosdek et al.).
    """
    third = sigma * sigma / 3.0
    r = int((np.sqrt(1.0 + 12.0 * third) - 1.0) / 2.0)  # the largest plain box whose variance r (r + 1) / 3 is not above σ²/3
    f = (2 * r + 1) * (third - r * (r + 1) / 3.0) / (2.0 * ((r + 1) ** 2 - third))
    out = np.empty(weights.shape, np.float32)
    rows = max(1, _BAND // (weights.shape[1] + 2 * r))
    for top in range(0, len(weights), rows):
        band = weights[top : top + rows].astype(np.float64)
        for _ in range(3):
            band = _box(band, r, f)
        out[top : top + rows] = band
    return np.clip(out, 0.0, 1.0, out=out)


def _box(rows: NDArray[np.float64], r: int, f: float) -> NDArray[np.float64]:
    """Running mean over 2 r + 1 + 2 f taps, as differences of running sums in float64 (in float32 they would drift)."""
    padded = np.pad(rows, ((0, 0), (r + 2, r + 1)), mode="edge")
    sums = np.cumsum(padded, axis=1)
    n, length = rows.shape[1], 2 * r + 1
    whole = sums[:, 1 + length : 1 + length + n] - sums[:, 1 : 1 + n]
    ends = padded[:, 1 : 1 + n] + padded[:, 2 + length : 2 + length + n]
    return (whole + f * ends) / (length + 2.0 * f)
