"""Styles: measured, pooled, blended, saved, loaded, named."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as save_tensors

from scumble import Picture, Style, library
from scumble.errors import InputError, UsageError
from scumble.style import REFERENCE, Blend, at_reference, works_in


def picture(seed: int, height: int = 48, width: int = 64) -> Picture:
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 8, width // 8, 3)).astype(np.float32)
    return Picture.from_array(coarse.repeat(8, 0).repeat(8, 1))


def same(a: Style, b: Style, tolerance: float) -> bool:
    return all(
        np.allclose(p.mean, q.mean, atol=tolerance * abs(q.mean).max())
        and np.allclose(p.covariance, q.covariance, atol=tolerance * abs(q.covariance).max())
        for p, q in zip(a.levels, b.levels, strict=True)
    )


def test_a_style_is_five_levels() -> None:
    style = Style.from_image(picture(0))
    assert [m.channels for m in style.levels] == [16, 32, 64, 128, 128]
    assert style.vector.shape == (736,)
    assert np.array_equal(style.vector[:16], style.levels[0].mean.astype(np.float32))


def test_large_pictures_are_measured_at_the_reference() -> None:
    large = picture(0).resized(width=2000, height=500)
    reduced = at_reference(large)
    assert reduced.width * reduced.height == pytest.approx(REFERENCE**2, rel=0.01)
    assert at_reference(picture(0)).pixels.shape == (48, 64, 3)


def test_a_file_holds_the_style_to_float32_in_100_kilobytes(tmp_path: Path) -> None:
    style = Style.from_image(picture(1), name="squares")
    path = style.save(tmp_path / "squares.style")
    assert path.stat().st_size < 100_000
    loaded = Style.load(path)
    assert loaded.name == "squares"
    assert same(loaded, style, 1e-6)
    with pytest.raises(InputError, match="exists already"):
        style.save(path)
    style.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["squares.style"]


def test_files_that_are_no_styles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no style file"):
        Style.load(tmp_path / "none.style")
    for data in (b"", b"hello", b"\xff" * 100):
        (tmp_path / "bad.style").write_bytes(data)
        with pytest.raises(InputError, match="is not a style file, or it is damaged"):
            Style.load(tmp_path / "bad.style")
    style = Style.from_image(picture(0))
    assert style.texture is not None
    replace(style, texture=style.texture[:-1]).save(tmp_path / "bad.style", overwrite=True)
    with pytest.raises(InputError, match="is not a style file, or it is damaged"):
        Style.load(tmp_path / "bad.style")
    with pytest.raises(UsageError, match=r"ends in \.style"):
        Style.from_image(picture(0)).save(tmp_path / "a.txt")


def test_works_without_a_texture_pool_to_one_without():
    bare = replace(Style.named("irises"), texture=None)
    assert Style.pooled([bare, bare]).texture is None


def test_a_folder_pools_its_works(tmp_path: Path) -> None:
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    picture(9).save(tmp_path / "painted.png", recipe={"recipe": 1})  # by us, so it is no work of the painter's
    pooled = Style.from_folder(tmp_path)
    works = [Style.from_image(tmp_path / f"{i}.png") for i in range(3)]
    assert np.allclose(pooled.levels[2].mean, np.mean([w.levels[2].mean for w in works], 0))
    # pouring together adds the distance between the means: at least as much spread as the works have on average
    assert np.trace(pooled.levels[2].covariance) >= np.mean([np.trace(w.levels[2].covariance) for w in works])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        Style.from_folder(tmp_path / "empty")


def test_blends() -> None:
    a, b = Style.from_image(picture(0)), Style.from_image(picture(1))
    assert same((1.0 * a).blended(), a, 1e-9)
    assert same((0.5 * a + 0.5 * a).blended(), a, 1e-6)
    assert same((2.0 * a + 2.0 * b).blended(), (a + b).blended(), 1e-9)
    assert same((a + 0.0 * b).blended(), a, 1e-9)
    half = (0.5 * a + 0.5 * b).blended()
    assert np.allclose(half.levels[0].mean, (a.levels[0].mean + b.levels[0].mean) / 2)
    assert half.name.startswith("0.5*")
    with pytest.raises(UsageError, match="must not all be 0"):
        (0.0 * a + 0.0 * b).blended()


def test_sums_are_blends() -> None:
    a, b = Style.named("irises"), Style.named("great-wave")
    for total in (sum([0.5 * a, 0.5 * b]), sum([a, b]), 0 + a + b):
        assert isinstance(total, Blend) and [s for _, s in total.terms] == [a, b]


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_weights_that_make_no_sense_are_refused_at_once(weight: float) -> None:
    style = Style.named("irises")
    for wrong in (lambda: weight * style, lambda: weight * (0.5 * style), lambda: Blend(((1.0, style), (weight, style)))):
        with pytest.raises(UsageError, match=r"^the weight of a style must be between 0 and 1000000"):
            wrong()


def test_only_styles_add_up_and_only_numbers_weigh_them() -> None:
    style = Style.named("irises")
    for one in (style, 0.5 * style):
        for wrong in (lambda one=one: one + 1, lambda one=one: 1 + one, lambda one=one: one + "b", lambda one=one: one * None):
            with pytest.raises(TypeError, match="unsupported operand"):
                wrong()


def test_a_blend_is_saved_as_what_it_comes_to(tmp_path: Path) -> None:
    blend = 0.5 * Style.named("irises") + 0.5 * Style.named("great-wave")
    path = blend.save(tmp_path / "half.style")
    assert same(Style.load(path), blend.blended(), 1e-6)


def test_a_style_is_shown_in_a_line() -> None:
    assert repr(Style.named("irises")) == "Style('irises', 736 statistics, tuned, texture)"
    assert repr(Style(Style.named("irises").levels)) == "Style('', 736 statistics, untuned, no texture)"


def test_what_is_no_name_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^a style's name must be a text, as 'great-wave'; got 3$"):
        Style.named(3)  # type: ignore[arg-type]
    picture(0).save(tmp_path / "a.png")
    for wrong in ("a.png", "none"):
        with pytest.raises(InputError, match=f"{wrong} can't be read as a folder of pictures"):
            Style.from_folder(tmp_path / wrong)


def test_the_library_holds_what_the_gallery_has() -> None:
    known = library.entries()
    assert len(known) >= 60
    wave = known["great-wave"]
    assert "Hokusai" in wave.artist and wave.title and wave.year
    style = Style.named("great-wave")
    assert style.about["artist"] == wave.artist
    for m in style.levels:
        assert np.linalg.eigvalsh(m.covariance).min() > -1e-3 * np.trace(m.covariance)
    assert Style.named("Great Wave").name == "great-wave"


def test_names_have_suggestions() -> None:
    with pytest.raises(UsageError, match="did you mean 'starry-night'"):
        Style.named("stary-nite")
    for nothing_like_it in ("qqqqqqq", "nope", ""):
        with pytest.raises(UsageError, match="scumble styles list"):
            Style.named(nothing_like_it)
    with pytest.raises(UsageError, match=r"did you mean .*'water-lilies'"):  # by its artist
        Style.named("Monet")
    with pytest.raises(UsageError, match=r"did you mean '[a-z-]+', .* and \d+ more\?"):
        Style.named("van gogh")
    with pytest.raises(UsageError, match=r"did you mean 'the-card-players'\?"):  # by its title
        Style.named("card players")


def test_where_own_styles_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_STYLES", "~/mine")
    assert library.user_folder() == Path.home() / "mine"
    monkeypatch.setenv("SCUMBLE_STYLES", "")
    for platform, variable, usual in (("linux", "XDG_DATA_HOME", ".local/share"), ("win32", "APPDATA", "AppData/Roaming")):
        monkeypatch.setattr("sys.platform", platform)
        monkeypatch.setenv(variable, "")
        assert library.user_folder() == Path.home() / usual / "scumble" / "styles"
        monkeypatch.setenv(variable, str(tmp_path))
        assert library.user_folder() == tmp_path / "scumble" / "styles"
    monkeypatch.setattr("sys.platform", "darwin")
    assert library.user_folder() == Path.home() / "Library" / "Application Support" / "scumble" / "styles"


def test_own_styles_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_STYLES", str(tmp_path))
    Style.from_image(picture(0)).save(tmp_path / "mine.style")
    assert library.entry("mine").path == tmp_path / "mine.style"
    assert Style.named("mine").name == "mine"
    with pytest.raises(UsageError, match="is a built-in style"):
        library.check_name("irises")
    with pytest.raises(UsageError, match="up to 64 letters"):
        library.check_name("../x")
    with pytest.raises(UsageError, match="only your own can be removed"):
        library.remove("irises")
    library.remove("mine")
    assert not (tmp_path / "mine.style").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"mean3": np.zeros(3, np.float32)},
        {"std1": -np.ones(16, np.float32)},
        {"correlation2": np.full(32 * 31 // 2, np.nan, np.float32)},
        {"texture": np.full(480, np.nan, np.float32)},
        {"tuning": np.full(100, np.inf, np.float16)},
        {"about": "[1]"},
    ],
)
def test_a_style_file_of_other_numbers_is_none(tmp_path: Path, damage: dict[str, Any]) -> None:
    good, bad = tmp_path / "good.style", tmp_path / "bad.style"
    Style.named("great-wave").save(good)
    with safe_open(good, framework="np") as f:
        tensors, metadata = {key: f.get_tensor(key) for key in f.keys()}, f.metadata()  # noqa: SIM118
    texts = {k: v for k, v in damage.items() if isinstance(v, str)}
    bad.write_bytes(save_tensors({**tensors, **{k: v for k, v in damage.items() if k not in texts}}, {**metadata, **texts}))
    assert Style.load(good)
    with pytest.raises(InputError, match="damaged"):
        Style.load(bad)


def test_paths_and_what_is_known_are_checked(tmp_path: Path) -> None:
    style = Style.named("great-wave")
    for call in (lambda: Style.load(None), lambda: Style.from_folder(None), lambda: style.save(None)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="path"):
            call()
    with pytest.raises(UsageError, match="as JSON has them"):
        replace(style, about={"x": object()}).save(tmp_path / "a.style")  # type: ignore[dict-item]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert works_in(tmp_path) == [tmp_path / "a.jpg"]
