import numpy as np
import pytest

from scumble import finish
from scumble.engine import GENERATOR_MARGIN, GENERATOR_MULTIPLE, GENERATOR_REACH, GENERATOR_RING, Engine
from scumble.metrics import grid
from scumble.style import Style

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'scumble[torch]'")
F = torch.nn.functional
generator_module = pytest.importorskip("scumble.nets.generator")
Generator, UpConv = generator_module.Generator, generator_module.UpConv
double, shuffle = generator_module.double, generator_module.shuffle


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
        got = F.pixel_shuffle(up(x), 2)
    assert got.shape == (2, c_out, 18, 14)
    torch.testing.assert_close(got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5, rtol=1e-5)


def test_upconv_takes_kernels_for_each_picture():
    up, x = UpConv(2, 3), draw(2, 2, 9, 7)
    with torch.no_grad():
        up.bias.copy_(draw(3, seed=1))
        own = draw(2, up.weight.numel(), seed=2)
        together = up(x, own)
        for i in range(2):
            up.weight.copy_(own[i].reshape(up.weight.shape))
            torch.testing.assert_close(together[i : i + 1], up(x[i : i + 1]))


def test_upconv_sees_gradients():
    up = UpConv(2, 3)
    up(draw(1, 2, 4, 4)).square().sum().backward()
    assert up.weight.grad.abs().min() > 0
    assert up.bias.grad.abs().min() > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_flat_picture_gets_no_grid_whatever_the_weights(seed):
    g = net(seed).double()  # in single precision normalisations make a pattern of what the bilinear filter's sums are rounded by
    colour = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    x = colour.expand(1, 3, 256, 256).double()
    with torch.no_grad():
        painted = g.paint(x, draw(1, g.modulations, seed=seed).double())[0]
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


def test_what_the_engine_knows_of_the_net_is_so(engine):
    module = generator_module
    assert (GENERATOR_MARGIN, GENERATOR_MULTIPLE, GENERATOR_REACH) == (module.MARGIN, module.MULTIPLE, module.REACH + finish.REACH)
    assert module.RING == GENERATOR_RING
    assert engine.norms == net().norms
    assert engine.modulations == net().modulations


def test_shuffle_is_pixel_shuffle():
    x = draw(2, 12, 5, 3)
    torch.testing.assert_close(shuffle(x), F.pixel_shuffle(x, 2), atol=0, rtol=0)


@torch.no_grad()
def test_cells_are_the_picture_and_a_ring_is_seen_alone():
    g, x = net(), draw(1, 3, 80, 96)
    modulation = g.modulation(draw(1, 736))
    whole, statistics = g.paint(x, modulation)
    cells, same = g.paint(F.pad(x, (1, 1, 1, 1), mode="replicate"), modulation, shuffled=False, ringed=True)
    torch.testing.assert_close(F.pixel_shuffle(cells, 2), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same, statistics)


@pytest.mark.parametrize("name", ["irises", "great-wave"])
def test_what_is_flat_gets_no_frame(engine, name):
    """Zeros around features were an edge, and to a picture that has none of its own the only one."""
    modulation = Style.named(name).modulation(engine)
    painted, _ = engine.paint(np.full((160, 208, 3), 0.5, np.float32), modulation)
    assert np.ptp(painted, axis=(0, 1)).max() < 2 / 255
    product = np.ones((256, 320, 3), np.float32)
    product[70:190, 110:210] = (0.8, 0.15, 0.2)
    painted, _ = engine.paint(product, modulation)
    ground = np.median(painted[:, :40], axis=(0, 1))
    for side in (painted[:, :6], painted[:, -6:], painted[:6], painted[-6:]):
        assert np.abs(side - ground).mean() < 13 / 255


def test_fine_detail_is_what_a_blur_takes_away():
    g, x = net(), draw(1, 3, 16, 16)
    blur = torch.tensor([0.25, 0.5, 0.25])
    kernel = (blur[:, None] * blur).expand(3, 1, 3, 3)
    expected = x - F.conv2d(x, kernel, padding=1, groups=3)
    torch.testing.assert_close(F.pixel_shuffle(F.conv2d(x, g.fine, stride=2, padding=1), 2), expected, atol=1e-6, rtol=1e-5)


