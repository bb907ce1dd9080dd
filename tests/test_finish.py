"""The finish: statistics of patches carried to the style's, in NumPy as in PyTorch, whole as in tiles."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scumble import cascade, finish, guided
from scumble.engine import Engine
from scumble.pyramid import means
from scumble.style import Style, toward


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", threads=1)


def picture(seed, height=96, width=128, contrast=1.0):
    """Smooth noise in colours that depend on each other, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(height, width, 3)) @ (0.4 * rng.normal(size=(3, 3)) + np.eye(3))
    for axis in (0, 1):
        x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / 3
    return np.clip(0.5 + 0.3 * contrast * x, 0, 1).astype(np.float32)


def planes(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def finished(pixels, texture, engine, **frozen):
    out, filters = finish.finish(finish.Cells.of(planes(pixels)), guided.guide(pixels), texture, engine, **frozen)
    return out.transpose(1, 2, 0), filters


BOTH = pytest.mark.parametrize("patch", [finish.NARROW, finish.WIDE])


def texture(pixels, patch):
    return finish.texture(pixels) if patch == finish.WIDE else finish.narrow(finish.texture(pixels))


def distance(a, b):
    """Of two textures, relative to the second's, scale by scale."""
    a, b = finish.scales(a), finish.scales(b)
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)


@BOTH
def test_a_painting_gets_the_colors_of_the_style_and_nearer_to_its_texture_at_every_scale(engine, patch):
    content, style = picture(0), picture(7, 120, 90, contrast=0.6)
    wanted = texture(style, patch)
    painted, _ = finished(content, wanted, engine)
    np.testing.assert_allclose(painted.mean((0, 1)), style.mean((0, 1)), atol=2e-3)
    np.testing.assert_allclose(np.cov(painted.reshape(-1, 3).T), np.cov(style.reshape(-1, 3).T), rtol=0.15, atol=1e-3)
    assert np.all(distance(texture(painted, patch), wanted) < 0.5 * distance(texture(content, patch), wanted))


def test_larger_patches_bring_a_painting_nearer_to_what_lies_further_apart(engine):
    content, wanted = picture(0, 256, 256), finish.texture(picture(7, 256, 256, contrast=0.6))
    near, far = (finish.texture(finished(content, w, engine)[0]) for w in (finish.narrow(wanted), wanted))
    missing = [np.delete((finish.scales(t) - finish.scales(wanted))[:, 3:].reshape(4, -1, 9), finish.narrower(), 1) for t in (near, far)]
    missing = [np.linalg.norm(m) for m in missing]
    assert missing[1] < 0.8 * missing[0]


def test_smaller_patches_are_a_part_of_larger_ones():
    whole = finish.texture(picture(3))
    part = finish.narrow(whole)
    assert (finish.patch_of(whole), finish.patch_of(part)) == (finish.WIDE, finish.NARROW)
    np.testing.assert_array_equal(finish.narrow(part), part)
    small, large = (finish.of_patches(finish.scales(t)[1][3:].reshape(-1, 3, 3)) for t in (part, whole))
    five = np.arange(75).reshape(5, 5, 3)[:3, :3].ravel()  # the corner of the larger patch
    assert len(part) == finish.texture_size(finish.NARROW)
    np.testing.assert_allclose(large[np.ix_(five, five)], small, atol=1e-12)


def test_the_second_pass_at_the_finest_scale_does_what_the_first_has_left(engine):
    content, wanted = picture(0), finish.texture(picture(7, 120, 90, contrast=0.6))
    painted, filters = finished(content, wanted, engine)
    finish.passes(filters)[-1] = finish.passes(finish.unchanging(finish.WIDE))[-1]
    once, _ = finished(content, None, engine, frozen=filters)
    assert finish.PASSES[finish.WIDE][-2:] == (finish.SCALES - 1,) * 2
    assert distance(finish.texture(painted), wanted)[-1] < 0.85 * distance(finish.texture(once), wanted)[-1]


def test_where_there_is_no_second_pass_the_first_goes_further(engine, monkeypatch):
    content, style = picture(0, 256, 256), picture(7, 256, 256, contrast=1.6)
    wanted = finish.narrow(finish.texture(style))
    there, _ = finished(content, wanted, engine)
    monkeypatch.setattr(finish, "further", lambda patch_map: patch_map)
    short, _ = finished(content, wanted, engine)
    contrast = [np.diff(x, axis=0).var() + np.diff(x, axis=1).var() for x in (short, there, style)]
    assert contrast[0] < 0.75 * contrast[2]  # of neighbours, which is what means lose first
    assert contrast[0] + (contrast[2] - contrast[0]) / 3 < contrast[1] < 1.1 * contrast[2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 30), min_size=1, max_size=9), st.integers(0, 99))
