"""Moving pictures: what comes in goes out again painted, and nothing else of it changes."""

import errno
import importlib.util
import io
import logging
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from scumble import Picture, Stylizer
from scumble.errors import InputError, MissingExtraError, UsageError
from scumble.video import Camera, Raw, film, open_clip
from scumble.video import frames as frames_module
from scumble.video import writing as writing_module
from scumble.video.frames import ahead, as_bytes, as_float, parse_rate, parse_raw
from scumble.video.shots import SETTLE, Cuts, ShotPainter, Timeline

av = pytest.importorskip("av", reason="needs PyAV: pip install 'scumble[video]'")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'scumble[video]'")

from scumble.video.steady import USUAL, Flow, Movement, Steadier, carry  # noqa: E402
from scumble.video.writing import available  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
W, H, N = 64, 48, 12
AUDIO_RATE = 16_000


def _benchmark():
    spec = importlib.util.spec_from_file_location("steadiness", ROOT / "benchmarks" / "steadiness.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["steadiness"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


steadiness = _benchmark()


def picture(t, width=W, height=H):
    """Smooth, so that coding and chroma subsampling change little; it moves by a pixel a frame, and every frame has its own shade."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x = x - t
    rgb = np.stack([0.5 + 0.3 * np.sin(x / 9), 0.5 + 0.3 * np.cos(y / 11 + x / 17), 0.45 + 0.25 * np.sin((x + y) / 13)], -1)
    return np.uint8(np.clip(rgb * 255 + t, 0, 255))


def make(
    path,
    *,
    frames=N,
    size=(W, H),
    codec="libx264",
    unit=Fraction(1, 12800),
    times=None,
    sound="aac",
    offset=0,
    picture=picture,
    turn=None,
    matrix=None,
    **context,
):
    """A film with a tone, at ``times`` in seconds; every frame coded well."""
    times = times or [Fraction(k, 25) for k in range(frames)]
    options = (
        {"crf": "4", "preset": "ultrafast"}
        if codec in ("libx264", "libx265")
        else {"crf": "10", "b": "0", "cpu-used": "8"}
        if "vpx" in codec
        else {}
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = context.pop("pix_fmt", "yuv420p")
        stream.codec_context.time_base = unit
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if turn is not None:
            turn(stream)
        audio = None
        if sound:
            audio = out.add_stream(sound, rate=48_000 if sound == "libopus" else AUDIO_RATE)
            audio.codec_context.layout = "mono"
        for k, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(k, *size), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=context.get("color_range") or 1)
            frame.pts, frame.time_base = round((at + offset) / unit), unit
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio:
            rate = audio.codec_context.sample_rate
            n = int(float(times[-1] + Fraction(1, 25)) * rate)
            samples = np.int16(8000 * np.sin(np.arange(n) / 20))[None]
            tone = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            tone.sample_rate, tone.pts, tone.time_base = rate, int(offset * rate), Fraction(1, rate)
            out.mux(audio.encode(tone))
            out.mux(audio.encode(None))
    return path


def shown(path):
    """(seconds, RGB) of every frame, as FFmpeg decodes it."""
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound_of(path):
    with av.open(str(path)) as container:
        return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in container.demux(audio=0) if p.pts is not None]


def hidden(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


@pytest.fixture(scope="module")
def stylizer():
    return Stylizer("cpu", 1)


@pytest.fixture(scope="module")
def styles(stylizer):
    rng = np.random.default_rng(3)
    return [stylizer.style(Picture.from_array(rng.random((48, 48, 3)) * scale)) for scale in ((1, 0.5, 0.2), (0.2, 0.6, 1))]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def paint(stylizer, styles):
    def call(source, target, style=None, **settings):
        return film(source, styles[0] if style is None else style, target, stylizer=stylizer, **settings)

    return call


class TestFilms:
    def test_frames_times_and_sound_stay(self, clip, tmp_path, paint):
        done = paint(clip, tmp_path / "out.mp4")
        assert (done.frames, done.size, done.interrupted) == (N, (W, H), False)
        before, after = shown(clip), shown(tmp_path / "out.mp4")
        assert [t for t, _ in after] == [t for t, _ in before]
        assert all(a.shape == b.shape for (_, a), (_, b) in zip(after, before, strict=True))
        assert np.abs(after[3][1].astype(int) - before[3][1]).mean() > 5, "it was painted"
        assert sound_of(tmp_path / "out.mp4") == sound_of(clip)
        assert hidden(tmp_path) == []

    def test_variable_frame_rate(self, tmp_path, paint):
        times = [Fraction(k * k, 100) + Fraction(k, 3000) for k in range(N)]
        source = make(tmp_path / "in.mp4", times=times, unit=Fraction(1, 30000), sound=None)
        paint(source, tmp_path / "out.mp4", segment=5, strength=0)
        assert [t for t, _ in shown(tmp_path / "out.mp4")] == [t for t, _ in shown(source)] == times

    def test_a_file_that_starts_late_starts_at_zero(self, tmp_path, paint):
        source = make(tmp_path / "in.mkv", offset=5, unit=Fraction(1, 1000), sound="flac")
        paint(source, tmp_path / "out.mkv", strength=0)
        assert [float(t) for t, _ in shown(tmp_path / "out.mkv")] == pytest.approx([k / 25 for k in range(N)], abs=0.0011)
        assert sound_of(tmp_path / "out.mkv")[0][0] == 0

    @pytest.mark.parametrize(
        ("sound", "suffix", "expected"), [("aac", ".webm", "opus"), ("aac", ".mkv", "aac"), ("pcm_s16le", ".mp4", None)]
    )
    def test_sound_is_copied_or_made_anew(self, sound, suffix, expected, tmp_path, paint):
        source = make(tmp_path / "in.mkv", sound=sound, unit=Fraction(1, 1000))
        paint(source, tmp_path / f"out{suffix}", strength=0)
        with av.open(str(tmp_path / f"out{suffix}")) as made, av.open(str(source)) as given:
            if expected is not None:
                assert made.streams.audio[0].codec_context.codec.canonical_name == expected
            seconds = [sum(f.samples for f in c.decode(audio=0)) / c.streams.audio[0].codec_context.sample_rate for c in (made, given)]
        assert seconds[0] == pytest.approx(seconds[1], abs=0.1)

    def test_a_film_without_sound(self, tmp_path, paint):
        paint(make(tmp_path / "in.mp4", sound=None), tmp_path / "out.mp4", strength=0)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert [s.type for s in container.streams] == ["video"]

    @pytest.mark.parametrize("angle", [90, 180, 270])
    def test_rotation_is_applied(self, angle, tmp_path, paint):
        source = make(tmp_path / "in.mp4", turn=lambda stream: stream.set_display_rotation(angle), sound=None)
        paint(source, tmp_path / "out.mp4", strength=0)
        upright = np.rot90(shown(source)[0][1], angle // 90)  # the tag counts counter-clockwise
        result = shown(tmp_path / "out.mp4")[0][1]
        assert result.shape == upright.shape
        assert np.abs(result.astype(int) - upright).mean() < 4  # another orientation: 30 and more

    def test_mirrored_and_turned(self, tmp_path, paint):
        # 16.16 fixed point; (x, y) is shown at (-y, -x): mirrored, then turned
        matrix = [0, -65536, 0, -65536, 0, 0, 0, 0, 1 << 30]
        source = make(tmp_path / "in.mp4", turn=lambda stream: stream.set_display_matrix(matrix), sound=None)
        paint(source, tmp_path / "out.mp4", strength=0)
        upright = np.rot90(shown(source)[0][1], 2).transpose(1, 0, 2)
        assert np.abs(shown(tmp_path / "out.mp4")[0][1].astype(int) - upright).mean() < 4  # another orientation: 30 and more

    @pytest.mark.parametrize(("matrix", "full"), [(1, 1), (1, 2), (6, 1), (6, 2), (2, 0)])
    def test_colors_keep_their_meaning(self, matrix, full, tmp_path, paint):
        source = make(tmp_path / "in.mp4", sound=None, frames=2, matrix=matrix if matrix != 2 else 6, colorspace=matrix, color_range=full)
        paint(source, tmp_path / "out.mp4", strength=0)
        with av.open(str(source)) as given, av.open(str(tmp_path / "out.mp4")) as made:
            a, b = next(given.decode(video=0)), next(made.decode(video=0))
        assert (int(b.colorspace), int(b.color_range)) == (int(a.colorspace), int(a.color_range)) == (matrix, full)
        # the numbers in the file are the same, so they mean the same; and they are what the picture was made of
        assert np.abs(a.to_ndarray().astype(int) - b.to_ndarray()).mean() < 1.5
        assert np.abs(next(iter(open_clip(source))).pixels.astype(int) - picture(0)).mean() < 2.5

    def test_pixel_aspect_stays(self, tmp_path, paint):
        source = make(tmp_path / "in.mp4", sound=None, frames=2, sample_aspect_ratio=Fraction(4, 3))
        paint(source, tmp_path / "out.mp4", strength=0)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)

    @pytest.mark.parametrize("codec", ["h264", "h265", "vp9", "av1"])
    def test_codecs(self, codec, clip, tmp_path, paint):
        if codec not in available():
            pytest.skip(f"this FFmpeg has no encoder for {codec}")
        paint(clip, tmp_path / "out.mkv", codec=codec, strength=0, crf=12, segment=7)
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert container.streams.video[0].codec_context.codec.canonical_name == {"h265": "hevc"}.get(codec, codec)
        before, after = shown(clip), shown(tmp_path / "out.mkv")
        # Matroska counts milliseconds, and from where the sound begins: AAC does a little before 0
        assert [float(t - after[0][0]) for t, _ in after] == pytest.approx([float(t) for t, _ in before], abs=0.0011)
        assert max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(after, before, strict=True)) < 4

    def test_odd_sizes_stay_where_the_codec_has_them(self, tmp_path, paint):
        source = make(tmp_path / "in.webm", codec="libvpx-vp9", size=(W + 1, H + 1), sound="libopus", unit=Fraction(1, 1000))
        paint(source, tmp_path / "out.webm", strength=0)
        assert shown(tmp_path / "out.webm")[0][1].shape == (H + 1, W + 1, 3)

    def test_odd_sizes_are_padded_where_it_has_not_and_said(self, tmp_path, paint, caplog):
        source = make(tmp_path / "in.webm", codec="libvpx-vp9", size=(W + 1, H), sound=None, unit=Fraction(1, 1000))
        paint(source, tmp_path / "out.mp4", strength=0)
        before, after = shown(source)[0][1], shown(tmp_path / "out.mp4")[0][1]
        assert after.shape == (H, W + 2, 3)
        assert np.abs(after[:, : W + 1].astype(int) - before).mean() < 3
        found, frame = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()
        assert found
        assert frame.shape == (H, W + 2, 3), "other players see the same"
        sentence = "is 65 x 48, and h264 has even sizes only: the last column is repeated; --codec vp9 or av1 keeps the size"
        assert [r.getMessage() for r in caplog.records] == [f"{tmp_path / 'out.mp4'} {sentence}"]

    def test_size(self, clip, tmp_path, paint):
        assert paint(clip, tmp_path / "out.mp4", size=32, strength=0).size == (32, 24)
        assert shown(tmp_path / "out.mp4")[0][1].shape == (24, 32, 3)

    def test_keeping_colors_and_strength(self, clip, tmp_path, paint):
        paint(clip, tmp_path / "grey.mp4", keep_color=1, strength=0.5)
        assert len(shown(tmp_path / "grey.mp4")) == N

    def test_progress_counts_to_the_end(self, clip, tmp_path, paint):
        told = []
        paint(clip, tmp_path / "out.mp4", strength=0, progress=lambda done, total: told.append((done, total)))
        assert told == [(k + 1, N) for k in range(N)]

    def test_same_input_same_bytes(self, clip, tmp_path, paint):
        for name in ("a.mp4", "b.mp4"):
            paint(clip, tmp_path / name, steady=0.5)
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


class TestUsualSteadiness:
    def test_is_on_where_opencv_is(self, clip, tmp_path, paint):
        for name, how in (("usual", {}), ("said", {"steady": USUAL}), ("off", {"steady": 0.0})):
            paint(clip, tmp_path / f"{name}.mp4", **how)
        usual, said, off = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("usual", "said", "off"))
        assert usual == said != off

    def test_animations_do_without_opencv(self, tmp_path, paint, monkeypatch):
        def missing(name):
            raise ImportError(name)

        source = animate(tmp_path / "in.gif", [picture(k) for k in (0, 9)], 50)
        monkeypatch.setattr(frames_module, "import_module", missing)
        assert paint(source, tmp_path / "out.gif").frames == 2
        with pytest.raises(MissingExtraError, match=r'this needs OpenCV: pip install "scumble\[video\]"'):
            paint(source, tmp_path / "more.gif", steady=0.3)

    def test_strength_0_is_the_input_however_steady(self, tmp_path, paint):
        source = animate(tmp_path / "in.png", [picture(k) for k in range(4)], 50)
        paint(source, tmp_path / "out.png", strength=0, steady=1)
        for a, b in zip(animation(tmp_path / "out.png")[2], animation(source)[2], strict=True):
            np.testing.assert_array_equal(a, b)


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
        with pytest.raises(InputError, match=r"has 64 x 48 pixels a frame, more than 3000; allow them with --max-pixels"):
            paint(clip, tmp_path / "out.mp4", max_pixels=3000)

    @pytest.mark.parametrize(
        ("target", "settings", "sentence"),
        [
            ("out.mp4", {"codec": "h2645"}, r"unknown codec 'h2645'; did you mean 'h265'\?"),
            ("out.webm", {"codec": "h264"}, "a .webm file holds vp9 or av1; got h264: take one of these, or another suffix"),
            ("out.mp4", {"crf": 99}, "crf must be between 0 and 51 for h264; got 99"),
            ("out.gif", {"crf": 20}, "codec and crf are for films"),
            ("out.txt", {}, "cannot save as '.*out.txt'; the suffix must be one of"),
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


class Killed(BaseException):
    """Nobody catches it, as nobody catches a signal 9."""


def killed_after(frames):
    def progress(done, _total):
        if done == frames:
            raise Killed

    return progress


class TestInterruptedAndResumed:
    HOW: ClassVar = {"segment": 4, "steady": 0.7}

    def test_stopping_leaves_a_whole_file(self, clip, tmp_path, paint):
        done = []
        result = paint(clip, tmp_path / "out.mp4", progress=lambda n, _: done.append(n), stop=lambda: len(done) >= 7, **self.HOW)
        assert (result.interrupted, result.frames) == (True, 7)
        assert [t for t, _ in shown(tmp_path / "out.mp4")] == [Fraction(k, 25) for k in range(7)]
        seconds = sound_of(tmp_path / "out.mp4")[-1][0]
        assert 0.15 < seconds < 7 / 25 + 0.001

    @pytest.mark.parametrize("method", ["generator", "wct"])
    @pytest.mark.parametrize("how", ["stopped", "killed"])
    def test_what_is_resumed_is_what_would_have_been(self, how, method, clip, tmp_path, paint, styles):
        morph = [(0.0, styles[0]), (0.4, styles[1])]
        settings = {**self.HOW, "method": method, "strength": 1.2}
        paint(clip, tmp_path / "whole.mp4", morph, **settings)
        target = tmp_path / "out.mp4"
        if how == "stopped":
            count = []
            paint(clip, target, morph, progress=lambda n, _: count.append(n), stop=lambda: len(count) == 9, **settings)
        else:
            with pytest.raises(Killed):
                paint(clip, target, morph, progress=killed_after(10), **settings)
            assert not target.exists()
        assert hidden(tmp_path) == [".out.mp4.parts"]
        told = []
        result = paint(clip, target, morph, resume=True, progress=lambda n, _: told.append(n), **settings)
        assert told == list(range(9, N + 1)), "the first two segments were not painted again"
        assert result.frames == N
        assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
        assert hidden(tmp_path) == []

    def test_another_job_is_not_gone_on_with(self, clip, tmp_path, paint):
        with pytest.raises(Killed):
            paint(clip, tmp_path / "out.mp4", progress=killed_after(6), segment=4)
        with pytest.raises(UsageError, match=r"out\.mp4 was begun with another strength; give the same, or begin again without --resume"):
            paint(clip, tmp_path / "out.mp4", strength=0.5, segment=4, resume=True)
        assert hidden(tmp_path) == [".out.mp4.parts"], "a mistake costs nothing"
        paint(clip, tmp_path / "out.mp4", strength=0, segment=4)
        assert hidden(tmp_path) == []

    def test_damaged_state(self, clip, tmp_path, paint):
        with pytest.raises(Killed):
            paint(clip, tmp_path / "out.mp4", progress=killed_after(6), segment=4)
        (tmp_path / ".out.mp4.parts" / "segment-00000.mp4").unlink()
        with pytest.raises(InputError, match=r"segment-00000\.mp4 is missing; begin again without --resume"):
            paint(clip, tmp_path / "out.mp4", segment=4, resume=True)

    def test_resuming_nothing_is_beginning(self, clip, tmp_path, paint):
        assert paint(clip, tmp_path / "out.mp4", strength=0, resume=True).frames == N

    def test_failures_after_a_segment_say_what_is_kept(self, clip, tmp_path, paint, caplog):
        def fail(done, _total):
            if done == 5:
                raise InputError("the reason")

        with pytest.raises(InputError, match="the reason"):
            paint(clip, tmp_path / "out.mp4", strength=0, segment=4, progress=fail)
        assert [r.getMessage() for r in caplog.records] == ["4 frames are finished and kept; --resume goes on after them"]

    def test_a_stop_before_the_first_frame_is_written_as_well(self, clip, tmp_path, paint):
        assert paint(clip, tmp_path / "out.mp4", strength=0, stop=lambda: True).frames == 1
        assert len(shown(tmp_path / "out.mp4")) == 1

    def test_numbered_pictures(self, clip, tmp_path, paint):
        paint(clip, tmp_path / "whole-%03d.png", **self.HOW)
        with pytest.raises(Killed):
            paint(clip, tmp_path / "out-%03d.png", progress=killed_after(6), **self.HOW)
        paint(clip, tmp_path / "out-%03d.png", resume=True, **self.HOW)
        for k in range(1, N + 1):
            assert (tmp_path / f"out-{k:03}.png").read_bytes() == (tmp_path / f"whole-{k:03}.png").read_bytes()
        assert hidden(tmp_path) == []


def animate(path, frames, durations, **options):
    first, *rest = (Image.fromarray(f) for f in frames)
    first.save(path, save_all=True, append_images=rest, duration=durations, **options)
    return path


def animation(path):
    """Durations in milliseconds, loop, RGBA frames."""
    with Image.open(path) as image:
        durations, frames = [], []
        for k in range(image.n_frames):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGBA")))
            durations.append(image.info["duration"])
        return durations, image.info.get("loop"), frames


class TestAnimations:
    DURATIONS: ClassVar = [40, 120, 80, 200]

    def rgba(self):
        y, x = np.mgrid[0:H, 0:W]
        hole = np.where((x - 20) ** 2 + (y - 20) ** 2 < 100, 0, 255).astype(np.uint8)
        return [np.dstack([picture(10 * k), hole]) for k in range(4)]

    @pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
    @pytest.mark.parametrize("loop", [0, 3])
    def test_durations_loops_and_transparency_stay(self, suffix, loop, tmp_path, paint):
        source = animate(
            tmp_path / f"in{suffix}",
            self.rgba(),
            self.DURATIONS,
            loop=loop,
            **({"disposal": 2} if suffix == ".gif" else {"lossless": True} if suffix == ".webp" else {"blend": 0}),
        )
        paint(source, tmp_path / f"out{suffix}", strength=0)
        before, after = animation(source), animation(tmp_path / f"out{suffix}")
        assert after[0] == before[0] == self.DURATIONS
        assert after[1] == before[1] == loop
        for a, b in zip(after[2], before[2], strict=True):
            np.testing.assert_array_equal(a[..., 3], b[..., 3])
            seen = b[..., 3] > 0
            assert np.abs(a[seen].astype(int) - b[seen])[:, :3].mean() < 8

    def test_a_gif_that_is_shown_once(self, tmp_path, paint):
        source = animate(tmp_path / "in.gif", [picture(k) for k in (0, 20)], 50)
        paint(source, tmp_path / "out.gif", strength=0)
        assert animation(tmp_path / "out.gif")[1] is None
        paint(source, tmp_path / "out.webp", strength=0)
        assert animation(tmp_path / "out.webp")[1] == 1

    def test_painted(self, tmp_path, paint):
        source = animate(tmp_path / "in.webp", self.rgba(), self.DURATIONS, lossless=True)
        assert paint(source, tmp_path / "out.png").frames == 4
        assert np.abs(animation(tmp_path / "out.png")[2][1].astype(int) - self.rgba()[1])[..., :3].mean() > 5

    def test_into_a_film_and_back(self, tmp_path, paint):
        source = animate(tmp_path / "in.gif", self.rgba(), self.DURATIONS, disposal=2)
        paint(source, tmp_path / "out.mp4", strength=0)
        frames = shown(tmp_path / "out.mp4")
        assert [t for t, _ in frames] == [0, Fraction(40, 1000), Fraction(160, 1000), Fraction(240, 1000)]
        assert frames[0][1][20, 20].min() > 240, "white stands behind what is transparent"
        paint(tmp_path / "out.mp4", tmp_path / "out.gif", strength=0)
        assert animation(tmp_path / "out.gif")[0] == self.DURATIONS

    def test_the_picture_for_those_who_cannot_read_apng_is_left_out(self, tmp_path, paint):
        animate(tmp_path / "in.png", [picture(0), picture(20), picture(40)], [50, 50], default_image=True)
        assert paint(tmp_path / "in.png", tmp_path / "out.png", strength=0).frames == 2

    def test_gif_palettes_stay_as_long_as_they_fit(self, tmp_path, paint):
        source = animate(tmp_path / "in.png", [picture(0), picture(0), 255 - picture(0)], 50)
        paint(source, tmp_path / "out.gif", strength=0)
        error = [
            np.abs(f[..., :3].astype(int) - g).mean()
            for f, g in zip(animation(tmp_path / "out.gif")[2][-1:], [255 - picture(0)], strict=True)
        ]
        assert max(error) < 8


class TestNumberedRawAndCamera:
    def test_numbers_metadata_and_depth_stay(self, tmp_path, paint):
        (tmp_path / "in").mkdir()
        (tmp_path / "out").mkdir()
        for k in range(7, 10):
            Picture.from_array(np.uint16(picture(k)) * 257).save(tmp_path / "in" / f"f{k:04}.png")
        (tmp_path / "in" / "f0011.png").write_text("after the first gap")
        paint(tmp_path / "in" / "f%04d.png", tmp_path / "out" / "p%04d.png", strength=0)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["p0007.png", "p0008.png", "p0009.png"]
        result = Picture.open(tmp_path / "out" / "p0008.png")
        assert result.metadata.bits == 16
        np.testing.assert_allclose(result.pixels, picture(8) / 255, atol=1e-4)

    def test_into_a_film_with_a_rate(self, tmp_path, paint):
        for k in range(3):
            Image.fromarray(picture(k)).save(tmp_path / f"{k}.png")
        paint(tmp_path / "%d.png", tmp_path / "out.mp4", strength=0, rate=Fraction(10))
        assert [t for t, _ in shown(tmp_path / "out.mp4")] == [0, Fraction(1, 10), Fraction(2, 10)]
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].codec_context.colorspace == 1

    def test_sizes_must_be_equal(self, tmp_path, paint):
        for k, size in enumerate([(W, H), (W, H - 2)]):
            Image.fromarray(picture(k, *size)).save(tmp_path / f"{k}.png")
        with pytest.raises(InputError, match=r"1\.png is 64 x 46, the first one 64 x 48; all must be of one size"):
            paint(tmp_path / "%d.png", tmp_path / "out.mp4", strength=0)
        assert not (tmp_path / "out.mp4").exists()

    def test_raw_in_and_out(self, paint):
        given = np.stack([picture(k) for k in range(3)])
        out = io.BytesIO()
        paint(Raw(io.BytesIO(given.tobytes()), W, H, Fraction(25)), out, strength=0)
        np.testing.assert_array_equal(np.frombuffer(out.getvalue(), np.uint8).reshape(given.shape), given)

    @pytest.mark.parametrize(
        ("size", "sentence"), [(W * H * 3 + 5, "ended within frame 2, after 5 of 9216 bytes; is --raw right\\?"), (0, "holds no frames")]
    )
    def test_raw_that_ends_early(self, size, sentence, tmp_path, paint):
        with pytest.raises(InputError, match=sentence):
            paint(Raw(io.BytesIO(bytes(size)), W, H, Fraction(25)), tmp_path / "out.mp4", strength=0)
        assert list(tmp_path.iterdir()) == []

    def test_a_pipe_can_not_be_resumed(self, tmp_path, paint):
        with pytest.raises(UsageError, match="can't be had again"):
            paint(Raw(io.BytesIO(), W, H, Fraction(25)), tmp_path / "out.mp4", resume=True)

    class Capture:
        """What OpenCV's VideoCapture is like."""

        def __init__(self, frames, opened=True):
            self.left, self.opened, self.released = list(frames), opened, False

        def isOpened(self):  # noqa: N802
            return self.opened

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def get(self, _which):
            return 30.0

        def release(self):
            self.released = True

    def test_camera(self, tmp_path, paint):
        capture = self.Capture(picture(k)[:, :, ::-1] for k in range(4))
        ticks = iter([10.0, 10.0, 10.05, 10.051, 10.2])
        camera = Camera(0, open_capture=lambda _: capture, clock=lambda: next(ticks))
        paint(camera, tmp_path / "out.mp4", strength=0)
        frames = shown(tmp_path / "out.mp4")
        assert [float(t) for t, _ in frames] == [0.0, 0.05, 0.051]  # the first look is for the size
        assert np.abs(frames[0][1].astype(int) - picture(1)).mean() < 5
        assert capture.released

    def test_no_camera(self):
        with pytest.raises(InputError, match=r"camera 3 can't be opened; is it there, and free\?"):
            Camera(3, open_capture=lambda _: self.Capture([], opened=False))

    def test_parsing(self):
        assert parse_raw("640x480@30000/1001") == (640, 480, Fraction(30000, 1001))
        assert parse_rate("29.97") == Fraction(2997, 100)
        for text in ("640x480", "x@25", "0x5@25", "640x480@fast", "-1x5@2"):
            with pytest.raises(UsageError, match=r"raw frames are described as WIDTHxHEIGHT@FPS|a frame rate is a number"):
                parse_raw(text)


class TestAhead:
    def test_bounded(self):
        drawn = []
        items = ahead((drawn.append(k) or k for k in range(100)), 3)
        assert next(items) == 0
        time.sleep(0.1)
        assert len(drawn) <= 6
        items.close()
        assert len(drawn) < 10

    def test_order_and_end(self):
        assert list(ahead(ahead(range(50), 2), 3)) == list(range(50))

    def test_errors_come_through(self):
        def items():
            yield 1
            raise InputError("broken")

        with pytest.raises(InputError, match="broken"):
            list(ahead(ahead(items(), 1), 1))

    def test_closing_ends_all_threads(self):
        before = threading.active_count()
        items = ahead(ahead(iter(range(1000)), 1), 1)
        next(items)
        items.close()
        assert threading.active_count() == before


class TestCuts:
    def test_cuts_are_found(self):
        a, b = (steadiness.moving_textures(6, 48, 64, seed) for seed in (0, 5))
        cuts = Cuts()
        assert [cuts(f) for f in a.frames + b.frames] == ["cut", *["none"] * 5, "cut", *["none"] * 5]

    def test_movement_is_no_cut(self):
        photo = np.clip(np.repeat(np.repeat(np.random.default_rng(0).random((12, 12, 3)), 16, 0), 16, 1), 0, 1).astype(np.float32)
        for clip in (steadiness.pan(photo, 20, 48, 64), steadiness.passer_by(photo, 12, 48, 64)):
            cuts = Cuts()
            assert "cut" not in [cuts(f) for f in clip.frames][1:]

    def test_slow_change_is_drift(self):
        cuts = Cuts()
        changes = [cuts(np.full((48, 64, 3), 40 + 8 * k, np.uint8)) for k in range(20)]
        assert changes[0] == "cut"
        assert "cut" not in changes[1:]
        assert "drift" in changes

    def test_goes_on_from_a_snapshot(self):
        frames = [*steadiness.moving_textures(5, 48, 64, 0).frames, *steadiness.moving_textures(5, 48, 64, 5).frames]
        whole, first, second = Cuts(), Cuts(), Cuts()
        expected = [whole(f) for f in frames]
        begun = [first(f) for f in frames[:3]]
        second.restore(first.snapshot())
        assert begun + [second(f) for f in frames[3:]] == expected


class TestShots:
    def content(self, k=0):
        return as_float(picture(k))

    @pytest.mark.parametrize("method", ["generator", "adain", "ot"])
    def test_what_is_held_does_not_change_with_the_content(self, method, stylizer, styles):
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), method=method)
        for k in range(SETTLE):
            shots(self.content(k), k / 25, "cut" if k == 0 else "none")
        held = {k: v.copy() for k, v in shots.snapshot().items() if k != "counts"}
        again = shots(self.content(3), 1.0, "none")
        shots(1 - self.content(0), 1.1, "none")
        for key, value in shots.snapshot().items():
            if key != "counts":
                np.testing.assert_array_equal(value, held[key])
        np.testing.assert_array_equal(shots(self.content(3), 1.2, "none"), again)

    def test_statistics_are_the_mean_of_the_first_frames(self, stylizer, styles):
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]))
        modulation = stylizer.engine.modulation(styles[0].vector)
        measured = []
        for k in range(SETTLE + 3):
            shots(self.content(4 * k), k / 25, "cut" if k == 0 else "none")
            measured.append(stylizer.engine.paint(self.content(4 * k), modulation)[1])
        # of the first normalisation exactly, since nothing before it is normalised; 8 numbers of it will do
        np.testing.assert_allclose(shots.snapshot()["0/statistics"][:8], np.mean(measured[:SETTLE], 0)[:8], rtol=1e-4, atol=1e-5)

    def test_cuts_begin_anew(self, stylizer, styles):
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]))
        alone = shots(self.content(5), 0.0, "cut")
        for k in range(3):
            shots(1 - self.content(k), 0.1, "none")
        np.testing.assert_array_equal(shots(self.content(5), 0.5, "cut"), alone)

    @pytest.mark.parametrize("strength", [0.4, 1.3])
    @pytest.mark.parametrize("method", ["generator", "adain"])
    def test_the_first_frame_is_what_the_stylizer_paints(self, method, strength, stylizer, styles):
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), method=method, strength=strength, keep_color=0.4)
        expected = stylizer(Picture.from_array(picture(0)), styles[0], method=method, strength=strength, keep_color=0.4)
        np.testing.assert_allclose(shots(self.content(), 0.0, "cut"), expected.pixels, atol=2e-4)

    @pytest.mark.parametrize("method", ["generator", "wct"])
    def test_drift_is_followed_gently(self, method, stylizer, styles):
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), method=method)
        for k in range(SETTLE + 1):
            shots(self.content(), k / 25, "cut" if k == 0 else "none")
        key = "0/statistics" if method == "generator" else "0/2/offset"
        seen = [shots.snapshot()[key]]
        for k in range(30):
            shots(0.8 * self.content(), 1 + k / 25, "drift" if k == 0 else "none")
            seen.append(shots.snapshot()[key])
        steps = [float(np.abs(b - a).mean()) for a, b in pairwise(seen)]
        assert steps[0] > 0
        assert max(steps) < 0.5 * float(np.abs(seen[-1] - seen[0]).mean())
        assert steps[-1] == 0.0, "and then it is held again"

    def test_style_scale(self, stylizer, styles):
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), style_scale=4)
        assert shots(self.content(), 0.0, "cut").shape == (H, W, 3)


