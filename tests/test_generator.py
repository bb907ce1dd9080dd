import numpy as np
import pytest

from scumble.engine import GENERATOR_MARGIN, GENERATOR_MULTIPLE, Engine
from scumble.metrics import grid

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'scumble[torch]'")
F = torch.nn.functional
generator_module = pytest.importorskip("scumble.nets.generator")
Generator, UpConv, double = generator_module.Generator, generator_module.UpConv, generator_module.double

REACH = 67
"""With statistics frozen no output pixel sees further than this: 6 convolutions at an eighth are 48 of it, the finer levels the rest."""


def draw(*shape, seed=0, std=1.0):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(seed=0):
    torch.manual_seed(seed)
    return Generator().eval()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", threads=1)


@pytest.fixture(scope="module")
def modulation(engine):
    return engine.modulation(np.abs(np.random.default_rng(1).standard_normal(736)).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
def test_upconv_is_bilinear_doubling_and_a_convolution(shape):
    c_in, c_out = shape
    up, x = UpConv(c_in, c_out), draw(2, c_in, 9, 7)
    with torch.no_grad():
        up.bias.copy_(draw(c_out, seed=1))
        expected = F.conv2d(double(x), up.weight, up.bias, padding=1)
        got = up(x)
    assert got.shape == (2, c_out, 18, 14)
    torch.testing.assert_close(got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5, rtol=1e-5)


def test_upconv_sees_gradients():
    up = UpConv(2, 3)
    up(draw(1, 2, 4, 4)).square().sum().backward()
    assert up.weight.grad.abs().min() > 0
    assert up.bias.grad.abs().min() > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_flat_picture_gets_no_grid_whatever_the_weights(seed):
    g = net(seed)
    colour = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    x = colour.expand(1, 3, 256, 256)
    with torch.no_grad():
        painted = g.paint(x, draw(1, g.modulations, seed=seed))[0]
    inside = painted[0, :, 96:160, 96:160]  # farther from the border than the net reaches
    assert (inside.amax((1, 2)) - inside.amin((1, 2))).max() < 1e-4
    pixels = inside.permute(1, 2, 0).numpy()
    assert grid(pixels) == pytest.approx(1, abs=1e-3)


def test_the_shipped_weights_paint_a_flat_picture_without_a_grid(engine, modulation):
    painted = engine.paint(np.full((256, 256, 3), 0.4, np.float32), modulation)[0]
    assert grid(painted[96:160, 96:160]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (17, 23), (8, 8), (33, 64)])
def test_the_result_has_the_size_of_the_picture(engine, modulation, shape):
    pixels = noise(*shape)
    painted, statistics = engine.paint(pixels, modulation)
    assert painted.shape == pixels.shape
    assert painted.dtype == np.float32
    assert np.isfinite(painted).all()
    assert painted.min() >= 0
    assert painted.max() <= 1
    assert np.isfinite(statistics).all()


def test_margin_and_multiple_are_the_same_on_both_sides():
    assert (GENERATOR_MARGIN, GENERATOR_MULTIPLE) == (generator_module.MARGIN, generator_module.MULTIPLE)


def seams(paint, width):
    """``width`` columns painted in two overlapping tiles, cut where both have seen all that matters."""
    half, reach = width // 2, -(-REACH // 8) * 8
    return np.concatenate([paint(slice(0, half + reach))[:, :half], paint(slice(half - reach, width))[:, reach:]], axis=1)


def test_frozen_statistics_make_the_net_local():
    g, x, m = net(), torch.from_numpy(noise(64, 240)).permute(2, 0, 1)[None], None
    with torch.no_grad():
        m = draw(1, g.modulations, std=0.3)
        whole, statistics = g.paint(x, m)
        assert statistics.shape == (1, g.statistics)
        tiled = seams(lambda s: g.paint(x[..., s], m, statistics, 1.0)[0][0].permute(1, 2, 0).numpy(), 240)
        measured = seams(lambda s: g.paint(x[..., s], m)[0][0].permute(1, 2, 0).numpy(), 240)
    whole = whole[0].permute(1, 2, 0).numpy()
    assert np.abs(tiled - whole).max() < 1 / 255
    assert np.abs(measured - whole).max() > 1 / 255  # else this test shows nothing


def test_frozen_statistics_make_the_engine_local(engine, modulation):
    pixels = noise(64, 240) * np.linspace(0, 1, 240, dtype=np.float32)[:, None]
    whole, statistics = engine.paint(pixels, modulation)
    tiled = seams(lambda s: engine.paint(pixels[:, s], modulation, statistics)[0], 240)
    assert np.abs(tiled - whole).max() < 1 / 255


def test_freeze_is_a_share():
    g, x = net(), draw(1, 3, 32, 32)
    with torch.no_grad():
        m = draw(1, g.modulations, std=0.3)
        plain, measured = g.paint(x, m)
        other = g.paint(draw(1, 3, 32, 32, seed=1), m)[1]
        none, used = g.paint(x, m, other, 0.0)
        torch.testing.assert_close(none, plain)
        torch.testing.assert_close(used, measured)
        torch.testing.assert_close(g.paint(x, m, other, 1.0)[1], other)
        first = 2 * g.norms[0]  # before anything frozen has changed what later places see
        torch.testing.assert_close(g.paint(x, m, other, 0.5)[1][:, :first], (0.5 * (measured + other))[:, :first])


def test_it_is_small_and_cheap():
    g = net()
    assert sum(p.numel() for p in g.parameters()) <= 2.5e6
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        if isinstance(module, UpConv):  # its convolution runs before the shuffle: 9 taps for each number that comes out
            macs += output.numel() * 9 * inputs[0].shape[1]
        else:
            macs += output.numel() * module.weight[0].numel()

    for module in g.modules():
        if isinstance(module, (torch.nn.Conv2d, UpConv)):
            module.register_forward_hook(count)
    with torch.no_grad():
        g.paint(torch.zeros(1, 3, 64, 64), torch.zeros(1, g.modulations))
    assert 0 < macs / 64**2 <= 12_000


def test_every_parameter_learns():
    g = net()
    style = draw(2, g.shape.style).abs()
    g(torch.rand(2, 3, 32, 32), style).square().mean().backward()
    idle = [name for name, p in g.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # a bias before a normalisation is taken away again by its mean
    assert all(name.endswith("bias") for name in idle), idle


def test_the_style_reaches_the_picture():
    g, x = net(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        a, b = (g(x, draw(1, g.shape.style, seed=s).abs()) for s in (0, 1))
    assert (a - b).abs().mean() > 1e-3
