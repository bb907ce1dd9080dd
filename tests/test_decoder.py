import numpy as np
import pytest

from scumble.engine import Engine
from scumble.weights import weight_path

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'scumble[torch]'")

from safetensors.torch import load_file  # noqa: E402

from scumble.nets.decoder import Decoder  # noqa: E402
from scumble.nets.eye import WIDTHS, Eye  # noqa: E402


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return Decoder().eval()


@torch.no_grad()
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_a_block_undoes_one_step_of_the_eye(decoder, level):
    torch.manual_seed(1)
    taps = Eye()(draw(1, 3, 32, 48))
    above = decoder.block(level)(taps[level - 1])
    expected = taps[level - 2].shape if level > 1 else (1, 3, 32, 48)
    assert above.shape == expected
    assert level == 1 or above.min() >= 0  # a tap, after its rectifier; pixels are not clipped


@torch.no_grad()
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_chain_leads_from_any_level_to_pixels(decoder, level):
    x = draw(2, WIDTHS[level - 1], 3, 2)
    assert decoder(x, level).shape == (2, 3, 3 * 2 ** (level - 1), 2 * 2 ** (level - 1))


def convolutions(module):
    return [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_a_block_is_the_eyes_mirrored(decoder, level):
    there = [(c.in_channels, c.out_channels) for c in convolutions(getattr(Eye(), f"block{level}"))]
    back = [(c.out_channels, c.in_channels) for c in convolutions(decoder.block(level))]
    assert back[::-1] == there


@torch.no_grad()
def test_it_starts_at_middle_grey(decoder):
    dark = decoder.block(1)(torch.zeros(1, WIDTHS[0], 4, 4))
    torch.testing.assert_close(dark, torch.full_like(dark, 0.45))


@torch.no_grad()
def test_blocks_are_local(decoder):
    # a pixel of the tap above sees at most 1 + ⌈3 / 2⌉ features each way (level 5: one convolution, doubling, three more)
    x = draw(1, WIDTHS[4], 9, 9)
    y = x.clone()
    y[..., 0, 0] += 1
    changed = (decoder.block(5)(x) - decoder.block(5)(y)).abs().amax((0, 1)) > 0
    assert changed.any()
    assert not changed[8:].any()
    assert not changed[:, 8:].any()


def test_every_parameter_learns():
    torch.manual_seed(0)
    decoder = Decoder()
    decoder(draw(1, WIDTHS[4], 4, 4)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in decoder.parameters())


@torch.no_grad()
def test_the_engine_runs_the_same_chain():
    stored = Decoder().eval()
    stored.load_state_dict({k: v.float() for k, v in load_file(weight_path("decoder.safetensors")).items()})
    engine, features = Engine("cpu", threads=1), draw(1, WIDTHS[4], 3, 2)
    x = features[0].numpy()
    for level in (5, 4, 3, 2, 1):
        x = engine.decode(level, x)
    expected = stored(features)[0].numpy()
    assert x.shape == (3, 48, 32)
    np.testing.assert_allclose(x, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