class TestTimeline:
    def test_between(self, styles):
        timeline = Timeline.of([(4.0, styles[1]), (1.0, styles[0])])
        assert timeline.at(0.0) == (0, 0, 0.0)
        assert timeline.at(1.0) == (0, 1, 0.0)
        assert timeline.at(2.5) == (0, 1, 0.5)
        assert timeline.at(4.0) == timeline.at(99.0) == (1, 1, 0.0)

    def test_what_can_not_be_meant(self, styles):
        with pytest.raises(UsageError, match="several styles need a time each"):
            Timeline.of([(None, styles[0]), (2.0, styles[1])])
        with pytest.raises(UsageError, match="two styles can't be reached at the same time"):
            Timeline.of([(2.0, styles[0]), (2.0, styles[1])])

    @pytest.mark.parametrize("method", ["generator", "adain"])
    def test_morphs_from_one_to_the_other(self, method, stylizer, styles):
        both = ShotPainter(stylizer, Timeline.of([(0.0, styles[0]), (1.0, styles[1])]), method=method)
        ends = [ShotPainter(stylizer, Timeline.of([(None, s)]), method=method)(as_float(picture(0)), 0.0, "cut") for s in styles]
        at = {t: both(as_float(picture(0)), t, "cut") for t in (0.0, 0.25, 0.75, 1.0)}
        np.testing.assert_array_equal(at[0.0], ends[0])
        np.testing.assert_array_equal(at[1.0], ends[1])
        far = [float(np.abs(at[t] - ends[0]).mean()) for t in (0.0, 0.25, 0.75, 1.0)]
        assert far == sorted(far)
        assert far[1] > 0

    def test_the_middle_of_a_fused_morph_is_the_barycentre(self, stylizer, styles):
        both = ShotPainter(stylizer, Timeline.of([(0.0, styles[0]), (1.0, styles[1])]), method="adain")
        middle = (0.5 * styles[0] + 0.5 * styles[1]).blended()
        # adain knows means and deviations only; at the coarsest level both are linear, so the maps agree there
        both(as_float(picture(0)), 0.5, "cut")
        held = both.snapshot()
        alone = ShotPainter(stylizer, Timeline.of([(None, middle)]), method="adain")
        alone(as_float(picture(0)), 0.0, "cut")
        mixed = (held["0/0/offset"] + held["1/0/offset"]) / 2
        np.testing.assert_allclose(mixed, alone.snapshot()["0/0/offset"], rtol=0.2, atol=0.05 * float(np.abs(mixed).max()))