def test_going_further_is_away_from_one_and_never_turns_over(values, seed):
    turned = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    found = turned.T @ finish.further(turned * values @ turned.T) @ turned
    np.testing.assert_allclose(found, np.diag([v + v**3 * (v - 1) / (v**4 + 1) for v in values]), atol=1e-9)
    for v, found_v in zip(values, np.diag(found), strict=True):
        assert max(0, v - 1) - 1e-9 < found_v < v + 1  # noise to be made 30 times as strong is made 31 times as strong at most
        assert abs(found_v - 1) >= abs(v - 1) - 1e-9


def test_a_picture_that_has_the_texture_already_stays_nearly_as_it_is(engine):
    content = picture(1, 256, 256)
    painted, _ = finished(content, finish.texture(content), engine)
    assert 10 * np.log10(1 / np.mean((painted - content) ** 2)) > 40  # dB: what patches at the edge count twice and once


@BOTH
def test_the_map_carries_one_gaussian_to_the_other(patch):
    a, b = (texture(picture(seed), patch) for seed in (2, 3))
    own = finish.Patches(finish.scales(a)[0][:3].astype(np.float64), finish.of_patches(finish.scales(a)[0][3:].reshape(-1, 3, 3)))
    ridge = finish.RIDGE * np.eye(3 * patch * patch)
    own = finish.Patches(own.mean, own.covariance - ridge)
    same = finish.monge_filter(own, finish.scales(a)[0], ridge)
    np.testing.assert_allclose(same, finish.passes(finish.unchanging(patch))[0], atol=1e-5)
    other = finish.monge_filter(own, finish.scales(b)[0], ridge)
    flat = other[3:].reshape(3, 3, -1).sum(2) @ own.mean + other[:3]
    np.testing.assert_allclose(flat, finish.scales(b)[0][:3], atol=1e-5)


def test_the_map_is_symmetric_and_rounding_below_zero_does_no_harm():
    a, b = (finish.of_patches(finish.scales(finish.texture(picture(seed)))[0][3:].reshape(-1, 3, 3)) for seed in (2, 3))
    there = finish.monge_map(a, b)
    np.testing.assert_allclose(there, there.T, atol=1e-9)
    np.testing.assert_allclose(there @ a @ there, b, atol=1e-9)
    values, vectors = np.linalg.eigh(b)
    values[:3] = -1e-9
    np.testing.assert_allclose(finish.monge_map(a, vectors * values @ vectors.T), there, atol=0.05 * np.abs(there).max())


@pytest.mark.parametrize("method", ["linear", "adain", "wct", "ot"])
def test_what_was_fused_is_finished(engine, method):
    content, style = picture(10), Style.of_pixels(picture(11, contrast=0.6), engine)
    painted, used = cascade.paint(engine, content, style, method=method)
    bare, nothing = cascade.paint(engine, content, replace(style, texture=None), method=method)
    assert nothing.filters is None
    assert np.all(distance(finish.texture(painted), style.texture) < distance(finish.texture(bare), style.texture))
    again, kept = cascade.paint(engine, content, style, method=method, frozen=used)
    np.testing.assert_allclose(again, painted, atol=1e-6)
    np.testing.assert_array_equal(kept.filters, used.filters)
    # as far as the strength from doing nothing, so that strength 0 is what the decoder makes of the content
    half = cascade.paint(engine, content, style, method=method, strength=0.5)[1].filters
    step = [np.abs(f - finish.unchanging(finish.WIDE)).sum() for f in (half, used.filters)]
    assert 0.1 * step[1] < step[0] < 0.9 * step[1]
    assert cascade.paint(engine, content, style, method=method, strength=0.0)[1].filters is None


@BOTH
def test_frozen_filters_replace_what_is_measured(engine, patch):
    wanted = texture(picture(4), patch)
    painted, filters = finished(picture(5), wanted, engine)
    for asked, freeze in ((wanted, np.ones(len(filters))), (None, None)):
        again, same = finished(picture(5), asked, engine, frozen=filters, freeze=freeze)
        np.testing.assert_array_equal(again, painted)
        np.testing.assert_array_equal(same, filters)
    untouched, _ = finished(picture(5), None, engine, frozen=finish.unchanging(patch))
    np.testing.assert_allclose(untouched, picture(5), atol=1e-6)


