"""Colour spaces, keeping the content's colours, colour matching, palettes.

Pictures are sRGB float32 (H, W, 3) in [0, 1]. Colour is judged and moved in OKLab (Ottosson 2020, *A perceptual color space for
image processing*): lightness L in [0, 1], a (green to red) and b (blue to yellow) within about ±0.4, hue lines that stay
straight when chroma changes. Large pictures are worked through in bands of rows, so that what lies between in and out never
takes more than a few MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.errors import UsageError, in_range
from scumble.fusion import AffineMap, Moments, affine, mixture, moments

Pixels = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Ottosson 2020, with the matrix of 2021-01-25 that is derived from sRGB's own white point. The inverses are computed: those in
# print are rounded, which would cost the round trip its last digits.
_LMS_OF_RGB = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB_OF_ROOTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_RGB_OF_LMS = np.linalg.inv(_LMS_OF_RGB)
_ROOTS_OF_LAB = np.linalg.inv(_LAB_OF_ROOTS)

_BAND = 1 << 12
"""Pixels worked on at a time (never less than a row): all that lies between, half a MiB, stays in cache. Eight times as many took
twice as long."""

_DUST = 1e-6
"""Linear light beyond 0 or 1 that is rounding, not colour: at most 0.003 of a step of 8 bits, it is simply cut."""

_CHROMA_STEPS = 6
"""Halvings of the interval in which the largest chroma within the gamut lies. A straight line through what is left of it comes within
1/4096 of the pixel's chroma, well under a step of 8 bits; halving alone would take twice as many."""


def srgb_to_linear(srgb: Pixels) -> Float32:
    """From sRGB in [0, 1], any shape, to linear light in [0, 1]: IEC 61966-2-1. Values below 0 go on along the straight line."""
    x = np.asarray(srgb, np.float32)
    curve = np.asarray(np.maximum(x, 0.0))
    curve += np.float32(0.055)
    curve /= np.float32(1.055)
    np.power(curve, np.float32(2.4), out=curve)
    return np.divide(x, np.float32(12.92), out=curve, where=x <= np.float32(0.04045))


def linear_to_srgb(linear: Pixels) -> Float32:
    """From linear light in [0, 1], any shape, to sRGB in [0, 1]: the inverse of :func:`srgb_to_linear`."""
    x = np.asarray(linear, np.float32)
    curve = np.asarray(np.maximum(x, np.float32(0.0031308)))
    np.power(curve, np.float32(1 / 2.4), out=curve)
    curve *= np.float32(1.055)
    curve -= np.float32(0.055)
    return np.multiply(x, np.float32(12.92), out=curve, where=x <= np.float32(0.0031308))


def rgb_to_oklab(rgb: Pixels) -> Float32:
    """From sRGB (H, W, 3) in [0, 1] to OKLab (H, W, 3), float32. Ottosson 2020. UsageError for another shape."""
    _check_pixels("picture", rgb)
    return _in_bands(_oklab, rgb)


def oklab_to_rgb(lab: Pixels) -> Float32:
    """From OKLab (H, W, 3) to sRGB (H, W, 3), always within [0, 1]. UsageError for another shape.

    A colour that no screen shows is brought in along a straight line to the grey of its own lightness: lightness (held in [0, 1])
    and hue stay, chroma is reduced no more than it must (to 1/4096). The loss per colour is Ottosson's (2021, *sRGB gamut clipping*,
    "keep lightness, only compress chroma"); the edge of the gamut is found by bisection of the channels' cubics.
    """
    _check_pixels("OKLab picture", lab)
    return _in_bands(_rgb, lab)


def keep_color(painted: Pixels, content: Pixels, amount: float = 1.0) -> Float32:
    """``painted`` with the colours moved towards the content's; both sRGB (H, W, 3), ``amount`` in [0, 1].

    1 paints lightness alone (luminance-only transfer, Gatys et al. 2017, *Controlling perceptual factors*, arXiv 1611.07865): OKLab's a
    and b are the content's, L is the painting's. Between, a and b are blended on the straight line. 0 returns ``painted`` itself,
    untouched. Where the content's chroma is out of reach at the painting's lightness, it is reduced as by :func:`oklab_to_rgb`.
    UsageError for unequal shapes and an amount outside [0, 1].
    """
    return _chroma_blended(painted, content, amount)