class TestSteady:
    def textures(self):
        return steadiness.moving_textures(10, 64, 96, 1)

    def test_flow_is_found(self):
        clip = self.textures()
        flow = Flow()
        assert flow(clip.frames[0], cut=True) is None
        found = flow(clip.frames[1], cut=False)
        exact, seen = clip.movement(1, 1)
        sure = seen & (found.trust > 0.5)
        assert sure.mean() > 0.6
        assert np.median(np.abs(found.flow - exact)[sure]) < 0.2

    def test_what_comes_into_sight_is_not_trusted(self):
        before, after = np.full((64, 96, 3), 90, np.uint8), np.full((64, 96, 3), 90, np.uint8)
        before[:, 10:40] = after[:, 30:60] = picture(0, 30, 64)
        after[20:40, 5:20] = 255
        flow = Flow()
        flow(before, cut=True)
        assert flow(after, cut=False).trust[25:35, 8:17].max() < 0.2

    def test_cuts_and_amounts(self):
        rng = np.random.default_rng(0)
        a, b = rng.random((2, 32, 48, 3)).astype(np.float32)
        still = Movement(np.zeros((32, 48, 2), np.float32), np.ones((32, 48), np.float32))
        steadier = Steadier(1.0)
        np.testing.assert_array_equal(steadier(a, None), a)
        np.testing.assert_allclose(steadier(b, still), 0.75 * a + 0.25 * b, atol=1e-6)
        np.testing.assert_array_equal(steadier(b, None), b)
        off = Steadier(0.0)
        off(a, None)
        np.testing.assert_array_equal(off(b, still), b)

    def test_carry_by_whole_pixels(self):
        image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
        flow = np.zeros((20, 30, 2), np.float32)
        flow[..., 0] = 2
        np.testing.assert_allclose(carry(image, flow)[:, :27], image[:, 2:29], atol=1e-6)

    @pytest.mark.parametrize(("height", "width"), [(9, 11), (1, 40), (700, 20)])
    def test_any_size(self, height, width):
        flow = Flow()
        frames = [picture(k, width, height) for k in range(2)]
        flow(frames[0], cut=True)
        found = flow(frames[1], cut=False)
        assert found.flow.shape == (height, width, 2)
        assert found.trust.shape == (height, width)


