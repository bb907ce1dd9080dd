"""Tuning: what a style learns beyond what the generator predicts, where it is kept, and that all who paint use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scumble import Picture, Style, Stylizer, library, tiling, weights
from scumble.cli import run
from scumble.engine import Engine
from scumble.errors import InputError, UsageError
from scumble.style import Blend, Tuning, blended_tuning

torch = pytest.importorskip("torch", reason="tuning needs the torch extra")

from scumble.nets.generator import Generator, Shape  # noqa: E402
from scumble.train import tuning  # noqa: E402
from scumble.train.export import export_generator, export_self_contained, generator_id, load_generator  # noqa: E402
from scumble.train.judge import Judge, style_distance  # noqa: E402
from scumble.train.library import build_library, tune_works  # noqa: E402
from scumble.weights import FOLDER  # noqa: E402

NAME = "great-wave"


@pytest.fixture(scope="module")
def stylizer() -> Stylizer:
    return Stylizer("cpu", 1)


@pytest.fixture(scope="module")
def photo() -> Picture:
    rng = np.random.default_rng(0)
    return Picture.from_array(rng.uniform(size=(12, 16, 3)).astype(np.float32)).resized(width=160, height=120)


def tuned(style: Style, engine: Engine, seed: int = 0, size: float = 0.2) -> Style:
    offset = np.random.default_rng(seed).normal(size=load_generator().tunable) * size
    return replace(style, tuning=Tuning(offset.astype(np.float16), engine.generator_id))


def test_the_engine_adds_an_offset_where_the_net_does(stylizer: Stylizer) -> None:
    style = tuned(Style.named(NAME), stylizer.engine)
    assert style.tuning is not None
    with torch.no_grad():
        expected = load_generator().modulation(
            torch.from_numpy(style.vector)[None], torch.from_numpy(style.tuning.offset.astype(np.float32))[None]
        )
    np.testing.assert_allclose(style.modulation(stylizer.engine)[: expected.shape[1]], expected[0].numpy(), atol=2e-4)


def test_the_mixing_matrices_stay() -> None:
    net = Generator(Shape(half=8, quarter=8, eighth=8, blocks=1, rank=2, hidden=16))
    vector = torch.rand(1, net.shape.style)
    with torch.no_grad():
        moved = net.modulation(vector, torch.ones(1, net.tunable)) - net.modulation(vector)
    first, matrices = 2 * sum(net.norms), sum(o * i for o, i in net.matrices)
    assert moved.shape == (1, net.modulations)
    torch.testing.assert_close(moved[:, :first], torch.ones(1, first))
    assert not moved[:, first : first + matrices].any()
    torch.testing.assert_close(moved[:, first + matrices :], torch.ones(1, net.tunable - first))


def test_an_offset_for_other_weights_is_left_out_and_said(stylizer: Stylizer, caplog: pytest.LogCaptureFixture) -> None:
    plain = Style.named(NAME)
    plain = replace(plain, tuning=None)
    stale = replace(plain, name="told once", tuning=Tuning(np.ones(7, np.float16), "0123456789abcdef"))
    for _ in range(2):
        np.testing.assert_array_equal(stale.modulation(stylizer.engine), plain.modulation(stylizer.engine))
    assert caplog.text.count("tune it again") == 1


def test_weights_have_names(tmp_path: Path, stylizer: Stylizer) -> None:
    assert stylizer.engine.generator_id == generator_id()
    torch.manual_seed(0)
    export_generator(Generator(Shape(half=8, quarter=8, eighth=8, blocks=1, rank=2, hidden=16)), tmp_path)
    assert generator_id(tmp_path / "generator.safetensors") != generator_id()


def test_a_zero_of_the_other_sign_is_no_other_generator(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(FOLDER / "generator.safetensors")
    for sign in (1, -1):
        zeroed = {k: np.where(np.abs(v) < 1e-3, np.float16(sign * 0.0), v).astype(v.dtype) for k, v in weights.items()}
        save_file(zeroed, tmp_path / f"{sign}.safetensors")
    assert (tmp_path / "1.safetensors").read_bytes() != (tmp_path / "-1.safetensors").read_bytes()
    assert generator_id(tmp_path / "1.safetensors") == generator_id(tmp_path / "-1.safetensors") != generator_id()


def test_a_file_keeps_it_in_100_kilobytes(tmp_path: Path, stylizer: Stylizer) -> None:
    style = tuned(Style.named(NAME), stylizer.engine)
    path = style.save(tmp_path / "a.style")
    assert path.stat().st_size < 100_000
    again = Style.load(path)
    assert style.tuning is not None and again.tuning is not None and again.tuning.generator == style.tuning.generator
    np.testing.assert_array_equal(again.tuning.offset, style.tuning.offset)
    assert Style.load(replace(style, tuning=None).save(tmp_path / "b.style")).tuning is None


def test_a_digest_tells_tunings_apart(stylizer: Stylizer) -> None:
    plain = replace(Style.named(NAME), tuning=None)
    digests = [s.digest for s in (plain, tuned(plain, stylizer.engine), tuned(plain, stylizer.engine, 1), Style.named("the-scream"))]
    assert len(set(digests)) == 4
    assert replace(plain, name="other").digest == plain.digest


@pytest.mark.parametrize("quick", [False, True])
def test_a_blend_is_tuned_by_the_mean(stylizer: Stylizer, quick: bool) -> None:
    plain = replace(Style.named("the-scream"), tuning=None)
    one, two = tuned(plain, stylizer.engine, 1), tuned(Style.named(NAME), stylizer.engine, 2)
    assert one.tuning is not None and two.tuning is not None
    got = Blend(((3.0, one), (1.0, two))).blended(quick=quick).tuning
    assert got is not None
    np.testing.assert_allclose(got.offset, 0.75 * one.tuning.offset + 0.25 * two.tuning.offset, atol=1e-3)
    half = Blend(((1.0, one), (1.0, plain))).blended(quick=quick).tuning
    assert half is not None
    np.testing.assert_allclose(half.offset, 0.5 * one.tuning.offset, atol=1e-3)
    stale = replace(two, tuning=Tuning(two.tuning.offset, "0123456789abcdef"))
    assert blended_tuning([(1.0, plain), (1.0, plain)]) is None
    for terms in ([(2.0, one), (1.0, stale)], [(1.0, stale), (2.0, one)], [(0.0, stale), (1.0, one)]):
        got = blended_tuning(terms)
        assert got is not None and got.generator == one.tuning.generator  # whichever comes first
        share = np.float32(terms[0][0] if terms[0][1] is one else terms[1][0]) / np.float32(sum(weight for weight, _ in terms))
        np.testing.assert_allclose(got.offset, share * one.tuning.offset, atol=1e-3)
    assert blended_tuning([(0.0, one), (1.0, plain)]) is None


def test_a_tuning_of_another_length_is_refused(stylizer: Stylizer, photo: Picture) -> None:
    short = Tuning(np.zeros(7, np.float16), stylizer.engine.generator_id)
    with pytest.raises(InputError, match="tuning of 7 numbers is none of this generator's; tune the style again"):
        stylizer(photo, replace(Style.named(NAME), tuning=short))


def test_all_who_paint_use_it(tmp_path: Path, stylizer: Stylizer, photo: Picture) -> None:
    plain = replace(Style.named(NAME), tuning=None)
    style = tuned(plain, stylizer.engine)
    photo = photo.resized(width=176, height=132)  # exported, the finish has all of its scales, which smaller pictures have not
    painted = stylizer(photo, style, quality="draft").pixels
    moved = np.abs(painted - stylizer(photo, plain, quality="draft").pixels).mean()
    local = tiling.freeze(stylizer.engine, photo.pixels, style, sweeps=lambda tile: tiling.sweep_over(photo.pixels, tile), memory=1e9)
    np.testing.assert_allclose(tiling.paint(local, photo.pixels, 128), painted, atol=1 / 255)
    export_self_contained(tmp_path / "a.onnx", style)
    import onnxruntime as ort

    session = ort.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    exported = np.asarray(session.run(None, {"content": np.ascontiguousarray(photo.pixels.transpose(2, 0, 1)[None])})[0])
    differs = np.abs(exported[0].transpose(1, 2, 0) - painted)[24:-24, 24:-24]  # it mirrors its margin in another way
    assert differs.mean() < 3 / 255 < moved / 3


def test_strength_leads_from_the_content_to_the_tuned_style(stylizer: Stylizer, photo: Picture) -> None:
    style = tuned(Style.named(NAME), stylizer.engine)
    np.testing.assert_array_equal(stylizer(photo, style, strength=0.0).pixels, photo.pixels)
    away = [float(np.abs(stylizer(photo, style, strength=s).pixels - photo.pixels).mean()) for s in (0.3, 1.0)]
    assert 0 < away[0] < away[1]


def test_practice_brings_the_eyes_distance_down(stylizer: Stylizer, photo: Picture) -> None:
    plain = replace(Style.named("composition-viii"), tuning=None)
    photos = [photo, Picture.from_array(np.flip(photo.pixels, 1).copy())]
    seen: list[tuple[int, int]] = []
    recipe = replace(tuning.RECIPE, steps=25)
    crops, judge, target = tuning.crops_of(photos), Judge.named("eye"), tuning.target_of_style(plain)
    style = tuning.tune(plain, crops, judge, target, recipe, size=96, progress=lambda done, total, loss: seen.append((done, total)))
    assert seen == [(k + 1, 25) for k in range(25)]

    def distance(style: Style) -> float:
        painted = stylizer(photo, style).pixels
        taps = judge.seen(torch.from_numpy(np.array(painted.transpose(2, 0, 1)))[None][..., :112, :])
        return float(style_distance(taps[: len(target)], target))

    assert distance(style) < 0.9 * distance(plain)
    assert style.levels is plain.levels and style.name == plain.name
    again = tuning.tune(plain, crops, judge, target, recipe, size=96)
    assert style.digest == again.digest


def test_a_tuning_for_earlier_weights_is_gone_on_from(stylizer: Stylizer, photo: Picture) -> None:
    """With nothing learnt anew, the style sets what it set with the weights before, but for the mixing matrices, which are not tuned."""
    earlier = load_generator()
    with torch.no_grad():
        for layer in (earlier.gains, earlier.shares, earlier.left):
            layer.weight.add_(0.02 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(3)))
    style = replace(tuned(Style.named(NAME), stylizer.engine), levels=Style.named(NAME).levels)
    assert style.tuning is not None
    still = replace(tuning.RECIPE, steps=1, learning_rate=0.0)
    crops, target = tuning.crops_of([photo]), tuning.target_of_style(style)
    again = tuning.tune(style, crops, Judge.named("eye"), target, still, size=96, batch=1, earlier=earlier)
    assert again.tuning is not None and again.tuning.generator == generator_id()
    learnt = torch.from_numpy(style.tuning.offset.astype(np.float32))[None]
    vector = torch.from_numpy(style.vector)[None]
    with torch.no_grad():
        before = earlier.modulation(vector, learnt)[0].numpy()
        offset = torch.from_numpy(again.tuning.offset.astype(np.float32))[None]
        now = load_generator().modulation(vector, offset)[0].numpy()
    first, last = 2 * sum(earlier.norms), earlier.tunable - 2 * sum(earlier.norms)
    np.testing.assert_allclose(now[:first], before[:first], atol=5e-3)  # halves have 11 bits
    np.testing.assert_allclose(now[-last:], before[-last:], atol=5e-3)
    assert np.abs(now - before).max() > 5e-3, "matrices are predicted anew"
    anew = tuning.tune(style, crops, Judge.named("eye"), target, still, size=96, batch=1)
    assert anew.tuning is not None and not anew.tuning.offset.any()


def test_a_target_of_the_style_is_what_the_eye_sees_of_the_picture() -> None:
    rng = np.random.default_rng(1)
    picture = Picture.from_array(rng.uniform(size=(12, 12, 3)).astype(np.float32)).resized(width=96, height=96)
    of_style, of_picture = tuning.target_of_style(Style.from_image(picture)), tuning.target_of_pictures(Judge.named("eye"), [picture])
    for (mean, second), (mean2, second2) in zip(of_style, of_picture, strict=True):
        assert float((mean - mean2).norm() / mean.norm()) < 1e-3
        assert float((second - second2).norm() / second.norm()) < 1e-3
    assert all(
        torch.allclose(one[0], two[0], rtol=1e-4)
        for one, two in zip(of_picture, tuning.target_of_pictures(Judge.named("eye"), [picture, picture]), strict=True)
    )


def test_the_sight_judges_where_the_picture_is_at_hand(photo: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    sight = Judge.named("sight")
    x = torch.from_numpy(np.array(photo.pixels[:96, :96].transpose(2, 0, 1)))[None]
    taps = sight.seen(x)
    assert [t.shape[1] for t in taps] == [16, 32, 256, 512, 512]
    torch.testing.assert_close(sight.layout(x), taps[sight.at], rtol=1e-4, atol=1e-4)
    chosen: list[str] = []
    monkeypatch.setattr(tuning, "tune", lambda style, photos, judge, target, recipe, progress: chosen.append(judge.name) or style)
    style = Style.named(NAME)
    tuning.practise(style, [photo])
    tuning.practise(style, [photo], [photo])
    assert chosen == ["eye", "sight"]


def test_a_share_of_what_was_learnt_is_kept(photo: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    style = replace(Style.named(NAME), tuning=None)
    settings = (tuning.crops_of([photo]), Judge.named("eye"), tuning.target_of_style(style), replace(tuning.RECIPE, steps=2))
    kept: list[np.ndarray] = []
    for share in (1.0, tuning.KEPT):
        monkeypatch.setattr(tuning, "KEPT", share)
        learnt = tuning.tune(style, *settings, size=64, batch=1).tuning
        assert learnt is not None
        kept.append(learnt.offset.astype(np.float32))
    assert 0 < share < 1 and kept[0].any()
    np.testing.assert_allclose(kept[1], share * kept[0], atol=1e-4)


def test_photographs_there_must_be() -> None:
    with pytest.raises(UsageError, match="one photograph at least"):
        tuning.practise(Style.named(NAME), [])


def test_crops_are_of_the_size_at_which_pictures_are_painted() -> None:
    large = Picture.from_array(np.zeros((1000, 2000, 3), np.float32))
    assert tuple(tuning.crops_of([large]).pictures[0].shape) == (3, 509, 1018)


def test_the_command_practises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photo: Picture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCUMBLE_STYLES", "own")
    photo.save("style.png")
    Path("photos").mkdir()
    photo.resized(width=96, height=72).save("photos/a.png")
    assert run(["styles", "add", "plain", "style.png"]) == 0
    assert run(["styles", "add", "mine", "style.png", "--tune", "--photos", "photos", "--steps", "2"]) == 0
    plain, mine = Style.named("plain"), Style.named("mine")
    assert plain.tuning is None and mine.tuning is not None and mine.tuning.offset.any()
    assert mine.vector.tobytes() == plain.vector.tobytes()
    assert run(["stylize", "photos/a.png", "--style", "mine", "-o", "out.png"]) == 0
    capsys.readouterr()
    assert run(["styles", "add", "mine", "style.png", "--tune", "--photos", "photos"]) == 1
    assert "you have a style mine already" in capsys.readouterr().err
    assert run(["styles", "add", "other", "style.png", "--photos", "photos"]) == 2
    assert "add --tune" in capsys.readouterr().err
    assert run(["styles", "add", "other", "style.png", "--tune", "--steps", "0"]) == 2
    assert "steps must be between 1 and" in capsys.readouterr().err


def test_a_library_with_tunings(tmp_path: Path, photo: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, pack, tuned_folder = tmp_path / "gallery", tmp_path / "pack", tmp_path / "tuned"
    gallery.mkdir()
    (pack / "content.tar").mkdir(parents=True)  # a folder will do
    rows = ["name,title,artist,year,medium,group"]
    for k, name in enumerate(("first", "second")):
        Image.fromarray((np.roll(photo.pixels, 20 * k, 1) * 255).astype(np.uint8)).save(gallery / f"{name}.jpg")
        rows.append(f"{name},,,,,")
    (gallery / "gallery.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    Image.fromarray((photo.pixels * 255).astype(np.uint8)).save(pack / "content.tar" / "a.png")
    recipe = replace(tuning.RECIPE, steps=2)
    assert tune_works(gallery, tuned_folder, pack, replace(recipe, minutes=0.0), size=64, batch=1) == 0
    assert tune_works(gallery, tuned_folder, pack, recipe, size=64, batch=1) == 2
    written = {p.name: p.stat().st_mtime_ns for p in tuned_folder.iterdir()}
    (tuned_folder / "second.style").unlink()
    assert tune_works(gallery, tuned_folder, pack, recipe, size=64, batch=1) == 2
    assert (tuned_folder / "first.style").stat().st_mtime_ns == written["first.style"]
    still = replace(recipe, learning_rate=0.0)
    one = Style.load(tuned_folder / "second.style")
    replace(one, tuning=Tuning(one.tuning.offset, "other")).save(tuned_folder / "second.style", overwrite=True)  # pyright: ignore[reportOptionalMemberAccess]
    old = tmp_path / "old"
    monkeypatch.setattr("scumble.train.library.generator_id", lambda path=None: "other" if path == old else generator_id())
    monkeypatch.setattr("scumble.train.library.load_generator", lambda path=None: load_generator())
    assert tune_works(gallery, tuned_folder, pack, still, size=64, batch=1, earlier=old) == 2
    gone_on = Style.load(tuned_folder / "second.style").tuning
    assert gone_on is not None and one.tuning is not None and gone_on.generator == generator_id()
    np.testing.assert_allclose(gone_on.offset.astype(np.float32), one.tuning.offset.astype(np.float32), atol=2e-3)
    further = tmp_path / "further"
    assert tune_works(gallery, further, pack, still, size=64, batch=1, begin=tuned_folder) == 2
    for name in ("first.style", "second.style"):
        from_there, there = Style.load(further / name).tuning, Style.load(tuned_folder / name).tuning
        assert from_there is not None and there is not None and there.offset.any()
        np.testing.assert_allclose(from_there.offset.astype(np.float32), there.offset.astype(np.float32), atol=2e-3)
    made = tmp_path / "made"
    made.mkdir()
    (tuned_folder / "second.style").unlink()
    assert build_library(gallery, made, tuned=tuned_folder) == 2
    monkeypatch.setattr(library, "weight_path", lambda name: made / name)
    library._built_in_entries.cache_clear()  # pyright: ignore[reportPrivateUsage]
    try:
        first, second = Style.named("first"), Style.named("second")
    finally:
        library._built_in_entries.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert first.tuning is not None and second.tuning is None
    np.testing.assert_array_equal(first.tuning.offset, Style.load(tuned_folder / "first.style").tuning.offset)  # pyright: ignore[reportOptionalMemberAccess]
    assert first.tuning.generator == generator_id()


def test_a_margin_is_no_part_of_a_work(tmp_path: Path, photo: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    framed = np.ones((200, 300, 3), np.float32)
    framed[20:160, 30:270] = photo.resized(width=240, height=140).pixels
    for name in ("work", "framed"):
        Picture.from_array(framed if name == "framed" else framed[20:160, 30:270]).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.png").rename(tmp_path / f"{name}.jpg")  # whose pixels are these to the last bit

    def built(table: str) -> dict[str, Style]:
        (tmp_path / "gallery.csv").write_text(table, encoding="utf-8")
        build_library(tmp_path, tmp_path)
        monkeypatch.setattr(library, "weight_path", lambda name: tmp_path / name)
        library._built_in_entries.cache_clear()  # pyright: ignore[reportPrivateUsage]
        try:
            return {name: Style.named(name) for name in library._built_in_entries()}  # pyright: ignore[reportPrivateUsage]
        finally:
            library._built_in_entries.cache_clear()  # pyright: ignore[reportPrivateUsage]

    head = "name,title,artist,year,medium,group,crop\n"
    styles = built(head + "work,,,,,,\nframed,,,,,,0.1 0.1 0.9 0.8\n")
    np.testing.assert_array_equal(styles["framed"].vector, styles["work"].vector)
    for crop in ("0.1 0.1 0.9", "0.5 0 0.4 1", "a b c d", "0 0 1 nan"):
        with pytest.raises(InputError, match=f"the crop of framed must be left, top, right and bottom between 0 and 1, .* got '{crop}'"):
            built(f"{head}framed,,,,,,{crop}\n")
    with pytest.raises(InputError, match=r"gallery.csv has no column title; it needs name, title"):
        built("name\nwork\n")
    (tmp_path / "gallery.csv").unlink()
    with pytest.raises(InputError, match=r"gallery.csv cannot be read \(no such file or directory\); give a folder of pictures"):
        build_library(tmp_path, tmp_path)


def test_the_command_checks_what_a_library_is_tuned_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["train", "library", str(tmp_path), "--weights", str(tmp_path)]
    assert run([*there, "--pack", str(tmp_path)]) == 2
    assert "--tuned FOLDER" in capsys.readouterr().err
    (tmp_path / "old.safetensors").touch()
    assert run([*there, "--earlier", str(tmp_path / "old.safetensors")]) == 2
    assert "needs --pack FOLDER" in capsys.readouterr().err
    assert run([*there, "--begin", str(tmp_path)]) == 2
    assert "needs --pack FOLDER" in capsys.readouterr().err
    assert run([*there, "--judge", "teacher"]) == 2
    assert "need --teacher FOLDER" in capsys.readouterr().err
    assert run([*there, "--judge", "teacher", "--teacher", str(tmp_path)]) == 2
    assert "they need --pack FOLDER" in capsys.readouterr().err


def test_the_built_in_styles_fit_the_generator_that_they_come_with() -> None:
    styles = [Style.named(name) for name, entry in library.entries().items() if entry.path is None]
    assert all(s.tuning is not None and s.tuning.generator == generator_id() for s in styles)
    assert weights.weight_path(library.BUILT_IN).stat().st_size <= 6_100_000