def keep_chroma(painted: Pixels, lab: Pixels, amount: float = 1.0) -> Float32:
    """:func:`keep_color` with the content in OKLab, as from :func:`rgb_to_oklab`: a third less to do for one content and many paintings."""
    return _chroma_blended(painted, lab, amount, np.copy)


def match_color(style: Pixels, content: Pixels, *, luminance_only: bool = False) -> Float32:
    """The style recoloured with the content's palette, for painting in the content's colours; sRGB (H, W, 3), sizes may differ.

    The linear map x -> A x + b with b = μ_c − A μ_s and A Σ_s Aᵀ = Σ_c gives the style's pixels the content's mean and covariance
    (Gatys et al. 2016, *Preserving color in neural artistic style transfer*, arXiv 1606.05897, the linear colour transfer). These
    two leave A open by a rotation. Gatys et al. settle it with Σ_c^½ Σ_s^-½; here A is the Monge map (Pitié & Kokaram 2007, *The
    linear Monge-Kantorovitch linear colour mapping*), which among all of them moves the colours least. We also differ in working
    in OKLab, not RGB: what falls out of the gamut loses chroma (:func:`oklab_to_rgb`); cut channel by channel, its hue would turn.

    ``luminance_only`` matches lightness alone, L -> (σ_c / σ_s) (L − μ_s) + μ_c, and leaves a and b: what the same paper does before
    a luminance-only transfer, to be followed by :func:`keep_color`. A constant picture is no error: gains are bounded as in
    :mod:`scumble.fusion`. UsageError for other shapes.
    """
    _check_pixels("style", style)
    _check_pixels("content", content)
    of_style, of_content = _lab_moments(style), _lab_moments(content)
    if luminance_only:
        light_s, light_c = (Moments(m.mean[:1], m.covariance[:1, :1]) for m in (of_style, of_content))
        scale = affine("adain", light_s, light_c)
        recolor = AffineMap(np.array([scale.matrix[0], 1.0, 1.0]), np.array([scale.offset[0], 0.0, 0.0]))
    else:
        recolor = affine("ot", of_style, of_content)

    def recolored(rgb: Float32) -> Float32:
        return _rgb(recolor.apply(_oklab(rgb)[:, None])[:, 0])

    return _in_bands(recolored, style)


def palette(pixels: Pixels, n: int = 5) -> tuple[Float32, NDArray[np.float64]]:
    """The dominant colours of sRGB pixels (H, W, 3): colours (k, 3), sRGB, and their shares (k,), largest first, summing to 1.

    k is ``n``, or less when the picture has fewer colours. Clusters are k-means in OKLab (Lloyd 1982) on at most 16,384 pixels.
    They start from splitting the widest cluster across its principal axis, again and again (PCA-Part, Su & Dy 2007): nothing is
    drawn by chance, so the same pixels give the same palette. UsageError unless 1 ≤ n ≤ 256.
    """
    _check_pixels("picture", pixels)
    in_range("n", n, 1, 256)
    points, counts = _histogram(_oklab(_planes(_sample(pixels))).T.astype(np.float64))
    labels = _principal_split(points, counts, n)
    centers = _cluster_means(points, counts, labels)
    for _ in range(_LLOYD_STEPS):
        distances = np.sum(centers**2, axis=1) - 2.0 * points @ centers.T  # (colours, k), squared, less what is the same in a row
        previous, labels = labels, np.argmin(distances, axis=1)
        if np.array_equal(labels, previous):
            break
        labels = np.unique(labels, return_inverse=True)[1]  # a cluster that lost its last colour is gone
        centers = _cluster_means(points, counts, labels)
    shares = np.bincount(labels, counts) / counts.sum()
    order = np.argsort(-shares, kind="stable")
    return _rgb(_planes(centers[order])).T, shares[order]


