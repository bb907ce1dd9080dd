"""Windows, frozen statistics and scales: what is painted in tiles is what is painted whole."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scumble import cascade, tiling
from scumble.engine import GENERATOR_REACH, Engine
from scumble.errors import UsageError
from scumble.fusion import give_back
from scumble.picture import Picture
from scumble.style import Style
from scumble.stylizer import Stylizer
from scumble.tiling import Window, partition
from scumble.windows import half, largest_side, parts


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", threads=2)


@pytest.fixture(scope="module")
def style():
    return Style.named("starry-night")


def scene(height, width, seed=0):
    """Smooth shapes of all sizes, a bright and a dark side: tiles differ in all their statistics."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width, 3), np.float32)
    for n in (2, 5, 17, 60):
        coarse = rng.random((n, n, 3), dtype=np.float32)
        out += tiling.resampled(coarse, height, width, (0, 0, n, n), 2) / n**0.4
    out += np.linspace(0, 1.5, width, dtype=np.float32)[:, None]
    return (out - out.min()) / (out.max() - out.min())


@given(st.integers(1, 700), st.integers(1, 700), st.integers(16, 300))
def test_tiles_share_no_pixel_and_miss_none(height, width, tile):
    seen = np.zeros((height, width), int)
    for w in partition(height, width, tile):
        seen[w.slices] += 1
        assert w.top % 16 == w.left % 16 == 0
        assert min(w.height, w.width) >= min(16, height, width)
    assert (seen == 1).all()


@given(st.integers(0, 20), st.integers(0, 20), st.integers(16, 300), st.integers(16, 300))
def test_quarters_are_a_partition_too(top, left, height, width):
    window = Window(16 * top, 16 * top + height, 16 * left, 16 * left + width)
    seen = np.zeros((window.bottom, window.right), int)
    for w in parts(window, half(window)):
        assert max(w.height, w.width) < half(window) + 16
        seen[w.slices] += 1
    assert (seen[window.slices] == 1).all()
    assert seen.sum() == height * width


def test_memory_is_an_amount():
    assert [tiling.parse_bytes(t) for t in ("1GB", "1.5 gib", "800M", "64", 64)] == [10**9, 3 * 2**29, 8 * 10**8, 64, 64]
    for wrong in ("", "much", "-1GB", "1XB", "nan", "GB"):
        with pytest.raises(UsageError, match="800MB"):
            tiling.parse_bytes(wrong)


def test_a_tile_is_as_large_as_memory_allows():
    assert largest_side((512 + 200) ** 2 * 10, 10, 100) == 512
    assert largest_side((512 + 200) ** 2 * 10 - 1, 10, 100) == 448
    with pytest.raises(UsageError, match="--memory"):
        largest_side(1000, 10, 100)


@settings(max_examples=6, deadline=None)
@example(141, 900, 128, 1.0, True)  # large enough for the finish's coarsest scale, which is fitted to the photograph
@example(130, 810, 96, 0.5, False)
@given(st.integers(1, 90), st.integers(420, 560), st.sampled_from([96, 128]), st.sampled_from([0.5, 1.0, 1.4]), st.booleans())
def test_exact_statistics_in_tiles_give_the_whole_picture(engine, style, height, width, tile, strength, look):
    pixels = scene(height, width)
    missed = style.missed_in(pixels, engine) if look else None
    own, modulation = Style.of_pixels(pixels, engine).modulation(engine, wide=look), style.modulation(engine, strength, missed, wide=look)
    modulation = own + np.float32(strength) * (modulation - own) if strength < 1 else modulation
    whole, measured = engine.paint(pixels, modulation)
    settings = {"strength": strength, "look": look, "statistics": "exact"}
    local = tiling.freeze(engine, pixels, style, **settings, sweeps=sweeps(pixels, tile), memory=1e9)
    found = local.passes[0][2]
    np.testing.assert_allclose(found, measured, rtol=1e-3, atol=1e-3)  # sums in another order, through nested normalisations
    if strength < 1:
        unmoved = engine.paint(pixels, own)[0]
        whole = np.clip(whole + (1 - strength) * (pixels - unmoved), 0, 1)
    assert np.abs(tiling.paint(local, pixels, tile) - whole).max() <= 1 / 255


