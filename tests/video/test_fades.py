"""Fades, dissolves, light that changes: what is faded is painted as a fade of the painting, and nothing else is taken for one."""

import io
from fractions import Fraction

import numpy as np
import pytest
from clips import Killed, cv2, killed_after, steadiness

from scumble.picture import Picture
from scumble.video import film, stages
from scumble.video.frames import Clip, Frame, as_float
from scumble.video.shots import Cuts

W, H = 112, 80
BLACK, WHITE = np.zeros((H, W, 3)), np.full((H, W, 3), 255.0)
DOWN = np.arange(1, 13) / 12
"""How much of the flat colour there is in twelve frames of a fade; the last is all of it."""


def photograph(seed=0):
    """(H, W, 3), 0 … 255: coloured patches with smooth edges."""
    patches = np.random.default_rng(seed).uniform(10, 245, (5, 7, 3)).astype(np.float32)
    return np.clip(cv2.resize(patches, (W, H), interpolation=cv2.INTER_CUBIC), 0, 255)


def mixed(a, b, share):
    return np.uint8(a * (1 - share) + b * share + 0.5)


def apart(a, b):
    """Mean difference in 8-bit steps, but for strokes: a net that is asked for them on next to flat colours turns them over at a step."""
    return np.abs(cv2.blur(np.float32(a), (9, 9)) - cv2.blur(np.float32(b), (9, 9))).mean()


class Shown:
    """Frames as a clip."""

    def __init__(self, frames):
        self.frames = frames
        self.clip = Clip("frames", W, H, Fraction(25), Fraction(1, 25), len(frames))

    def __iter__(self):
        return (Frame(f, Fraction(k, 25), Fraction(1, 25)) for k, f in enumerate(self.frames))


@pytest.fixture
def filmed(stylizer, styles):
    def call(frames, **settings):
        out = io.BytesIO()
        film(Shown(frames), styles[0], out, stylizer=stylizer, **settings)
        return np.frombuffer(out.getvalue(), np.uint8).reshape(-1, H, W, 3).astype(np.float32)

    return call


class TestFades:
    @pytest.mark.parametrize("flat", [BLACK, WHITE])
    def test_the_painting_fades_out_as_the_picture_does(self, flat, filmed):
        frames = [mixed(photograph(), flat, k) for k in [0] * 10 + [*DOWN] + [1] * 3]
        painted = filmed(frames)
        for k, share in enumerate(DOWN[:-2], 10):
            assert apart(painted[k], mixed(painted[9], flat, share)) < 2
        np.testing.assert_array_equal(painted[21:], np.stack(frames[21:]))  # neither a ghost nor an anchor of what was before

    @pytest.mark.parametrize("flat", [BLACK, WHITE])
    def test_the_painting_fades_in_as_the_picture_does(self, flat, filmed):
        frames = [mixed(photograph(), flat, k) for k in [1] * 3 + [*DOWN[-2::-1]] + [0] * 10]
        painted = filmed(frames)
        np.testing.assert_array_equal(painted[:3], np.stack(frames[:3]))
        for k, share in enumerate(DOWN[-3::-1], 4):
            assert apart(painted[k], mixed(painted[14], flat, share)) < 2
        assert apart(painted[-1], filmed([frames[-1]] * 3)[-1]) < 1  # painted by what it is when it is there

    def test_a_fade_longer_than_what_is_held_back_still_comes_up_evenly(self, filmed, monkeypatch):
        monkeypatch.setattr(stages, "AHEAD", 4)
        frames = [mixed(photograph(), BLACK, k) for k in [1, 1, *np.linspace(1, 0, 26)[1:], 0, 0, 0]]
        light = filmed(frames).mean((1, 2, 3))
        assert (np.diff(light)[1:25] > 0).all()
        assert np.diff(light).max() < 0.3 * light[-1]
        assert light[8] < 0.7 * light[-1]

    def test_a_title_goes_out(self, filmed):
        card = cv2.putText(np.uint8(BLACK), "FIN", (14, 54), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 255, 255), 4)
        light = filmed([mixed(card, BLACK, k) for k in [0] * 10 + [*DOWN]]).mean((1, 2, 3))
        np.testing.assert_allclose(light[10:20], light[9] * (1 - DOWN[:10]), atol=0.06 * light[9])

    def test_light_that_dims_and_returns_leaves_nothing_behind(self, filmed):
        dim = 0.75 * np.clip(1 - np.abs(np.arange(40) - 20) / 10, 0, 1)
        painted = filmed([mixed(photograph(), BLACK, share) for share in dim])
        assert apart(painted[-1], painted[9]) < 1
        assert apart(painted[20], 0.25 * painted[9]) < 2

    def test_no_plates_of_darker_frames_stay(self, filmed):
        """With movement in it: what is dark is not standing still."""
        frames = [mixed(BLACK, np.roll(photograph(), k, 1), min(1, max(0, (k - 2) / 14))) for k in range(20)]
        steady, plain = filmed(frames), filmed(frames, steady=0.0)
        assert max(apart(a, b) for a, b in zip(steady, plain, strict=True)) < 3

    def test_a_logo_stays_as_bright(self, filmed):
        frames = [mixed(photograph(), BLACK, k) for k in [0] * 10 + [*DOWN[:9]]]
        for f in frames:
            f[4:16, 90:106] = 235
        assert filmed(frames)[-1][8:12, 94:102].mean() > 150
        light = filmed(frames)[:, 30:].mean((1, 2, 3))
        np.testing.assert_allclose(light[10:], light[9] * (1 - DOWN[:9]), atol=0.06 * light[9])

    def test_of_a_dissolve_neither_picture_is_painted_by_statistics_of_the_other(self, filmed):
        dark, bright = 0.4 * photograph(), 120 + 0.5 * photograph(5)
        painted = filmed([mixed(dark, bright, share) for share in [0] * 10 + [*np.arange(1, 25) / 24] + [1] * 12])
        light = painted.mean((1, 2, 3))
        assert np.abs(light[10:] - np.interp(np.arange(10, 46), [9, 33], light[[9, -1]])).max() < 20
        assert apart(painted[-1], filmed([mixed(dark, bright, 1)] * 9)[-1]) < 3

    def test_strength_0_is_the_input(self, filmed):
        frames = [mixed(photograph(), BLACK, k) for k in [1, 1, *DOWN[-2::-1], *[0] * 9, *DOWN]]
        np.testing.assert_array_equal(filmed(frames, strength=0), np.stack(frames))

    def test_what_was_killed_in_a_fade_is_resumed(self, tmp_path, paint):
        frames = [mixed(photograph(), BLACK, k) for k in [1, 1, *np.linspace(1, 0, 14)[1:], 0, 0, 0, *DOWN[:8]]]
        for k, frame in enumerate(frames):
            Picture.from_array(frame).save(tmp_path / f"{k:02}.png")
        source = tmp_path / "%02d.png"
        paint(source, tmp_path / "whole.mp4", segment=3)
        for done in (7, 22):
            with pytest.raises(Killed):
                paint(source, tmp_path / "out.mp4", segment=3, progress=killed_after(done), overwrite=True)
            paint(source, tmp_path / "out.mp4", segment=3, resume=True, overwrite=True)
            assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


