import copy
import io
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scumble.errors import InputError, UsageError
from scumble.mask import Mask, composite
from scumble.picture import Picture


def soft(seed, height=20, width=30):
    return Mask(np.random.default_rng(seed).random((height, width), np.float32))


def noise(seed, height=20, width=30):
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def step(height=9, width=80, at=40):
    """White from column ``at`` on."""
    weights = np.zeros((height, width), np.float32)
    weights[:, at:] = 1.0
    return Mask(weights)


def png(array, mode=None):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, "PNG")
    return file.getvalue()


# where masks come from


def test_white_is_painted_and_grey_counts_as_stored():
    mask = Mask.open(png(np.array([[0, 128, 255]], np.uint8)))
    np.testing.assert_allclose(mask.weights, [[0.0, 128 / 255, 1.0]], atol=1e-6)
    assert mask.weights.dtype == np.float32


def test_colors_count_by_their_luminance():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(Mask.open(png(rgb)).weights, [[0.2126, 0.7152, 0.0722, 1.0]], atol=1e-6)


def test_alpha_counts():
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[:2, :, 3] = 0
    rgba[2, :, 3] = 51
    np.testing.assert_allclose(Mask.open(png(rgba)).weights[:, 0], [0.0, 0.0, 0.2, 1.0], atol=1e-6)


def test_a_mask_can_come_from_a_file_and_from_a_picture(tmp_path):
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    path = tmp_path / "Maske für später.png"
    path.write_bytes(png(grey))
    expected = Mask.from_array(grey).weights
    np.testing.assert_allclose(Mask.open(path).weights, expected, atol=1e-6)
    np.testing.assert_allclose(Mask.from_picture(Picture.from_array(grey)).weights, expected, atol=1e-6)
    with pytest.raises(InputError):
        Mask.open(b"not a picture")


@pytest.mark.parametrize(
    "array",
    [
        np.array([[False, True]]),
        np.array([[0, 255]], np.uint8),
        np.array([[0, 65535]], np.uint16),
        np.array([[0, 65535]], ">u2"),
        np.array([[0.0, 1.0]]),
        np.array([[0.0, 1.0]], np.float16),
        np.array([[[0.0], [1.0]]], np.float32),
    ],
)
def test_arrays_of_many_types_make_the_same_mask(array):
    mask = Mask.from_array(array)
    np.testing.assert_array_equal(mask.weights, [[0.0, 1.0]])
    assert mask.weights.dtype == np.float32
    assert (mask.height, mask.width) == (1, 2)


def test_settings_apply_in_order_size_feather_invert():
    array = np.zeros((8, 8), np.uint8)
    array[:, 4:] = 255
    mask = Mask.from_array(array, (16, 24), feather=3.0, invert=True)
    expected = Mask.from_array(array).resized(height=16, width=24).feathered(3.0).inverted()
    np.testing.assert_array_equal(mask.weights, expected.weights)
    np.testing.assert_array_equal(Mask.open(png(array), (16, 24), feather=3.0, invert=True).weights, expected.weights)


def test_a_mask_is_read_only_and_apart_from_its_source():
    array = np.zeros((2, 2), np.float32)
    mask = Mask.from_array(array)
    array[:] = 1.0
    assert mask.weights.max() == 0.0
    with pytest.raises(ValueError, match="read-only"):
        mask.weights[0, 0] = 1.0