def sweeps(pixels, tile):
    return lambda _: tiling.sweep_over(pixels, tile)


@pytest.mark.parametrize("method", ["wct", "adain"])
def test_frozen_maps_in_tiles_give_the_whole_picture(engine, style, method):
    pixels = scene(130, 1000)  # wider than a tile with its overlap: what lies beyond the reach is really not seen
    whole, _ = cascade.paint(engine, pixels, style, method=method)
    local = tiling.freeze(engine, pixels, style, method=method, sweeps=sweeps(pixels, 128), memory=1e9)
    assert np.abs(tiling.paint(local, pixels, 128) - whole).max() <= 1 / 255


@pytest.mark.parametrize(
    ("method", "strength", "height", "width"),
    [("adain", 1.0, 40, 680), ("wct", 0.6, 71, 805), ("ot", 1.3, 9, 700), ("ot", 1.0, 139, 950)],
)
def test_exact_statistics_of_fused_features_in_tiles_give_the_whole_picture(engine, style, method, strength, height, width):
    pixels = scene(height, width)
    whole, used = cascade.paint(engine, pixels, style, method=method, strength=strength)
    if strength < 1:
        whole = give_back(whole, pixels, cascade.paint(engine, pixels, style, method=method, strength=0.0)[0], strength)
    local = tiling.freeze(
        engine, pixels[:, :32], style, method=method, strength=strength, statistics="exact", memory=1e9,
        sweeps=lambda _: tiling.sweep_over(pixels, 128, tiling.reach(method)),
    )  # fmt: skip
    for found, expected in zip(local.passes[0][2].maps, used.maps, strict=True):
        np.testing.assert_allclose(found.offset, expected.offset, atol=2e-3 * np.abs(expected.offset).max())
    np.testing.assert_allclose(local.passes[0][2].filters, used.filters, atol=0.02 * np.abs(used.filters).max())
    assert np.abs(tiling.paint(local, pixels, 128) - whole).max() <= 1 / 255


def test_wrong_statistics_are_told_apart(engine, style):
    # the property above must be able to fail: a tile's own statistics are not the picture's
    pixels = scene(300, 600)
    whole, _ = engine.paint(pixels, style.modulation(engine))
    alone = np.concatenate([engine.paint(pixels[:, :304], style.modulation(engine))[0][:, :304]], axis=1)
    assert np.abs(alone[:, :176] - whole[:, :176]).max() > 4 / 255


def step(pixels, at):
    """Mean absolute step between the columns ``at - 1`` and ``at``."""
    return float(np.abs(pixels[:, at] - pixels[:, at - 1]).mean())


@pytest.mark.parametrize("detail", [False, True])
def test_no_seams(engine, style, detail):
    pixels = scene(200, 1200)
    small = tiling.resampled(pixels, 50, 300, (0, 0, 1200, 200), 1).clip(0, 1)
    local = tiling.freeze(engine, small, style, sweeps=sweeps(pixels, 128), memory=1e9)
    layer = tiling.Layer(small, engine.paint(small, style.modulation(engine))[0], local if detail else None)
    out = tiling.paint(layer, pixels, 192)
    other = tiling.paint(layer, pixels, 512)
    edges = range(192, 1200, 192)  # in the middle of the other's tiles
    inside = [step(out, x) for x in range(1, 1200) if x % 192]
    assert np.mean([step(out, x) for x in edges]) <= 1.02 * np.mean([step(other, x) for x in edges])
    assert max(step(out, x) for x in edges) <= max(inside)
    assert np.abs(out - other).max() <= 1 / 255  # where tiles begin says nothing


