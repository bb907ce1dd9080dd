"""The command as a user runs it: a process of its own, judged by its exit code, its error line and the files it leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from scumble import library
from scumble.cli import run
from scumble.picture import SUFFIXES, Picture, read_recipe

COMMAND = [sys.executable, "-m", "scumble"]
SUFFIX_LIST = ", ".join(SUFFIXES)
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    own = tmp_path_factory.mktemp("own styles")
    return os.environ | {"SCUMBLE_STYLES": str(own), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


@pytest.fixture
def folder(tmp_path):
    y, x = np.mgrid[0:40, 0:64]
    pixels = np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    Image.fromarray(pixels[::-1]).save(tmp_path / "other.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / "style.png")
    Image.fromarray(np.uint8((x < 32) * 255)).save(tmp_path / "mask.png")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:200])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "text.style").write_text("not a style")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture
def scumble(folder, environment):
    def start(*arguments, **options):
        options = {"capture_output": True, "text": True, "encoding": "utf-8", "cwd": folder, "env": environment, "timeout": 300} | options
        return subprocess.run([*COMMAND, *map(str, arguments)], check=False, **options)

    return start


A_STYLE = next(iter(library.entries()))

PAINT = ("stylize", "photo.jpg", "--style", "style.png", "-o", "out.png")
WRONG = {
    "no input": (("stylize", "--style", "style.png"), 2, "missing argument 'INPUT' (see `scumble stylize --help`)"),
    "missing input": (("stylize", "no.jpg", "-s", "style.png"), 1, "there is no file no.jpg; check the path"),
    "empty input": (("stylize", "", "-s", "style.png"), 2, "an input must be a picture, a folder or -; got an empty text"),
    "broken input": (
        ("stylize", "broken.jpg", "-s", "style.png"),
        1,
        "broken.jpg is a damaged or incomplete JPEG file; get a whole copy of it",
    ),
    "folder without pictures": (("stylize", "empty", "-s", "style.png"), 1, f"the folder empty holds no pictures ({SUFFIX_LIST})"),
    "no style": (("stylize", "photo.jpg"), 2, "give a style with --style, or several in one with --blend"),
    "style and blend": (
        (*PAINT, "--blend", f"{A_STYLE}=1"),
        2,
        "give a style with --style, or several in one with --blend, not both",
    ),
    "misspelt style": (("stylize", "photo.jpg", "-s", f"{A_STYLE}x"), 2, f"unknown style '{A_STYLE}x'; did you mean '{A_STYLE}'?"),
    "missing style": (("stylize", "photo.jpg", "-s", "no.jpg"), 1, "there is no file no.jpg; check the path"),
    "empty style": (
        ("stylize", "photo.jpg", "-s", ""),
        2,
        "a style must be a name, a picture, a folder or a .style file; got an empty text",
    ),
    "broken style file": (
        ("stylize", "photo.jpg", "-s", "text.style"),
        1,
        "text.style is not a style file, or it is damaged; make it again with `scumble styles add`",
    ),
    "blend": (
        ("stylize", "photo.jpg", "--blend", "a,b"),
        2,
        "a blend is written NAME=WEIGHT,NAME=WEIGHT, as in great-wave=0.7,starry-night=0.3; got 'a,b'",
    ),
    "strength": ((*PAINT, "--strength", "3.5"), 2, "strength must be between 0 and 2; got 3.5"),
    "style scale": ((*PAINT, "--style-scale", "9"), 2, "style-scale must be between 0.25 and 4; got 9"),
    "keep color": ((*PAINT, "--keep-color", "-1"), 2, "keep-color must be between 0 and 1; got -1"),
    "method": ((*PAINT, "--method", "wtc"), 2, "unknown method 'wtc'; did you mean 'wct'?"),
    "quality": ((*PAINT, "--quality", "bset"), 2, "unknown quality 'bset'; did you mean 'best'?"),
    "steps": ((*PAINT, "--steps", "-1"), 2, "steps must be between 0 and 100000; got -1"),
    "size": ((*PAINT, "--size", "0"), 2, "size must be between 1 and 100000; got 0"),
    "device": ((*PAINT, "--device", "gpu"), 2, "unknown device 'gpu'; did you mean 'cpu'?"),
    "threads": ((*PAINT, "--threads", "0"), 2, "threads must be at least 1; got 0"),
    "two styles, one mask": (
        (*PAINT, "--style", "style.png", "--mask", "mask.png"),
        2,
        "several styles need a --mask each; got 2 times --style and 1 times --mask",
    ),
    "feather without mask": ((*PAINT, "--feather", "2"), 2, "--feather and --invert-mask need a --mask"),
    "missing mask": ((*PAINT, "--mask", "no.png"), 1, "there is no file no.png; check the path"),
    "encoder without optimisation": (
        (*PAINT, "--encoder", "vgg19"),
        2,
        "--encoder is for an optimisation: add --quality fine, --quality best or --steps",
    ),
    "a name to be stretched": (
        ("stylize", "photo.jpg", "-s", "irises", "-o", "out.png", "--style-fit", "stretch"),
        2,
        "style-fit 'stretch' needs the style as a picture or a folder; names, .style files and blends hold but numbers",
    ),
    "a blend to be stretched": (
        ("stylize", "photo.jpg", "--blend", "style.png=1,irises=1", "-o", "out.png", "--style-fit", "stretch"),
        2,
        "style-fit 'stretch' needs the style as a picture or a folder; names, .style files and blends hold but numbers",
    ),
    "preview without optimisation": (
        (*PAINT, "--preview", "p.png"),
        2,
        "--preview is for an optimisation: add --quality fine, --quality best or --steps",
    ),
    "output suffix": (
        ("stylize", "photo.jpg", "-s", "style.png", "-o", "out.xyz"),
        2,
        f"cannot save as 'out.xyz'; the suffix must be one of {SUFFIX_LIST}",
    ),
    "no output folder": (
        ("stylize", "photo.jpg", "-s", "style.png", "-o", "no/out.png"),
        1,
        "cannot write no/out.png: there is no folder no; make it first",
    ),
    "several to one": (
        ("stylize", "photo.jpg", "other.png", "-s", "style.png", "-o", "out.png"),
        2,
        "several inputs need a folder to go to, and its name ends in / if it is to be made; got -o out.png",
    ),
    "existing target": (
        ("stylize", "photo.jpg", "-s", "style.png", "-o", "other.png"),
        1,
        "other.png exists already; allow overwriting (--overwrite) or choose another name",
    ),
    "two things to stdout": (
        ("stylize", "photo.jpg", "-s", "style.png", "-o", "-", "--json"),
        2,
        "a picture and --json can't both go to standard output; give -o FILE",
    ),
    "misspelt verb": (("stilize", "photo.jpg"), 2, "unknown verb 'stilize'; did you mean 'stylize'?"),
    "misspelt verb of a group": (("styles", "lst"), 2, "unknown verb 'lst'; did you mean 'list'?"),
    "misspelt option": (
        (*PAINT, "--strenght", "1"),
        2,
        "unknown option '--strenght'; did you mean '--strength'? (see `scumble stylize --help`)",
    ),
    "replay without recipe": (("replay", "photo.jpg"), 1, "photo.jpg holds no recipe; only pictures that Scumble painted do"),
    "built-in style stays": (("styles", "remove", A_STYLE), 2, f"'{A_STYLE}' is a built-in style and stays; only your own can be removed"),
    "level": (("train", "decoder", "--pack", ".", "--out", "o", "--level", "6"), 2, "level must be between 1 and 5; got 6"),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_mistake_gets_one_sentence(case, folder, environment, monkeypatch, capfd):
    arguments, code, sentence = WRONG[case]
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SCUMBLE_STYLES", environment["SCUMBLE_STYLES"])
    assert run(arguments) == code
    assert capfd.readouterr() == ("", f"error: {sentence}\n")
    assert sorted(folder.rglob("*")) == before, "a failed run leaves nothing behind"


# what differs between run() and a process does not depend on the mistake, and each process costs a second
@pytest.mark.parametrize("case", ["no input", "misspelt option", "misspelt style", "strength", "broken input", "existing target"])
def test_every_mistake_ends_the_process_with_its_code(case, scumble, folder):
    arguments, code, sentence = WRONG[case]
    done = scumble(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"error: {sentence}\n")


def test_what_is_no_number_is_named(capfd):
    assert run([*PAINT, "--strength", "much"]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: invalid value for '--strength'")
    assert len(said.splitlines()) == 1
    assert run([*PAINT, "--max-pixels", "many"]) == 2
    assert "it must be a number such as 200M or 1.5G, at least 1; got 'many'" in capfd.readouterr().err


def test_without_pytorch_refinement_and_training_say_what_to_install(scumble, folder, environment):
    hide = "import sys; sys.modules['torch'] = None; from scumble.cli import main; main(sys.argv[1:])"
    verbs = {
        (*PAINT, "--quality", "fine"): 'error: quality "fine" and "best" need PyTorch: pip install "scumble[torch]"\n',
        ("train", "generator", "--pack", ".", "--out", "o"): "error: training needs PyTorch and ONNX",
    }
    for arguments, sentence in verbs.items():
        done = subprocess.run(
            [sys.executable, "-c", hide, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(sentence)
        assert 'pip install "scumble[torch]"' in done.stderr
    assert not (folder / "out.png").exists()
    assert not (folder / "o").exists()


def test_one_broken_among_several_does_not_stop_the_others(scumble, folder):
    done = scumble("stylize", "photo.jpg", "broken.jpg", "other.png", "-s", "style.png", "-o", "new/painted/")
    assert done.returncode == 1
    assert [line.split("  ")[:2] for line in done.stdout.splitlines()] == [
        ["new/painted/photo-style.jpg", "64 x 40"],
        ["new/painted/other-style.png", "64 x 40"],
    ]
    head, row = done.stderr.splitlines()
    assert head == "error: 1 of 3 inputs failed"
    assert row.split("  ")[0] == "broken.jpg"
    assert row.rstrip().endswith("is a damaged or incomplete JPEG file; get a whole copy of it")
    assert sorted(p.name for p in (folder / "new" / "painted").iterdir()) == ["other-style.png", "photo-style.jpg"]


def test_names_in_any_script(scumble, folder):
    (folder / "photo.jpg").rename(folder / "Düne 波 🌊.jpg")
    (folder / "style.png").rename(folder / "звёзды.png")
    done = scumble("stylize", "Düne 波 🌊.jpg", "-s", "звёзды.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "Düne 波 🌊-звёзды.jpg"
    assert scumble("replay", "Düne 波 🌊-звёзды.jpg", "-o", "again.jpg", "-q").returncode == 0
    assert (folder / "again.jpg").read_bytes() == (folder / "Düne 波 🌊-звёзды.jpg").read_bytes()


def test_from_standard_input_to_standard_output(scumble, folder):
    data = (folder / "other.png").read_bytes()
    done = scumble("stylize", "-", "-s", "style.png", input=data, text=False, encoding=None)
    assert (done.returncode, done.stderr) == (0, b"")
    assert Picture.open(done.stdout).size == (40, 64)
    (folder / "piped.png").write_bytes(done.stdout)
    asked = scumble("replay", "piped.png")
    assert asked.returncode == 1
    assert asked.stderr == "error: the content came by standard input; say where it is with --content FILE\n"
    assert scumble("replay", "piped.png", "--content", "other.png", "-o", "again.png").returncode == 0
    assert (folder / "again.png").read_bytes() == done.stdout


@posix
def test_a_reader_that_leaves_is_no_accident(folder, environment):
    process = subprocess.Popen([*COMMAND, "styles", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=environment)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


@posix
def test_killed_at_any_moment_no_broken_file_stays(folder, environment):
    inputs = folder / "many"
    inputs.mkdir()
    for n in range(60):
        (inputs / f"{n:02}.png").write_bytes((folder / "other.png").read_bytes())
    outputs = folder / "out"
    arguments = ["stylize", "many", "-s", "style.png", "-o", "out/", "-q", "--threads", "1"]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environment)
    _until(lambda: outputs.is_dir() and len(list(outputs.glob("[0-9]*"))) >= 3, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    written = [p for p in outputs.iterdir() if not p.name.startswith(".")]
    assert 3 <= len(written) < 60
    for path in written:
        assert Picture.open(path).size == (40, 64)
        assert read_recipe(path)["verb"] == "stylize"


@posix
def test_ctrl_c_in_a_refinement_keeps_the_best_so_far(folder, environment, scumble):
    pytest.importorskip("torch")
    arguments = ["stylize", "photo.jpg", "other.png", "-s", "style.png", "-o", "out/", "--steps", "50000", "--preview", "p.png", "--json"]
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _until((folder / "p.png").exists, process)
    assert Picture.open(folder / "p.png").size == (40, 64)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr == "stopping with the best so far; Ctrl-C again gives it up\n"
    assert [p.name for p in (folder / "out").iterdir()] == ["photo-style.jpg"], "the second input was not begun"
    done = json.loads(stdout)
    recipe = read_recipe(folder / "out" / "photo-style.jpg")
    assert done["interrupted"] == recipe["interrupted"] < 50000
    again = scumble("replay", folder / "out" / "photo-style.jpg")
    assert again.returncode == 1
    assert "is where a refinement was interrupted" in again.stderr


@posix
@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored here, and by what is started here")
def test_ctrl_c_elsewhere_ends_at_once(folder, environment):
    os.mkfifo(folder / "pipe.png")
    arguments = ["stylize", "style.png", "-s", "pipe.png", "-o", "out.png"]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    with (folder / "pipe.png").open("wb"):  # which waits until it is opened for reading
        time.sleep(0.5)  # a signal just before the read would leave it waiting: Python looks at signals before and after
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert process.stderr.read() == ""
    assert not (folder / "out.png").exists()


def _until(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before its time"
        assert time.monotonic() < end
        time.sleep(0.02)
