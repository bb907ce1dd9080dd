"""Films that were stopped or killed, and gone on with."""

import io
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from clips import Killed, N, av, hidden, killed_after, picture, shown, sound_of
from PIL import Image

from scumble import weights
from scumble.errors import InputError, UsageError
from scumble.video.reading import Raw


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
        with pytest.raises(UsageError, match=r"out\.mp4 was begun otherwise \(strength\); give the same, or begin again without --resume"):
            paint(clip, tmp_path / "out.mp4", strength=0.5, segment=4, resume=True)
        assert hidden(tmp_path) == [".out.mp4.parts"], "a mistake costs nothing"
        paint(clip, tmp_path / "out.mp4", strength=0, segment=4)
        assert hidden(tmp_path) == []

    def test_other_nets_and_a_changed_picture_are_another_job(self, tmp_path, paint, monkeypatch):
        for k in range(3):
            Image.fromarray(picture(k)).save(tmp_path / f"{k}.png")
        with pytest.raises(Killed):
            paint(tmp_path / "%d.png", tmp_path / "out.mp4", progress=killed_after(2), segment=1, strength=0)
        known = weights.manifest()
        finish = replace(known["finish_filter.onnx"], sha256="0" * 64)
        with monkeypatch.context() as patched:
            patched.setattr(weights, "manifest", lambda: {**known, "finish_filter.onnx": finish})
            with pytest.raises(UsageError, match=r"was begun otherwise \(weights\)"):
                paint(tmp_path / "%d.png", tmp_path / "out.mp4", segment=1, strength=0, resume=True)
        Image.fromarray(255 - picture(1)).save(tmp_path / "1.png")
        with pytest.raises(UsageError, match=r"was begun otherwise \(source\)"):
            paint(tmp_path / "%d.png", tmp_path / "out.mp4", segment=1, strength=0, resume=True)

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

    def test_a_run_that_is_refused_costs_nothing(self, clip, tmp_path, paint):
        (tmp_path / "out.mp4").write_bytes(b"mine")
        for target in ("out.mp4", "out-%03d.png"):
            with pytest.raises(Killed):
                paint(clip, tmp_path / target, overwrite=True, progress=killed_after(6), segment=4, strength=0)
        kept = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        for target in ("out.mp4", "out-%03d.png"):
            with pytest.raises(InputError, match=r"out(-001)?\.(mp4|png) exists already"):
                paint(clip, tmp_path / target, segment=4, strength=0)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == kept

    def test_a_run_that_fails_before_its_first_frame_costs_nothing(self, clip, tmp_path, paint):
        class Broken:
            clip = Raw(io.BytesIO(), 64, 48, Fraction(25)).clip

            def __iter__(self):
                raise InputError("the reason")

        with pytest.raises(Killed):
            paint(clip, tmp_path / "out.mp4", progress=killed_after(6), segment=4, strength=0)
        with pytest.raises(InputError, match="the reason"):
            paint(Broken(), tmp_path / "out.mp4", segment=4, strength=0)
        told = []
        paint(clip, tmp_path / "out.mp4", segment=4, strength=0, resume=True, progress=lambda n, _: told.append(n))
        assert told[0] == 5

    @pytest.mark.parametrize("target", ["out.mp4", "out-%03d.png"])
    def test_stopped_within_the_first_segment(self, target, clip, tmp_path, paint):
        count = []
        paint(clip, tmp_path / target, progress=lambda n, _: count.append(n), stop=lambda: len(count) == 2, **self.HOW)
        with pytest.raises(InputError, match="exists already"):
            paint(clip, tmp_path / target, **self.HOW)
        assert paint(clip, tmp_path / target, resume=True, **self.HOW).frames == N
        assert hidden(tmp_path) == []
        paint(clip, tmp_path / f"whole-{target}", **self.HOW)
        for path in tmp_path.glob("out*"):
            assert path.read_bytes() == (tmp_path / f"whole-{path.name}").read_bytes()

    def test_pictures_of_a_run_that_was_killed_within_the_first_segment(self, clip, tmp_path, paint):
        with pytest.raises(Killed):
            paint(clip, tmp_path / "out-%03d.png", progress=killed_after(2), **self.HOW)
        assert paint(clip, tmp_path / "out-%03d.png", resume=True, **self.HOW).frames == N

    def test_what_was_not_left_by_the_run_is_not_replaced(self, clip, tmp_path, paint):
        paint(clip, tmp_path / "out.mp4", stop=lambda: True, **self.HOW)
        (tmp_path / "out.mp4").write_bytes(b"mine")
        with pytest.raises(InputError, match="exists already"):
            paint(clip, tmp_path / "out.mp4", resume=True, **self.HOW)
        (tmp_path / "shot-005.png").write_bytes(b"mine")
        for resume in (False, True):
            with pytest.raises(InputError, match=r"shot-005\.png exists already"):
                paint(clip, tmp_path / "shot-%03d.png", resume=resume, strength=0)
        assert not (tmp_path / "shot-001.png").exists(), "it is said before anything is painted"

    def test_nor_where_no_one_knows_how_many_there_will_be(self, tmp_path, paint):
        live = tmp_path / "live.mkv"  # as a recording is, of which nobody knows how long it will last
        with av.open(str(live), "w", format="matroska", options={"live": "1"}) as container:
            stream = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
            for k in range(16):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * k, np.uint8))))
            container.mux(stream.encode(None))
        (tmp_path / "shot-005.png").write_bytes(b"mine")
        for resume in (False, True, True):
            with pytest.raises(InputError, match=r"shot-005\.png exists already"):
                paint(live, tmp_path / "shot-%03d.png", resume=resume, strength=0)
        assert (tmp_path / "shot-005.png").read_bytes() == b"mine" and (tmp_path / "shot-004.png").exists()
        (tmp_path / "shot-005.png").unlink()
        assert paint(live, tmp_path / "shot-%03d.png", resume=True, strength=0).frames == 16

    def test_numbered_pictures(self, clip, tmp_path, paint):
        paint(clip, tmp_path / "whole-%03d.png", **self.HOW)
        with pytest.raises(Killed):
            paint(clip, tmp_path / "out-%03d.png", progress=killed_after(6), **self.HOW)
        paint(clip, tmp_path / "out-%03d.png", resume=True, **self.HOW)
        for k in range(1, N + 1):
            assert (tmp_path / f"out-{k:03}.png").read_bytes() == (tmp_path / f"whole-{k:03}.png").read_bytes()
        assert hidden(tmp_path) == []
