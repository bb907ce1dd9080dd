"""Light that is kept: in the photograph's order, in the painting's range, strokes untouched."""

import numpy as np
import pytest

from scumble import Picture, Stylizer
from scumble.color import rgb_to_oklab
from scumble.errors import UsageError
from scumble.light import keep_light


def lightness(pixels):
    return rgb_to_oklab(pixels)[..., 0]


def grey(plane):
    return np.repeat(np.asarray(plane, np.float32)[..., None], 3, axis=2)


def noise(shape, size, seed=0):
    return np.random.default_rng(seed).normal(0, size, shape)


RAMP = np.broadcast_to(np.linspace(0.1, 0.9, 160), (120, 160))


def test_nothing_asked_for_is_nothing_done():
    painted = grey(RAMP)
    assert keep_light(painted, grey(RAMP.T[:120, :120].repeat(2, 1)[:, :160]), 0.0) is painted


def test_what_is_dark_where_the_photograph_is_light_gets_the_light():
    content, painted = grey(RAMP), grey(0.05 + 0.4 * RAMP[:, ::-1])  # a dark style, the wrong way round
    half, whole = (lightness(keep_light(painted, content, amount)).mean(0) for amount in (0.5, 1.0))
    before = lightness(painted).mean(0)
    assert before[:20].mean() > before[-20:].mean() + 0.2
    assert whole[-20:].mean() > whole[:20].mean() + 0.2
    np.testing.assert_allclose(half, (before + whole) / 2, atol=0.01)
    np.testing.assert_allclose(np.sort(whole), np.sort(before), atol=0.03)  # and no more light in all than the style has


def test_strokes_stay():
    strokes = noise(RAMP.shape, 0.04)
    painted = grey(np.clip(0.5 - 0.3 * (RAMP - 0.5) + strokes, 0, 1))
    out = keep_light(painted, grey(RAMP), 1.0)
    kept = lightness(out) - lightness(out).mean(0)
    before = lightness(painted) - lightness(painted).mean(0)
    assert np.corrcoef(kept.ravel(), before.ravel())[0, 1] > 0.98
    assert kept.std() == pytest.approx(before.std(), rel=0.1)


@pytest.mark.parametrize("level", [1.0, 0.5])
def test_what_is_flat_in_the_photograph_stays_flat(level):
    content = np.full((120, 160), level)
    content[50:70, 60:100] = 0.1  # letters
    content += noise(content.shape, 0.002, 1) if level < 1 else 0  # noise has an order, too
    painted = grey(np.clip(0.3 + noise((8, 10), 0.1).repeat(15, 0).repeat(16, 1), 0, 1))
    before, after = lightness(painted), lightness(keep_light(painted, grey(content), 1.0))
    assert after[:40].std() < before[:40].std()
    assert np.abs(np.diff(after[:40], axis=1)).mean() <= 1.5 * np.abs(np.diff(before[:40], axis=1)).mean() + 0.002


def test_one_colour_is_left_alone():
    painted = grey(np.full((20, 30), 0.4))
    np.testing.assert_allclose(keep_light(painted, grey(np.full((20, 30), 0.8)), 1.0), painted, atol=1e-3)
    assert np.isfinite(keep_light(grey(np.eye(3)[:1]), grey(np.eye(3)[:1]), 1.0)).all()


def test_size_does_not_matter():
    content = grey(0.5 + 0.4 * np.sin(np.linspace(0, 9, 640))[None] * np.cos(np.linspace(0, 7, 480))[:, None])
    painted = grey(np.clip(0.6 - 0.5 * content[..., 0], 0, 1))
    large = Picture.from_array(keep_light(painted, content, 1.0)).resized(width=320, height=240).pixels
    small = keep_light(*(Picture.from_array(p).resized(width=320, height=240).pixels for p in (painted, content)), 1.0)
    assert np.abs(large - small).mean() < 0.01


def test_the_stylizer_does_it_last():
    rng = np.random.default_rng(0)
    content, style = (Picture.from_array(rng.random((6, 8, 3)).astype(np.float32)).resized(width=96, height=72) for _ in range(2))
    painter = Stylizer()
    expected = keep_light(painter(content, style).pixels, content.pixels, 0.7)
    np.testing.assert_allclose(painter(content, style, keep_light=0.7).pixels, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: keep_light(grey(RAMP), grey(RAMP), 1.5), "keep-light must be between 0 and 1; got 1.5"),
        (lambda: keep_light(grey(RAMP), grey(RAMP[:10]), 1.0), r"content must have the painted picture's shape \(120, 160, 3\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UsageError, match=message):
        call()
