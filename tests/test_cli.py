"""The command line from within: what verbs read, write and print. How it behaves as a process: end_to_end/test_command.py."""

import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scumble
from scumble import library, weights
from scumble.cli import run
from scumble.cli.jobs import Job, plan
from scumble.cli.painting import parse_pixels
from scumble.cli.reporter import Reporter
from scumble.errors import InputError, UsageError
from scumble.mask import Mask
from scumble.picture import Picture
from scumble.stylizer import Stylizer

A_STYLE, ANOTHER = list(library.entries())[:2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    y, x = np.mgrid[0:40, 0:64]
    pixels = np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(pixels[::-1]).save(tmp_path / "other.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / "style.png")
    Image.fromarray(np.uint8((x < 32) * 255)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCUMBLE_STYLES", str(tmp_path / "own styles"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("SCUMBLE_DEBUG", raising=False)
    return tmp_path


def pixels_of(path):
    return Picture.open(path).pixels


# The front door ---------------------------------------------------------------------------------------------------------


def loaded_by(code):
    """Which of the heavy modules are there after ``code``."""
    heavy = "{'numpy', 'PIL', 'PIL.Image', 'onnxruntime', 'torch', 'rich', 'rich.progress', 'scumble.stylizer', 'safetensors'}"
    script = f"import sys\n{code}\nprint(*sorted(set(sys.modules) & {heavy}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stderr.split()


def test_importing_loads_nothing_heavy():
    assert loaded_by("import scumble") == []
    assert loaded_by("import scumble; scumble.__version__; dir(scumble)") == []
    assert not {"onnxruntime", "torch"} & set(loaded_by("from scumble import Picture, Style, Stylizer, stylize"))


def test_asking_loads_nothing_heavy():
    assert loaded_by("from scumble.cli import run; run(['--version'])") == []
    assert not {"numpy", "PIL", "onnxruntime", "torch", "scumble.stylizer"} & set(loaded_by("from scumble.cli import run; run(['--help'])"))


def test_the_front_door_has_what_a_program_needs_and_nothing_else():
    import scumble.engine  # a submodule is an attribute from then on, but none of the names that are offered

    errors = {"InputError", "MissingExtraError", "ScumbleError", "UsageError"}
    assert set(scumble.__all__) - {"__version__"} == {"Blend", "Mask", "Picture", "Style", "Stylizer", "stylize"} | errors
    assert {name for name in dir(scumble) if not name.startswith("_")} == set(scumble.__all__) - {"__version__"}
    assert scumble.Picture is Picture
    with pytest.raises(AttributeError, match="no attribute 'Pictures'"):
        scumble.Pictures  # noqa: B018


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["-h"], [], ["styles"], ["train"], ["styles", "--help"]])
def test_questions_are_answered(arguments, capsys):
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert scumble.__version__ in out if arguments == ["--version"] else "Usage: scumble" in out


def test_help_shows_the_librarys_own_defaults(capsys):
    assert run(["stylize", "--help"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│ --")}
    functions = (Stylizer.__call__, Stylizer, scumble.stylize, Mask.from_picture)
    defaults = {name: p.default for f in functions for name, p in inspect.signature(f).parameters.items()}
    asked = {
        "strength",
        "method",
        "style_scale",
        "keep_color",
        "quality",
        "steps",
        "encoder",
        "size",
        "device",
        "threads",
        "max_pixels",
        "feather",
    }
    assert asked <= set(defaults)
    for name in asked:
        line = lines["--" + name.replace("_", "-")]
        if defaults[name] is None:
            assert "[default" not in line
        else:
            assert f"[default: {defaults[name]}]" in line


def test_every_setting_of_the_stylizer_is_an_option(capsys):
    assert run(["stylize", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in set(inspect.signature(Stylizer.__call__).parameters) - {"self", "content", "style", "progress", "stop"}:
        assert "--" + name.replace("_", "-") in shown


# stylize ----------------------------------------------------------------------------------------------------------------


def test_each_setting_reaches_the_picture(folder):
    base = ["stylize", "photo.png", "-s", "style.png", "-q", "--threads", "1"]
    assert run([*base, "-o", "plain.png"]) == 0
    plain = pixels_of("plain.png")
    for option in (["--strength", "0.5"], ["--method", "wct"], ["--keep-color", "1"], ["--mask", "mask.png"], ["--style-scale", "4"]):
        assert run([*base, *option, "-o", "changed.png", "--overwrite"]) == 0
        assert np.abs(pixels_of("changed.png") - plain).max() > 0.01, option
    assert run([*base, "--strength", "0", "-o", "same.png"]) == 0
    assert np.array_equal(pixels_of("same.png"), pixels_of("photo.png"))
    assert run([*base, "--size", "32", "-o", "small.png"]) == 0
    assert Picture.open("small.png").size == (20, 32)


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["photo.png", "-o", "no/out.png"], 1, "there is no folder no; make it first"),
        (["long.png", "-o", "out.webp"], 2, "WebP holds at most 16383 pixels a side; got 16400 x 1: save as PNG or TIFF"),
        (["photo.png", "-o", "out.webp", "--size", "16400"], 2, "WebP holds at most 16383 pixels a side; got 16400 x 10250"),
    ],
)
def test_what_can_not_be_written_is_told_before_anything_is_painted(folder, capsys, monkeypatch, given, code, told):
    Image.new("RGB", (16_400, 1)).save("long.png")
    monkeypatch.setattr(Stylizer, "painted", lambda *_given, **_named: pytest.fail("it was painted"))
    assert run(["stylize", "-s", "style.png", *given]) == code
    assert told in capsys.readouterr().err


def test_masks_say_what_is_painted(folder):
    base = ["stylize", "photo.png", "-s", "style.png", "-q", "--threads", "1"]
    photo = pixels_of("photo.png")
    run([*base, "-o", "plain.png"])
    plain = pixels_of("plain.png")
    assert run([*base, "--mask", "mask.png", "-o", "left.png"]) == 0
    assert np.array_equal(pixels_of("left.png")[:, 32:], photo[:, 32:])
    assert np.array_equal(pixels_of("left.png")[:, :32], plain[:, :32])
    assert run([*base, "--mask", "mask.png", "--invert-mask", "-o", "right.png"]) == 0
    assert np.array_equal(pixels_of("right.png")[:, :32], photo[:, :32])
    assert run([*base, "--mask", "mask.png", "--feather", "8", "-o", "soft.png"]) == 0
    assert np.abs(pixels_of("soft.png") - pixels_of("left.png"))[:, 28:36].max() > 0.01
    two = ["stylize", "photo.png", "-s", "style.png", "-s", A_STYLE, "--mask", "mask.png", "--mask", "all.png", "-o", "two.png"]
    Image.new("L", (5, 7), 255).save("all.png")
    assert run(two) == 0


def test_masks_that_can_hardly_be_meant_are_told_of(folder, caplog):
    Image.new("RGBA", (64, 40), (0, 0, 0, 0)).save("shape.png")
    Image.new("L", (40, 64), 255).save("standing.png")
    for mask, words in (
        ("mask.png", ""),
        ("shape.png", "black all over"),
        ("standing.png", "40 x 64 is stretched to"),
    ):
        caplog.clear()
        assert run(["stylize", "photo.png", "-s", A_STYLE, "--mask", mask, "-o", "out.png", "--overwrite"]) == 0
        assert words in caplog.text and bool(words) == bool(caplog.text)


def test_a_blend_is_between_its_parts(folder):
    base = ["stylize", "photo.png", "-q", "--threads", "1"]
    for blend, name in ((f"{A_STYLE}=1,{ANOTHER}=0", "a"), (f"{A_STYLE}=0.5,{ANOTHER}=.5", "ab"), (f"{A_STYLE}=0,{ANOTHER}=2", "b")):
        assert run([*base, "--blend", blend, "-o", f"{name}.png"]) == 0
    a, ab, b = (pixels_of(f"{n}.png") for n in ("a", "ab", "b"))
    assert np.abs(a - b).mean() > np.abs(a - ab).mean() > 0
    assert run([*base, "--style", A_STYLE, "-o", "only a.png"]) == 0
    assert np.abs(pixels_of("only a.png") - a).max() < 0.05, "a blend of one is that one"


def test_json_is_one_object_an_input(folder, capsys):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(["stylize", "photo.png", "broken.png", "other.jpg", "-s", A_STYLE, "--json", "-o", f"{folder}/", "--strength", "0.5"]) == 1
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert set(first) == {"input", "output", "seconds", "size", "styles", "settings"}
    assert first["input"] == "photo.png"
    assert first["size"] == [64, 40]
    assert first["seconds"] > 0
    assert first["styles"] == [[{"weight": 1.0, "name": A_STYLE}]]
    assert first["settings"]["strength"] == 0.5
    assert first["settings"]["method"] == "generator", "defaults are spelled out"
    assert set(second) == {"input", "error"}
    assert third["output"].endswith(f"other-{A_STYLE}.jpg")


def test_quiet_prints_nothing(folder, capsys):
    assert run(["stylize", "photo.png", "-s", "style.png", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert (folder / "photo-style.png").exists()


def test_overwrite_is_asked_for(folder, capsys):
    before = (folder / "other.jpg").read_bytes()
    arguments = ["stylize", "photo.png", "-s", "style.png", "-o", "other.jpg"]
    assert run(arguments) == 1
    assert (folder / "other.jpg").read_bytes() == before
    assert run([*arguments, "--overwrite"]) == 0
    assert (folder / "other.jpg").read_bytes() != before


def test_preview_is_a_whole_picture_at_any_time(folder):
    pytest.importorskip("torch")
    seen = []
    from scumble.cli.jobs import Session

    show = Session._show

    def watch(self, pixels):
        show(self, pixels)
        seen.append(Picture.open("p.png").size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "_show", watch)
        assert run(["stylize", "photo.png", "-s", "style.png", "--steps", "3", "--preview", "p.png", "-o", "out.png"]) == 0
    assert set(seen) == {(40, 64)}
    assert (folder / "out.png").exists()
    assert run(["stylize", "photo.png", "-s", "style.png", "--steps", "2", "--preview", "new/p.png", "-o", "new/"]) == 0
    assert sorted(p.name for p in (folder / "new").iterdir()) == ["p.png", "photo-style.png"]
    Image.new("RGB", (10, 40)).save("narrow.png")  # painted mirrored, on a wider one
    assert run(["stylize", "narrow.png", "-s", "style.png", "--steps", "2", "--preview", "n.png", "-o", "narrow-out.png"]) == 0
    assert Picture.open("n.png").size == (40, 10)


def test_the_first_ctrl_c_ends_a_refinement_and_a_second_gives_it_up():
    reporter = Reporter(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        reporter._on_interrupt(2, None)
    with reporter.refining():
        reporter.step(3, 25, 0.5)
        assert not reporter.stop()
        reporter._on_interrupt(2, None)
        assert (reporter.stop(), reporter.cut) == (True, 3)
        with pytest.raises(KeyboardInterrupt):
            reporter._on_interrupt(2, None)


def test_what_is_painted_already_is_no_input_of_a_folder_in_another_style(folder):
    (folder / "in").mkdir()
    shutil.copy(folder / "photo.png", folder / "in" / "a.png")
    assert run(["stylize", "in", "-s", A_STYLE, "--size", "20"]) == 0
    assert [job.source for job in plan(["in"], None, ["other"])] == ["in/a.png"]
    (folder / "in" / "a.png").unlink()
    assert [job.source for job in plan(["in"], None, ["other"])] == [f"in/a-{A_STYLE}.png"]  # then they must be meant


def test_a_picture_that_cannot_be_painted_so_does_not_stop_the_others(folder, capsys):
    Image.new("RGB", (20_000, 2)).save(folder / "a.png")
    (folder / "a.png").rename(folder / "a.webp")  # a format is told by the content, and that of the result by the name
    assert run(["stylize", "a.webp", "photo.png", "-s", A_STYLE, "-o", "out/"]) == 1
    assert "WebP holds at most" in capsys.readouterr().err
    assert [p.name for p in (folder / "out").iterdir()] == [f"photo-{A_STYLE}.png"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--steps", "-1"], "steps must be between 0 and 100000; got -1"),
        (["--feather", "1e9", "--mask", "mask.png"], "feather must be between 0 and 10000; got 1000000000"),
        (["--quality", "fine", "--encoder", "vgg91"], "unknown encoder 'vgg91'; did you mean 'vgg19'?"),
    ],
)
def test_a_wrong_setting_is_told_once_and_before_all_else(folder, wrong, sentence, capsys):
    assert run(["stylize", "photo.png", "other.jpg", "-s", A_STYLE, *wrong]) == 2
    (folder / f"photo-{A_STYLE}.png").touch()
    assert run(["stylize", "photo.png", "-s", A_STYLE, *wrong]) == 2
    assert capsys.readouterr().err == 2 * f"error: {sentence}\n"


def test_max_pixels_counts_for_styles_and_masks(folder, capsys):
    Image.new("RGB", (100, 100)).save(folder / "large.png")
    for more in (["-s", "large.png"], ["-s", A_STYLE, "--mask", "large.png"]):
        assert run(["stylize", "photo.png", *more, "-o", "out.png", "--max-pixels", "9999"]) == 1
        assert "large.png is 100 x 100 = 10,000 pixels; the limit is 9,999" in capsys.readouterr().err
        assert run(["stylize", "photo.png", *more, "-o", "out.png", "--max-pixels", "10K", "--overwrite"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("name", ["photo.png", "style.png", "./out.png", "other.jpg"])
def test_a_preview_replaces_nothing(folder, name, capsys):
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    line = ["stylize", "photo.png", "-s", "style.png", "--steps", "2", "--preview", name, "-o", "out.png"]
    assert run(line) == (1 if name == "other.jpg" else 2)
    assert ("exists already" if name == "other.jpg" else "which is an input or the output") in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_plan_names_outputs_after_input_and_style(folder):
    made = {job.source: job.target for job in plan(["photo.png", "sub/x.heic", "-", "noname"], None, ["my style.jpg", A_STYLE])}
    label = f"my-style+{A_STYLE}"
    assert made == {
        "photo.png": f"photo-{label}.png",
        "sub/x.heic": f"sub/x-{label}.heic",
        "-": "-",
        "noname": f"noname-{label}.png",
    }
    assert plan(["photo.png"], "as said.webp", ["a"]) == [Job("photo.png", "as said.webp")]
    assert plan(["a/photo.png"], "new/", ["s"]) == [Job("a/photo.png", "new/photo-s.png")]
    assert plan(["a/photo.png"], str(folder), ["s"]) == [Job("a/photo.png", str(folder / "photo-s.png"))]


def test_plan_takes_folders_apart_and_skips_its_own_pictures(folder):
    (folder / "in").mkdir()
    for name in ("b.png", "a.jpg", "a-s.jpg", ".hidden.png", "notes.txt"):
        (folder / "in" / name).touch()
    assert [job.source for job in plan(["in"], None, ["s"])] == ["in/a.jpg", "in/b.png"]
    assert [job.source for job in plan(["in/a-s.jpg", "in"], None, ["s"])] == ["in/a-s.jpg", "in/a.jpg", "in/b.png"]


def test_plan_refuses_what_it_can_foresee(folder):
    with pytest.raises(UsageError, match=r"a/x.png and b/x.png would both become new/x-s.png"):
        plan(["a/x.png", "b/x.png"], "new/", ["s"])
    with pytest.raises(UsageError, match="the suffix must be one of"):
        plan(["x.png"], "x", ["s"])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="the folder empty holds no pictures"):
        plan(["empty"], None, ["s"])


@pytest.mark.parametrize(("text", "pixels"), [("200M", 200_000_000), ("1.5g", 1_500_000_000), ("64k", 64_000), (7, 7), (" 12 ", 12)])
def test_pixels_may_have_a_suffix(text, pixels):
    assert parse_pixels(text) == pixels


def test_an_interrupt_during_the_last_step_cuts_nothing():
    reporter = Reporter(quiet=True)
    with reporter.refining():
        reporter._on_interrupt(2, None)
        reporter.step(10, 10, 1.0)
    assert reporter.stopping
    assert reporter.cut is None


# styles -----------------------------------------------------------------------------------------------------------------


def test_styles_are_listed_and_searched(capsys):
    assert run(["styles", "list"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list(library.entries())
    assert run(["styles", "list", "--json", "--search", A_STYLE.upper()]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert set(found) == {"name", "title", "artist", "year", "medium", "group"}
    assert found["name"] == A_STYLE
    assert run(["styles", "list", "--search", "no such thing"]) == 0
    assert capsys.readouterr() == ("", "no style has 'no such thing' in it; without --search all are listed\n")


def test_a_style_of_ones_own(folder, capsys):
    (folder / "works").mkdir()
    (folder / "photo.png").rename(folder / "works" / "w.png")
    assert run(["styles", "add", "mine", "style.png", "works", "--artist", "Ünal", "--year", "1901"]) == 0
    assert capsys.readouterr().out == f"mine is in {folder / 'own styles' / 'mine.style'}\n"
    assert run(["styles", "list", "--search", "your own"]) == 0
    assert capsys.readouterr().out.startswith("mine\t")
    assert run(["styles", "show", "mine"]) == 0
    assert [line.split(None, 1) for line in capsys.readouterr().out.splitlines()] == [
        ["name", "mine"],
        ["artist", "Ünal"],
        ["year", "1901"],
    ]
    assert run(["styles", "show", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "mine", "artist": "Ünal", "year": "1901"}
    assert run(["stylize", "other.jpg", "-s", "mine", "-q"]) == 0
    assert run(["styles", "add", "mine", "style.png"]) == 1
    assert run(["styles", "add", "mine", "style.png", "--overwrite"]) == 0
    assert run(["styles", "add", A_STYLE, "style.png"]) == 2
    assert run(["styles", "add", "no/name", "style.png"]) == 2
    capsys.readouterr()
    assert run(["styles", "remove", "mine"]) == 0
    assert not list((folder / "own styles").iterdir())
    assert run(["replay", "other-mine.jpg"]) == 1
    assert capsys.readouterr().err == "error: the style mine is not in your library any more; add it again with `scumble styles add`\n"


def test_a_sample_is_painted(folder, capsys):
    assert run(["styles", "show", A_STYLE, "-o", "sample.png", "--photo", "photo.png"]) == 0
    assert Picture.open("sample.png").size == (40, 64), "a small photograph is not enlarged"
    assert run(["styles", "show", A_STYLE, "--photo", "photo.png"]) == 2
    capsys.readouterr()


def test_without_a_photograph_a_sample_needs_one(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert run(["styles", "show", A_STYLE, "-o", "sample.png"]) == 1
    assert capsys.readouterr().err == 'error: there is no photograph to paint: give one with --photo FILE, or pip install "scumble[demo]"\n'


# score, doctor, train ---------------------------------------------------------------------------------------------------


def test_scores(folder, capsys):
    assert run(["score", "photo.png", "--content", "photo.png", "--style", "style.png", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"content", "structure", "style", "ssim", "halo"}
    assert scores["content"] == pytest.approx(0, abs=1e-6)
    assert scores["ssim"] == pytest.approx(1)
    assert run(["score", "photo.png", "--content", "photo.png", "--style", "style.png"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["content", "structure", "style", "ssim", "halo"]


def test_the_doctor_finds_all_well(capsys, monkeypatch):
    monkeypatch.setattr(weights, "damaged", list)
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["broken"] == []
    assert found["versions"]["numpy"] == np.__version__
    assert "CPUExecutionProvider" in found["providers"]
    assert found["formats"][".png"]
    assert found["formats"][".jpg"]
    assert found["painting"]["size"] == [256, 256]
    assert found["styles"]["folder"].endswith("own styles")


def test_the_doctor_survives_a_library_whose_system_part_is_missing(capsys, monkeypatch, tmp_path):
    (tmp_path / "pyvips.py").write_text("raise OSError(\"cannot load library 'libvips.so.42'\")\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyvips", raising=False)
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["pyvips"] is None


def test_the_doctor_names_what_is_broken(capsys, monkeypatch):
    monkeypatch.setattr(weights, "damaged", lambda: ["eye.onnx"])
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "broken: weights that are damaged or missing: eye.onnx; install scumble again"


def test_training_writes_weights_and_their_manifest(folder, capsys):
    pytest.importorskip("onnx")
    works = np.random.default_rng(0).integers(0, 256, (26, 24, 24, 3), np.uint8)
    for name in ("content.tar", "style.tar", "style_small.tar"):  # folders do as well
        (folder / "pack" / name).mkdir(parents=True)
        for n, work in enumerate(works):
            Image.fromarray(work).save(folder / "pack" / name / f"{n:02}.png")
    arguments = ["train", "decoder", "--pack", "pack", "--out", "runs", "--steps", "2", "--batch", "2", "--size", "32", "--level", "1"]
    assert run([*arguments, "--weights", "new"]) == 0
    assert (folder / "runs" / "checkpoint.pt").exists()
    made = {p.name for p in (folder / "new").iterdir()}
    assert made == {*(f"decoder{k}.onnx" for k in range(1, 6)), "decoder.safetensors", "manifest.toml"}
    manifest = weights.tomllib.loads((folder / "new" / "manifest.toml").read_text())
    assert manifest["decoder3.onnx"]["sha256"] == weights.sha256(folder / "new" / "decoder3.onnx")
    assert manifest["decoder3.onnx"]["origin"] == "scumble train, runs"


def test_training_asks_for_what_belongs_together(capsys):
    assert run(["train", "generator", "--pack", ".", "--out", "o", "--judge", "teacher"]) == 2
    assert run(["train", "generator", "--pack", ".", "--out", "o", "--pairs", "p.csv"]) == 2
    assert run(["train", "generator", "--pack", ".", "--out", "o", "--judge", "teachr"]) == 2
    assert run(["train", "cascade", "--pack", ".", "--out", "o", "--teacher", "t"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --judge distilled and --judge teacher need --teacher FOLDER",
        "error: --pairs needs --teacher FOLDER",
        "error: unknown judge 'teachr'; did you mean 'teacher'?",
        "error: --teacher is for the judges distilled and teacher, and the judge is eye; add --judge distilled",
    ]


# What nobody foresaw ----------------------------------------------------------------------------------------------------


def test_a_bug_is_called_one(capsys, monkeypatch):
    def boom():
        raise RuntimeError("boom")

    monkeypatch.setattr(library, "entries", boom)
    assert run(["styles", "list"]) == 1
    assert capsys.readouterr().err == "error: RuntimeError: boom (this is a bug; --debug shows where)\n"
    with pytest.raises(RuntimeError):
        run(["styles", "list", "--debug"])
    monkeypatch.setenv("SCUMBLE_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run(["styles", "list"])


def test_the_systems_refusals_are_told_in_a_line(capsys, monkeypatch):
    def refuse():
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(library, "entries", refuse)
    assert run(["styles", "list"]) == 1
    assert capsys.readouterr().err == "error: /secret: permission denied\n"
    monkeypatch.setattr(library, "entries", lambda: (_ for _ in ()).throw(MemoryError))
    assert run(["styles", "list"]) == 1
    assert capsys.readouterr().err.startswith("error: out of memory; ")


def test_an_interrupt_is_130(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "entries", interrupt)
    assert run(["styles", "list"]) == 130


def test_an_interrupt_while_modules_are_loaded_is_130(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-m", "scumble", "--version"], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def _run(arguments, redirection):
    command = " ".join([shlex.quote(sys.executable), "-m", "scumble", *(shlex.quote(str(a)) for a in arguments), redirection])
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_standard_output_that_is_closed_or_full():
    paint = ["stylize", "photo.png", "-s", A_STYLE, "--quality", "draft", "-o"]
    assert _run(["styles", "list"], ">&-").returncode == 0
    assert _run([*paint, "out.png"], ">&-").returncode == 0 and Path("out.png").exists()
    told = _run([*paint, "-"], ">&-")
    assert (told.returncode, told.stderr) == (2, "error: standard output is closed; give -o FILE\n")
    told = _run(["styles", "list"], ">/dev/full")
    assert (told.returncode, told.stderr) == (
        1,
        "error: standard output can't be written (no space left on device); give it another place\n",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_among_inputs_fails_and_the_rest_is_painted(capsys):
    Path("in").mkdir()
    shutil.copy("photo.png", "in/a.png")
    os.mkfifo("in/b.png")
    assert run(["stylize", "in", "-s", A_STYLE, "--quality", "draft", "-o", "out/", "--quiet"]) == 1
    assert "b.png is no regular file" in capsys.readouterr().err
    assert [p.name for p in Path("out").iterdir()] == [f"a-{A_STYLE}.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["photo.png", "-o", ""], 2, "an output must be a file, a folder or -; got an empty text"),
        (["https://example.com/a.jpg"], 2, "pictures are not fetched; save https://example.com/a.jpg as a file first"),
        (["photo.png", "-o", "other.jpg/"], 1, "cannot make the folder other.jpg (file exists)"),
        (["photo.png", "-o", "other.jpg/x.png"], 1, "other.jpg is no folder"),
    ],
)
def test_inputs_and_outputs_that_are_none(capsys, arguments, code, words):
    assert run(["stylize", *arguments, "-s", A_STYLE]) == code
    assert words in capsys.readouterr().err
