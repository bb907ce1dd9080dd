import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scumble.errors import UsageError
from scumble.fusion import (
    METHODS,
    NOISE_FLOOR,
    AffineMap,
    Moments,
    adain,
    affine,
    barycenter,
    linear,
    mixture,
    moments,
    optimal_transport,
    whiten_color,
)

CARRIERS = ["adain", "ot", "wct"]
"""Those that carry the content's mean to the style's; ``linear`` adds to what is there."""


def correlated(seed, channels=5, height=24, width=32, mean=1.0):
    """Features whose covariance has full rank and whose channels depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels)) + 2.0 * np.eye(channels)
    x = np.einsum("ij,jhw->ihw", mixing, rng.normal(size=(channels, height, width)))
    return (x + mean * rng.normal(size=(channels, 1, 1))).astype(np.float32)


def gaussian(seed, channels=5):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(channels, channels))
    return Moments(rng.normal(size=channels), a @ a.T + 0.1 * np.eye(channels))


def rooted(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def wasserstein(a, b):
    """Squared 2-Wasserstein distance of Gaussians (Olkin & Pukelsheim 1982)."""
    root = rooted(a.covariance)
    return np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2.0 * rooted(root @ b.covariance @ root))


# moments


def test_moments_are_those_of_numpy():
    x = correlated(0)
    m = moments(x)
    flat = x.reshape(5, -1).astype(np.float64)
    np.testing.assert_allclose(m.mean, flat.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(m.covariance, np.cov(flat, bias=True), rtol=1e-10)
    np.testing.assert_allclose(m.std, flat.std(axis=1), rtol=1e-10)
    assert m.mean.dtype == m.covariance.dtype == np.float64
    assert (m.covariance == m.covariance.T).all()


def test_moments_keep_their_digits_under_a_large_mean():
    # ±1 about 4096: E[x²] − E[x]² in float32 would leave nothing of the variance
    x = np.full((2, 64, 64), 4096.0, np.float32)
    x[:, ::2] += 1.0
    x[:, 1::2] -= 1.0
    m = moments(x)
    np.testing.assert_array_equal(m.mean, 4096.0)
    np.testing.assert_array_equal(m.covariance, 1.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_of_strided_views_and_other_floats(dtype):
    x = correlated(1).astype(dtype)
    view = x[::2, 3:, ::-2]
    m, same = moments(view), moments(np.ascontiguousarray(view).astype(np.float64))
    np.testing.assert_allclose(m.covariance, same.covariance, rtol=1e-10)


def test_moments_of_large_features_take_little_memory():
    x = np.ones((16, 512, 512), np.float32)  # 16 MiB, 32 in float64
    tracemalloc.start()
    moments(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (3, 0, 4), (1, 3, 4, 4)])
def test_moments_refuse_other_shapes(shape):
    with pytest.raises(UsageError, match="features must be \\(channels, height, width\\)"):
        moments(np.zeros(shape, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_moments_name_the_channel_that_is_not_finite(bad):
    x = np.zeros((3, 4, 4), np.float32)
    x[1, 2, 3] = bad
    with pytest.raises(UsageError, match="channel 1 has NaN or infinity"):
        moments(x)


def test_a_moments_object_is_checked_and_made_float64():
    assert Moments(np.zeros(2, np.float32), np.eye(2, dtype=np.float32)).covariance.dtype == np.float64
    with pytest.raises(UsageError, match=r"got \(2,\) and \(3, 3\)"):
        Moments(np.zeros(2), np.eye(3))
    with pytest.raises(UsageError, match="finite"):
        Moments(np.array([0.0, np.nan]), np.eye(2))


# the methods, where the answer is known


def test_whitening_to_the_unit_gaussian_gives_the_identity_covariance():
    m = moments(whiten_color(correlated(2), Moments(np.zeros(5), np.eye(5))))
    np.testing.assert_allclose(m.mean, 0.0, atol=1e-6)
    np.testing.assert_allclose(m.covariance, np.eye(5), atol=1e-5)


@pytest.mark.parametrize("method", ["wct", "ot"])
@pytest.mark.parametrize("seed", range(5))
def test_mean_and_covariance_become_the_styles(method, seed):
    style = moments(correlated(100 + seed))
    m = moments(METHODS[method](correlated(seed), style))
    np.testing.assert_allclose(m.mean, style.mean, atol=1e-5)
    np.testing.assert_allclose(m.covariance, style.covariance, atol=1e-5 * np.trace(style.covariance))


def test_adain_gives_the_styles_mean_and_deviation_and_keeps_correlation():
    x, style = correlated(3), moments(correlated(4))
    before, after = moments(x), moments(adain(x, style))
    np.testing.assert_allclose(after.mean, style.mean, atol=1e-5)
    np.testing.assert_allclose(after.std, style.std, rtol=1e-5)
    np.testing.assert_allclose(
        after.covariance / np.outer(after.std, after.std), before.covariance / np.outer(before.std, before.std), atol=1e-5
    )


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
def test_linear_adds_what_the_style_has_more_of_where_the_content_has_it(alpha):
    x = correlated(5)
    own = moments(x)
    power = np.array([0.4, 1.0, 1.44, 3.0, 5.0]) ** 2  # relative to the content's
    style = Moments(np.zeros(5), np.diag(power * (own.std**2 + own.mean**2)))
    c_style = np.array([-0.5, 0.0, 0.44, 1.0, 1.0])[:, None, None] * x
    # C_new = C_content + α C_style, number by number
    np.testing.assert_allclose(linear(x, style, alpha), x + alpha * c_style, atol=5e-3 * np.abs(x).max())
    nothing = np.zeros_like(x)
    np.testing.assert_array_equal(linear(nothing, style, alpha, content=own), nothing)


def test_the_monge_map_is_symmetric_positive_and_carries_one_gaussian_to_the_other():
    a, b = gaussian(7), gaussian(8)
    t = affine("ot", a, b)
    np.testing.assert_allclose(t.matrix, t.matrix.T, atol=1e-10)
    assert np.linalg.eigvalsh(t.matrix).min() > 0.0
    np.testing.assert_allclose(t.matrix @ a.covariance @ t.matrix.T, b.covariance, atol=1e-9)
    np.testing.assert_allclose(t.matrix @ a.mean + t.offset, b.mean, atol=1e-9)


def test_the_monge_map_moves_features_least_and_as_far_as_wasserstein_says():
    x, style = correlated(9), moments(correlated(10))
    moved = {name: np.mean(np.sum((METHODS[name](x, style).astype(np.float64) - x) ** 2, axis=0)) for name in ("wct", "ot")}
    assert moved["ot"] < moved["wct"]
    np.testing.assert_allclose(moved["ot"], wasserstein(moments(x), style), rtol=1e-5)


def test_on_diagonal_covariances_all_three_agree():
    # with no correlation to carry, whitening and transport come down to adain
    a, b = Moments(np.array([1.0, 2.0]), np.diag([4.0, 9.0])), Moments(np.array([-1.0, 0.5]), np.diag([1.0, 36.0]))
    for name in ("wct", "ot"):
        np.testing.assert_allclose(affine(name, a, b).matrix, np.diag([0.5, 2.0]), atol=1e-12)
    np.testing.assert_allclose(affine("adain", a, b).matrix, [0.5, 2.0], rtol=1e-12)
    np.testing.assert_allclose(affine("adain", a, b).offset, [-1.5, -3.5], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_fusing_with_oneself_changes_nothing(method):
    x = correlated(11)
    x[3] = 0.0  # a dead channel has nothing to divide by
    x[4] = x[0] - 2.0 * x[1]  # and one that hangs on others makes the covariance singular
    for alpha in (0.5, 1.0, 2.0):
        np.testing.assert_allclose(METHODS[method](x, moments(x), alpha), x, atol=2e-5)


@pytest.mark.parametrize("method", CARRIERS)
def test_beyond_1_nothing_is_turned_over(method):
    x = correlated(12)
    content = moments(x)
    style = Moments(content.mean + 1, content.covariance * np.linspace(0.01, 9, content.channels) ** 0.5)
    style = Moments(style.mean, (style.covariance + style.covariance.T) / 2 + 3 * np.eye(content.channels))
    full = affine(method, content, style, 1.0)
    near = affine(method, content, style, 1.0 + 1e-9)
    np.testing.assert_allclose(near.matrix, full.matrix, atol=1e-6)
    for alpha in (1.5, 2.0):
        made = affine(method, content, style, alpha)
        factors = [np.sort(np.abs(m.matrix) if m.matrix.ndim == 1 else np.linalg.svd(m.matrix, compute_uv=False)) for m in (full, made)]
        grows = factors[0] >= 1
        np.testing.assert_allclose(factors[1][grows], 1 + alpha * (factors[0][grows] - 1), rtol=1e-6)
        np.testing.assert_allclose(factors[1][~grows], factors[0][~grows] ** alpha, rtol=1e-6)
        mean = made.apply(x).mean((1, 2))
        np.testing.assert_allclose(mean, content.mean + alpha * (style.mean - content.mean), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_alpha_0_is_the_identity_and_alpha_goes_along_a_line(method):
    x, style = correlated(12), moments(correlated(13))
    fuse = METHODS[method]
    np.testing.assert_array_equal(fuse(x, style, 0.0), x)
    full = fuse(x, style, 1.0).astype(np.float64)
    for alpha in (0.25, 0.75):
        np.testing.assert_allclose(fuse(x, style, alpha), (1 - alpha) * x + alpha * full, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_frozen_statistics_make_a_tile_the_tile_of_the_whole(method):
    x, style = correlated(14), moments(correlated(15))
    whole = METHODS[method](x, style, 0.8)
    tile = METHODS[method](x[:, 5:17, 8:30], style, 0.8, content=moments(x))
    np.testing.assert_allclose(tile, whole[:, 5:17, 8:30], atol=1e-5)
    once = affine(method, moments(x), style, 0.8)
    np.testing.assert_array_equal(once.apply(x), whole)


def test_the_content_is_not_written_to():
    x = correlated(16)
    kept = x.copy()
    for fuse in METHODS.values():
        fuse(x, gaussian(0))
        fuse(x, gaussian(0), 0.0)[:] = 7.0
    np.testing.assert_array_equal(x, kept)


# noise and degenerate features


@pytest.mark.parametrize("method", CARRIERS)
def test_noise_in_a_null_direction_is_not_raised_to_signal(method):
    rng = np.random.default_rng(17)
    x = rng.normal(size=(4, 32, 32)).astype(np.float32)
    x[3] = 1e-5 * rng.normal(size=(32, 32))  # rounding noise: 1e-10 of the mean square
    style = Moments(np.zeros(4), np.eye(4))
    out = METHODS[method](x, style)
    # gain at most 1/sqrt(floor); the mean square is 3/4
    assert out[3].std() <= 1.01e-5 / np.sqrt(0.75 * NOISE_FLOOR)
    np.testing.assert_allclose(moments(out).std[:3], 1.0, atol=1e-4)


@pytest.mark.parametrize("method", CARRIERS)
def test_jpeg_noise_on_a_flat_wall_stays_noise(method):
    rng = np.random.default_rng(18)
    wall = (0.5 + 0.002 * rng.normal(size=(3, 32, 32))).astype(np.float32)
    style = Moments(np.full(3, 0.5), 0.04 * np.eye(3))
    out = METHODS[method](wall, style)
    assert out.std(axis=(1, 2)).max() < 0.1  # the style's is 0.2


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_continuous_where_a_variance_crosses_the_floor(method):
    def content(eps):
        return Moments(np.zeros(3), np.diag([1.0, 1.0, eps]))

    eps = content(0.0).noise_floor
    style = gaussian(19, 3)
    below, above = affine(method, content(0.999 * eps), style), affine(method, content(1.001 * eps), style)
    np.testing.assert_allclose(below.matrix, above.matrix, rtol=2e-3, atol=2e-3 * np.abs(above.matrix).max())


@pytest.mark.parametrize("method", CARRIERS)
def test_a_constant_picture_takes_the_styles_mean(method):
    style = moments(correlated(20))
    for value in (0.0, 1e-6, 0.5, 1000.0):
        flat = np.full((5, 8, 8), value, np.float32)
        np.testing.assert_allclose(METHODS[method](flat, style), np.broadcast_to(style.mean[:, None, None], flat.shape), atol=1e-3)


@pytest.mark.parametrize("method", CARRIERS)
def test_a_flat_style_leaves_next_to_nothing_of_the_content(method):
    style = moments(np.full((5, 4, 4), 2.0, np.float32))
    out = METHODS[method](correlated(21), style)
    np.testing.assert_allclose(out.mean(axis=(1, 2)), 2.0, atol=1e-5)
    assert out.std(axis=(1, 2)).max() <= 2.0 * np.sqrt(NOISE_FLOOR) * 1.01


def features(channels):
    shapes = st.tuples(st.just(channels), st.integers(1, 5), st.integers(1, 5))
    whole = st.floats(-1e4, 1e4, width=32)
    relu = st.one_of(st.just(0.0), st.floats(0.0, 10.0, width=32))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([whole, relu]).flatmap(lambda e: e)))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), method=st.sampled_from(sorted(METHODS)), alpha=st.floats(0.0, 2.0), channels=st.integers(1, 5))
def test_whatever_comes_in_finite_float32_of_the_same_shape_comes_out(data, method, alpha, channels):
    x, y, other = (data.draw(features(channels)) for _ in range(3))
    style = moments(y)
    for content in (None, moments(other)):
        out = METHODS[method](x, style, alpha, content=content)
        assert out.shape == x.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), method=st.sampled_from(CARRIERS), channels=st.integers(1, 4))
def test_whatever_comes_in_the_mean_becomes_the_styles(data, method, channels):
    x, y = data.draw(features(channels)), data.draw(features(channels))
    style = moments(y)
    out = METHODS[method](x, style)
    scale = np.sqrt(np.mean(x.astype(np.float64) ** 2)) + np.sqrt(np.mean(y.astype(np.float64) ** 2))
    np.testing.assert_allclose(out.astype(np.float64).mean(axis=(1, 2)), style.mean, atol=1e-4 * scale + 1e-30)


# blending


def test_mixture_merges_the_moments_of_tiles_exactly():
    x = correlated(22)
    tiles = [x[:, :7], x[:, 7:8], x[:, 8:, :5], x[:, 8:, 5:]]
    merged = mixture([moments(t) for t in tiles], [t[0].size for t in tiles])
    np.testing.assert_allclose(merged.mean, moments(x).mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(merged.covariance, moments(x).covariance, rtol=1e-9, atol=1e-10)


def test_mixture_can_be_made_step_by_step():
    parts = [gaussian(s) for s in range(3)]
    at_once = mixture(parts, [1, 2, 5])
    stepwise = mixture([mixture(parts[:2], [1, 2]), parts[2]], [3, 5])
    np.testing.assert_allclose(at_once.covariance, stepwise.covariance, rtol=1e-12)


def test_barycenter_of_one_and_of_equals_is_itself():
    a, b = gaussian(23), gaussian(24)
    for blend in (barycenter([a], [0.2]), barycenter([a, b], [3.0, 0.0]), barycenter([a, a, a], [1, 2, 3])):
        np.testing.assert_allclose(blend.mean, a.mean, atol=1e-12)
        np.testing.assert_allclose(blend.covariance, a.covariance, atol=1e-9)


def test_barycenter_of_commuting_gaussians_averages_their_roots():
    rotation, _ = np.linalg.qr(np.random.default_rng(25).normal(size=(4, 4)))
    parts = [Moments(np.full(4, m), rotation @ np.diag(d) @ rotation.T) for m, d in ((0.0, [1.0, 4, 9, 0]), (3.0, [16.0, 0, 1, 0]))]
    blend = barycenter(parts, [2.0, 1.0])
    np.testing.assert_allclose(blend.mean, 1.0)
    expected = np.array([(2 * 1 + 4) / 3, 2 * 2 / 3, (2 * 3 + 1) / 3, 0.0]) ** 2
    np.testing.assert_allclose(
        rotation.T @ blend.covariance @ rotation, np.diag(expected), atol=1e-7
    )  # rounding of a null variance, rooted


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_barycenter_of_two_lies_on_the_geodesic(t):
    a, b = gaussian(26), gaussian(27)
    blend = barycenter([a, b], [1 - t, t])
    half_way = affine("ot", a, b, t)  # McCann's interpolation
    np.testing.assert_allclose(blend.covariance, half_way.matrix @ a.covariance @ half_way.matrix.T, atol=1e-5)
    whole = np.sqrt(wasserstein(a, b))
    np.testing.assert_allclose(np.sqrt([wasserstein(a, blend), wasserstein(blend, b)]), [t * whole, (1 - t) * whole], rtol=1e-3)


def test_barycenter_of_many_solves_its_equation():
    parts, weights = [gaussian(s) for s in range(30, 34)], np.array([0.4, 0.3, 0.2, 0.1])
    s = barycenter(parts, weights).covariance
    root = rooted(s)
    np.testing.assert_allclose(sum(w * rooted(root @ p.covariance @ root) for w, p in zip(weights, parts, strict=True)), s, atol=1e-5)


def test_barycenter_is_sharper_than_the_mixture():
    a, b = Moments(np.array([-3.0]), np.array([[1.0]])), Moments(np.array([3.0]), np.array([[1.0]]))
    assert barycenter([a, b], [1, 1]).covariance == pytest.approx(1.0)
    assert mixture([a, b], [1, 1]).covariance == pytest.approx(10.0)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), channels=st.integers(1, 4), weights=st.lists(st.floats(0.01, 10.0), min_size=1, max_size=3))
def test_blends_of_degenerate_moments_stay_finite_and_positive(data, channels, weights):
    parts = [moments(data.draw(features(channels))) for _ in weights]
    for blend in (barycenter, mixture):
        m = blend(parts, weights)
        scale = max(float(np.trace(p.covariance)) for p in parts) + max(float(p.mean @ p.mean) for p in parts)
        assert np.linalg.eigvalsh(m.covariance).min() >= -1e-9 * scale
        low, high = np.min([p.mean for p in parts], axis=0), np.max([p.mean for p in parts], axis=0)
        assert (m.mean >= low - 1e-9 * scale - 1e-9).all()
        assert (m.mean <= high + 1e-9 * scale + 1e-9).all()


# refusals


def test_wrong_settings_say_what_is_allowed():
    x, style = correlated(40), gaussian(41)
    with pytest.raises(UsageError, match="unknown method 'wtc'; did you mean 'wct'"):
        affine("wtc", style, style)
    with pytest.raises(UsageError, match=r"alpha must be between 0 and 2; got 3\.5"):
        adain(x, style, 3.5)
    with pytest.raises(UsageError, match="alpha must be between 0 and 2; got nan"):
        optimal_transport(x, style, float("nan"))
    with pytest.raises(UsageError, match="equally many channels; got 5 and 4"):
        whiten_color(x, gaussian(0, 4))
    with pytest.raises(UsageError, match="5 channels of the map; got 4"):
        AffineMap(np.ones(5), np.zeros(5)).apply(x[:4])


@pytest.mark.parametrize("blend", [mixture, barycenter])
def test_wrong_weights_say_what_is_allowed(blend):
    a = gaussian(42)
    with pytest.raises(UsageError, match="at least one; got 0 for 0"):
        blend([], [])
    with pytest.raises(UsageError, match="got 1 for 2"):
        blend([a, a], [1.0])
    with pytest.raises(UsageError, match=r"0 or more, and not all 0; got 1, -0\.5"):
        blend([a, a], [1.0, -0.5])
    with pytest.raises(UsageError, match="not all 0; got 0, 0"):
        blend([a, a], [0.0, 0.0])
    with pytest.raises(UsageError, match="got 1, nan"):
        blend([a, a], [1.0, float("nan")])
    with pytest.raises(UsageError, match="equally many channels; got 5, 3"):
        blend([a, gaussian(0, 3)], [1.0, 1.0])
