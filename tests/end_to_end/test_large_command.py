"""Large pictures from the command line: a budget of memory, kill -9 and --resume, previews that match."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scumble import Picture, large, stylizer
from scumble.cli import run
from scumble.metrics import ssim

pytest.importorskip("pyvips", reason='needs pyvips: pip install "scumble[big]"')

ROOT = Path(__file__).resolve().parent.parent.parent


def photo(path, height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / n + np.cos(y / (2 * n))) * np.sin(y / n) for n in (3, 17, 90)]
    grey = sum(waves) / 6 + 0.5
    Image.fromarray((np.stack([grey, grey**2, 1 - grey], -1).clip(0, 1) * 255).astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def low_limit(monkeypatch):
    """So that a test's picture counts as large."""
    monkeypatch.setattr(large, "STREAMED", 100_000)
    monkeypatch.setattr(stylizer, "DETAILED", 100_000)


def test_a_large_picture_says_how_it_is_painted(tmp_path, capsys, low_limit):
    source = photo(tmp_path / "in.png", 400, 1500)
    out = tmp_path / "out.tif"
    assert run(["stylize", source, "-s", "great-wave", "--style-scale", "4", "-o", str(out), "--json", "--memory", "465MB"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size"] == [1500, 400]
    assert told["tiles"] >= 2
    assert told["memory"]["estimate"] <= told["memory"]["budget"] == 465_000_000
    assert Picture.open(out).size == (400, 1500)
    assert run(["replay", str(out), "-o", str(tmp_path / "again.tif")]) == 0  # the exit code says that all bits are the same
    assert run(["stylize", source, "-s", "great-wave", "--style-scale", "4", "-o", str(tmp_path / "b.png")]) == 0
    assert "tiles of" in capsys.readouterr().err


def test_a_limit_that_is_asked_for_counts(tmp_path, capsys, low_limit):
    source = photo(tmp_path / "in.png", 400, 500)
    assert run(["stylize", source, "-s", "great-wave", "--style-scale", "4", "--max-pixels", "150K"]) == 1
    assert "the limit is 150,000: raise max-pixels, or make it smaller" in capsys.readouterr().err
    assert run(["stylize", source, "-s", "great-wave", "--style-scale", "4", "--memory", "1MB"]) == 2
    assert "--memory" in capsys.readouterr().err
    assert run(["stylize", source, "-s", "great-wave", "--memory", "lots"]) == 2
    assert "800MB" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


def test_a_large_input_made_small_is_never_held(tmp_path, low_limit):
    source = photo(tmp_path / "in.png", 400, 500)
    assert run(["stylize", source, "-s", "great-wave", "--size", "200", "-o", str(tmp_path / "out.webp"), "-q"]) == 0
    assert Picture.open(tmp_path / "out.webp").size == (160, 200)


def test_a_feather_is_as_wide_however_a_picture_is_read(tmp_path, monkeypatch):
    source = photo(tmp_path / "in.png", 500, 1000)
    half = np.zeros((500, 1000), np.uint8)
    half[:, 500:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    line = ["stylize", source, "-s", "great-wave", "--mask", str(tmp_path / "half.png"), "--feather", "80", "--size", "300", "-q"]
    found = []
    for name, limit in (("whole", 10**9), ("read", 10**5), ("rows", 10**4)):
        monkeypatch.setattr(large, "STREAMED", limit)
        assert run([*line, "--style-scale", "4", "--detail", "content", "-o", str(tmp_path / f"{name}.png")]) == 0
        found.append(Picture.open(tmp_path / f"{name}.png").pixels)
    for other in found[1:]:
        assert np.abs(found[0] - other)[:, 100:200].mean() < 0.02


def test_without_pyvips_it_says_what_to_install(tmp_path, capsys, low_limit, monkeypatch):
    source = photo(tmp_path / "in.png", 400, 500)
    monkeypatch.setattr(large, "is_installed", lambda: False)
    assert run(["stylize", source, "-s", "great-wave", "--max-pixels", "150K", "-o", str(tmp_path / "out.png")]) == 1
    assert 'pip install "scumble[big]"' in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_after_kill_9_only_what_is_missing_is_painted(tmp_path):
    source = photo(tmp_path / "in.png", 700, 2000)
    out = tmp_path / "out.png"
    line = ["stylize", source, "-s", "great-wave", "--style-scale", "4", "--memory", "540MB", "--detail", "painted", "--json"]
    python = [sys.executable, "-c", "import sys; from scumble import cli, large; large.STREAMED = 1000; cli.main(sys.argv[1:])"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([*python, *line, "-o", str(out)], env=environment, stdout=subprocess.DEVNULL)
    marks = tmp_path / ".out.png.parts" / "done"
    end = time.monotonic() + 120
    while time.monotonic() < end and (not marks.exists() or sum(marks.read_bytes()) < 2):
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = sum(marks.read_bytes())
    assert done >= 2
    assert not out.exists()
    # with so much memory that a new run would hold it whole
    command = [sys.executable, "-m", "scumble", *line, "--memory", "3GB", "-o", str(out), "--resume"]
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(resumed.stdout)
    assert told["resumed"] == done < told["tiles"]
    whole = tmp_path / "whole.png"
    subprocess.run([*python, *line, "-o", str(whole)], env=environment, capture_output=True, check=True)
    assert np.array_equal(Picture.open(out).pixels, Picture.open(whole).pixels)
    assert not marks.parent.exists()


@pytest.mark.parametrize("detail", ["content", "painted"])
def test_a_preview_looks_like_the_reduced_final(tmp_path, low_limit, detail):
    source = photo(tmp_path / "in.png", 900, 1200)
    small = Picture.open(source).resized(width=256, height=192)
    small.save(tmp_path / "small.png")
    base = ["stylize", "-s", "starry-night", "--style-scale", "3", "-q"]
    assert run([*base, source, "-o", str(tmp_path / "final.png"), "--detail", detail]) == 0
    assert run([*base, str(tmp_path / "small.png"), "-o", str(tmp_path / "preview.png")]) == 0
    final = Picture.open(tmp_path / "final.png").resized(width=256, height=192)
    assert ssim(final.pixels, Picture.open(tmp_path / "preview.png").pixels) >= 0.9