class TestSteadiness:
    """The measure, and what it says of us: mechanics only, on tiny clips."""

    def photo(self):
        return as_float(np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8), 16, 0), 16, 1))

    def test_movement_is_exact(self):
        for clip in (steadiness.moving_textures(10, 64, 96), steadiness.pan(cv2.GaussianBlur(self.photo(), (0, 0), 6), 10, 64, 96)):
            for gap in steadiness.GAPS:
                assert steadiness.warping_error(clip.frames, clip, gap) < 2.5
            wrong = steadiness.Clip("wrong", clip.frames, lambda t, gap, c=clip: (c.movement(t, gap)[0] * 0, c.movement(t, gap)[1]))
            assert steadiness.warping_error(clip.frames, wrong, 8) > 5

    def test_known_error(self):
        clip = steadiness.Clip("two", [], lambda _t, _gap: (np.zeros((4, 4, 2), np.float32), np.ones((4, 4), bool)))
        frames = [np.full((4, 4, 3), v, np.uint8) for v in (10, 13, 16)]
        assert steadiness.warping_error(frames, clip, 1) == pytest.approx(3)
        assert np.isnan(steadiness.warping_error(frames, clip, 8))

    def test_a_passer_by_changes_less_when_statistics_are_held(self, stylizer, styles):
        clip = steadiness.passer_by(self.photo(), 14, 48, 64)
        by = {hold: steadiness.painted(clip, stylizer, styles[0], hold=hold)[0][SETTLE:] for hold in (False, True)}
        tail = steadiness.Clip("tail", [], lambda t, gap: clip.movement(t + SETTLE, gap))
        assert steadiness.warping_error(by[True], tail, 1) < 0.8 * steadiness.warping_error(by[False], tail, 1)

    def test_the_sheet_shows_time_from_left_to_right(self, stylizer, styles):
        clip = steadiness.passer_by(self.photo(), 10, 48, 64)
        made = steadiness.sheet(clip, stylizer, styles[0], wide=8, gap=6).to_array()
        ways = 1 + len(steadiness.WAYS)
        assert made.shape == (48 + 6 + 48, ways * 64 + (ways - 1) * 6, 3)
        np.testing.assert_array_equal(made[:48, :64], clip.frames[-1])
        for k, frame in enumerate(clip.frames[-8:]):
            np.testing.assert_array_equal(made[54:, 8 * k + 3], frame[:, 32])

    def test_steady_is_steadier(self, stylizer, styles):
        rows = steadiness.measure(steadiness.moving_textures(10, 48, 64), stylizer, styles[0])
        assert rows["held, steady 1"]["saved 1"] > 0.4
        assert rows["source"]["gap 1"] < rows["held, steady 1"]["gap 1"]


def test_as_bytes_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    np.testing.assert_array_equal(as_bytes(as_float(every)), every)


def test_logging_is_quiet_for_plain_films(clip, tmp_path, paint, caplog):
    with caplog.at_level(logging.WARNING):
        paint(clip, tmp_path / "out.mp4", strength=0)
    assert caplog.records == []