_SAMPLES = 1 << 14
_LLOYD_STEPS = 50
_BINS = 128
"""Steps of the palette's histogram per unit of OKLab: 0.008, less than half of what the eye can tell apart (about 0.02)."""


def _sample(pixels: Pixels) -> Pixels:
    """At most _SAMPLES pixels (k, 3), spread evenly: i φ mod 1 (Weyl) falls in step with no stripes or tiles, as a stride would."""
    flat = pixels.reshape(-1, 3)
    if len(flat) <= _SAMPLES:
        return flat
    places = np.arange(_SAMPLES) * ((5**0.5 - 1) / 2) % 1.0
    return flat[(places * len(flat)).astype(np.int64)]


def _histogram(lab: Float64) -> tuple[Float64, Float64]:
    """Points (k, 3) -> the mean colours (b, 3) of the bins that are not empty, and how many points each holds (b,)."""
    cells = np.floor(lab * _BINS).astype(np.int64) + 4 * _BINS  # L, a and b lie well within ±4
    keys = (cells[:, 0] << 40) | (cells[:, 1] << 20) | cells[:, 2]
    labels = np.unique(keys, return_inverse=True)[1]
    counts = np.bincount(labels).astype(np.float64)
    return _cluster_means(lab, np.ones(len(lab)), labels), counts


def _cluster_means(points: Float64, counts: Float64, labels: NDArray[np.intp]) -> Float64:
    sums = np.stack([np.bincount(labels, counts * points[:, i]) for i in range(3)], axis=1)
    return sums / np.bincount(labels, counts)[:, None]


def _principal_split(points: Float64, counts: Float64, n: int) -> NDArray[np.intp]:
    """Labels 0 … k − 1, k ≤ n: the cluster with most scatter is cut through its mean, across its longest axis, until there are n."""
    labels = np.zeros(len(points), np.intp)
    scatter = [_scatter(points, counts)]
    while len(scatter) < n:
        widest = int(np.argmax([trace for trace, _, _ in scatter]))
        trace, mean, axis = scatter[widest]
        if trace < 1e-8 * counts.sum():  # on average within 1e-4 of the mean: nobody sees two colours there
            break
        members = np.flatnonzero(labels == widest)
        beyond = (points[members] - mean) @ axis > 0.0
        labels[members[beyond]] = len(scatter)
        scatter[widest] = _scatter(points[members[~beyond]], counts[members[~beyond]])
        scatter.append(_scatter(points[members[beyond]], counts[members[beyond]]))
    return labels


def _scatter(points: Float64, counts: Float64) -> tuple[float, Float64, Float64]:
    """Total squared deviation from the mean, the mean (3,) and the longest axis (3,)."""
    mean = np.asarray(np.average(points, axis=0, weights=counts))
    centred = points - mean
    matrix = (centred * counts[:, None]).T @ centred
    return float(np.trace(matrix)), mean, np.linalg.eigh(matrix)[1][:, -1]


def _chroma_blended(painted: Pixels, content: Pixels, amount: float, lab_of: Callable[[Float32], Float32] | None = None) -> Float32:
    """``painted`` with OKLab's a and b moved towards the content's; ``lab_of`` makes planes of OKLab out of the content's."""
    _check_pixels("painted picture", painted)
    _check_pixels("content", content)
    if content.shape != painted.shape:
        raise UsageError(f"content must have the painted picture's shape {painted.shape}; got {content.shape}")
    in_range("amount", amount, 0.0, 1.0)
    if amount == 0.0:
        return np.asarray(painted, np.float32)

    def blended(ours: Float32, theirs: Float32) -> Float32:
        lab, other = _oklab(ours), (lab_of or _oklab)(theirs)
        lab[1:] += np.float32(amount) * (other[1:] - lab[1:])
        return _rgb(lab)

    return _in_bands(blended, painted, content)


def _lab_moments(rgb: Pixels) -> Moments:
    bands = list(_bands(rgb))
    return mixture([moments(_oklab(_planes(band))[:, None]) for band in bands], [len(band) for band in bands])


