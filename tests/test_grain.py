"""Grain: what is flat gets a photograph's noise, what isn't stays as it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scumble import Picture, Style, Stylizer
from scumble.grain import GRAIN, grained


def noise(height, width, deviation, seed=0):
    found = 0.5 + deviation * np.random.default_rng(seed).standard_normal((height, width, 3))
    return np.clip(found, 0, 1).astype(np.float32)


def product(height=256, width=320):
    """A box on a white ground, both of one colour."""
    found = np.ones((height, width, 3), np.float32)
    found[70:190, 110:210] = (0.8, 0.15, 0.2)
    return found


@pytest.mark.parametrize("amount", [0.5, 1.0, 4.0])
def test_what_is_flat_gets_noise_of_one_deviation(amount):
    added = grained(np.full((160, 240, 3), 0.4, np.float32), amount) - np.float32(0.4)
    assert added.std() == pytest.approx(amount * GRAIN, rel=0.02)
    assert abs(added.mean()) < 0.02 * amount * GRAIN
    np.testing.assert_allclose(added, added[..., :1].repeat(3, 2), atol=1e-6)  # light and dark, no colours
    neighbours = np.corrcoef(added[:, :-1, 0].ravel(), added[:, 1:, 0].ravel())[0, 1]
    assert abs(neighbours) < 0.02


def test_what_has_noise_of_its_own_stays_and_what_has_little_is_brought_to_as_much():
    strong, weak = noise(160, 240, 2 * GRAIN), noise(160, 240, GRAIN / 2)
    assert grained(strong) is strong
    assert grained(strong, 0.0) is strong
    assert (grained(weak) - 0.5).std() == pytest.approx(GRAIN, rel=0.05)


def test_only_what_is_flat_in_a_picture_is_changed():
    half = noise(160, 320, 3 * GRAIN)
    half[:, 160:] = 0.5
    changed = np.abs(grained(half) - half).max((0, 2)) > 0
    assert not changed[:152].any()  # up to the middle of the cell beside it, from where it fades
    assert changed[168:].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1), st.floats(0, 4))
def test_any_size_stays_in_range_and_the_same_picture_gets_the_same_grain(height, width, value, amount):
    flat = np.full((height, width, 3), value, np.float32)
    found = grained(flat, amount)
    assert found.shape == flat.shape and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found, grained(flat.copy(), amount))
    np.testing.assert_array_equal(flat, np.full((height, width, 3), value, np.float32))


@pytest.mark.parametrize("size", [(256, 320), (70, 49), (9, 400)])
def test_pytorch_grains_alike(size):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'scumble[torch]'")
    from scumble.nets.grain import Grain

    for pixels in (product(*size), noise(*size, GRAIN / 2), noise(*size, 3 * GRAIN)):
        found = Grain(1.5)(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        np.testing.assert_allclose(
            found[0].permute(1, 2, 0).numpy(), grained(pixels, 1.5), atol=2e-4
        )  # roots, of variances in single precision


@pytest.fixture(scope="module")
def painter():
    return Stylizer("cpu", threads=1)


@pytest.mark.parametrize("quality", ["draft", "good"])
def test_a_ground_of_one_colour_gets_strokes_and_outlines_are_not_drawn_again_and_again(painter, quality):
    style = Style.named("great-wave")
    bare, primed = (painter(Picture.from_array(product()), style, quality=quality, grain=g).pixels for g in (0.0, 1.0))

    def contrast(pixels):
        """Of neighbouring pixels: at 20 to 40 pixels from the box, where a net that has nothing else repeats its outline; far from it."""
        steps = np.abs(np.diff(pixels.mean(2), axis=1))
        return steps[90:170, 215:250].mean(), steps[200:250, 20:80].mean()

    (ringing, empty), (beside, ground) = contrast(bare), contrast(primed)
    assert ground > 3 * empty  # strokes
    assert ringing > 5 * empty  # rings, and nothing else
    assert beside < 2 * ground  # what is beside the box is as the rest


@pytest.mark.parametrize("method", ["generator", "adain"])
def test_at_next_to_no_strength_the_content_shows_and_no_grain(painter, method):
    content = Picture.from_array(product(128, 160))
    painted = painter(content, "great-wave", strength=0.001, method=method).pixels
    assert np.abs(painted - content.pixels)[:40].max() < GRAIN


def test_in_tiles_there_is_the_same_grain(painter):
    pixels = np.full((768, 800, 3), 0.6, np.float32)
    pixels[100:300, 200:500] = np.random.default_rng(0).random((200, 300, 3), np.float32)
    content, draft = Picture.from_array(pixels), {"quality": "draft", "statistics": "exact"}
    whole = painter(content, "great-wave", **draft).pixels
    tiles = painter(content, "great-wave", memory=175_000_000, **draft).pixels
    assert whole[400:].std() > GRAIN
    assert np.abs(whole - tiles).max() < 1 / 255
