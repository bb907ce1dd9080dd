"""Nets, styles and a film that all tests of moving pictures share."""

import numpy as np
import pytest

from scumble import Picture, Stylizer


@pytest.fixture(scope="module")
def stylizer():
    return Stylizer("cpu", 1)


@pytest.fixture(scope="module")
def styles(stylizer):
    rng = np.random.default_rng(3)
    return [stylizer.style(Picture.from_array(rng.random((48, 48, 3)) * scale)) for scale in ((1, 0.5, 0.2), (0.2, 0.6, 1))]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from clips import make  # skips what needs it where PyAV is missing

    return make(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def paint(stylizer, styles):
    from scumble.video import film

    def call(source, target, style=None, **settings):
        return film(source, styles[0] if style is None else style, target, stylizer=stylizer, **settings)

    return call