class TestLight:
    def fades(self, frames):
        """The gain of each frame."""
        cuts, gains = Cuts(), []
        for frame in frames:
            cuts(frame)
            gains.append(1.0 if cuts.fade is None else cuts.fade.gain)
        return np.array(gains)

    def test_nothing_else_is_a_fade(self):
        photo = as_float(np.uint8(photograph()))
        night = photo * 0.08 + 0.01
        wide = np.concatenate([photo, as_float(np.uint8(photograph(3)))], 1)
        clips = {
            "a pan": [np.uint8(255 * wide[:, 4 * k : 4 * k + W]) for k in range(25)],
            "night": steadiness.passer_by(night, 12, H, W).frames,
            "a passer-by": steadiness.passer_by(photo, 12, H, W).frames,
            "textures": steadiness.moving_textures(12, H, W).frames,
            "noise": [np.uint8(np.clip(255 * photo + np.random.default_rng(k).normal(0, 4, photo.shape), 0, 255)) for k in range(10)],
            "another picture comes": [mixed(photograph(), photograph(7), k / 20) for k in range(21)],
            "all lights go out at once": [np.uint8(255 * photo * (1 if k < 5 else 0.3)) for k in range(10)],
        }
        for name, frames in clips.items():
            assert self.fades(frames).min() > 0.9, name

    @pytest.mark.parametrize("flat", [BLACK, WHITE, np.full((H, W, 3), (160, 30, 20.0))])
    def test_gains_are_found(self, flat):
        moving = [np.roll(photograph(), k // 3 if np.ptp(flat) == 0 else 0, 1) for k in range(16)]
        shares = np.array([0] * 5 + [*DOWN[:-1]])
        found = self.fades([mixed(f, flat, s) for f, s in zip(moving, shares, strict=True)])
        np.testing.assert_allclose(found, 1 - shares, atol=0.05)

    def test_light_that_stays_is_the_shots_own(self):
        found = self.fades([mixed(photograph(), BLACK, min(0.4, 0.04 * max(0, k - 5))) for k in range(110)])
        assert found[18] == pytest.approx(0.6, abs=0.02)
        assert found[-1] > 0.95
        assert np.abs(np.diff(found[20:])).max() < 0.03