@pytest.mark.parametrize("detail", ["content", "painted"])
def test_a_reduced_result_is_the_small_painting(detail):
    content = Picture.from_array(scene(900, 900))
    painter = Stylizer("cpu", threads=2)
    out = painter(content, "starry-night", style_scale=4, detail=detail)
    preview = painter(content.resized(width=180, height=180), "starry-night", style_scale=4)
    assert np.abs(out.resized(width=180, height=180).pixels - preview.pixels).mean() < 0.01


def test_painted_detail_is_painted(engine):
    content = Picture.from_array(scene(700, 700))
    painter = Stylizer("cpu", threads=2)
    plain, painted = (painter(content, "starry-night", style_scale=4, detail=d).pixels for d in ("content", "painted"))
    assert np.abs(plain - painted).mean() > 0.5 / 255


def test_little_memory_means_tiles_not_another_size():
    content = Picture.from_array(scene(400, 700))
    out = Stylizer("cpu", threads=2)(content, "great-wave", memory=175_000_000)
    assert out.size == content.size
    whole = Stylizer("cpu", threads=2)(content, "great-wave")
    assert np.abs(out.pixels - whole.pixels).mean() < 0.06  # a thumbnail's statistics are near the picture's


class Forgetful:
    """An engine that has memory for so many pixels at once."""

    def __init__(self, engine, pixels, error):
        self.engine, self.most, self.error, self.refused = engine, pixels, error, 0

    def paint(self, pixels, *args, **kwargs):
        if pixels.shape[0] * pixels.shape[1] > self.most:
            self.refused += 1
            raise self.error
        return self.engine.paint(pixels, *args, **kwargs)


def test_out_of_memory_halves_the_tile_and_says_so_once(engine, style, caplog):
    pixels = scene(120, 1300)
    local = tiling.freeze(engine, pixels, style, sweeps=sweeps(pixels, 128), memory=1e9)
    whole = tiling.paint(local, pixels, 2048)
    poor = Forgetful(engine, 120 * (300 + 2 * GENERATOR_REACH), MemoryError())
    scarce = tiling.Local(poor, local.passes, local.content, style)
    out = tiling.paint(scarce, pixels, 2048)
    assert np.abs(out - whole).max() <= 1 / 255
    assert poor.refused >= 1
    assert len([r for r in caplog.records if "out of memory" in r.message]) == 1
    with pytest.raises(MemoryError, match="128 pixels"):
        tiling.paint(tiling.Local(Forgetful(engine, 0, MemoryError()), local.passes, 0.0, style), pixels, 2048)


def test_other_errors_are_not_taken_for_too_little_memory(engine, style):
    pixels = scene(300, 300)
    local = tiling.freeze(engine, pixels, style, sweeps=sweeps(pixels, 128), memory=1e9)
    broken = tiling.Local(Forgetful(engine, 0, ValueError("shape")), local.passes, 0.0, style)
    with pytest.raises(ValueError, match="shape"):
        tiling.paint(broken, pixels, 256)


def test_onnx_runtimes_way_of_saying_it():
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    assert tiling.is_out_of_memory(state.RuntimeException("[ONNXRuntimeError] : Failed to allocate memory for requested buffer of size 1"))
    assert tiling.is_out_of_memory(state.Fail("std::bad_alloc"))
    assert not tiling.is_out_of_memory(state.Fail("Load model failed"))
    assert not tiling.is_out_of_memory(RuntimeError("out of memory"))


def test_a_pass_that_memory_does_not_hold_after_all_is_made_in_tiles(engine, caplog, monkeypatch):
    painter = Stylizer("cpu", threads=2)
    content = Picture.from_array(scene(1000, 1100))
    whole = painter(content, "great-wave")
    scarce = Forgetful(engine, 800_000, MemoryError())
    plain = Engine.paint

    def paint(self, pixels, *args, **kwargs):
        return plain(self, pixels, *args, **kwargs) if self is engine else scarce.paint(pixels, *args, **kwargs)

    monkeypatch.setattr(Engine, "paint", paint)
    out = painter(content, "great-wave")
    assert scarce.refused == 1
    assert np.abs(out.pixels - whole.pixels).mean() < 0.06
    assert "out of memory" in caplog.text