@BOTH
def test_a_share_of_frozen_filters_is_in_between(engine, patch):
    content, wanted, unchanging = picture(5, 160, 136), texture(picture(4), patch), finish.unchanging(patch)
    free, same = (finish.passes(f)[0] for f in (finished(content, wanted, engine)[1], unchanging))
    _, between = finished(content, wanted, engine, frozen=unchanging, freeze=np.full(len(unchanging), 0.5))
    assert np.abs(free - same).max() > 0.01
    np.testing.assert_allclose(finish.passes(between)[0], free / 2 + same / 2, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.sampled_from([finish.NARROW, finish.WIDE]))
def test_any_size_is_finished_and_stays_finite(height, width, seed, patch):
    engine = Engine("cpu", threads=1)
    painted, filters = finished(picture(seed, height, width), texture(picture(seed + 1, 40, 30), patch), engine)
    assert painted.shape == (height, width, 3)
    assert np.isfinite(painted).all()
    assert filters.shape == (finish.filters_size(patch),)
    if min(height, width) < finish.LEAST_SIDE:
        np.testing.assert_allclose(painted, picture(seed, height, width), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 21), st.integers(1, 21), st.integers(finish.AROUND, 5))
def test_cells_are_the_picture_and_what_is_around_it_does_not_count(height, width, margin):
    engine, pixels = Engine("cpu", threads=1), picture(height, height, width)
    cells = finish.Cells.of(planes(pixels))
    np.testing.assert_array_equal(cells.planes, planes(pixels))
    np.testing.assert_array_equal(cells.rows_at(np.arange(height)), planes(pixels).transpose(1, 0, 2))
    edged = cells.edged()
    np.testing.assert_allclose(edged.means(), means(pixels, 2), atol=1e-6)
    np.testing.assert_allclose(engine.lowered(edged), finish.halved(planes(pixels)), atol=1e-6)
    # as the net hands it over: more around it, and painted
    wide = np.random.default_rng(0).random((12, *(n + 2 * margin for n in ((height + 1) // 2, (width + 1) // 2))), np.float32)
    around = finish.Cells(wide, margin, height, width)
    for n in range(12):  # an odd side's last half cell is painted as well
        p, q = n // 2 % 2, n % 2
        part = pixels[p::2, q::2, n // 4]
        wide[n, margin : margin + part.shape[0], margin : margin + part.shape[1]] = part
    around.edged()
    for patch in (finish.NARROW, finish.WIDE):
        for one, other in zip(_changed(around, patch, engine), _changed(cells, patch, engine), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def _changed(cells, patch, engine):
    """A filter and an enlargement."""
    rng = np.random.default_rng(1)
    filters = finish.unchanging(patch)
    finish.passes(filters)[0] = rng.normal(size=3 + 9 * (2 * patch - 1) ** 2)
    change = rng.normal(size=(3, (cells.height + 1) // 2, (cells.width + 1) // 2)).astype(np.float32)
    return finish._filtered(cells, filters, 0, engine).planes, engine.raised(cells, change).planes


@BOTH
def test_cells_are_convolved_and_enlarged_as_pixels_are(engine, patch):
    torch = pytest.importorskip("torch")
    from torch.nn import functional as F

    pixels = planes(picture(3, 33, 46))
    rng, span = np.random.default_rng(1), 2 * patch - 1
    part = rng.normal(size=3 + 9 * span * span).astype(np.float32)
    change = rng.normal(size=(3, 17, 23)).astype(np.float32)
    filtered, raised = _changed(finish.Cells.of(pixels), patch, engine)
    x = F.pad(torch.from_numpy(pixels)[None], (patch - 1,) * 4, mode="replicate")
    expected = F.conv2d(x, torch.from_numpy(part[3:].reshape(3, 3, span, span)), torch.from_numpy(part[:3]))[0]
    np.testing.assert_allclose(filtered, expected.numpy(), atol=1e-4)
    twice = F.interpolate(torch.from_numpy(change)[None], scale_factor=2, mode="bilinear")[0, :, :33]
    np.testing.assert_allclose(raised, pixels + twice.numpy(), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_picture_becomes_flat_in_the_mean_of_the_style(engine, value):
    style = picture(6)
    painted, _ = finished(np.full((64, 80, 3), value, np.float32), finish.texture(style), engine)
    np.testing.assert_allclose(painted, np.broadcast_to(style.mean((0, 1)), painted.shape), atol=2e-3)


@BOTH
def test_noise_below_the_ridge_is_not_blown_up(engine, patch):
    rng = np.random.default_rng(0)
    noisy = np.clip(0.5 + 0.004 * rng.normal(size=(128, 128, 3)), 0, 1).astype(np.float32)
    painted, _ = finished(noisy, texture(rng.random((128, 128, 3), np.float32), patch), engine)
    assert painted.std() < 0.22  # as large as the style's own, 0.29, it would be made without


@BOTH
def test_sums_of_tiles_are_those_of_the_whole(engine, patch):
    x = planes(picture(8, 400, 300))
    center = np.full(3, 0.4, np.float32)
    whole = finish.sums(finish.Cells.of(x), center, finish.Places.of(400, 300, patch), engine)
    parts = np.zeros_like(whole)
    for top, bottom in ((0, 144), (144, 400)):
        for left, right in ((0, 160), (160, 300)):
            outer = x[:, max(0, top - 16) : bottom + 16, max(0, left - 16) : right + 16]
            places = finish.Places.of(400, 300, patch, (top, bottom, left, right)).seen_from(max(0, top - 16), max(0, left - 16))
            parts += finish.sums(finish.Cells.of(outer), center, places, engine)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-2)


def test_textures_mix_as_pooled_pictures_do_and_meet_halfway_as_sharp_as_they_are():
    a, b = picture(9), picture(10, contrast=0.5) * np.float32(0.5)
    mixed = finish.scales(finish.mixed([finish.texture(a), finish.texture(b)], [1, 1]))[-1]
    pooled = np.concatenate([a.reshape(-1, 3), b.reshape(-1, 3)])
    np.testing.assert_allclose(mixed[:3], pooled.mean(0), atol=1e-5)
    np.testing.assert_allclose(mixed[3:12].reshape(3, 3), np.cov(pooled.T, bias=True), atol=1e-5)
    for textures in ([a, a], [b, b]):
        same = finish.between([finish.texture(t) for t in textures], [0.3, 0.7])
        np.testing.assert_allclose(same, finish.texture(textures[0]), atol=1e-5)
    halfway = finish.scales(finish.between([finish.texture(a), finish.texture(b)], [1, 1]))[-1]
    ends = [finish.scales(finish.texture(t))[-1][3:12].reshape(3, 3).trace() for t in (a, b)]
    assert min(ends) < halfway[3:12].reshape(3, 3).trace() < max(ends) < mixed[3:12].reshape(3, 3).trace() * 2


def test_quickly_half_way_is_half_way_where_covariances_commute_and_near_it_elsewhere():
    a, b = (finish.texture(picture(seed)) for seed in (9, 10))
    stronger = a.copy()
    finish.scales(stronger)[:, 3:] *= 4  # all contrasts twice as large
    halfway = finish.scales(finish.between([a, stronger], [1, 1], quick=True))
    np.testing.assert_allclose(halfway[:, :3], finish.scales(a)[:, :3], atol=1e-6)
    np.testing.assert_allclose(halfway[:, 3:], 1.5**2 * finish.scales(a)[:, 3:], atol=finish.RIDGE)
    exact, quick = finish.between([a, b], [1, 2]), finish.between([a, b], [1, 2], quick=True)
    assert np.abs(quick - exact).max() < 0.05 * np.abs(a - b).max()  # noise of another seed: 0.025


@pytest.mark.parametrize("together", [finish.mixed, finish.between])
def test_with_one_of_smaller_patches_a_blend_is_of_those(together):
    """A ``.style`` file that was written before there were larger ones."""
    a, b = (finish.texture(picture(seed)) for seed in (9, 10))
    found, expected = together([a, finish.narrow(b)], [1, 2]), together([finish.narrow(a), finish.narrow(b)], [1, 2])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, finish.narrow(together([a, b], [1, 2])), atol=2e-3)


@BOTH
def test_pytorch_does_the_same(engine, patch):
    torch = pytest.importorskip("torch")
    from scumble.nets import finish as with_gradients

    content, wanted = picture(11, 270, 243), texture(picture(12), patch)  # large enough for patches to be left out
    x = torch.from_numpy(planes(content))[None].requires_grad_()
    asked = with_gradients.of_texture(torch.from_numpy(wanted)[None])
    made, filters = with_gradients.finish(x, x.detach(), asked)
    painted, _ = finished(content, wanted, engine)
    difference = np.abs(made[0].detach().numpy().transpose(1, 2, 0) - painted)
    assert difference.max() < 1e-3
    again, _ = with_gradients.finish(x, x.detach(), asked, filters)
    assert torch.equal(again, made)
    direct = with_gradients.autocovariances(torch.from_numpy(planes(picture(12)))[None])
    direct = direct if patch == finish.WIDE else with_gradients.narrow(direct)
    for (mean, covariance), row in zip(direct, finish.scales(wanted), strict=True):
        np.testing.assert_allclose(torch.cat([mean[0], covariance.flatten()]).numpy(), row, atol=1e-6)
    made.square().mean().backward()
    assert torch.isfinite(x.grad).all()


def test_black_and_white_styles_have_maps_in_pytorch():
    """Sums of so many products in single precision came out wrong by more than the ridge: such a covariance has no root."""
    torch = pytest.importorskip("torch")
    from scumble.nets import finish as with_gradients

    style = torch.nn.functional.interpolate((torch.rand(1, 3, 14, 14) > 0.5).float(), size=224)
    exact = with_gradients.autocovariances(style.double())
    for (_, found), (_, wanted) in zip(with_gradients.autocovariances(style), exact, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)
    x = torch.from_numpy(planes(picture(18, 192, 192)))[None]
    made, _ = with_gradients.finish(x, x, exact)
    assert torch.isfinite(made).all()


def test_what_a_new_map_takes_back_has_no_gradient():
    torch = pytest.importorskip("torch")
    from scumble.nets import finish as with_gradients

    x = torch.from_numpy(planes(picture(13, 64, 64)))[None]
    wanted = with_gradients.autocovariances(torch.from_numpy(planes(picture(14, 64, 64)))[None])
    gain = torch.ones((), requires_grad=True)
    made, _ = with_gradients.finish(0.5 + gain * (x - 0.5), x, wanted)
    (slope,) = torch.autograd.grad(made.var(), gain)
    (unfinished,) = torch.autograd.grad((0.5 + gain * (x - 0.5)).var(), gain)
    assert abs(float(slope)) < 0.05 * abs(float(unfinished))


def test_a_style_keeps_its_texture(tmp_path, engine):
    style = Style.of_pixels(picture(15), engine)
    np.testing.assert_array_equal(style.texture, finish.texture(picture(15)))
    np.testing.assert_array_equal(Style.load(style.save(tmp_path / "a.style")).texture, style.texture)
    wide, narrow = finish.texture_size(finish.WIDE), finish.texture_size(finish.NARROW)
    assert Style.named("starry-night").texture.shape == (wide,)
    blend = (0.5 * style + 0.5 * Style.named("starry-night")).blended()
    assert blend.texture.shape == (wide,)
    assert len(style.modulation(engine)) == engine.modulations + narrow
    assert len(style.modulation(engine, wide=True)) == engine.modulations + wide


def test_a_style_of_before_there_were_larger_patches_is_painted_with_smaller_ones(engine):
    style = Style.of_pixels(picture(15), engine)
    before = replace(style, texture=finish.narrow(style.texture))
    np.testing.assert_array_equal(before.modulation(engine, wide=True), style.modulation(engine))
    own = Style.of_pixels(picture(16), engine)
    expected = toward(own.modulation(engine), style.modulation(engine), 0.5)
    for way in (toward(own.modulation(engine, wide=True), before.modulation(engine, wide=True), 0.5),
                toward(before.modulation(engine, wide=True), own.modulation(engine, wide=True), 0.5)):  # fmt: skip
        assert way.shape == expected.shape
        np.testing.assert_allclose(way[engine.modulations :], expected[engine.modulations :], atol=1e-5)


def test_a_style_without_a_texture_is_painted_as_the_net_has_it(engine):
    style = Style.of_pixels(picture(16), engine)
    bare = Style(style.levels, "bare")
    content = picture(17)
    finished_by_style, used = engine.paint(content, style.modulation(engine))
    painted, statistics = engine.paint(content, bare.modulation(engine))
    assert len(used) == len(statistics) + finish.filters_size(finish.NARROW)
    np.testing.assert_array_equal(statistics, used[: len(statistics)])
    assert np.abs(painted - finished_by_style).mean() > 1 / 255
    assert len(toward(style.modulation(engine), bare.modulation(engine), 0.5)) == engine.modulations
    assert style.digest != bare.digest