def test_the_padding_does_not_show_at_the_border(engine, modulation):
    pixels = noise(160, 192) * np.linspace(0.2, 1, 192, dtype=np.float32)[:, None]
    more = 64  # mirrored beyond what the engine mirrors
    wide = np.pad(pixels, ((more, more), (more, more), (0, 0)), "symmetric")
    painted, statistics = engine.paint(pixels, modulation)
    far = engine.paint(wide, modulation, statistics)[0][more:-more, more:-more]
    difference = np.abs(painted - far).mean(2)
    rim = np.concatenate([difference[:4].ravel(), difference[-4:].ravel(), difference[:, :4].ravel(), difference[:, -4:].ravel()])
    assert rim.mean() < 1 / 255
    assert rim.max() < 8 / 255


@torch.no_grad()
def test_no_pixel_sees_farther_than_the_reach():
    g, size = net(), 2 * generator_module.REACH + 48
    m, x = draw(1, g.modulations, std=0.3), torch.rand(1, 3, 16, size)
    whole, statistics = g.paint(x, m)
    left = size // 2 - 8
    y = x.clone()
    y[..., left : left + 16] = 1 - y[..., left : left + 16]
    changed = (g.paint(y, m, statistics, 1.0)[0] - whole).abs().amax((0, 1, 2))
    beyond = torch.cat([changed[: left - generator_module.REACH], changed[left + 16 + generator_module.REACH :]])
    assert beyond.numel() > 0
    assert beyond.max() < 1e-5
    assert changed[left - 32] > 1e-5, "else the test shows nothing"


def test_statistics_are_those_of_the_window(engine, modulation):
    pixels = noise(64, 96)
    pixels[:, 48:] *= 0.3
    first = 2 * engine.norms[0]
    part = engine.paint(pixels, modulation, inside=(0, 64, 0, 48))[1][:first]
    rest = engine.paint(pixels, modulation, inside=(0, 64, 48, 96))[1][:first]
    whole = engine.paint(pixels, modulation)[1][:first]
    c = engine.norms[0]
    mean = (part[:c] + rest[:c]) / 2
    np.testing.assert_allclose(mean, whole[:c], atol=1e-5)
    second = (part[c:] + part[:c] ** 2 + rest[c:] + rest[:c] ** 2) / 2
    np.testing.assert_allclose(second - mean**2, whole[c:], atol=1e-5)
    assert np.abs(part - rest).max() > 1e-3


def seams(paint, width, reach):
    """``width`` columns painted in two overlapping tiles, cut where both have seen all that matters."""
    half = width // 2
    return np.concatenate([paint(slice(0, half + reach))[:, :half], paint(slice(half - reach, width))[:, reach:]], axis=1)


def test_frozen_statistics_make_the_net_local():
    g, x, m = net(), torch.from_numpy(noise(64, 480)).permute(2, 0, 1)[None], None
    with torch.no_grad():
        m = draw(1, g.modulations, std=0.3)
        whole, statistics = g.paint(x, m)
        assert statistics.shape == (1, g.statistics)
        tiled = seams(lambda s: g.paint(x[..., s], m, statistics, 1.0)[0][0].permute(1, 2, 0).numpy(), 480, generator_module.REACH)
        measured = seams(lambda s: g.paint(x[..., s], m)[0][0].permute(1, 2, 0).numpy(), 480, generator_module.REACH)
    whole = whole[0].permute(1, 2, 0).numpy()
    assert np.abs(tiled - whole).max() < 1 / 255
    assert np.abs(measured - whole).max() > 1 / 255  # else this test shows nothing


