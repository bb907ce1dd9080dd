"""The one flow from Picture and Style to Picture: what holds whatever the weights, and a little of what they must do."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scumble import Picture, Style, Stylizer, finish, guided, metrics, stylize, tiling
from scumble.errors import UsageError
from scumble.mask import Mask
from scumble.stylizer import METHODS, Settings, working_scale

painter = Stylizer(threads=1)


def photograph(height: int, width: int) -> Picture:
    y, x = np.mgrid[:height, :width] / max(height, width, 2)
    waves = [0.5 + 0.4 * np.sin(f * x + g * y) * np.cos(7 * x * y) for f, g in ((9, 4), (3, 8), (5, 5))]
    return Picture.from_array(np.stack(waves, 2).astype(np.float32))


def astronaut(side: int) -> Picture:
    data = pytest.importorskip("skimage.data", reason="the photograph comes with scikit-image")
    return Picture.from_array(data.astronaut()).resized(width=side, height=side)


@pytest.fixture(scope="module")
def style() -> Style:
    return Style.named("great-wave")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 23), (37, 31)])
def test_the_result_has_the_pictures_size(style: Style, method: str, size: tuple[int, int]) -> None:
    painted = painter(photograph(*size), style, method=method)
    assert painted.pixels.shape == (*size, 3)
    assert np.isfinite(painted.pixels).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(METHODS), st.floats(0, 2), st.sampled_from([None, 0.5, 4.0]))
def test_any_size_method_strength_and_scale(height: int, width: int, method: str, strength: float, scale: float | None) -> None:
    # small brushes paint small pictures at 1440 x 1440, so these sizes go with wide ones
    content = photograph(height, width)
    painted = painter(content, "irises", method=method, strength=strength, style_scale=None if scale == 0.5 else scale)
    assert painted.pixels.shape == content.pixels.shape
    assert np.isfinite(painted.pixels).all()


def test_strength_0_gives_the_content_back(style: Style) -> None:
    content = photograph(40, 30)
    for method in METHODS:
        assert np.array_equal(painter(content, style, method=method, strength=0).pixels, content.pixels)


def test_the_generator_gives_the_content_back_when_asked_for_its_own_style() -> None:
    """What strengths near 0 stand on: the picture as its own style. At 0 what is missing, some 7 % of the range, is put back."""
    content = astronaut(512)
    painted = painter(content, content, method="generator")
    assert metrics.psnr(painted.pixels, content.pixels) >= 22


def test_more_strength_is_further_from_the_content(style: Style) -> None:
    content = astronaut(192)
    for method in METHODS:
        moved = [np.abs(painter(content, style, method=method, strength=s).pixels - content.pixels).mean() for s in (0.05, 0.25, 0.5)]
        assert moved == sorted(moved), method


def test_strength_above_1_is_nearer_to_the_style_and_further_from_the_content() -> None:
    content = astronaut(384)
    for source in (Style.named("starry-night"), Style(Style.named("irises").levels)):  # one with its tuning, one without
        once, more, most = (metrics.score(painter(content, source, strength=s), content, source) for s in (1.0, 1.5, 2.0))
        assert once.content < more.content < most.content
        assert most.style < 0.95 * once.style and more.style < once.style


def test_a_look_at_the_draft_brings_it_nearer_to_the_style() -> None:
    contents = [astronaut(256), photograph(240, 320)]
    for source in (Style.named("starry-night"), Style(Style.named("irises").levels), Style.named("young-hare")):
        far = dict.fromkeys(("draft", "good"), 0.0)
        for quality in far:
            for content in contents:
                painted = painter(content, source, quality=quality)
                own = Style.of_pixels(painted.pixels, painter.engine).vector
                far[quality] += float(np.linalg.norm(own - source.vector))
        assert far["good"] < 0.95 * far["draft"]


def test_a_draft_is_one_pass_and_what_it_missed_is_the_rest(style: Style) -> None:
    content, engine = photograph(64, 80), painter.engine
    draft = painter(content, style, quality="draft").pixels
    np.testing.assert_array_equal(draft, engine.paint(content.pixels, style.modulation(engine))[0])
    own = Style.of_pixels(draft, engine).vector
    np.testing.assert_allclose(own + style.missed_in(content.pixels, engine), style.vector, atol=1e-3)


def test_after_a_look_patches_are_larger_and_the_net_paints_at_several_phases(style: Style) -> None:
    content, engine = photograph(64, 80), painter.engine
    net = style.modulation(engine, missed=style.missed_in(content.pixels, engine), wide=True)[: engine.modulations]
    cells, _ = engine.unfinished(content.pixels, net, None, np.zeros(2 * sum(engine.norms)), spun=True)
    assert style.texture is not None
    planes, filters = finish.finish(cells, guided.guide(content.pixels), style.texture, engine)
    assert len(filters) == finish.filters_size(finish.WIDE)
    np.testing.assert_allclose(painter(content, style).pixels, np.clip(planes, 0, 1).transpose(1, 2, 0), atol=1e-6)


def test_a_look_keeps_to_the_budget_of_memory(style: Style, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    seen = Style.missed_in

    def spy(self: Style, pixels: NDArray[np.float32], engine: object) -> NDArray[np.float32]:
        looked.append(pixels.shape[0] * pixels.shape[1])
        return seen(self, pixels, engine)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Style, "missed_in", spy)
    for memory in (None, 60_000_000):  # one pass does with 42 MB
        painter(photograph(300, 500), style, memory=memory)
    assert looked[0] == 300 * 500
    assert 0.95 * 60_000_000 < looked[1] * tiling.LOOK_BYTES <= 60_000_000


def test_the_same_again(style: Style) -> None:
    content = photograph(50, 41)
    for method in METHODS:
        assert np.array_equal(painter(content, style, method=method).pixels, painter(content, style, method=method).pixels)


def test_black_stays_and_white_is_painted(style: Style) -> None:
    content = photograph(40, 60)
    shape = np.zeros((40, 60), np.float32)
    shape[:, 30:] = 1
    painted = painter(content, style, method="adain", mask=Mask.from_array(shape))
    whole = painter(content, style, method="adain")
    assert np.array_equal(painted.pixels[:, :30], content.pixels[:, :30])
    assert np.allclose(painted.pixels[:, 30:], whole.pixels[:, 30:], atol=1e-6)


def test_each_mask_has_its_style(style: Style) -> None:
    content, other = photograph(40, 60), Style.named("irises")
    left = np.zeros((40, 60), np.float32)
    left[:, :30] = 1
    painted = painter(content, [style, other], method="adain", mask=[Mask.from_array(left), Mask.from_array(1 - left)])
    assert np.allclose(painted.pixels[:, :30], painter(content, style, method="adain").pixels[:, :30], atol=1e-6)
    assert np.allclose(painted.pixels[:, 30:], painter(content, other, method="adain").pixels[:, 30:], atol=1e-6)


def test_kept_colours_are_the_contents(style: Style) -> None:
    from scumble.color import rgb_to_oklab

    content = photograph(48, 48)

    def chroma(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return rgb_to_oklab(pixels)[..., 1:]

    free, kept = (painter(content, style, method="adain", keep_color=k).pixels for k in (0.0, 1.0))
    assert np.abs(chroma(kept) - chroma(content.pixels)).mean() < 0.35 * np.abs(chroma(free) - chroma(content.pixels)).mean()


def test_the_brush_is_as_wide_at_any_resolution(style: Style) -> None:
    """512 and 2048 pixels of one photograph, painted with the same style scale, look the same at 512."""
    small, large = (painter(astronaut(side), style, style_scale=1.0) for side in (512, 2048))
    assert metrics.ssim(small.pixels, large.resized(width=512, height=512).pixels) >= 0.9


def test_working_scale() -> None:
    assert working_scale(720, 720, 1.0) == 1.0
    assert working_scale(2880, 2880, 1.0) == 0.25
    assert working_scale(720, 720, 2.0) == 0.5
    assert working_scale(100, 100, None) == 1.0
    assert working_scale(4320, 1080, None) == pytest.approx(0.5)


def test_size_is_the_longer_side(style: Style) -> None:
    assert painter(photograph(40, 80), style, method="linear", size=20).pixels.shape == (10, 20, 3)


def test_alpha_stays(style: Style) -> None:
    rgba = np.concatenate([photograph(20, 30).pixels, np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30, 1)], 2)
    content = Picture.from_array(rgba)
    painted = painter(content, style, method="adain")
    assert painted.alpha is not None and content.alpha is not None
    assert np.array_equal(painted.alpha, content.alpha)


def test_styles_of_every_kind(style: Style) -> None:
    content = photograph(32, 32)
    whole = painter(content, style, method="adain").pixels
    np.testing.assert_allclose(stylize(content, "great-wave", method="adain").pixels, whole, atol=1e-5)  # in another number of threads
    assert np.array_equal(painter(content, 1.0 * style, method="adain").pixels, whole)
    assert not np.array_equal(painter(content, 0.5 * style + 0.5 * Style.named("irises"), method="adain").pixels, whole)
    assert painter(content, photograph(64, 50), method="adain").pixels.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"strength": 3.5}, "strength must be between 0 and 2; got 3.5"),
        ({"strength": float("nan")}, "strength must be between 0 and 2; got nan"),
        ({"keep_color": -1}, "keep-color must be between 0 and 1; got -1"),
        ({"grain": -1}, "grain must be between 0 and 4; got -1"),
        ({"style_scale": 9}, "style-scale must be between 0.25 and 4; got 9"),
        ({"method": "wtc"}, "unknown method 'wtc'; did you mean 'wct'?"),
        ({"style_fit": "strech"}, "unknown style-fit 'strech'; did you mean 'stretch'?"),
        ({"quality": "bets"}, "unknown quality 'bets'; did you mean 'best'?"),
        ({"steps": -1}, "steps must be between 0 and 100000; got -1"),
        ({"size": 0}, "size must be between 1 and 100000; got 0"),
        ({"size": 100.5}, "size must be a whole number; got 100.5"),
        ({"steps": 1.5}, "steps must be a whole number; got 1.5"),
        ({"steps": "many"}, "steps must be a whole number; got 'many'"),
        ({"strength": "0.5"}, "strength must be a number between 0 and 2; got '0.5'"),
        ({"strength": None}, "strength must be a number between 0 and 2; got None"),
        ({"keep_color": np.zeros((2, 2))}, "keep-color must be a number between 0 and 1; got ndarray"),
        ({"style_scale": "1"}, "style-scale must be a number between 0.25 and 4; got '1'"),
        ({"memory": "1GB"}, "memory must be a number between 1 and 1e+18; got '1GB'"),
        ({"quality": None}, "unknown quality None; allowed: draft, good, fine, best"),
        ({"method": ["ot"]}, "unknown method list; allowed: generator, linear, adain, wct, ot"),
        ({"encoder": "vgg91"}, "unknown encoder 'vgg91'; did you mean 'vgg19'?"),
        ({"encoder": None}, "encoder must be a text, as 'eye' or 'vgg19'; got None"),
        ({"progress": 3}, "progress must be a function; got int"),
        ({"size": 99_999_999}, "size must be between 1 and 100000; got 99999999"),
    ],
)
def test_wrong_settings(style: Style, wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as e:
        painter(photograph(8, 8), style, **wrong)  # type: ignore[arg-type]
    assert str(e.value) == sentence


def test_a_style_must_be_one_at_strength_0_as_well() -> None:
    with pytest.raises(UsageError, match="unknown style"):
        painter(photograph(8, 8), "nonsense", strength=0)


def test_a_painter_that_has_painted_goes_to_another_process() -> None:
    used = Stylizer("cpu", threads=1)
    content = photograph(32, 32)
    painted = used(content, "irises", quality="draft").pixels
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(used))(content, "irises", quality="draft").pixels, painted)


@pytest.mark.parametrize("device", [["cpu"], None])
def test_a_device_is_a_text(device: object) -> None:
    for call in (lambda: stylize(photograph(8, 8), "irises", device=device), lambda: Stylizer(device)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="device"):
            call()


@pytest.mark.parametrize("styles", [["irises", "great-wave"], []])
def test_a_style_for_each_mask(styles: list[str]) -> None:
    with pytest.raises(UsageError, match=f"one style, or one for each mask; got {len(styles)} styles and 0 masks"):
        painter(photograph(8, 8), styles)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (None, "None"), (5, "5"), (b"irises", "b'irises'"), (np.zeros((64, 64, 3), np.float32), "ndarray"), ({"great-wave": 0.5}, "dict"),
        ([0.5, "irises"], "0.5"),
    ],
)  # fmt: skip
def test_what_can_be_no_style(wrong: object, got: str) -> None:
    for strength in (0, 1):  # also where it would not be looked at
        with pytest.raises(UsageError, match=rf"^a style must be a name, a path .* 0\.3 \* b; got {got}$"):
            stylize(photograph(8, 8), wrong, strength=strength)  # type: ignore[arg-type]
    if not isinstance(wrong, list):
        with pytest.raises(UsageError, match=rf"^a style must be a name, .*; got {got}$"):
            painter.style(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("wrong", "got"), [(3, "3"), (np.ones((8, 8)), "ndarray"), ([np.ones((8, 8))], "ndarray"), (b"sky", "b'sky'")])
def test_what_can_be_no_mask(style: Style, wrong: object, got: str) -> None:
    with pytest.raises(UsageError, match=rf"^a mask must be a Mask .* or the path of a picture; got {got}$"):
        painter(photograph(8, 8), style, mask=wrong)  # type: ignore[arg-type]


def test_a_mask_can_be_a_path(style: Style, tmp_path: Path) -> None:
    path = tmp_path / "sky.png"
    photograph(20, 30).save(path)
    by_hand = painter(photograph(40, 60), style, mask=Mask.open(path), quality="draft").pixels
    for mask in (path, str(path), [path]):
        assert np.array_equal(painter(photograph(40, 60), style, mask=mask, quality="draft").pixels, by_hand)


@pytest.mark.parametrize("wrong", ["photo.jpg", None, np.zeros((8, 8, 3), np.float32)])
def test_a_stylizer_paints_pictures(style: Style, wrong: object) -> None:
    with pytest.raises(UsageError, match=r"what is painted must be a Picture, as Picture\.open makes one of a file; got"):
        painter(wrong, style)  # type: ignore[arg-type]


def test_threads_are_counted() -> None:
    with pytest.raises(UsageError, match=r"^threads must be a whole number; got '2'$"):
        Stylizer(threads="2")  # type: ignore[arg-type]
    assert Stylizer(threads=np.int64(2)).engine.threads == 2  # type: ignore[arg-type]


def test_numbers_can_be_numpys(style: Style) -> None:
    painted = painter(photograph(8, 16), style, size=np.int64(24), steps=np.int32(0), strength=np.float32(0.5))  # type: ignore[arg-type]
    assert painted.size == (12, 24)


def test_a_style_is_stretched_to_its_own_shape_turned(style: Style) -> None:
    content, work = photograph(80, 60), photograph(60, 80)
    by_hand = painter(content, work.resized(width=60, height=80))
    assert np.array_equal(painter(content, work, style_fit="stretch").pixels, by_hand.pixels)


def test_the_front_door_knows_all_settings() -> None:
    assert set(Settings.__annotations__) == set(inspect.signature(Stylizer.__call__).parameters) - {"self", "content", "style"}


def test_encoders_are_named_in_any_case_and_the_eye_without_layers(style: Style) -> None:
    small = photograph(16, 24)
    assert np.array_equal(painter(small, style, encoder=" EYE").pixels, painter(small, style).pixels)
    with pytest.raises(UsageError, match="the encoder 'eye' has no layers to choose; got 'eye:relu1_1'"):
        painter(small, style, encoder="eye:relu1_1")


def test_a_refinement_ends_where_it_is_told_to(style: Style) -> None:
    pytest.importorskip("torch")
    done: list[int] = []
    painter(photograph(16, 24), style, steps=100, progress=lambda step, *_: done.append(step), stop=lambda: len(done) == 3)
    assert done == [0, 1, 2]
    with pytest.raises(UsageError, match="stop must be a function; got int"):
        painter(photograph(16, 24), style, stop=3)  # type: ignore[arg-type]


def test_misspelt_styles() -> None:
    with pytest.raises(UsageError, match="unknown style 'great-wvae'; did you mean 'great-wave'"):
        painter(photograph(8, 8), "great-wvae")


@pytest.mark.parametrize("more", [{}, {"steps": 2}])
def test_a_style_can_be_stretched_to_the_pictures_shape(tmp_path, more) -> None:
    if more:
        pytest.importorskip("torch")
    content, work = photograph(40, 64), photograph(72, 60)
    (tmp_path / "manner").mkdir()
    work.save(tmp_path / "manner" / "one.png")
    work = Picture.open(tmp_path / "manner" / "one.png")
    by_hand = painter(content, work.resized(width=83, height=52), **more).pixels  # 40 : 64, and 72 x 60 pixels as before
    for source in (work, tmp_path / "manner" / "one.png", tmp_path / "manner"):
        assert np.array_equal(painter(content, source, style_fit="stretch", **more).pixels, by_hand)
    assert np.abs(painter(content, work, **more).pixels - by_hand).max() > 1 / 255
    painter.style(work).save(tmp_path / "its.style")
    for numbers in ("great-wave", tmp_path / "its.style", painter.style(work), 1.0 * painter.style(work)):
        with pytest.raises(UsageError, match="style-fit 'stretch' needs the style as a picture or a folder"):
            painter(content, numbers, style_fit="stretch", **more)


def test_refinement_sees_more_of_a_picture_than_its_style_holds(tmp_path) -> None:
    pytest.importorskip("torch")
    content, brushwork = photograph(64, 80), photograph(72, 60)
    (tmp_path / "manner").mkdir()
    brushwork.save(tmp_path / "manner" / "one.png")
    brushwork = Picture.open(tmp_path / "manner" / "one.png")
    style = painter.style(brushwork)
    style.save(tmp_path / "its.style")
    seen, of_file, of_folder, of_style, of_saved = (
        painter(content, source, steps=2).pixels
        for source in (brushwork, tmp_path / "manner" / "one.png", tmp_path / "manner", style, tmp_path / "its.style")
    )
    assert np.array_equal(seen, of_file) and np.array_equal(seen, of_folder)
    assert np.abs(seen - of_style).max() > 1 / 255
    assert np.abs(of_saved - of_style).max() < np.abs(seen - of_style).max() / 4
    with pytest.raises(UsageError, match="need the style as a picture or a folder"):
        painter(content, tmp_path / "its.style", steps=2, encoder="vgg19")


def test_refinement_has_the_budget_of_memory(style: Style) -> None:
    pytest.importorskip("torch")
    content = photograph(300, 400)
    whole, tiled = (painter(content, style, steps=1, memory=memory).pixels for memory in (None, 215_000_000))
    assert np.abs(whole - tiled).mean() <= 0.1 / 255
    with pytest.raises(UsageError, match=r"refining 400 x 300 pixels takes \d+ MB at the least; it has 60 MB"):
        painter(content, style, steps=1, memory=60_000_000)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (8, 8), (7, 300), (15, 15)])
@pytest.mark.parametrize("colour", [(0.8, 0.1, 0.1), (1.0, 1.0, 1.0), (0.1, 0.1, 0.8)])
def test_next_to_no_pixels_are_painted_in_colours_of_the_style(height, width, colour):
    """As many of them are: what a net that normalises makes of one pixel by itself was green, or black."""
    painter = Stylizer("cpu", threads=1)
    few, many = (
        painter(Picture.from_array(np.full((*size, 3), colour, np.float32)), "great-wave", grain=0.0, quality="draft").pixels
        for size in ((height, width), (128, 128))
    )
    assert few.shape == (height, width, 3)
    assert np.abs(few.mean((0, 1)) - many.mean((0, 1))).max() < 0.05
