"""What the page shows while sliders move is what will be painted."""

from __future__ import annotations

import numpy as np
import pytest

from scumble import tiling
from scumble.metrics import ssim
from scumble.picture import Picture
from scumble.serve.pace import STEPS, USUAL, Pace
from scumble.serve.preview import PASS_SECONDS
from scumble.serve.service import PaintService
from scumble.serve.settings import Settings

RNG = np.random.default_rng(3)
STYLE = [[(1.0, "great-wave")]]


def blots(height, width):
    """A picture with soft and hard edges, and a little noise, that is the same at any size."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    pixels = np.stack([x, 0.3 + 0.5 * y, 0.5 + 0.4 * np.sin(23 * x) * np.cos(17 * y)], -1)
    for shade, (a, b, r) in enumerate(RNG.uniform(0.1, 0.9, (12, 3))):
        pixels[np.hypot(x - a, y - b) < r / 5] = ((shade % 3) / 2, (shade % 4) / 3, (shade % 5) / 4)
    return Picture.from_array(np.clip(pixels + RNG.normal(0, 0.02, pixels.shape).astype(np.float32), 0, 1))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = PaintService(Settings(data=tmp_path_factory.mktemp("data")))
    for pace in service._previewer.paces.values():  # what it shows must not depend on how busy the machine is that tests it
        pace._step, pace.took = STEPS.index(USUAL), lambda pixels, seconds: None
    yield service
    service.close()


@pytest.fixture(scope="module")
def pictures(service):
    sizes = {"small": (150, 200), "large": (1200, 1600)}
    return {name: service.keep(blots(*size)) for name, size in sizes.items()}


def beside(service, key, settings, masks=(), terms=STYLE):
    """(SSIM, mean difference) between the preview and what is painted, reduced to its size."""
    preview = service.preview(key, terms, settings, masks=masks)
    final = service.paint(service.content(key), terms, settings, masks=masks)
    final = final.resized(width=preview.width, height=preview.height)
    return ssim(preview.pixels, final.pixels), np.abs(preview.pixels - final.pixels).mean()


@pytest.mark.parametrize(
    ("which", "settings"),
    [
        ("small", {}),
        ("small", {"strength": 0.3}),
        ("small", {"strength": 1.5}),
        ("small", {"strength": 0.3, "keep_color": 1.0}),
        ("small", {"keep_color": 0.5}),
        ("small", {"keep_light": 0.8}),
        ("large", {"keep_light": 0.8, "keep_color": 0.5}),
        ("small", {"size": 90, "strength": 0.5}),
        ("small", {"size": 400}),
        ("large", {"strength": 0.3, "keep_color": 1.0}),
        ("large", {"strength": 1.5, "keep_color": 0.5}),
        ("large", {"style_scale": 2.0}),
        ("large", {"style_scale": 1.0, "strength": 0.6}),
        ("large", {"size": 700}),
    ],
    ids=str,
)
def test_it_is_what_will_be_painted_reduced(service, pictures, which, settings):
    similarity, difference = beside(service, pictures[which], settings)
    assert similarity > 0.95
    assert difference < (0.02 if which == "small" else 0.025), "large ones are painted at one phase"


@pytest.mark.parametrize(
    "settings", [{}, {"strength": 0.4, "quality": "draft"}, {"strength": 1.5}, {"method": "wct", "strength": 0.6}, {"statistics": "exact"}],
    ids=str,
)  # fmt: skip
def test_it_is_what_a_product_on_a_ground_of_one_colour_will_be(service, settings):
    product = np.ones((700, 900, 3), np.float32)
    product[200:480, 300:620] = blots(280, 320).pixels
    similarity, difference = beside(service, service.keep(Picture.from_array(product)), settings)
    assert similarity > 0.95
    assert difference < 0.02


@pytest.mark.parametrize("size", [(8, 8), (10, 300)])
def test_it_is_what_a_tiny_picture_will_be(service, size):
    assert beside(service, service.keep(Picture.from_array(np.full((*size, 3), (0.8, 0.1, 0.1), np.float32))), {})[1] < 0.01


def test_of_a_product_nothing_is_painted_anew_that_does_not_change(service):
    product = np.ones((700, 900, 3), np.float32)
    product[200:480, 300:620] = blots(280, 320).pixels
    key, engine = service.keep(Picture.from_array(product)), service.painter.engine
    service.preview(key, STYLE, {"strength": 0.5})
    before, calls = engine.paint, []
    engine.paint = lambda pixels, *rest, **more: calls.append(pixels.shape) or before(pixels, *rest, **more)
    try:
        service.preview(key, STYLE, {"strength": 0.6})
    finally:
        del engine.paint
    assert len(calls) == 2, "what is measured of the product, and the whole"


@pytest.mark.parametrize("strength", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("method", ["linear", "adain", "wct", "ot"])
def test_it_is_what_fusion_will_paint(service, pictures, method, strength):
    similarity, difference = beside(service, pictures["small"], {"method": method, "strength": strength})
    assert similarity > 0.99
    assert difference < 0.005


@pytest.mark.parametrize("settings", [{"feather": 60, "size": 800, "strength": 0.5}, {"feather": 60, "invert_mask": True}])
def test_a_masks_edge_is_as_soft_as_it_will_be(service, pictures, settings):
    half = np.zeros((75, 100, 3), np.float32)
    half[:, :50] = 1
    similarity, difference = beside(service, pictures["large"], settings, [Picture.from_array(half)])
    assert similarity > 0.95
    assert difference < 0.015


def test_the_brush_acts_on_small_pictures_as_it_will(service, pictures):
    key = pictures["small"]
    shown = {scale: service.preview(key, STYLE, {"style_scale": scale}).pixels for scale in (0.7, 1.0, 2.0, 4.0)}
    for scale in shown:
        assert beside(service, key, {"style_scale": scale})[0] > 0.97
    for one, other in ((0.7, 1.0), (1.0, 2.0), (2.0, 4.0)):
        assert np.abs(shown[one] - shown[other]).mean() > 0.01


def test_a_budget_of_memory_is_kept(tmp_path, pictures, service):
    tight = PaintService(Settings(data=tmp_path, memory=170_000_000))
    try:
        key = tight.keep(service.kept(pictures["large"]).upload)
        for pace in tight._previewer.paces.values():
            pace._step = len(STEPS) - 1
        for method in ("generator", "adain"):
            height, width = tight._previewer.working_size(tight.kept(key), tight.complete({"style_scale": 0.5, "method": method}))
            assert 0.9 * 170_000_000 < height * width * tiling.bytes_a_pixel(method) < 1.01 * 170_000_000
        assert tight.preview(key, STYLE).size == (768, 1024)
        assert tight.paint(tight.content(key), STYLE).size == (1200, 1600)  # in tiles
    finally:
        tight.close()


def test_what_is_kept_for_sliders_is_bounded(tmp_path):
    narrow = PaintService(Settings(data=tmp_path, kept_bytes=4_000_000))
    try:
        key = narrow.keep(blots(150, 200))
        for strength in np.linspace(0.1, 1.9, 10):
            narrow.preview(key, STYLE, {"strength": float(strength)})
        assert 0 < narrow._previewer._derived.cost <= 1_000_000
    finally:
        narrow.close()


def test_keeping_colours_and_masks_paint_nothing_again(service, pictures):
    key, engine = pictures["small"], service.painter.engine
    service.preview(key, STYLE, {"strength": 0.9})
    before, calls = engine.paint, []
    engine.paint = lambda pixels, *rest, **more: calls.append(1) or before(pixels, *rest, **more)
    try:
        service.preview(key, STYLE, {"strength": 0.9, "keep_color": 0.4})
        service.preview(key, STYLE, {"strength": 0.9, "feather": 3}, masks=[blots(15, 20)])
        assert not calls
        service.preview(key, STYLE, {"strength": 0.8})
        assert calls
    finally:
        del engine.paint


# The pace -----------------------------------------------------------------------------------------------------------------


def passes(pace, rate, times):
    for _ in range(times):
        pace.took(pace.pixels, rate * pace.pixels)
    return pace.pixels


def test_a_machine_that_gets_slower_paints_less_and_a_faster_one_more():
    pace = Pace(PASS_SECONDS, guess=0.1)
    assert pace.pixels == USUAL
    assert passes(pace, 0.4e-6, 5) < USUAL / 2
    assert pace.seconds_for(pace.pixels) <= PASS_SECONDS
    assert passes(pace, 0.1e-6, 10) == USUAL
    assert passes(pace, 0.01e-6, 10) == STEPS[-1]
    assert passes(pace, 1.0, 10) == STEPS[0]


def test_one_pass_that_had_to_wait_changes_nothing():
    pace = Pace(PASS_SECONDS, guess=0.1)
    passes(pace, 0.1e-6, 5)
    for rate in (5e-6, 0.1e-6, 5e-6, 0.1e-6):
        pace.took(pace.pixels, rate * pace.pixels)
        assert pace.pixels == USUAL


def test_the_brush_does_not_waver_at_the_edge_between_two_steps():
    pace, seen = Pace(PASS_SECONDS, guess=0.1), set()
    passes(pace, 0.1e-6, 5)
    for rate in RNG.uniform(0.9, 1.1, 200) * PASS_SECONDS / USUAL:
        pace.took(pace.pixels, rate * pace.pixels)
        seen.add(pace.pixels)
    assert len(seen) == 1


def test_passes_too_small_to_tell_do_not_count():
    pace = Pace(PASS_SECONDS, guess=0.1)
    for _ in range(9):
        pace.took(10_000, 1.0)
    assert pace.pixels == USUAL