def test_nobody_else_can_write_to_a_mask():
    weights = np.full((4, 5), 0.25, np.float32)
    masks = [Mask(weights)]
    weights[:] = -3.0
    masks += [pickle.loads(pickle.dumps(masks[0])), copy.deepcopy(masks[0]), masks[0].resized(height=3, width=3), masks[0].feathered(2.0)]
    for mask in masks:
        np.testing.assert_allclose(mask.weights, 0.25, atol=1e-6)
        with pytest.raises(ValueError, match="WRITEABLE"):
            mask.weights.flags.writeable = True
    assert np.shares_memory(Mask(masks[0].weights).weights, masks[0].weights)  # which needs no copy


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: Mask("x"), r"a mask must be an array \(Mask.open reads files\); got str"),
        (lambda: Mask.from_array([[1.0], [1.0, 0.5]]), "an array must be made of numbers in rows of equal length; got list"),
        (lambda: Mask.from_picture("sky.png"), "from_picture takes a Picture; .* got 'sky.png'"),
        (lambda: Mask.from_array(np.ones((2, 2)), size=5), r"size must be \(height, width\); got 5"),
        (lambda: Mask.from_array(np.ones((2, 2)), size=(1, 2, 3)), r"size must be \(height, width\); got \(1, 2, 3\)"),
        (lambda: Mask.from_array(np.ones((2, 2)), size=(3.5, 4)), "height must be a whole number; got 3.5"),
        (lambda: soft(0).resized(height=3, width="4"), "width must be a whole number; got '4'"),
    ],
)
def test_what_is_of_a_wrong_kind(attempt, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        attempt()


def test_an_empty_path_is_no_folder():
    with pytest.raises(InputError, match="an empty path was given"):
        Mask.open("")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 3)), r"\(height, width\) and not empty; got \(2, 2, 3\)"),
        (np.zeros((0, 2)), "not empty"),
        (np.array([[0.0, 1.5]]), "between 0 and 1; got 0 to 1.5"),
        (np.array([[-0.25, 1.0]]), "between 0 and 1; got -0.25 to 1"),
        (np.array([[math.nan, 1.0]]), "between 0 and 1; got nan"),
        (np.zeros((2, 2), np.int64), "bool, uint8, uint16 or float; got int64"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(UsageError, match=message):
        Mask.from_array(array)


# size


def test_shrinking_averages():
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(Mask(checkerboard).resized(height=8, width=8).weights, 0.5, atol=0.01)


def test_resizing_does_not_overshoot_and_keeps_flat_areas_flat():
    grown = step().resized(height=27, width=240).weights
    assert (np.diff(grown, axis=1) >= 0).all()
    assert grown[0, 0] == 0.0
    assert grown[-1, -1] == 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.tuples(*[st.integers(1, 40)] * 4))
def test_any_size_becomes_any_other(seed, sizes):
    h, w, height, width = sizes
    mask = soft(seed, h, w)
    out = mask.resized(height=height, width=width)
    assert out.weights.shape == (height, width)
    assert out.weights.dtype == np.float32
    assert mask.weights.min() - 1e-6 <= out.weights.min()
    assert out.weights.max() <= mask.weights.max() + 1e-6


def test_the_same_size_is_the_same_mask():
    mask = soft(0)
    assert mask.resized(height=20, width=30) is mask
    with pytest.raises(UsageError, match="at least 1×1; got 5×0"):
        mask.resized(height=0, width=5)


# feather


@pytest.mark.parametrize("feather", [0.5, 1.0, 3.0, 8.0, 20.0])
def test_a_feathered_edge_has_the_gaussians_slope(feather):
    sigma = feather / 2
    profile = step(width=160, at=80).feathered(feather).weights[4].astype(np.float64)
    # the edge lies between columns 79 and 80; its derivative has the mean there, and variance σ²
    kernel = np.diff(profile)
    places = np.arange(1, 160) - 80.0
    assert kernel.sum() == pytest.approx(1.0, abs=1e-6)
    assert (kernel * places).sum() == pytest.approx(0.0, abs=1e-4)
    assert (kernel * places**2).sum() == pytest.approx(sigma**2, rel=1e-3, abs=1e-4)
    if sigma >= 1.0:
        gaussian = np.array([0.5 * (1 + math.erf((c - 79.5) / (sigma * math.sqrt(2)))) for c in range(160)])
        np.testing.assert_allclose(profile, gaussian, atol=0.02)


def test_beyond_the_feather_the_mask_is_exactly_what_it_was():
    profile = step(width=160, at=80).feathered(20.0).weights[0]
    assert (profile[:45] == 0.0).all()
    assert (profile[115:] == 1.0).all()


def test_feathering_keeps_the_amount_of_paint():
    dot = np.zeros((41, 51), np.float32)
    dot[20, 25] = 1.0
    soft_dot = Mask(dot).feathered(6.0).weights
    assert soft_dot.sum() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(soft_dot, soft_dot[::-1, ::-1], atol=1e-7)
    # as wide as high
    np.testing.assert_allclose(soft_dot[20, 15:36], soft_dot[10:31, 25], atol=1e-7)


def test_feather_and_invert_commute():
    mask = soft(1)
    np.testing.assert_allclose(mask.feathered(5.0).inverted().weights, mask.inverted().feathered(5.0).weights, atol=1e-6)


def test_feather_0_is_the_mask_itself():
    mask = soft(2)
    assert mask.feathered(0.0) is mask
    np.testing.assert_allclose(mask.feathered(1e-6).weights, mask.weights, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    h=st.integers(1, 20),
    w=st.integers(1, 20),
    feather=st.floats(0.0, 200.0),
    level=st.floats(0, 1, width=32),
)
def test_feathering_anything_stays_within_its_range(seed, h, w, feather, level):
    mask = soft(seed, h, w)
    out = mask.feathered(feather).weights
    assert out.shape == (h, w)
    assert out.min() >= mask.weights.min() - 1e-6
    assert out.max() <= mask.weights.max() + 1e-6
    flat = Mask(np.full((h, w), level, np.float32))
    np.testing.assert_allclose(flat.feathered(feather).weights, level, atol=1e-6)