def _bands(pixels: Pixels) -> Iterator[Pixels]:
    """Views of a few whole rows each, top to bottom."""
    rows = max(1, _BAND // pixels.shape[1])
    for top in range(0, pixels.shape[0], rows):
        yield pixels[top : top + rows]


def _in_bands(convert: Callable[..., Float32], *pictures: Pixels) -> Float32:
    """``convert``, which works on planes (3, pixels), applied to pictures (H, W, 3) a few rows at a time."""
    out = np.empty(pictures[0].shape, np.float32)
    for target, *sources in zip(_bands(out), *(_bands(picture) for picture in pictures), strict=True):
        target[...] = convert(*(_planes(source) for source in sources)).T.reshape(target.shape)
    return out


def _planes(pixels: Pixels) -> Float32:
    """(..., 3) -> (3, pixels), a copy: NumPy works on long rows several times faster than on triples."""
    return np.array(pixels.reshape(-1, 3).T, np.float32, order="C")


def _oklab(rgb: Float32) -> Float32:
    """From sRGB (3, k) to OKLab (3, k)."""
    lms = np.maximum(_LMS_OF_RGB @ srgb_to_linear(rgb), 1e-24)
    # in float32 the root has SIMD code; one step of Newton makes it good to 1e-14, in a third of the time that float64 takes
    roots = np.cbrt(lms, dtype=np.float32).astype(np.float64)
    roots -= (roots - lms / (roots * roots)) / 3.0
    return (_LAB_OF_ROOTS @ roots).astype(np.float32)


def _rgb(lab: Float32) -> Float32:
    """From OKLab (3, k) to sRGB (3, k) within the gamut."""
    lab = np.stack([np.clip(lab[0], 0.0, 1.0), lab[1], lab[2]])
    roots = _ROOTS_OF_LAB @ lab
    linear = (_RGB_OF_LMS @ (roots * roots * roots)).astype(np.float32)
    outside = np.flatnonzero((linear.min(axis=0) < -_DUST) | (linear.max(axis=0) > 1.0 + _DUST))
    if outside.size:
        linear[:, outside] = _with_less_chroma(lab[:, outside])
    return linear_to_srgb(np.clip(linear, 0.0, 1.0, out=linear))


def _with_less_chroma(lab: Float32) -> Float32:
    """From OKLab (3, k), L in [0, 1], to linear RGB (3, k) within the gamut, of the same lightness and hue.

    With t times the chroma, the cube roots of LMS are p + t q, and linear RGB is M (p + t q)³: a cubic for each channel. Its
    coefficients are found once; each step of the bisection costs three multiplications. t = 0 is a grey, which is always inside.
    """
    p, q = _ROOTS_OF_LAB[:, :1] * lab[0], _ROOTS_OF_LAB[:, 1:] @ lab[1:]
    c0, c1, c2, c3 = ((_RGB_OF_LMS @ term).astype(np.float32) for term in (p * p * p, 3 * p * p * q, 3 * p * q * q, q * q * q))

    def linear(t: Float32) -> Float32:
        return ((c3 * t + c2) * t + c1) * t + c0

    inside, step = np.zeros(lab.shape[1], np.float32), np.float32(1.0)
    for _ in range(_CHROMA_STEPS):
        step /= np.float32(2.0)
        rgb = linear(inside + step)
        inside += step * ((rgb.min(axis=0) >= -_DUST) & (rgb.max(axis=0) <= 1.0 + _DUST))
    within, beyond = linear(inside), linear(inside + step)
    room = np.where(beyond > within, 1 - within, within)  # to the wall that a channel moves towards
    share = (room / np.maximum(np.abs(beyond - within), np.float32(1e-12))).min(axis=0)
    return linear(inside + step * np.clip(share, 0.0, 1.0))


def _check_pixels(name: str, pixels: Pixels) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UsageError(f"{name} must be (height, width, 3) and not empty; got {pixels.shape}")
    if not np.issubdtype(pixels.dtype, np.floating):
        raise UsageError(f"{name} must be floats in [0, 1]; got {pixels.dtype} (Picture.from_array converts)")
