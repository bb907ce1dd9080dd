"""Films that were stopped or killed, and gone on with."""

from fractions import Fraction
from typing import ClassVar

import pytest
from clips import Killed, N, hidden, killed_after, shown, sound_of

from scumble.errors import InputError, UsageError


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
