"""The loss of a refinement and its gradient: in tiles and whole they are what autograd makes of the losses themselves."""

import copy
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scumble.errors import UsageError
from scumble.nets.eye import Eye
from scumble.nets.losses import STYLE_DISTANCES, STYLE_LOSSES, Statistics, content_loss, structure_loss, total_variation
from scumble.nets.objective import ROOT_FLOOR, Objective, padded
from scumble.nets.refine import refine, style_statistics
from scumble.nets.sight import Connoisseur, Critic, Sight
from scumble.nets.vgg import Vgg
from scumble.windows import Window

WEIGHTS = (0.5, 1.0, 0.2, 0.7)
"""Of content, style, total variation and structure."""


@pytest.fixture(scope="module")
def eye():
    torch.manual_seed(0)
    return Eye().eval().requires_grad_(False)


def picture(height, width, seed=0):
    """Waves of all lengths, dark on one side: tiles differ in all their statistics."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / 60
    out = sum(np.sin(f * (x * np.cos(a) + y * np.sin(a)) + b) / f**0.5 for f, a, b in rng.uniform(0.5, 9, (9, 3, 3)))
    out = out + np.linspace(0, 4, width)[:, None]
    return ((out - out.min()) / (out.max() - out.min())).astype(np.float32)


def tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def double(encoder):
    return copy.deepcopy(encoder).double()


def by_autograd(encoder, x, content, style, name, level=3):
    """Total, parts and gradient as the losses' own definitions give them."""
    x = x.clone().requires_grad_()
    taps = encoder(padded(x))
    parts = [loss(taps[level], encoder(padded(content))[level]) for loss in (content_loss, structure_loss)]
    for tap, target in zip(taps, style, strict=False):
        parts.append((STYLE_LOSSES[name](tap, Statistics.from_moments(target, dtype=x.dtype)).clamp_min(0) + ROOT_FLOOR).sqrt())
    parts.append(total_variation(x))
    total = WEIGHTS[0] * parts[0] + WEIGHTS[1] * torch.stack(parts[2:-1]).mean() + WEIGHTS[2] * parts[-1] + WEIGHTS[3] * parts[1]
    total.backward()
    return total.item(), [p.item() for p in parts], x.grad


def objective(encoder, content, style, name="wasserstein", tile=None, level=3, **settings):
    made = Objective(encoder, tensor(content).to(next(encoder.parameters())), style, name, level, WEIGHTS, **settings)
    if tile is not None:
        made.tile = tile
    return made


def assert_same(found, expected):
    total, parts, gradient = expected
    assert found.total == pytest.approx(total, rel=1e-4)
    assert list(found.terms.values()) == pytest.approx(parts, rel=1e-4, abs=1e-6)
    # in float64, where no rounding decides which pixel of a pool is the largest: there the gradient jumps
    assert (found.gradient - gradient).norm() <= 1e-6 * gradient.norm()
    assert (found.gradient - gradient).abs().max() <= 1e-6 * gradient.abs().max()


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from([1, 5, 31, 64, 70]),
    st.sampled_from([33, 290, 331]),
    st.sampled_from([48, 96, sys.maxsize]),
    st.integers(0, 40),
    st.sampled_from(list(STYLE_LOSSES)),
)
def test_loss_and_gradient_are_autograds_tiled_or_whole(eye, height, width, tile, step, name):
    content, style = picture(height, width), style_statistics(eye, [picture(64, 80, seed=3)])
    x = tensor(picture(height, width, seed=1)).double()
    found = objective(double(eye), content, style, name, tile)(x, step)
    assert_same(found, by_autograd(double(eye), x, tensor(content).double(), style, name))


