import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scumble.color import (
    keep_color,
    linear_to_srgb,
    match_color,
    oklab_to_rgb,
    palette,
    rgb_to_oklab,
    srgb_to_linear,
)
from scumble.errors import UsageError


def noise(seed, height=20, width=30, low=0.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, (height, width, 3)).astype(np.float32)


def pixel(*rgb):
    return np.array(rgb, np.float32).reshape(1, 1, 3)


def all_colors(steps):
    ramp = np.linspace(0.0, 1.0, steps, dtype=np.float32)
    return np.stack(np.meshgrid(ramp, ramp, ramp, indexing="ij"), axis=-1).reshape(steps, -1, 3)


def chroma_and_hue(lab):
    return np.hypot(lab[..., 1], lab[..., 2]), np.arctan2(lab[..., 2], lab[..., 1])


# spaces


def test_srgb_curve_has_the_values_of_the_standard():
    # IEC 61966-2-1: straight below 0.04045, mid grey 0.5 is 21.4 % of the light
    np.testing.assert_allclose(srgb_to_linear(np.array([0.0, 0.04045, 0.5, 1.0])), [0.0, 0.0031308, 0.21404114, 1.0], rtol=1e-4)
    np.testing.assert_allclose(linear_to_srgb(np.array([0.0, 0.0031308, 0.21404114, 1.0])), [0.0, 0.04045, 0.5, 1.0], rtol=1e-4)


def test_srgb_curve_there_and_back():
    ramp = np.linspace(-0.1, 1.2, 4001, dtype=np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(ramp)), ramp, atol=1e-6)
    assert (np.diff(srgb_to_linear(ramp)) > 0).all()
    assert linear_to_srgb(np.ones(1)).max() <= 1.0  # a Picture allows nothing above


def test_oklab_of_the_primaries():
    # Ottosson's own formula, evaluated in high precision
    expected = {
        (1, 1, 1): (1.0, 0.0, 0.0),
        (0, 0, 0): (0.0, 0.0, 0.0),
        (1, 0, 0): (0.62796, 0.22486, 0.12585),
        (0, 1, 0): (0.86644, -0.23389, 0.17950),
        (0, 0, 1): (0.45201, -0.03246, -0.31153),
    }
    for rgb, lab in expected.items():
        np.testing.assert_allclose(rgb_to_oklab(pixel(*rgb))[0, 0], lab, atol=2e-5)


def test_grey_has_no_chroma():
    greys = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], 3, axis=2)
    lab = rgb_to_oklab(greys)
    assert np.abs(lab[..., 1:]).max() < 1e-6
    assert (np.diff(lab[0, :, 0]) > 0).all()


def test_oklab_there_and_back_over_the_whole_gamut():
    cube = all_colors(41)
    back = oklab_to_rgb(rgb_to_oklab(cube))
    np.testing.assert_allclose(back, cube, atol=1e-5)
    assert back.dtype == np.float32
    assert back.min() >= 0.0
    assert back.max() <= 1.0


def test_eight_bit_pixels_come_back_to_the_bit():
    codes = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    back = oklab_to_rgb(rgb_to_oklab((codes / 255).astype(np.float32)))
    np.testing.assert_array_equal(np.rint(back * 255), codes)


# gamut


def test_colors_out_of_gamut_keep_lightness_and_hue():
    rng = np.random.default_rng(1)
    lab = np.stack([rng.uniform(0.05, 0.98, 2000), *rng.uniform(-0.5, 0.5, (2, 2000))], axis=-1).astype(np.float32)[None]
    rgb = oklab_to_rgb(lab)
    assert rgb.min() >= 0.0
    assert rgb.max() <= 1.0
    got = rgb_to_oklab(rgb)
    chroma, hue = chroma_and_hue(lab)
    got_chroma, got_hue = chroma_and_hue(got)
    np.testing.assert_allclose(got[..., 0], lab[..., 0], atol=2e-4)
    turned = np.abs(np.angle(np.exp(1j * (got_hue - hue)))) * got_chroma  # as a distance: the hue of a grey means nothing
    assert turned.max() < 5e-4
    assert (got_chroma <= chroma + 1e-4).all()
    # and no more chroma was taken than needed: where some was, 1 % more of what is left would be outside
    outside = got_chroma < 0.999 * chroma
    assert outside.sum() > 1000
    further = np.concatenate([lab[..., :1], got[..., 1:] * 1.01], axis=-1)[outside]
    again = rgb_to_oklab(oklab_to_rgb(further[None]))[0]
    assert np.median(chroma_and_hue(again)[0] / chroma_and_hue(further)[0]) < 0.993


def test_the_extremes_of_lightness_are_black_and_white():
    lab = np.array([[[-0.2, 0.1, 0.1], [0.0, 0.3, 0.0], [1.0, 0.2, -0.1], [1.4, 0.0, 0.3]]], np.float32)
    np.testing.assert_allclose(oklab_to_rgb(lab)[0], [[0] * 3, [0] * 3, [1] * 3, [1] * 3], atol=2e-4)


