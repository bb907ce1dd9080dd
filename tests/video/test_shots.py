"""Cuts, statistics that are held over a shot, styles that change with time."""

from itertools import pairwise

import numpy as np
import pytest
from clips import H, W, picture, steadiness

from scumble import Picture, tiling
from scumble.engine import Engine
from scumble.errors import UsageError
from scumble.video.frames import as_float
from scumble.video.shots import SETTLE, Cuts, ShotPainter, Timeline


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

    @pytest.mark.parametrize("method", ["generator", "adain"])
    @pytest.mark.parametrize("frames", [6, 40])
    def test_fades_from_black_and_to_black(self, method, frames, stylizer, styles):
        """What was measured of black frames was held, and what came after them painted cyan and red."""
        noise = np.random.default_rng(0)
        content = self.content()

        def shown(brightness):
            return np.clip(brightness * content + noise.normal(0, 1 / 255, content.shape), 0, 1).astype(np.float32)

        film = [shown(b) for b in (0, 0, 0, *np.linspace(0, 1, frames), *np.ones(30), *np.linspace(1, 0, frames), 0, 0)]
        timeline = Timeline.of([(None, styles[0])])
        cuts, shots = Cuts(), ShotPainter(stylizer, timeline, method=method)
        painted = [shots(f, k / 24, cuts((f * 255).astype(np.uint8))) for k, f in enumerate(film)]
        for k in (0, 1, 2, -2, -1):
            np.testing.assert_array_equal(painted[k], film[k])
        last = 3 + frames + 29
        alone = ShotPainter(stylizer, timeline, method=method)(film[last], 0.0, "cut")
        assert np.abs(painted[last] - alone).mean() < 0.05
        if frames > SETTLE:
            assert np.abs(np.diff([p.mean((0, 1)) for p in painted], axis=0)).max() < 0.25  # nothing flashes

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
        modulation = styles[0].modulation(stylizer.engine)
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
    def test_the_first_frame_is_the_stylizers_draft(self, method, strength, stylizer, styles):
        settings = {"method": method, "strength": strength, "keep_color": 0.4, "grain": 1.0}
        drawing, product = self.content(), np.ones((320, 416, 3), np.float32)
        drawing[: H // 2] = 0.5
        product[100 : 100 + H, 120 : 120 + W] = self.content()
        for frame in (drawing, product):
            shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), **settings)
            expected = stylizer(Picture.from_array(frame), styles[0], quality="draft", **settings)
            np.testing.assert_allclose(shots(frame, 0.0, "cut"), expected.pixels, atol=2e-4)

    def test_strokes_of_grain_stand_still_and_are_for_who_asks(self, stylizer, styles):
        frames = [np.full((96, 160, 3), 0.5, np.float32) for _ in range(2)]
        for k, frame in enumerate(frames):
            frame[40:60, 20 + 8 * k : 40 + 8 * k] = 0.1
        for grain in (0.0, 1.0):
            shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), grain=grain)
            first, second = (shots(frame, k / 25, "none" if k else "cut")[8:88, 100:150].mean(2) for k, frame in enumerate(frames))
            assert (first.std() > 0.02) == (grain > 0)
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9

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


class Forgetful:
    """A net that has memory for so many pixels at once."""

    def __init__(self, paint, pixels):
        self.net, self.most, self.refused = paint, pixels, 0

    def bound_to(self, engine):
        def paint(pixels, *args, **kwargs):
            if pixels.shape[0] * pixels.shape[1] > self.most:
                self.refused += 1
                raise MemoryError
            return self.net(engine, pixels, *args, **kwargs)

        return paint


class TestMemory:
    def frames(self, count=SETTLE + 2):
        return [as_float(picture(k, 1100, 560)) for k in range(count)]

    def painted(self, stylizer, style, **settings):
        shots = ShotPainter(stylizer, Timeline.of([(None, style)]), **settings)
        return [shots(frame, k / 25, "cut" if k == 0 else "none") for k, frame in enumerate(self.frames())], shots

    @pytest.mark.parametrize("strength", [0.4, 1.0, 1.3])
    def test_tiles_with_what_is_held_are_the_frame(self, strength, stylizer, styles):
        shots = self.painted(stylizer, styles[0], strength=strength)[1]
        # 172 MB for one pass, 165 for a tile
        scarce = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), strength=strength, memory=168e6)
        scarce.restore(shots.snapshot())
        again = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), strength=strength)
        again.restore(shots.snapshot())
        frame = self.frames()[-1]
        assert np.abs(scarce(frame, 1.0, "none") - again(frame, 1.0, "none")).max() <= 1 / 255

    @pytest.mark.parametrize(
        ("method", "width", "memory"), [("generator", 2100, 168e6), pytest.param("wct", 3100, 740e6, marks=pytest.mark.slow)]
    )
    def test_no_net_gets_more_than_memory_holds(self, method, width, memory, stylizer, styles, monkeypatch):
        seen, net = [], "paint" if method == "generator" else "eye"
        plain = getattr(Engine, net)
        monkeypatch.setattr(Engine, net, lambda self, pixels, *a, **k: (seen.append(pixels.shape), plain(self, pixels, *a, **k))[1])
        shots = ShotPainter(stylizer, Timeline.of([(None, styles[0])]), method=method, memory=memory)
        frame = as_float(picture(0, width, 300))
        assert shots(frame, 0.0, "cut").shape == frame.shape
        assert len(seen) > 2
        assert max(h * w for h, w, _ in seen) * tiling.bytes_a_pixel(method) <= memory < 300 * width * tiling.bytes_a_pixel(method)

    def test_out_of_memory_goes_on_in_tiles_and_says_so_once(self, stylizer, styles, monkeypatch, caplog):
        whole, _ = self.painted(stylizer, styles[0])
        poor = Forgetful(Engine.paint, 1099 * 560)
        monkeypatch.setattr(Engine, "paint", property(poor.bound_to))
        out, _ = self.painted(stylizer, styles[0], memory=1e9)
        assert poor.refused == 1
        assert max(float(np.abs(a - b).mean()) for a, b in zip(out, whole, strict=True)) < 0.08  # the thumbnail's statistics
        assert len([r for r in caplog.records if "out of memory" in r.message]) == 1

    def test_too_little_for_the_smallest_tile(self, stylizer, styles):
        with pytest.raises(UsageError, match="raise it with --memory"):
            self.painted(stylizer, styles[0], memory=1e7)


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


def test_a_style_that_comes_late_is_measured_on_the_product_too(stylizer, styles):
    page = np.ones((240, 360, 3), np.float32)
    page[80:180, 120:220] = np.random.default_rng(0).random((100, 100, 3), dtype=np.float32)
    first, last = (SETTLE + 2) / 25, (SETTLE + 4) / 25
    late = ShotPainter(stylizer, Timeline.of([(0.0, styles[0]), (first, styles[0]), (last, styles[1])]))
    early = ShotPainter(stylizer, Timeline.of([(None, styles[1])]))
    for k in range(SETTLE + 6):
        change = "cut" if k == 0 else "none"
        a, b = late(page, k / 25, change), early(page, k / 25, change)
    assert np.abs(a - b).mean() < 1 / 255
