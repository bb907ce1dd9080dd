import math

import numpy as np
import pytest

from scumble import metrics
from scumble import style as style_module
from scumble.engine import Engine
from scumble.errors import UsageError
from scumble.fusion import Moments
from scumble.metrics import content_distance, grid, psnr, score, ssim, structure_distance, style_distance
from scumble.picture import Picture
from scumble.style import Style


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", threads=1)


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(height, width, seed=0):
    return Picture.from_array(rng(seed).random((height, width, 3), dtype=np.float32))


def waves(h, w):
    """Two patterns of mean 0 and variance 1/2 that are orthogonal."""
    x = 2 * np.pi * np.arange(w) / w
    return np.tile(np.sin(x), (h, 1)), np.tile(np.cos(x), (h, 1))


def test_content_of_equal_opposite_and_unrelated_features():
    sine, cosine = waves(8, 16)
    a = np.stack([sine, cosine])
    assert content_distance(a, a) == 0
    assert content_distance(a, -a) == pytest.approx(4)  # (x - -x)², x of variance 1
    assert content_distance(a, a[::-1]) == pytest.approx(2)  # variances of orthogonal patterns add up


def test_content_does_not_see_means_and_contrasts():
    a = rng().random((3, 8, 8))
    b = a * np.array([0.5, 2, 3])[:, None, None] + np.array([1, 0, 4])[:, None, None]
    assert content_distance(a, b) == pytest.approx(0, abs=1e-12)
    assert content_distance(a, 1000 * a) == pytest.approx(0, abs=1e-12)


def test_content_is_not_blown_up_by_channels_at_rest():
    a = np.stack([waves(8, 8)[0], np.full((8, 8), 1e-9)])
    b = a + np.stack([np.zeros((8, 8)), rng().random((8, 8)) * 1e-9])
    assert content_distance(a, b) < 1e-9
    assert content_distance(np.zeros((2, 4, 4)), np.zeros((2, 4, 4))) == 0


def test_structure_of_two_halves_crossed():
    # cosines are 1 within a half and -1 across; s is the share of its own half in a cell's softmax. Of the other layout's halves each
    # is met half by half: KL = s/2 · 20 - (1 - s)/2 · 20
    split = np.repeat([1.0, -1.0], 16)
    left_right, top_bottom = np.tile(split, (32, 1))[None], np.tile(split[:, None], (1, 32))[None]
    s = 1 / (1 + math.exp(-20))
    assert structure_distance(left_right, top_bottom) == pytest.approx(10 * (2 * s - 1))


def test_structure_sees_relations_only():
    a = rng().random((6, 40, 23))
    rotation = np.linalg.qr(rng(1).standard_normal((6, 6)))[0]
    b = np.tensordot(rotation, 5 * a + 2, axes=1)
    assert structure_distance(a, a) == 0
    assert structure_distance(a, b) == pytest.approx(0, abs=1e-10)
    assert structure_distance(a, a[:, ::-1]) > 0.01


def test_structure_of_a_flat_picture_is_finite():
    assert structure_distance(np.ones((4, 3, 3)), np.ones((4, 3, 3))) == 0


def test_pooling_by_hand():
    f = np.arange(15.0).reshape(1, 3, 5)
    # rows 0-1 and 1-2; columns 0-2 and 2-4
    np.testing.assert_allclose(metrics._pooled(f, 2), [[[3.5, 5.5], [8.5, 10.5]]])
    np.testing.assert_allclose(metrics._pooled(f[:, :1, :1] + 7, 3), np.full((1, 3, 3), 7))


def test_pooling_is_adaptive_average_pooling():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'scumble[torch]'")
    for shape in ((3, 37, 16), (2, 5, 50), (1, 16, 31)):
        f = rng().random(shape)
        expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(f), 16).numpy()
        np.testing.assert_allclose(metrics._pooled(f, 16), expected, atol=1e-12)


def test_style_by_hand():
    style = Moments(np.array([3.0, 4.0]), np.zeros((2, 2)))  # second moment (9 12; 12 16), norm 25
    painted = Moments(np.array([0.0, 0.0]), np.diag([9.0, 16.0]))  # differs by 12 twice
    expected = 1 + math.sqrt(2) * 12 / 25
    assert style_distance([painted], [style]) == pytest.approx(expected)
    assert style_distance([painted, style], [style, style]) == pytest.approx(expected / 2)