def test_colors_inside_the_gamut_are_not_touched():
    saturated = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]], np.float32)
    np.testing.assert_allclose(oklab_to_rgb(rgb_to_oklab(saturated)), saturated, atol=1e-5)


# keeping colours


def test_keep_color_0_returns_the_painting_itself():
    painted, content = noise(2), noise(3)
    assert keep_color(painted, content, 0.0) is painted


def test_keep_color_1_is_the_painting_in_lightness_and_the_content_in_color():
    # mild colours, so that all combinations lie within the gamut
    painted, content = noise(4, low=0.45, high=0.6), noise(5, low=0.45, high=0.6)
    lab = rgb_to_oklab(keep_color(painted, content, 1.0))
    np.testing.assert_allclose(lab[..., 0], rgb_to_oklab(painted)[..., 0], atol=1e-5)
    np.testing.assert_allclose(lab[..., 1:], rgb_to_oklab(content)[..., 1:], atol=1e-5)


def test_keep_color_goes_along_a_straight_line():
    painted, content = noise(6, low=0.45, high=0.6), noise(7, low=0.45, high=0.6)
    a, b = rgb_to_oklab(painted)[..., 1:], rgb_to_oklab(content)[..., 1:]
    np.testing.assert_allclose(rgb_to_oklab(keep_color(painted, content, 0.3))[..., 1:], 0.7 * a + 0.3 * b, atol=1e-5)


def test_a_grey_content_makes_the_painting_grey():
    content = np.full((20, 30, 3), 0.3, np.float32)
    kept = keep_color(noise(10), content, 1.0)
    assert (kept.max(axis=2) - kept.min(axis=2)).max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 12), width=st.integers(1, 12), amount=st.floats(0.0, 1.0))
def test_kept_colors_stay_a_picture(seed, height, width, amount):
    painted, content = noise(seed, height, width), noise(seed + 1, height, width)
    out = keep_color(painted, content, amount)
    assert out.shape == painted.shape
    assert out.dtype == np.float32
    assert out.min() >= 0.0  # also false for NaN
    assert out.max() <= 1.0
    np.testing.assert_allclose(keep_color(painted, painted, amount), painted, atol=1e-5)


def test_inputs_are_not_written_to():
    painted, content = noise(11), noise(12)
    for array in (painted, content):
        array.flags.writeable = False  # as in a Picture
    keep_color(painted, content)
    match_color(painted, content)
    palette(painted)


def test_bands_leave_no_trace(monkeypatch):
    painted, content = noise(13), noise(14)
    whole = keep_color(painted, content), match_color(painted, content)
    monkeypatch.setattr("scumble.color._BAND", 100)  # three rows at a time, and two at the end
    np.testing.assert_allclose(keep_color(painted, content), whole[0], atol=1e-6)
    np.testing.assert_allclose(match_color(painted, content), whole[1], atol=1e-6)


def test_views_in_any_memory_order_are_taken():
    painted, content = noise(15), noise(16)
    flipped = keep_color(np.asfortranarray(painted[::-1, ::2]), content[::-1, ::2])
    np.testing.assert_allclose(flipped, keep_color(painted, content)[::-1, ::2], atol=1e-6)


def test_large_pictures_take_little_memory():
    painted, content = noise(17, 300, 500), noise(18, 300, 500)
    tracemalloc.start()
    keep_color(painted, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < painted.nbytes + 2**20


# matching colours


def test_matched_style_has_the_contents_mean_and_covariance():
    rng = np.random.default_rng(19)
    mixing = np.array([[0.05, 0.03, 0.0], [0.0, 0.04, -0.02], [0.01, 0.0, 0.03]])
    style = (0.5 + rng.uniform(-1, 1, (40, 30, 3)) * 0.05).astype(np.float32)
    content = (0.55 + rng.uniform(-1, 1, (25, 35, 3)) @ mixing).astype(np.float32)
    got, want = (rgb_to_oklab(x).reshape(-1, 3).astype(np.float64) for x in (match_color(style, content), content))
    np.testing.assert_allclose(got.mean(axis=0), want.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.cov(got.T), np.cov(want.T), atol=1e-3 * np.trace(np.cov(want.T)))


def test_matching_a_style_to_itself_changes_nothing():
    style = noise(20)
    np.testing.assert_allclose(match_color(style, style), style, atol=1e-4)
    np.testing.assert_allclose(match_color(style, style, luminance_only=True), style, atol=1e-4)


def test_luminance_only_matches_lightness_and_leaves_hues():
    style, content = noise(21, low=0.45, high=0.55), noise(22, low=0.4, high=0.7)
    before, after, want = (rgb_to_oklab(x) for x in (style, match_color(style, content, luminance_only=True), content))
    np.testing.assert_allclose(after[..., 0].mean(), want[..., 0].mean(), atol=1e-4)
    np.testing.assert_allclose(after[..., 0].std(), want[..., 0].std(), rtol=1e-2)
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=1e-4)


