"""What can't be painted is said in one sentence, and leaves nothing behind."""

import errno
import math
import threading
from fractions import Fraction

import numpy as np
import pytest
from clips import AUDIO_RATE, ROOT, H, N, W, av, cv2, hidden, make, picture, shown
from PIL import Image

from scumble.cli import run
from scumble.errors import InputError, MissingExtraError, UsageError
from scumble.tiling import least_memory
from scumble.video import frames as frames_module
from scumble.video import writing as writing_module
from scumble.video.reading import VideoFile
from scumble.video.shots import ShotPainter


class TestBadInput:
    @pytest.fixture
    def folder(self, clip, tmp_path):
        whole = clip.read_bytes()
        (tmp_path / "no-index.mp4").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "text.mp4").write_text("not a film at all, whatever its name says\n" * 20)
        (tmp_path / "empty.mp4").write_bytes(b"")
        matroska = make(tmp_path / "whole.mkv", times=[Fraction(k, 4) for k in range(N)], unit=Fraction(1, 1000), sound="flac").read_bytes()
        (tmp_path / "cut.mkv").write_bytes(matroska[: len(matroska) // 2])
        with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as out:
            stream = out.add_stream("aac", rate=AUDIO_RATE)
            stream.codec_context.layout = "mono"
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
            tone.sample_rate = AUDIO_RATE
            out.mux(stream.encode(tone))
            out.mux(stream.encode(None))
        with av.open(str(tmp_path / "no-frames.mkv"), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
            tone = out.add_stream("pcm_s16le", rate=AUDIO_RATE)
            tone.codec_context.layout = "mono"
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
            out.mux(tone.encode(silence))
            out.mux(tone.encode(None))
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("none.mp4", "there is no file .*none.mp4; check the path"),
            ("no-index.mp4", "no-index.mp4 is damaged or incomplete; get a whole copy of it"),
            ("text.mp4", "text.mp4 can't be read as a video"),
            ("empty.mp4", "empty.mp4 can't be read as a video"),
            ("cut.mkv", r"cut.mkv ends after 1\.\d of \d\.\d s: it is incomplete; get a whole copy of it"),
            ("sound.m4a", "sound.m4a has no video stream; for a still picture, use `scumble stylize`"),
            ("no-frames.mkv", r"no-frames\.mkv holds no frame that can be decoded; it is empty or damaged"),
            ("%05d.png", "there is no picture .*%05d.png; check the path"),
            ("none.gif", "there is no file .*none.gif; check the path"),
        ],
    )
    def test_one_sentence_and_nothing_left(self, name, sentence, folder, paint):
        with pytest.raises(InputError, match=sentence) as caught:
            paint(folder / name, folder / "out.mp4", strength=0)
        assert "\n" not in str(caught.value)
        assert not (folder / "out.mp4").exists()
        assert hidden(folder) == []

    def test_cut_animations(self, tmp_path, paint):
        Image.fromarray(picture(0)).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(picture(9))])
        (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:30])
        with pytest.raises(InputError, match=r"cut\.gif"):
            paint(tmp_path / "cut.gif", tmp_path / "out.gif", strength=0)
        assert not (tmp_path / "out.gif").exists()

    def test_too_many_pixels(self, clip, tmp_path, paint):
        with pytest.raises(InputError, match=r"has 64 x 48 pixels a frame, more than 3,000; give less, or raise --max-pixels"):
            paint(clip, tmp_path / "out.mp4", max_pixels=3000)
        sentence = r"size 100000 makes 7,500,000,000 pixels of a frame; 200,000,000 are allowed, choose less"
        with pytest.raises(UsageError, match=sentence):
            paint(clip, tmp_path / "out.mp4", size=100_000)

    @pytest.mark.parametrize(
        ("target", "settings", "sentence"),
        [
            ("out.mp4", {"codec": "h2645"}, r"unknown codec 'h2645'; did you mean 'h265'\?"),
            ("out.webm", {"codec": "h264"}, "a .webm file holds vp9 or av1; got h264: take one of these, or another suffix"),
            ("out.mp4", {"crf": 99}, "crf must be between 0 and 51 for h264; got 99"),
            ("out.gif", {"crf": 20}, "codec and crf are for films"),
            ("out.txt", {}, "cannot save as '.*out.txt'; the suffix must be one of"),
            ("%05d.txt", {}, "cannot save as '.*%05d.txt'; the suffix of numbered pictures must be one of .jpg"),
            ("out.webp", {"size": 16_400, "max_pixels": 10**9}, "WebP holds at most 16383 pixels a side; got 16400 x 12300: make a film"),
            ("out.mp4", {"steady": 1.5}, "steady must be between 0 and 1; got 1.5"),
            ("out.mp4", {"strength": 3}, "strength must be between 0 and 2; got 3"),
            ("out.mp4", {"method": "wtc"}, r"unknown method 'wtc'; did you mean 'wct'\?"),
            ("out.gif", {"resume": True}, "an animation is written in one go"),
        ],
    )
    def test_wrong_usage(self, target, settings, sentence, clip, tmp_path, paint):
        with pytest.raises(UsageError, match=sentence):
            paint(clip, tmp_path / target, **settings)
        assert list(tmp_path.iterdir()) == []

    def test_no_threads_are_none(self, clip, tmp_path, capsys):
        assert run(["video", str(clip), "-s", "irises", "-o", str(tmp_path / "out.mp4"), "--threads", "0"]) == 2
        assert capsys.readouterr().err == "error: threads must be at least 1; got 0\n"

    @pytest.mark.parametrize(("method", "least"), [("generator", 166), ("wct", 733)])
    def test_a_budget_below_the_smallest_tile_is_refused_before_a_frame_is_read(self, method, least, tmp_path, paint, monkeypatch):
        source = make(tmp_path / "in.mp4", frames=2, size=(960, 900), sound=None)
        monkeypatch.setattr(VideoFile, "__iter__", lambda _: pytest.fail("a frame was read"))
        sentence = f"the smallest tile takes {least} MB of memory; got 10 MB: raise it with --memory"
        with pytest.raises(UsageError, match=sentence):
            paint(source, tmp_path / "out.mp4", memory=10_000_000, method=method)
        assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
        assert least == math.ceil(least_memory(method) / 1e6)
        assert f"{least} MB" in (ROOT / "docs" / "video.md").read_text("utf-8")

    def test_no_thread_is_left_when_painting_fails_and_opencv_is_as_it_was(self, clip, tmp_path, paint, monkeypatch):
        def fail(*_, **__):
            raise InputError("the reason")

        monkeypatch.setattr(ShotPainter, "__call__", fail)
        cv2.setNumThreads(3)
        try:
            with pytest.raises(InputError, match="the reason") as caught:
                paint(clip, tmp_path / "out.mp4", steady=0.5)
            # of what is held by the traceback nothing may still be at work: it would be in OpenCV when the process ends
            assert caught.tb is not None
            assert [t for t in threading.enumerate() if t.name == "scumble-video"] == []
            assert cv2.getNumThreads() == 3
        finally:
            cv2.setNumThreads(-1)

    @pytest.mark.parametrize(
        ("style", "sentence"),
        [
            (["great-wave", "irises"], r"several styles are given with the seconds .* as in \[\(0, 'great-wave'\).*; got 'great-wave'"),
            ([(0, "great-wave", 1)], "several styles are given with the seconds"),
            ([("soon", "great-wave")], "a style's time must be a number"),
            ([(0, 3)], "a style must be a name"),
            (3, "a style must be a name"),
            ([], "give a style"),
        ],
    )
    def test_styles_that_are_none(self, style, sentence, clip, tmp_path, paint):
        with pytest.raises(UsageError, match=sentence):
            paint(clip, tmp_path / "out.mp4", style)

    def test_encoders_that_are_not_here(self, clip, tmp_path, paint, monkeypatch):
        monkeypatch.setitem(writing_module.CODECS, "av1", {"no_such_encoder": ()})
        with pytest.raises(UsageError, match=r"has no encoder for av1; it has h264.*: take one with --codec"):
            paint(clip, tmp_path / "out.mp4", codec="av1")

    def test_targets_that_are_there(self, clip, tmp_path, paint):
        (tmp_path / "out.mp4").write_text("mine")
        with pytest.raises(InputError, match=r"exists already; allow overwriting \(--overwrite\)"):
            paint(clip, tmp_path / "out.mp4", strength=0)
        assert (tmp_path / "out.mp4").read_text() == "mine"
        paint(clip, tmp_path / "out.mp4", strength=0, overwrite=True)
        assert len(shown(tmp_path / "out.mp4")) == N
        with pytest.raises(UsageError, match="can't be painted over itself"):
            paint(tmp_path / "out.mp4", tmp_path / "out.mp4", overwrite=True)
        with pytest.raises(InputError, match="there is no folder"):
            paint(clip, tmp_path / "nowhere" / "out.mp4")

    @pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
    def test_a_target_that_appears_meanwhile_is_not_replaced(self, name, clip, tmp_path, paint):
        def appear(_done, _total):
            (tmp_path / name).write_text("mine")

        with pytest.raises(InputError, match=r"exists already; allow overwriting \(--overwrite\)"):
            paint(clip, tmp_path / name, strength=0, progress=appear)
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
    def test_a_link_is_written_through(self, name, clip, tmp_path, paint):
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / name).write_text("older")
        (tmp_path / name).symlink_to(tmp_path / "real" / name)
        paint(clip, tmp_path / name, strength=0, overwrite=True)
        assert (tmp_path / name).is_symlink()
        assert len((tmp_path / "real" / name).read_bytes()) > 1000
        assert hidden(tmp_path) == hidden(tmp_path / "real") == []

    def test_full_disk(self, clip, tmp_path, paint, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(writing_module._Segment, "_mux", full)
        with pytest.raises(InputError, match=r"cannot write .*out.mp4 \(no space left on device\); free space"):
            paint(clip, tmp_path / "out.mp4", strength=0)
        assert list(tmp_path.iterdir()) == []

    def test_without_pyav(self, clip, tmp_path, paint, monkeypatch):
        def missing(name):
            raise ImportError(name)

        monkeypatch.setattr(frames_module, "import_module", missing)
        with pytest.raises(MissingExtraError, match=r'this needs PyAV: pip install "scumble\[video\]"'):
            paint(clip, tmp_path / "out.mp4")
