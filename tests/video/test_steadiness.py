"""Blending along the movement, and the measure of what it does."""

import numpy as np
import pytest
from clips import animate, animation, cv2, picture, steadiness

from scumble.errors import MissingExtraError
from scumble.video import frames as frames_module
from scumble.video.frames import as_float
from scumble.video.shots import SETTLE
from scumble.video.steady import ANCHORED, EVERY, MOST, USUAL, Flow, Movement, Past, Steadier, carry


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


class TestSteady:
    def textures(self):
        return steadiness.moving_textures(10, 64, 96, 1)

    def test_flow_is_found(self):
        clip = self.textures()
        flow = Flow()
        assert flow(clip.frames[0], cut=True) is None
        found = flow(clip.frames[1], cut=False).last
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
        assert flow(after, cut=False).last.trust[25:35, 8:17].max() < 0.2

    def test_cuts_and_amounts(self):
        a, b = strokes(32, 48), strokes(32, 48)[::-1, ::-1]
        unmoved = Movement(np.zeros((32, 48, 2), np.float32), np.ones((32, 48), np.float32))
        still = Past(unmoved, unmoved, False)
        steadier = Steadier(1.0)
        np.testing.assert_array_equal(steadier(a, None), a)
        np.testing.assert_allclose(steadier(b, still), 0.75 * a + 0.25 * b, atol=5e-5)
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
        flow, trust = found.last.across(height, width)
        assert flow.shape == (height, width, 2)
        assert trust.shape == (height, width)
        steadier = Steadier(1.0)
        steadier(as_float(frames[0]), None)
        assert steadier(as_float(frames[1]), found).shape == (height, width, 3)

    def test_a_frame_of_another_size_begins_anew(self):
        """Also where both are alike when reduced."""
        flow = Flow()
        flow(picture(0, 1000, 500), cut=True)
        assert flow(picture(1, 998, 499), cut=False) is None
        assert flow(picture(2, 998, 499), cut=False) is not None

    def test_what_stands_still_is_not_drawn_along(self):
        """A wall right beside something that goes by: smooth flow carries it along, and it was where it is."""
        clip = steadiness.passer_by(TestSteadiness().photo(), 14, 90, 160)
        flow = Flow()
        for t, pixels in enumerate(clip.frames):
            found = flow(pixels, cut=t == 0)
            if found is not None:
                away = clip.movement(t, 1)[1]
                assert (np.abs(found.last.across(90, 160)[0]).max(2)[away] > 0.5).mean() < 0.01

    def test_the_anchor_is_where_pixels_were_frames_ago(self):
        clip = steadiness.moving_textures(10, 90, 160, 1)
        flow, since = Flow(), 0
        flow(clip.frames[0], cut=True)
        for t in range(1, 10):
            found, since = flow(clip.frames[t], cut=False), since + 1
            exact, seen = clip.movement(t, since)
            sure = seen & (found.anchor.trust > 0.5)
            assert sure.mean() > 0.4
            assert np.median(np.abs(found.anchor.flow - exact)[sure]) < 0.7
            assert (found.anchor.trust <= found.last.trust + 1e-6).all()
            assert found.renews == (t == EVERY)
            since = 0 if found.renews else since

    def test_the_anchor_is_remembered(self):
        """One frame stays in what follows, by the anchor alone where the frame before is empty."""
        unmoved = Movement(np.zeros((8, 8, 2), np.float32), np.ones((8, 8), np.float32))
        steadier, one, other = Steadier(1.0), strokes(8, 8), 1 - strokes(8, 8)
        steadier(one, None)
        steadier._last = other
        kept = steadier(other, Past(unmoved, unmoved, True))
        np.testing.assert_allclose(kept, other + MOST * ANCHORED * (one - other), atol=5e-5)
        steadier._last = other
        kept = steadier(other, Past(unmoved, unmoved, False))
        np.testing.assert_allclose(kept, other + (MOST * ANCHORED) ** 2 * (one - other), atol=5e-5)

    def test_what_was_around_something_that_moved_on_does_not_stay(self):
        """A rim on a ground that stands still goes with what it is around, ; strokes do stay."""
        unmoved = Movement(np.zeros((64, 96, 2), np.float32), np.ones((64, 96), np.float32))
        still, one, other = Past(unmoved, unmoved, False), strokes(64, 96) / 4, strokes(64, 96)[::-1] / 4
        rim = one.copy()
        rim[20:40, 30:50] += 0.4
        steadier = Steadier(1.0)
        steadier(rim, None)
        kept = steadier(other, still)
        assert np.abs(kept - other)[20:40, 30:50].mean((0, 1)).max() < 0.01
        np.testing.assert_allclose(kept[:, 70:], (0.75 * one + 0.25 * other)[:, 70:], atol=5e-5)
        moving = Movement(unmoved.flow + np.float32(1), unmoved.trust)
        steadier(rim, None)
        assert (steadier(other, Past(moving, moving, False)) - other)[24:36, 34:44].mean() > 0.2  # there it is the film that says so


def strokes(height, width):
    """(H, W, 3): lines two pixels wide, the same on the whole as the other way round."""
    return np.tile((np.arange(height) // 2 % 2).astype(np.float32)[:, None, None], (1, width, 3))


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
        assert steadiness.warping_error(by[True], tail, 1) < 0.9 * steadiness.warping_error(by[False], tail, 1)

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
