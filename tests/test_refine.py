import math

import numpy as np
import pytest
import torch
from torch import nn

from scumble import metrics
from scumble.errors import UsageError
from scumble.fusion import mixture, moments
from scumble.nets import refine as module
from scumble.nets.eye import Eye
from scumble.nets.losses import structure_loss
from scumble.nets.objective import ROOT_FLOOR
from scumble.nets.refine import NotFiniteError, device_for, refine, style_statistics
from scumble.nets.sight import Critic, load_sight
from scumble.nets.vgg import Vgg
from scumble.style import Style
from test_guided import roofs


@pytest.fixture(scope="module")
def eye():
    torch.manual_seed(0)
    return Eye().eval().requires_grad_(False)


def picture(h, w, seed=0):
    """Smooth blobs of colour."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, h)[:, None, None], np.linspace(0, 1, w)[None, :, None]
    a, b, c = rng.uniform(1, 9, (3, 3))
    return (0.5 + 0.4 * np.sin(a * y + b * x + c)).astype(np.float32)


@pytest.fixture(scope="module")
def style(eye):
    return style_statistics(eye, [picture(48, 48, seed=5)])


class Faulty(nn.Module):
    """An encoder whose taps hold NaN from a given call on."""

    def __init__(self, eye, good_calls):
        super().__init__()
        self.eye, self.good_calls = eye, good_calls

    def forward(self, x):
        self.good_calls -= 1
        taps = self.eye(x)
        return taps if self.good_calls >= 0 else [*taps[:2], taps[2] * torch.nan, *taps[3:]]


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 40), (17, 23), (33, 32)])
def test_any_size(eye, style, h, w):
    content = picture(h, w)
    out = refine(content, content, style, eye, steps=2)
    assert out.pixels.shape == (h, w, 3)
    assert out.pixels.dtype == np.float32
    assert out.pixels.min() >= 0
    assert out.pixels.max() <= 1
    assert math.isfinite(out.loss)
    assert (out.steps, out.interrupted) == (2, False)


@pytest.mark.parametrize("name", module.STYLE_LOSSES)
def test_the_loss_falls_and_its_lowest_is_returned(eye, style, name):
    content, losses = picture(32, 32), []
    out = refine(content, content, style, eye, steps=12, style_loss=name, progress=lambda i, n, loss: losses.append(loss))
    assert len(losses) == 13
    assert out.loss == min(losses) < 0.85 * losses[0]
    again = refine(out.pixels, content, style, eye, steps=0, style_loss=name, fit=False)
    assert again.loss == pytest.approx(out.loss, abs=1e-3)


def test_structure_is_kept_as_far_as_it_weighs(eye, style):
    content = picture(64, 64)

    def lost(weight):
        out = refine(content, content, style, eye, steps=12, structure_weight=weight).pixels
        taps = [eye(torch.from_numpy(p).permute(2, 0, 1)[None])[3] for p in (out, content)]
        return float(structure_loss(*taps))

    assert lost(1.0) < 0.7 * lost(0.0)


def test_refining_through_the_fit_halves_halos():
    sight, content = load_sight(), roofs()
    style = Style.named("great-wave").levels
    fitted, free = (refine(content, content, style, Critic(sight), steps=8, fit=fit) for fit in (True, False))
    assert metrics.halo(fitted.pixels, content) < 0.5 * metrics.halo(free.pixels, content)
    start = refine(content, content, style, Critic(sight), steps=0).loss
    assert start - fitted.loss > 0.8 * (start - free.loss)


def test_a_short_run_is_the_beginning_of_a_long_one(eye, style):
    content, long = picture(32, 32), []
    refine(content, content, style, eye, steps=9, progress=lambda i, n, loss: long.append(loss))
    short = refine(content, content, style, eye, steps=4)
    assert short.loss == min(long[:5])


def test_bfloat16_comes_to_the_same(eye, style):
    content = picture(64, 64)
    whole, half = (refine(content, content, style, eye, steps=12, bfloat16=b) for b in (False, True))
    assert half.loss == pytest.approx(whole.loss, rel=0.05)
    assert not np.array_equal(half.pixels, whole.pixels)
    assert refine(half.pixels, content, style, eye, steps=0, fit=False, bfloat16=False).loss == pytest.approx(whole.loss, rel=0.05)


def test_bfloat16_is_for_processors_that_have_it(monkeypatch):
    for found, expected in (({}, False), ({"avx512_f": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert module.has_bfloat16() == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not module.has_bfloat16()


def test_no_steps_change_nothing(eye, style):
    painted = picture(20, 30, seed=1)
    out = refine(painted, picture(20, 30), style, eye, steps=0, fit=False)
    np.testing.assert_allclose(out.pixels, painted, atol=1e-6)
    assert out.steps == 0


def test_content_that_has_the_style_already_is_kept(eye):
    content = picture(32, 48)
    out = refine(content, content, style_statistics(eye, [content]), eye, steps=3, tv_weight=0, bfloat16=False)
    np.testing.assert_allclose(out.pixels, content, atol=1e-3)
    # nothing is left of either loss but the floor under the root
    assert out.loss == pytest.approx(math.sqrt(ROOT_FLOOR), rel=0.05)


def test_same_input_same_bytes(eye, style):
    content = picture(24, 40)
    a, b = (refine(content, content, style, eye, steps=4) for _ in range(2))
    assert a.pixels.tobytes() == b.pixels.tobytes()


def test_inputs_are_left_alone(eye, style):
    content = picture(24, 40)
    before = content.copy()
    refine(content, content, style, eye, steps=3)
    assert np.array_equal(content, before)
    assert not any(p.requires_grad or p.grad is not None for p in eye.parameters())


def test_stopped_it_returns_the_best_so_far(eye, style):
    content, losses = picture(32, 32), []
    out = refine(
        content, content, style, eye, steps=1000, progress=lambda step, steps, loss: losses.append(loss), stop=lambda: len(losses) == 6
    )
    assert (out.interrupted, out.steps, out.loss) == (True, 5, min(losses))
    assert not np.array_equal(out.pixels, content)


def test_stopped_before_the_first_step_it_returns_what_was_painted(eye, style):
    painted = picture(32, 32, seed=1)
    out = refine(painted, picture(32, 32), style, eye, steps=25, fit=False, stop=lambda: True)
    assert out.interrupted
    np.testing.assert_allclose(out.pixels, painted, atol=1e-6)


def test_ctrl_c_is_the_callers_own(eye, style):
    def interrupt(step, steps, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # else a loop over pictures could not be stopped
        refine(picture(32, 32), picture(32, 32), style, eye, steps=3, progress=interrupt)


@pytest.mark.filterwarnings("error")
def test_loss_that_is_never_finite_names_its_part(eye, style):
    content = picture(32, 32)
    with pytest.raises(NotFiniteError, match="style loss at relu3_1 is not finite"):
        refine(content, content, style, Faulty(eye, 2), steps=3)
    broken = content.copy()
    broken[0, 0] = np.nan
    with pytest.raises(NotFiniteError, match="content loss is not finite"):
        refine(broken, content, style, eye, steps=3)


def test_loss_that_stops_being_finite_keeps_the_best(eye, style, caplog):
    content, losses = picture(32, 32), []
    out = refine(content, content, style, Faulty(eye, 6), steps=50, progress=lambda i, n, loss: losses.append(loss))
    assert (out.steps, out.interrupted) == (4, False)
    assert out.loss == min(losses)
    assert np.isfinite(out.pixels).all()
    assert "stopped being finite at step 4" in caplog.text


def test_budget_of_seconds(eye, style):
    ticks = iter(range(1000))
    content = picture(16, 16)
    out = refine(content, content, style, eye, steps=500, seconds=4, clock=lambda: float(next(ticks)))
    assert out.steps == 3  # the first look at the clock is at 0, then one second a step


def test_progress_and_previews(eye, style):
    content, steps, previews = picture(16, 16), [], []
    refine(content, content, style, eye, steps=24, progress=lambda i, n, loss: steps.append((i, n)), preview=previews.append)
    assert steps == [(i, 24) for i in range(25)]
    assert len(previews) == module.PREVIEWS + 1
    assert all(p.shape == (16, 16, 3) and p.dtype == np.float32 for p in previews)
    assert not np.shares_memory(previews[0], previews[1])


def test_pyramid_is_exact_and_stays_in_range():
    for shape in ((1, 3, 37, 22), (1, 3, 1, 9), (1, 3, 1, 1)):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        pyramid = module._Pyramid(x, 5)
        torch.testing.assert_close(pyramid.pixels(), x)
        pyramid.levels[-1].data[:, 0] += 0.9 / module._COLOURS[0, 0]  # light alone
        torch.testing.assert_close(pyramid.pixels(), x + 0.9)
        pyramid.project()
        torch.testing.assert_close(pyramid.pixels(), (x + 0.9).clamp(max=1))


def test_what_leads_out_of_the_range_moves_nothing():
    x = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, -1e-7, 1 + 1e-7])
    gradient = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])  # the way down is the other way
    assert module._inward(gradient, x).tolist() == [0, -1, 1, 1, 0, 0, 0]


def test_pyramid_reaches_a_palette_in_fewer_steps(eye):
    content, red = picture(64, 64), picture(64, 64) * np.array([1, 0.3, 0.3], np.float32)
    target = style_statistics(eye, [red])
    bare, pyramid = (refine(content, content, target, eye, steps=10, scales=n) for n in (1, 5))
    assert pyramid.loss < 0.97 * bare.loss


def test_flat_pictures_get_no_frame(eye):
    """Row and column sums of the gradient differ at a padded edge; what is painted must not."""
    content = np.full((40, 40, 3), 0.6, np.float32)
    style = style_statistics(eye, [np.full((40, 40, 3), (0.2, 0.5, 0.7), np.float32)])
    out = refine(content, content, style, eye, steps=90).pixels
    edge = np.concatenate([out[0], out[-1], out[:, 0], out[:, -1]]).mean(0)
    assert np.abs(edge - out[10:30, 10:30].mean((0, 1))).max() < 0.05


def test_statistics_are_those_of_the_features(eye):
    pixels = picture(32, 48)
    with torch.no_grad():
        taps = eye(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    for found, tap in zip(style_statistics(eye, [pixels]), taps, strict=True):
        expected = moments(tap[0].numpy())
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
        np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-4)


def test_statistics_are_pooled_with_equal_weight(eye):
    a, b = picture(32, 48), picture(64, 64, seed=2)
    pooled = style_statistics(eye, [a, b])
    expected = [mixture(pair, [1, 1]) for pair in zip(style_statistics(eye, [a]), style_statistics(eye, [b]), strict=True)]
    for p, e in zip(pooled, expected, strict=True):
        np.testing.assert_allclose(p.covariance, e.covariance)


def test_other_encoders():
    torch.manual_seed(1)
    net = Vgg("vgg16", ["relu1_2", "block2_conv1"]).eval().requires_grad_(False)
    content = picture(20, 20)
    style = style_statistics(net, [picture(24, 24, seed=3)])
    assert [m.mean.shape for m in style] == [(64,), (128,)]
    out = refine(content, content, style, net, steps=5)
    assert out.loss < refine(content, content, style, net, steps=0).loss


def test_auto_refines_on_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_for(d) for d in ("auto", "cuda", "cpu", "coreml")] == ["cuda", "cuda", "cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_for("auto") == "cpu"
    with pytest.raises(UsageError, match="--device cpu"):
        device_for("cuda")


def test_usage(eye, style):
    content = picture(16, 16)
    with pytest.raises(UsageError, match=r"one size; got \(16, 16\) and \(16, 17\)"):
        refine(content, picture(16, 17), style, eye, steps=1)
    with pytest.raises(UsageError, match=r"the content must have the shape \(H, W, 3\)"):
        refine(content, content[..., 0], style, eye, steps=1)
    with pytest.raises(UsageError, match="unknown style loss 'wassertein'; did you mean 'wasserstein'"):
        refine(content, content, style, eye, steps=1, style_loss="wassertein")
    with pytest.raises(UsageError, match="steps must be between"):
        refine(content, content, style, eye, steps=-1)
    for steps in (1.5, "2", None):
        with pytest.raises(UsageError, match=f"^steps must be a whole number; got {steps!r}$"):
            refine(content, content, style, eye, steps=steps)
    with pytest.raises(UsageError, match="tv weight must be between"):
        refine(content, content, style, eye, steps=1, tv_weight=float("nan"))
    with pytest.raises(UsageError, match="measure the style with this encoder"):
        refine(content, content, style[:3], eye, steps=1)
    with pytest.raises(UsageError, match="one picture at least"):
        style_statistics(eye, [])