def test_bands_leave_no_trace(monkeypatch):
    mask, base, layer = soft(3), noise(3), noise(4)
    feathered, laid = mask.feathered(8.0).weights, composite(base, [(layer, mask)])
    monkeypatch.setattr("scumble.mask._BAND", 100)  # two or three rows at a time
    np.testing.assert_array_equal(mask.feathered(8.0).weights, feathered)
    np.testing.assert_array_equal(composite(base, [(layer, mask)]), laid)


@pytest.mark.parametrize("feather", [-1.0, math.nan, math.inf])
def test_impossible_feathers_are_refused(feather):
    with pytest.raises(UsageError, match="feather must be between 0 and 10000; got"):
        soft(4).feathered(feather)


# layers


def test_white_gives_the_layer_and_black_the_base_exactly():
    base, layer = noise(5), noise(6)
    out = composite(base, [(layer, step(20, 30, 12))])
    np.testing.assert_array_equal(out[:, 12:], layer[:, 12:])
    np.testing.assert_array_equal(out[:, :12], base[:, :12])
    np.testing.assert_array_equal(composite(base, []), base)


def test_grey_mixes_in_proportion():
    base, layer = noise(7), noise(8)
    quarter = Mask(np.full((20, 30), 0.25, np.float32))
    np.testing.assert_allclose(composite(base, [(layer, quarter)]), 0.75 * base + 0.25 * layer, atol=1e-6)


def test_overlapping_masks_share_the_pixel():
    base, a, b = noise(9), noise(10), noise(11)
    full, half = Mask(np.ones((20, 30), np.float32)), Mask(np.full((20, 30), 0.5, np.float32))
    np.testing.assert_allclose(composite(base, [(a, full), (b, half)]), (2 * a + b) / 3, atol=1e-6)
    # together just 1: both in full, and nothing of the base
    np.testing.assert_allclose(composite(base, [(a, half), (b, half)]), (a + b) / 2, atol=1e-6)


def test_complementary_soft_masks_leave_no_seam():
    # the base would show as a dark line along the feathered edge
    base = np.zeros((9, 80, 3), np.float32)
    bright = np.full((9, 80, 3), 0.8, np.float32)
    left = step().feathered(10.0)
    np.testing.assert_allclose(composite(base, [(bright, left), (bright, left.inverted())]), 0.8, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), h=st.integers(1, 12), w=st.integers(1, 12), count=st.integers(0, 4))
def test_layers_of_anything_make_a_picture_between_its_sources(seed, h, w, count):
    base = noise(seed, h, w)
    layers = [(noise(seed + 2 * i + 1, h, w), soft(seed + 2 * i + 2, h, w)) for i in range(count)]
    out = composite(base, layers)
    assert out.dtype == np.float32
    assert out.shape == base.shape
    sources = np.stack([base, *(pixels for pixels, _ in layers)])
    assert (out >= sources.min(axis=0) - 1e-6).all()
    assert (out <= sources.max(axis=0) + 1e-6).all()
    assert out.min() >= 0.0
    assert out.max() <= 1.0
    np.testing.assert_allclose(composite(base, layers[::-1]), out, atol=1e-6)
    # a partition of unity: the same pixels everywhere give themselves
    np.testing.assert_allclose(composite(base, [(base, mask) for _, mask in layers]), base, atol=1e-6)


def test_the_result_of_white_on_white_is_still_a_picture():
    white = np.ones((20, 30, 3), np.float32)
    out = composite(white, [(white, soft(seed)) for seed in range(7)])
    Picture(out)


def test_wrong_layers_say_which_and_how_to_help():
    base = noise(12)
    with pytest.raises(UsageError, match=r"layer 2 must have the shape of the base \(20, 30, 3\); got \(20, 29, 3\)"):
        composite(base, [(base, soft(0)), (base[:, :29], soft(0))])
    with pytest.raises(
        UsageError, match=r"the mask of layer 1 must be 30×20 like the base; got 20×30: resize it with mask.resized\(height=20, width=30\)"
    ):
        composite(base, [(base, soft(0, 30, 20))])
    with pytest.raises(UsageError, match=r"base must be \(height, width, 3\); got \(20, 30\)"):
        composite(base[..., 0], [])
