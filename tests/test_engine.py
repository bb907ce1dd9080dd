import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scumble import engine as engine_module
from scumble import weights
from scumble.engine import DEVICES, WIDTHS, Engine
from scumble.errors import InputError, UsageError
from scumble.style import Style


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", threads=1)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def style_vector(seed=0):
    return np.abs(np.random.default_rng(seed).standard_normal(736)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (16, 16), (17, 23), (48, 32)])
def test_sizes_of_taps_and_of_what_the_decoder_makes_of_them(engine, shape):
    taps = engine.eye(noise(*shape))
    rows, columns = (-(-n // 16) * 16 for n in shape)
    assert [t.shape for t in taps] == [(c, rows >> k, columns >> k) for k, c in enumerate(WIDTHS)]
    assert all(t.dtype == np.float32 for t in taps)
    features = taps[-1]
    for level in (5, 4, 3, 2):
        features = engine.decode(level, features)
        assert features.shape == taps[level - 2].shape
    assert engine.decode(1, features).shape == (3, rows, columns)


def test_the_edge_is_repeated_up_to_the_stride(engine):
    pixels = noise(20, 30)
    padded = np.pad(pixels, ((0, 12), (0, 2), (0, 0)), mode="edge")
    for a, b in zip(engine.eye(pixels), engine.eye(padded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layout_in_memory_does_not_matter(engine):
    pixels = noise(40, 24)
    view = np.asfortranarray(np.repeat(pixels, 2, axis=1))[:, ::2]
    modulation = engine.modulation(style_vector())
    np.testing.assert_array_equal(engine.eye(view)[2], engine.eye(pixels)[2])
    np.testing.assert_array_equal(engine.paint(view, modulation)[0], engine.paint(pixels, modulation)[0])


def test_what_is_handed_in_is_not_changed(engine):
    pixels, modulation = noise(16, 16), engine.modulation(style_vector())
    pixels.flags.writeable = modulation.flags.writeable = False  # as those of a Picture are
    features = engine.eye(pixels)[1]
    before = features.copy()
    engine.decode(2, features)
    engine.paint(pixels, modulation)
    np.testing.assert_array_equal(features, before)


def test_the_same_again_gives_the_same_bytes():
    pixels = noise(33, 47)
    first, second = (e.paint(pixels, e.modulation(style_vector()))[0] for e in (Engine("cpu"), Engine("cpu")))
    assert first.tobytes() == second.tobytes()


def test_the_number_of_threads_changes_no_more_than_rounding():
    pixels = noise(33, 47)
    one, two = (e.paint(pixels, e.modulation(style_vector()))[0] for e in (Engine("cpu", threads=1), Engine("cpu", threads=2)))
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_one_engine_serves_many_threads(monkeypatch):
    engine = Engine("cpu", threads=1)  # nothing loaded yet: loading is part of the race
    loaded, load = [], Engine._session
    monkeypatch.setattr(Engine, "_session", lambda self, name: loaded.append(name) or load(self, name))
    pictures = [noise(24, 24, seed) for seed in range(6)]

    def work(pixels):
        return engine.paint(pixels, engine.modulation(style_vector()))[0], engine.decode(1, engine.eye(pixels)[0])

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, pictures))
    assert sorted(loaded) == sorted(set(loaded))
    for (painted, decoded), pixels in zip(together, pictures, strict=True):
        expected = work(pixels)
        np.testing.assert_array_equal(painted, expected[0])
        np.testing.assert_array_equal(decoded, expected[1])


def test_frozen_statistics_come_back(engine):
    modulation = engine.modulation(style_vector())
    statistics = engine.paint(noise(32, 32), modulation)[1]
    again = engine.paint(noise(32, 40, seed=1), modulation, statistics)[1]
    np.testing.assert_allclose(again, statistics, atol=1e-6)


def test_an_unknown_device_is_named():
    with pytest.raises(UsageError, match=r"unknown device 'cdua'; did you mean 'cuda'\?"):
        Engine("cdua")


def test_a_device_that_is_not_installed_is_told_with_what_is():
    import onnxruntime

    available = onnxruntime.get_available_providers()
    absent = next(name for name, provider in DEVICES.items() if provider not in available)
    with pytest.raises(UsageError, match=f"device '{absent}' is not in the installed ONNX Runtime, which has .*cpu"):
        Engine(absent)


def test_there_are_no_more_threads_than_cores():
    assert Engine("cpu", threads=100_000).threads == os.cpu_count()
    assert Engine("cpu", threads=1).threads == 1


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_must_be_positive(threads):
    with pytest.raises(UsageError, match=f"threads must be at least 1; got {threads}"):
        Engine("cpu", threads=threads)


def test_making_an_engine_loads_nothing(monkeypatch):
    monkeypatch.setattr(engine_module, "weight_path", lambda name: pytest.fail(f"{name} was loaded"))
    Engine("cpu")


def test_a_missing_weight_file_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"eye\.onnx is missing .* install scumble again"):
        Engine("cpu").eye(noise(4, 4))


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 300), (33, 33)])
@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_a_flat_picture_of_a_few_pixels_stays_finite_beyond_strength_1(engine, shape, grey):
    own, other = engine.modulation(style_vector()), engine.modulation(style_vector(1) * 3)
    painted, statistics = engine.paint(np.full((*shape, 3), grey, np.float32), own + 2 * (other - own))
    assert np.isfinite(painted).all() and np.isfinite(statistics).all()


STRIPES = np.broadcast_to(((np.arange(64) + 1) // 2 % 2 * 0.8 + 0.1)[:, None], (64, 64))


@pytest.mark.parametrize("grey", [STRIPES, STRIPES.T, np.array([[0.2, 0.8]]), np.array([[0.2, 0.8], [0.5, 0.1]])])
def test_patterns_with_the_period_of_the_stride_are_painted(engine, grey):
    """In one phase they have no variance at all: what is measured there fits no other one."""
    pixels = np.repeat(grey[..., None], 3, 2).astype(np.float32)
    painted, _ = engine.paint(pixels, Style.named("irises").modulation(engine, wide=True))
    assert np.isfinite(painted).all() and painted.std() > 0.01


def test_a_slanted_line_is_no_string_of_beads():
    """The net's stride is 8 pixels: along a line that moves by 0.14 a row, what it makes of it repeats after 57 and its half, 28.5."""
    wide = Image.new("RGB", (800, 1600), (235, 240, 250))
    ImageDraw.Draw(wide).line([(620, 0), (620 - 0.14 * 1600, 1600)], fill=(10, 10, 10), width=12)
    content = np.asarray(wide.resize((200, 400), Image.Resampling.BOX), np.float32) / 255
    engine = Engine("cpu", threads=1)
    net = Style.named("irises").modulation(engine)[: engine.modulations]
    rows = np.arange(40, 40 + 285)
    columns = np.clip(155 - 0.14 * rows[:, None] + np.arange(-14, 15), 0, 198)
    found = []
    once, often = (engine.unfinished(content, net, None, np.zeros(2 * sum(engine.norms)), spun=spun)[0].planes for spun in (False, True))
    assert np.abs(once - often).max() < 1  # by the first phase's measure there were dots of 40 in another's
    for planes in (once, often):
        left, share = columns.astype(int), columns % 1
        along = planes[:, rows[:, None], left] * (1 - share) + planes[:, rows[:, None], left + 1] * share
        power = np.abs(np.fft.rfft(along - along.mean(1, keepdims=True), axis=1)).mean((0, 2))
        found.append(power[[5, 10]])  # of 285 rows
    assert (found[1] < 0.5 * found[0]).all()