@pytest.mark.parametrize("wide", [False, True])
def test_frozen_statistics_make_the_engine_local(engine, wide):
    width = 2 * GENERATOR_REACH + 160  # and high enough for the finish's coarsest scale
    pixels = noise(144, width) * np.linspace(0, 1, width, dtype=np.float32)[:, None]
    modulation = Style.named("great-wave").modulation(engine, wide=wide)
    whole, statistics = engine.paint(pixels, modulation)
    tiled = seams(lambda s: engine.paint(pixels[:, s], modulation, statistics)[0], width, GENERATOR_REACH)
    assert np.abs(tiled - whole).max() < 1 / 255


def test_freeze_is_a_share():
    g, x = net(), draw(1, 3, 32, 32)
    with torch.no_grad():
        m = draw(1, g.modulations, std=0.3)
        plain, measured = g.paint(x, m)
        other = g.paint(draw(1, 3, 32, 32, seed=1), m)[1]
        none, used = g.paint(x, m, other, 0.0)
        shares = torch.zeros(g.statistics)
        shares[: 2 * g.norms[0]] = 1
        mixed = g.paint(x, m, other, shares)[1]
        torch.testing.assert_close(mixed[:, : 2 * g.norms[0]], other[:, : 2 * g.norms[0]])
        torch.testing.assert_close(none, plain)
        torch.testing.assert_close(used, measured)
        torch.testing.assert_close(g.paint(x, m, other, 1.0)[1], other, rtol=1e-5, atol=1e-4)
        first = 2 * g.norms[0]  # before anything frozen has changed what later places see
        torch.testing.assert_close(g.paint(x, m, other, 0.5)[1][:, :first], (0.5 * (measured + other))[:, :first])


def test_it_is_small_and_cheap():
    g = net()
    assert sum(p.numel() for p in g.parameters()) <= 2.5e6
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    for module in g.modules():
        if isinstance(module, (torch.nn.Conv2d, UpConv)):
            module.register_forward_hook(count)
    with torch.no_grad():
        g.paint(torch.zeros(1, 3, 64, 64), torch.zeros(1, g.modulations))
    # matrix products, which no hook sees
    mixing = sum(o * i * 64**2 // (64 if o == g.shape.eighth else 16) for o, i in g.matrices)
    mixing += g.up8.weight.numel() * 8**2 + g.up4.weight.numel() * 16**2
    assert 0 < (macs + mixing) / 64**2 <= 4_000


def test_every_parameter_learns():
    g = net()
    style = draw(2, g.shape.style).abs()
    torch.nn.init.normal_(g.beyond[1].weight, std=0.01)  # at 0, what lies before it learns from the second step on
    g.paint(torch.rand(2, 3, 32, 32), g.modulation(style, beyond=0.5, missed=style))[0].square().mean().backward()
    idle = [name for name, p in g.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # a bias before a normalisation is taken away again by its mean
    assert all(name.endswith("bias") for name in idle), idle


def test_the_style_makes_kernels():
    g, style = net(), None
    with torch.no_grad():
        style = draw(2, g.shape.style).abs()
        before = g.modulation(style)
        g.kernels[-1].mul_(2)
        moved = (g.modulation(style) - before).abs()
    at = -3 - g.touch2.weight.numel()
    assert (moved[:, at:-3] > 0).float().mean() > 0.99
    assert moved[:, :at].max() == 0
    assert (before[0, at:-3] - before[1, at:-3]).abs().max() > 0


def test_features_beyond_the_limit_are_counted():
    g, x = net(), torch.full((1, 3, 256, 256), 0.5)
    m = torch.zeros(1, g.modulations)
    spike = x.clone()
    spike[..., 100:104, 100:104] = 0
    with torch.no_grad():
        within, beyond = [], []
        g.paint(torch.rand(1, 3, 64, 64), m, excess=within)
        g.paint(spike, m, excess=beyond)  # a normalised impulse: one place far from the mean, all others near it
    assert len(within) == len(beyond) == len(g.norms)
    assert within[0] == 0
    assert beyond[0] > 0.01


def test_the_style_reaches_the_picture():
    g, x = net(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        a, b = (g(x, draw(1, g.shape.style, seed=s).abs()) for s in (0, 1))
    assert (a - b).abs().mean() > 1e-3