@pytest.mark.parametrize("tile", [48, sys.maxsize])
def test_a_tap_for_layout_alone(tile):
    torch.manual_seed(0)
    critic = Critic(Sight()).eval().requires_grad_(False)
    content, style = picture(70, 290), style_statistics(critic, [picture(64, 80, seed=3)])[:5]
    x = tensor(picture(70, 290, seed=1)).double()
    found = objective(double(critic), content, style, tile=tile, level=critic.layout)(x, 2)
    assert_same(found, by_autograd(double(critic), x, tensor(content).double(), style, "wasserstein", critic.layout))


def test_single_precision_is_enough(eye):
    content, style = picture(70, 331), style_statistics(eye, [picture(64, 80, seed=3)])
    x = tensor(picture(70, 331, seed=1))
    gradient = by_autograd(double(eye), x.double(), tensor(content).double(), style, "wasserstein")[2]
    for tile in (48, sys.maxsize):
        found = objective(eye, content, style, tile=tile)(x)
        assert (found.gradient - gradient).norm() <= 1e-2 * gradient.norm()


@pytest.mark.parametrize("layers", [["relu1_1", "relu4_1"], ["conv1_2", "relu2_1", "relu3_1", "pool5"]])
def test_other_encoders_in_tiles(layers):
    torch.manual_seed(1)
    net = Vgg("vgg16", layers).eval().requires_grad_(False)
    level = min(3, len(layers) - 1)
    content, style = picture(48, 250), style_statistics(net.float(), [picture(64, 64, seed=3)])
    x = tensor(picture(48, 250, seed=1)).double()
    net.double()
    found = objective(net, content, style, "moments", 96)(x, 3)
    assert_same(found, by_autograd(net, x, tensor(content).double(), style, "moments", level))