def test_style_does_not_see_the_scale_of_a_level():
    def moments(seed, scale):
        a = rng(seed).standard_normal((3, 3))
        return Moments(scale * rng(seed).random(3), scale**2 * (a @ a.T))

    assert style_distance([moments(0, 1)], [moments(1, 1)]) == pytest.approx(style_distance([moments(0, 50)], [moments(1, 50)]))


def test_ssim_of_flat_pictures():
    a, b = np.full((16, 20, 3), 0.2, np.float32), np.full((16, 20, 3), 0.6, np.float32)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, rel=1e-6)


def test_ssim_of_a_negative_is_negative():
    noise = rng().random((32, 32, 1), dtype=np.float32).repeat(3, 2)
    assert ssim(noise, noise) == pytest.approx(1, abs=1e-6)
    assert ssim(noise, 1 - noise) < -0.9


def test_ssim_agrees_with_scikit_image():
    metric = pytest.importorskip("skimage.metrics", reason="needs scikit-image: pip install 'scumble[demo]'")
    a = rng().random((40, 51, 3), dtype=np.float32)
    b = np.clip(0.7 * a + 0.3 * rng(1).random((40, 51, 3), dtype=np.float32), 0, 1)
    luma = np.array([0.299, 0.587, 0.114])
    expected = metric.structural_similarity(
        a @ luma, b @ luma, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (10, 11, 3)])
def test_ssim_of_tiny_pictures(shape):
    a = rng().random(shape, dtype=np.float32)
    assert ssim(a, a) == pytest.approx(1, abs=1e-6)


def test_psnr():
    a = np.full((4, 4, 3), 0.5, np.float32)
    assert psnr(a, a + np.float32(0.1)) == pytest.approx(20, abs=1e-4)
    assert psnr(a, a) == math.inf


@pytest.mark.parametrize("measure", [ssim, psnr])
def test_pictures_must_be_equally_large(measure):
    with pytest.raises(UsageError, match="equally large"):
        measure(np.zeros((4, 4, 3), np.float32), np.zeros((4, 5, 3), np.float32))


def rough(height, width, seed=0):
    """Noise with the spectrum of photographs, power 1/f²."""
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    f[0, 0] = 1
    noise = np.fft.ifft2(np.fft.fft2(rng(seed).standard_normal((height, width))) / f).real
    return np.clip(0.5 + 0.1 * noise / noise.std(), 0, 1).astype(np.float32)[..., None].repeat(3, 2)


def test_grid_of_what_has_none():
    assert grid(np.full((64, 64, 3), 0.3, np.float32)) == pytest.approx(1, abs=1e-3)
    assert grid(rng().random((256, 256, 3), dtype=np.float32)) < 1.3
    assert grid(rough(256, 200)) < 1.3


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_grid_sees_its_periods(period, axis):
    plain = rough(160, 192)
    phase = 2 * np.pi * np.arange(plain.shape[axis]) / period
    stripes = 0.01 * period * np.cos(phase).astype(np.float32)  # as strong against the noise, whose amplitude falls with 1/f
    assert grid(plain + (stripes[:, None, None] if axis == 0 else stripes[:, None])) > 5


