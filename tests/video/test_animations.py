"""GIF, WebP, APNG."""

from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from clips import H, W, animate, animation, picture, shown

from scumble.errors import InputError
from scumble.picture import Picture
from scumble.video.animation import Animation, check_animation, moves


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

    @pytest.mark.parametrize("told", [4, None])
    def test_too_many_pixels_in_all(self, told, tmp_path, paint, monkeypatch):
        source = Animation(animate(tmp_path / "in.gif", self.rgba(), self.DURATIONS, disposal=2))
        source.clip = replace(source.clip, frames=told)  # what comes through a pipe doesn't tell
        monkeypatch.setattr("scumble.video.animation.MOST_PIXELS", 4 * H * W - 1)
        if told:
            with pytest.raises(InputError, match=rf"4 frames of {W} x {H} pixels are too many .* 12,287 .* \(\.mp4\)"):
                paint(source, tmp_path / "out.gif", strength=0)
        else:
            done = paint(source, tmp_path / "out.gif", strength=0)
            assert (done.frames, done.interrupted) == (3, True) and len(animation(tmp_path / "out.gif")[0]) == 3
            (tmp_path / "out.gif").unlink()
        assert paint(source, tmp_path / "out.gif", strength=0, size=W - 1).frames == 4

    def test_one_frame_is_one(self):
        with pytest.raises(InputError, match=r"^1 frame of 60000 x 45000 pixels is too large for an animation"):
            check_animation(".gif", 1, 45_000, 60_000)

    def test_what_breaks_off_anywhere_is_read_or_told(self, tmp_path):
        source = animate(tmp_path / "in.gif", self.rgba(), self.DURATIONS, disposal=2)
        data, told = source.read_bytes(), 0
        for length in range(0, len(data), 11):
            moves(data[:length])
            source.write_bytes(data[:length])
            for read in (lambda: Picture.open(source), lambda: list(Animation(source))):
                try:
                    read()
                except InputError:
                    told += 1
        assert told > 100

    def test_a_frame_that_breaks_off_is_told_in_a_sentence(self, tmp_path):
        source = animate(tmp_path / "in.gif", self.rgba(), self.DURATIONS, disposal=2)
        source.write_bytes(source.read_bytes()[:-1500])
        with pytest.raises(InputError, match=r"in\.gif is damaged or incomplete; get a whole copy of it$"):
            list(Animation(source))

    def test_frames_may_be_larger_than_pillow_would_like(self, tmp_path, monkeypatch):
        source = animate(tmp_path / "in.png", self.rgba(), self.DURATIONS)
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
        assert len(list(Animation(source))) == 4 and moves(source.read_bytes())

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