def test_a_tiles_own_statistics_would_be_wrong(eye):
    # the property above must be able to fail
    content, style = picture(64, 290), style_statistics(eye, [picture(64, 80, seed=3)])
    x = tensor(picture(64, 290, seed=1))
    whole = by_autograd(eye, x, tensor(content), style, "wasserstein")[2]
    part = by_autograd(eye, x[..., :192], tensor(content)[..., :192], style, "wasserstein")[2]
    assert (part[..., :96] * 192 / 290 - whole[..., :96]).norm() > 0.1 * whole[..., :96].norm()


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_distances_of_statistics_are_the_losses(name):
    features = torch.randn(1, 4, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = Statistics.measure(features.flip(1) * 1.5 + 0.2)
    torch.testing.assert_close(STYLE_DISTANCES[name](Statistics.measure(features), target), STYLE_LOSSES[name](features, target))


@pytest.mark.parametrize(
    "net",
    [Eye(), Critic(Sight()), Connoisseur(Sight()), Vgg("vgg19"), Vgg("vgg16", ["pool2"])],
    ids=["eye", "critic", "connoisseur", "vgg19", "pool2"],
)
def test_encoders_see_no_farther_than_they_say(net):
    net = net.eval().requires_grad_(False)
    a = tensor(picture(16, 416))
    b = a.clone()
    middle = Window(0, 16, 192, 224)
    b[..., : middle.left - net.reach] = 0.5
    b[..., middle.right + net.reach :] = 0.5
    for one, other in zip(net(a), net(b), strict=True):
        s = 416 // one.shape[3]
        same = (slice(None), slice(None), slice(None), slice(middle.left // s, middle.right // s))
        torch.testing.assert_close(one[same], other[same], rtol=1e-5, atol=1e-6)


def test_seams_are_elsewhere_at_each_step(eye):
    made = objective(eye, picture(400, 500), style_statistics(eye, [picture(48, 48)]), tile=128)
    cuts = [({t.top for t in made._tiles(k)} - {0}, {t.left for t in made._tiles(k)} - {0}) for k in range(100)]
    for a, b in itertools.pairwise(cuts):
        assert not a[0] & b[0]
        assert not a[1] & b[1]
    assert all(edge % 16 == 0 for rows, columns in cuts for edge in rows | columns)
    assert len(set().union(*(rows for rows, _ in cuts))) == 400 // 16 - 1  # nowhere more often than elsewhere


def test_memory_decides_on_the_tiles(eye):
    content, style = picture(300, 400), style_statistics(eye, [picture(48, 48)])
    assert objective(eye, content, style).tile == objective(eye, content, style, memory=1e9).tile == sys.maxsize
    assert objective(eye, content, style, memory=1.4e8).tile == 128
    with pytest.raises(UsageError, match=r"refining 400 x 300 pixels takes 1\d\d MB at the least; it has 100 MB: raise it with --memory"):
        objective(eye, content, style, memory=1e8)


class Forgetful(nn.Module):
    """An encoder that has memory for so many pixels at once."""

    def __init__(self, encoder, pixels, error):
        super().__init__()
        self.encoder, self.most, self.error, self.refused = encoder, pixels, error, 0
        self.reach = encoder.reach

    def forward(self, x):
        if x.shape[2] * x.shape[3] > self.most:
            self.refused += 1
            raise self.error
        return self.encoder(x)


CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)


@pytest.mark.parametrize("error", [CPU, torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["cpu", "cuda", "python"])
def test_out_of_memory_halves_the_tile_and_says_so_once(eye, caplog, error):
    content, style = picture(48, 900), style_statistics(eye, [picture(48, 48)])
    poor = Forgetful(eye, 48 * 600, error)
    out = refine(picture(48, 900, seed=1), content, style, poor, steps=2, bfloat16=False)
    whole = refine(picture(48, 900, seed=1), content, style, eye, steps=2, bfloat16=False)
    assert poor.refused == 2  # 900 and 450 pixels with their overlap; never again
    assert np.abs(out.pixels - whole.pixels).mean() <= 0.1 / 255
    assert len([r for r in caplog.records if "out of memory" in r.message]) == 1
    with pytest.raises(MemoryError, match="128 pixels"):
        refine(content, content, style, Forgetful(eye, 128 * 128, error), steps=2)


def test_other_errors_are_not_taken_for_too_little_memory(eye):
    content = picture(48, 400)
    with pytest.raises(RuntimeError, match="shape"):
        refine(content, content, style_statistics(eye, [content]), Forgetful(eye, 128 * 128, RuntimeError("shape")), steps=2)


def test_a_refinement_in_tiles_has_no_seams(eye):
    content = picture(200, 420)
    style = style_statistics(eye, [picture(90, 90, seed=3)])
    whole = refine(content, content, style, eye, steps=6)
    steps = 6
    tiled = refine(content, content, style, eye, steps=steps, memory=1.7e8)
    cuts = {t.left for k in range(steps) for t in objective(eye, content, style, tile=128)._tiles(k)} - {0}
    assert len(cuts) > steps
    assert tiled.loss == pytest.approx(whole.loss, rel=1e-3)
    assert np.abs(tiled.pixels - whole.pixels).mean() <= 0.1 / 255
    change = tiled.pixels - whole.pixels
    jumps = np.abs(np.diff(change, axis=1)).mean((0, 2))
    at_cuts = np.isin(np.arange(1, 420), list(cuts))
    assert jumps[at_cuts].mean() <= 1.5 * jumps[~at_cuts].mean() + 1e-5


MEASURE = """
import numpy as np, torch
torch.set_num_threads(1)
from scumble.nets.refine import refine, style_statistics
from scumble.nets.sight import Critic, Sight
from scumble.nets.vgg import load_encoder
eye = load_encoder("eye")
pixels = np.random.default_rng(0).random((800, 800, 3), dtype=np.float32)
style = style_statistics(eye, [pixels[:64, :64]])
refine(pixels[:64, :64], pixels[:64, :64], style, eye, steps=1)
def status(key):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
refine(pixels, pixels, style, eye, steps=1, memory={memory})
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux' /proc")
def test_the_budget_of_memory_is_kept():
    def peak(memory):
        run = subprocess.run([sys.executable, "-c", MEASURE.format(memory=memory)], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert peak(3.5e8) <= 3.5e8 < peak(None)