def test_grid_sees_a_checkerboard_in_a_flat_sky():
    # one step of 8 bits up and down: a power of (Σw)⁴ / 255² at one frequency (Σw = 32 for a Hann window of 64) and 1/4 of that
    # on either side, over that of rounding, (Σw²)² / 12 / 255² (Σw² = 24), in the mean square over 64 frequencies
    peak = 12 * 32**4 / 24**2
    expected = math.sqrt(((1 + peak) ** 2 + 2 * (1 + peak / 4) ** 2 + 61) / 64)
    board = ((np.arange(64)[:, None] + np.arange(64)) % 2)[..., None].astype(np.float32)
    assert grid(0.5 + (board - 0.5) * 2 / 255 + np.zeros(3, np.float32)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("period", [3, 5, 16, 23])
def test_grid_leaves_other_periods_alone(period):
    stripes = 0.02 * np.cos(2 * np.pi * np.arange(192) / period).astype(np.float32)
    assert grid(rough(160, 192) + stripes[:, None]) < 1.6


P = picture(4, 4)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: psnr(P, P), "pixels must be an array .*; got Picture"),
        (lambda: ssim(P.pixels, "x"), "pixels must be an array .*; got 'x'"),
        (lambda: grid(P), "pixels must be an array .*; got Picture"),
        (lambda: grid(np.ones((99, 99), np.float32)), r"pixels must be .*; got shape \(99, 99\) of float32"),
        (lambda: psnr(P.to_array(), P.to_array()), r"pixels must be .* floats in \[0, 1\]; got shape \(4, 4, 3\) of uint8"),
        (lambda: score(P, P, "great-wave"), r"the style of a score must be a Style \(Style.open .*\) .*; got 'great-wave'"),
        (lambda: score("a.png", P, None), "what is scored must be a Picture .*; got 'a.png'"),
    ],
)
def test_what_is_of_a_wrong_kind(attempt, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        attempt()


def test_a_blend_is_scored_as_what_it_comes_to(engine):
    a, b = (Style.from_image(picture(20, 20, seed), engine=engine) for seed in (1, 2))
    blend = 0.5 * a + 0.5 * b
    assert score(P, P, blend, engine) == score(P, P, blend.blended(), engine)


def test_grid_needs_a_window():
    with pytest.raises(UsageError, match="64 x 64"):
        grid(np.zeros((63, 80, 3), np.float32))


def test_a_picture_in_its_own_style_has_perfect_scores(engine):
    p = picture(40, 33)
    s = score(p, p, Style.from_image(p, engine=engine), engine)
    assert (s.content, s.structure) == (0, 0)
    assert s.style == pytest.approx(0, abs=1e-6)
    assert s.ssim == pytest.approx(1, abs=1e-6)


def test_another_picture_scores_worse(engine):
    flat, noise = Picture.from_array(np.full((32, 48, 3), 0.5, np.float32)), picture(32, 48)
    s = score(flat, noise, Style.from_image(noise, engine=engine), engine)
    assert s.content > 0.1
    assert s.structure > 0.01
    assert s.style > 0.01
    assert s.ssim < 0.5


def test_large_pictures_are_measured_at_the_size_of_styles(engine, monkeypatch):
    style = Style.from_image(picture(20, 20, seed=5), engine=engine)
    painted, content = picture(96, 64, 1), picture(96, 64, 2)
    monkeypatch.setattr(style_module, "REFERENCE", 39.2)  # 96 x 64 pixels shrink by half
    assert score(painted, content, style, engine) == score(
        painted.resized(width=32, height=48), content.resized(width=32, height=48), style, engine
    )


def test_content_may_have_another_size_but_not_another_shape(engine):
    painted = picture(33, 50)
    style = Style.from_image(painted, engine=engine)
    score(painted, picture(67, 100), style, engine)
    with pytest.raises(UsageError, match="same shape; got 50 x 33 and 33 x 50"):
        score(painted, picture(50, 33), style, engine)


def house(height=240, width=320):
    """A flat sky and a flat wall, and how many pixels each pixel of the sky is away from it."""
    content = np.full((height, width, 3), (0.5, 0.7, 0.9))
    content[:, 160:] = (0.4, 0.2, 0.1)
    away = np.maximum(159.5 - np.arange(width), 0.0)
    return content, np.where(np.arange(width) < 160, np.exp(-away / 12), 0.0)[None, :, None]


def test_a_halo_is_measured_where_flat_places_begin():
    content, rim = house()
    painted = 0.3 + 0.5 * content[..., ::-1]  # other colours are none
    assert metrics.halo(painted, content) < 0.5
    for amplitude in (0.05, 0.15):
        found = metrics.halo(painted + amplitude * rim, content)
        assert 0.2 < found / (255 * amplitude) < 0.5  # some 10 pixels from the edge exp(-d / 12) is at 0.4
    once, twice = (metrics.halo(painted + a * rim, content) for a in (0.1, 0.2))
    assert twice == pytest.approx(2 * once, rel=0.05)


def test_a_rim_that_the_content_has_is_no_halo():
    content, rim = house()
    lit = np.clip(content + 0.1 * rim, 0, 1)
    assert metrics.halo(lit, lit) < 0.7 * metrics.halo(lit, content)


def test_there_is_no_halo_without_edges_or_without_room():
    content, _ = house()
    assert metrics.halo(content, np.full_like(content, 0.5)) == 0
    assert metrics.halo(content[:100, :100], content[:100, :100]) == 0
    assert metrics.halo(content[:3, :3], content[:3, :3]) == 0
    with pytest.raises(UsageError, match="equally large"):
        metrics.halo(content, content[:-1])
