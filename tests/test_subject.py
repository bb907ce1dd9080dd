"""What a picture shows before a flat ground is what statistics are taken of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scumble import Picture, Stylizer
from scumble.subject import AROUND, LEAST, MOST, subject

TEXTURE = np.clip(0.5 + 0.2 * np.random.default_rng(0).standard_normal((300, 300, 3)), 0, 1).astype(np.float32)


def shown(height, width, top, left, side, ground=1.0):
    """A texture of ``side`` pixels on a ground of one colour."""
    found = np.full((height, width, 3), ground, np.float32)
    part = found[top : top + side, left : left + side]
    part[:] = TEXTURE[: part.shape[0], : part.shape[1]]
    return found


def test_a_product_is_set_apart_with_some_of_its_ground():
    window = subject(shown(640, 900, 203, 330, 230))
    assert window is not None
    assert (window.top, window.left) == (192 - AROUND, 320 - AROUND)
    assert (window.bottom, window.right) == (448 + AROUND, 560 + AROUND)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((400, 400, 3), 0.3, np.float32),  # nothing
        TEXTURE,  # all
        shown(300, 300, 20, 20, 220),  # most
        shown(400, 640, 0, 0, 30) + shown(400, 640, 370, 610, 30) - 1,  # scattered
        np.repeat(np.linspace(0, 1, 2000, dtype=np.float32)[None, :, None], 3, 2).repeat(400, 0),  # a slow gradient
    ],
)
def test_others_are_not(pixels):
    assert subject(np.clip(pixels, 0, 1)) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 690), st.integers(0, 690), st.integers(1, 120))
def test_it_lies_in_the_picture_begins_at_a_cell_and_leaves_out_what_is_flat(height, width, top, left, side):
    pixels = shown(height, width, top % height, left % width, side)
    window = subject(pixels)
    if window is None:
        return
    assert 0 <= window.top < window.bottom <= height and 0 <= window.left < window.right <= width
    assert window.top % 16 == window.left % 16 == 0
    assert window.height >= min(LEAST, height) and window.width >= min(LEAST, width)
    assert window.height * window.width <= MOST * height * width
    outside = pixels.copy()
    outside[window.slices] = 1.0
    assert (outside == 1.0).all()


@pytest.fixture(scope="module")
def painter():
    return Stylizer("cpu", threads=1)


@pytest.mark.parametrize(
    "settings", [{}, {"quality": "draft", "strength": 0.6}, {"method": "adain"}, {"quality": "draft", "memory": 160_000_000}]
)
def test_how_much_ground_there_is_makes_no_difference(painter, settings):
    """The same product on a large ground and on a small one; without a subject of its own the larger was painted with other contrasts."""
    large, small = shown(640, 800, 192, 320, 220), shown(400, 512, 80, 144, 220)
    a, b = (painter(Picture.from_array(p), "irises", **settings).pixels for p in (large, small))
    inner = np.abs(a[112:512, 176:688] - b)[80:300, 144:364]
    assert inner.mean() < 0.02
    exact = painter(Picture.from_array(large), "irises", statistics="exact", **settings).pixels[112:512, 176:688]
    assert np.abs(exact - b)[80:300, 144:364].mean() > 2 * inner.mean()