@pytest.mark.parametrize("luminance_only", [False, True])
@pytest.mark.parametrize(
    "style", [np.zeros((4, 4, 3)), np.ones((4, 4, 3)), np.full((1, 1, 3), 0.4), np.linspace(0, 1, 48).reshape(4, 4, 3)]
)
@pytest.mark.parametrize("content", [np.zeros((5, 3, 3)), np.full((1, 1, 3), 0.7), np.linspace(0, 1, 45).reshape(5, 3, 3)])
def test_degenerate_pictures_are_matched_without_complaint(style, content, luminance_only):
    out = match_color(style.astype(np.float32), content.astype(np.float32), luminance_only=luminance_only)
    assert out.shape == style.shape
    assert out.min() >= 0.0
    assert out.max() <= 1.0


def test_a_flat_style_takes_the_contents_mean_color():
    content = noise(23, low=0.4, high=0.6)
    out = rgb_to_oklab(match_color(np.full((6, 6, 3), 0.2, np.float32), content))
    np.testing.assert_allclose(out, np.broadcast_to(rgb_to_oklab(content).mean(axis=(0, 1)), out.shape), atol=1e-4)


# palettes


def test_palette_of_flat_areas_is_exact():
    picture = np.empty((10, 10, 3), np.float32)
    picture[:] = (0.9, 0.1, 0.2)
    picture[:3] = (0.1, 0.2, 0.8)
    picture[9, 9] = (1.0, 1.0, 0.0)
    colors, shares = palette(picture, 3)
    np.testing.assert_allclose(colors, [(0.9, 0.1, 0.2), (0.1, 0.2, 0.8), (1.0, 1.0, 0.0)], atol=1e-5)
    np.testing.assert_allclose(shares, [0.69, 0.30, 0.01])


def test_palette_finds_clusters_under_noise():
    rng = np.random.default_rng(24)
    centers = np.array([(0.8, 0.2, 0.2), (0.2, 0.7, 0.3), (0.2, 0.3, 0.9), (0.9, 0.9, 0.8)])
    labels = rng.choice(4, (60, 60), p=[0.4, 0.3, 0.2, 0.1])
    picture = np.clip(centers[labels] + 0.02 * rng.normal(size=(60, 60, 3)), 0, 1).astype(np.float32)
    colors, shares = palette(picture, 4)
    np.testing.assert_allclose(colors, centers, atol=0.02)
    np.testing.assert_allclose(shares, np.bincount(labels.ravel()) / 3600, atol=1e-12)


def test_palette_is_deterministic_sorted_and_complete():
    picture = noise(25, 150, 150)  # more pixels than are looked at
    colors, shares = palette(picture, 8)
    again, _ = palette(picture, 8)
    np.testing.assert_array_equal(colors, again)
    assert colors.shape == (8, 3)
    assert colors.dtype == np.float32
    assert (np.diff(shares) <= 0).all()
    assert shares.sum() == pytest.approx(1.0)


def test_palette_sampling_does_not_fall_in_step_with_stripes():
    stripes = np.zeros((512, 512, 3), np.float32)
    stripes[:, ::4] = 1.0
    _, shares = palette(stripes, 2)
    np.testing.assert_allclose(shares, [0.75, 0.25], atol=5e-3)


def test_palette_has_no_more_colors_than_the_picture():
    colors, shares = palette(np.full((7, 5, 3), 0.25, np.float32), 6)
    np.testing.assert_allclose(colors, [[0.25] * 3], atol=1e-5)
    np.testing.assert_array_equal(shares, [1.0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 9), n=st.integers(1, 12), levels=st.integers(1, 5))
def test_palette_of_anything(seed, height, width, n, levels):
    picture = (np.random.default_rng(seed).integers(0, levels, (height, width, 3)) / max(1, levels - 1)).astype(np.float32)
    colors, shares = palette(picture, n)
    distinct = len(np.unique(picture.reshape(-1, 3), axis=0))
    assert len(colors) == len(shares) <= min(n, distinct)
    if n >= distinct:
        assert len(colors) == distinct
    assert shares.sum() == pytest.approx(1.0)
    assert shares.min() > 0


# refusals


def test_wrong_settings_say_what_is_allowed():
    picture = noise(26)
    with pytest.raises(UsageError, match=r"amount must be between 0 and 1; got 1\.5"):
        keep_color(picture, picture, 1.5)
    with pytest.raises(UsageError, match=r"content must have the painted picture's shape \(20, 30, 3\); got \(20, 29, 3\)"):
        keep_color(picture, picture[:, :29])
    with pytest.raises(UsageError, match=r"picture must be \(height, width, 3\) and not empty; got \(20, 30\)"):
        rgb_to_oklab(picture[..., 0])
    with pytest.raises(UsageError, match="n must be between 1 and 256; got 0"):
        palette(picture, 0)
    with pytest.raises(UsageError, match=r"style must be floats in \[0, 1\]; got uint8"):
        match_color((picture * 255).astype(np.uint8), picture)
