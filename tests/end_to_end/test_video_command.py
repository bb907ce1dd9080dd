"""`scumble video` as a user runs it: a process of its own, judged by its exit code, its error line and the files it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from scumble.cli import run

av = pytest.importorskip("av", reason="needs PyAV: pip install 'scumble[video]'")

COMMAND = [sys.executable, "-m", "scumble", "video"]
W, H, N = 64, 48, 10
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")


def picture(k):
    y, x = np.mgrid[0:H, 0:W]
    return np.stack([(x + k) * 3, y * 5, (x + y) * 2], -1).astype(np.uint8)


def make(path, frames):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for k in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24")))
        out.mux(stream.encode(None))


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    make(folder / "film.mp4", N)
    make(folder / "long.mp4", 1500)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(folder / "style.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 128, (48, 48, 3), np.uint8)).save(folder / "other.png")
    (folder / "text.mp4").write_text("not a film")
    return folder


@pytest.fixture
def folder(films, tmp_path):
    for file in films.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory):
    return os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "SCUMBLE_STYLES": str(tmp_path_factory.mktemp("own"))}


@pytest.fixture
def video(folder, environment):
    def run(*arguments, **options):
        options = {"capture_output": True, "cwd": folder, "env": environment, "timeout": 120} | options
        return subprocess.run([*COMMAND, *map(str, arguments), "--threads", "1"], check=False, **options)

    return run


def test_paints_a_film_in_two_styles(video, folder):
    done = video("film.mp4", "-s", "style.png@0s", "-s", "other.png@0.4s", "-o", "out.mp4", "--steady", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {k: said[k] for k in ("input", "output", "frames", "size", "interrupted")} == {
        "input": "film.mp4",
        "output": "out.mp4",
        "frames": N,
        "size": [W, H],
        "interrupted": False,
    }
    assert done.stderr == b""
    assert frames_of(folder / "out.mp4") == [Fraction(k, 25) for k in range(N)]


def test_raw_frames_through_a_pipe(video):
    given = np.stack([picture(k) for k in range(3)]).tobytes()
    done = video("-", "--raw", f"{W}x{H}@25", "-s", "style.png", "--strength", "0", "-o", "-", input=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout == given


WRONG = {
    "no film": (("-s", "style.png", "-o", "o.mp4"), 2, "give a film to paint, or --camera N"),
    "film and camera": (
        ("film.mp4", "--camera", "0", "-s", "style.png", "-o", "o.mp4"),
        2,
        "give a film to paint, or --camera N, not both",
    ),
    "no output": (("film.mp4", "-s", "style.png"), 2, "say where the result goes with -o OUT, as in -o painted.mp4"),
    "no style": (("film.mp4", "-o", "o.mp4"), 2, "give a style with --style, or several in one with --blend"),
    "times": (
        ("film.mp4", "-s", "style.png", "-s", "other.png@2s", "-o", "o.mp4"),
        2,
        "several styles need a time each, as in --style great-wave@0s --style starry-night@4s",
    ),
    "no time": (
        ("film.mp4", "-s", "great-wave@xs", "-s", "irises@4s", "-o", "o.mp4"),
        2,
        "the time of great-wave must be seconds, as in great-wave@4s; got 'xs'",
    ),
    "a time without its unit": (
        ("film.mp4", "-s", "style.png@4", "-o", "o.mp4"),
        2,
        "the time of style.png must be seconds, as in style.png@4s; got '4'",
    ),
    "no film in it": (
        ("text.mp4", "-s", "style.png", "-o", "o.mp4"),
        1,
        "text.mp4 can't be read as a video (invalid data found when processing input)",
    ),
    "missing": (("no.mp4", "-s", "style.png", "-o", "o.mp4"), 1, "there is no file no.mp4; check the path"),
    "no codec": (
        ("film.mp4", "-s", "style.png", "-o", "o.mp4", "--codec", "mpeg"),
        2,
        "unknown codec 'mpeg'; allowed: h264, h265, vp9, av1",
    ),
    "exists": (
        ("film.mp4", "-s", "style.png", "-o", "long.mp4"),
        1,
        "long.mp4 exists already; allow overwriting (--overwrite) or choose another name",
    ),
    "raw without a size": (
        ("-", "-s", "style.png", "-o", "o.mp4"),
        2,
        "frames by standard input need both: - in place of a file, and --raw WIDTHxHEIGHT@FPS",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(case, folder, monkeypatch, capfd):
    """The same entry without a process: ten of those would take half a minute."""
    arguments, code, line = WRONG[case]
    monkeypatch.chdir(folder)
    assert run(["video", *arguments]) == code
    assert capfd.readouterr().err == f"error: {line}\n"
    assert not (folder / "o.mp4").exists()


@posix
def test_ctrl_c_leaves_a_whole_film_that_can_be_gone_on_with(folder, environment):
    process = subprocess.Popen(
        [*COMMAND, "long.mp4", "-s", "style.png", "-o", "out.mp4", "--threads", "1"], cwd=folder, env=environment, stderr=subprocess.PIPE
    )
    _wait_for(folder / ".out.mp4.parts", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().startswith("stopping; what is done so far becomes a whole file")
    times = frames_of(folder / "out.mp4")
    assert 1 <= len(times) < 1500
    assert times == [Fraction(k, 25) for k in range(len(times))]


@posix
def test_a_killed_run_leaves_nothing_under_the_name(folder, environment):
    process = subprocess.Popen([*COMMAND, "long.mp4", "-s", "style.png", "-o", "out.mp4", "--threads", "1"], cwd=folder, env=environment)
    _wait_for(folder / ".out.mp4.parts", process)
    process.kill()
    process.wait(timeout=60)
    assert not (folder / "out.mp4").exists()


@posix
def test_no_room(video, folder):
    import resource

    done = video(
        "long.mp4", "-s", "style.png", "--strength", "0", "-o", "out.mp4", "--crf", "0",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: cannot write out.mp4 (")
    assert done.stderr.count(b"\n") == 1
    assert not (folder / "out.mp4").exists()
    assert not (folder / ".out.mp4.parts").exists()


def _wait_for(path, process, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)
