"""Sight: what the eye sees, completed to what VGG-19 sees.

The eye's own channels are what styles are measured in and what every other net was trained for, so they stay as they are. But they are too
few to tell VGG-19's features at depth, and a picture that is optimised against them keeps its content in their view alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scumble import errors
from scumble.nets.eye import LEVELS, WIDTHS, Eye, Heads, conv3
from scumble.nets.vgg import EYE_WEIGHTS, frozen, load_encoder, read_weights

BESIDE = (64, 96, 64)
"""Channels beside the eye's own at relu3_1, relu4_1 and relu5_1."""
SIGHT_WEIGHTS = EYE_WEIGHTS.with_name("sight.safetensors")


class Beside(nn.Module):
    """Channels beside the eye's at relu3_1, relu4_1 and relu5_1, made of those and of what the eye's own are made of; 0.48 M parameters."""

    def __init__(self, eye: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        _, w2, w3, w4, _ = eye
        n3, n4, n5 = BESIDE
        # a level's first convolutions run on the tap before, at its size; the last one after the pooling, beside the eye's own
        self.first = nn.ModuleList(
            [
                nn.Sequential(conv3(w2, 48), nn.ReLU()),
                nn.Sequential(conv3(w3 + n3, 64), nn.ReLU(), conv3(64, 64), nn.ReLU()),
                nn.Sequential(conv3(w4 + n4, 48), nn.ReLU()),
            ]
        )
        self.last = nn.ModuleList([conv3(w2 + 48, n3), conv3(w3 + 64, n4), conv3(w4 + 48, n5)])
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, blocks: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The eye's :meth:`~Eye.blocks`, three to five of them -> as many taps, from the third on the eye's channels and these."""
        taps = [tap for _, tap in blocks]
        for k, (before, tap) in enumerate(blocks[2:]):
            x = self.first[k](taps[k + 1])
            x = torch.cat([before, F.max_pool2d(x, 2)], 1)
            taps[k + 2] = torch.cat([tap, F.relu(self.last[k](x))], 1)
        return taps


class Sight(nn.Module):
    """The eye with channels beside its own and heads: RGB in [0, 1], (N, 3, H, W) -> relu1_1 … relu5_1 of the normalised VGG-19.

    (N, 64 | 128 | 256 | 512 | 512, H / 2^(k-1), W / 2^(k-1)), as predicted. ``eye`` is not one of its weights to be trained or saved.
    """

    reach = Eye.reach

    def __init__(self, eye: Eye | None = None) -> None:
        super().__init__()
        self.eye = (eye or Eye()).requires_grad_(False)
        self.beside = Beside(self.eye.widths)
        self.heads = Heads(tuple(w + n for w, n in zip(self.eye.widths, (0, 0, *BESIDE), strict=True)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.heads(self.beside(self.eye.blocks(x)))

    def own(self) -> dict[str, Tensor]:
        """Its weights but for the eye's."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("eye.")}


class Critic(nn.Module):
    """What a painting is judged in where a style is known by the eye alone: five taps, its own, and then relu4_1 as a :class:`Sight`
    predicts it, for layout.

    By VGG-19, pictures optimised so keep their content better by a sixth than in the eye's relu4_1.
    """

    layout = 5
    style_loss = "wasserstein"
    reach = Eye.reach

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = sight

    def forward(self, x: Tensor) -> list[Tensor]:
        blocks = self.sight.eye.blocks(x)
        return [*(tap for _, tap in blocks), self._predicted(self.sight.beside(blocks[:4]))]

    def layout_of(self, x: Tensor) -> Tensor:
        """The last one alone, (N, 512, H / 8, W / 8)."""
        return self._predicted(self.sight.beside(self.sight.eye.blocks(x, 4)))

    def _predicted(self, taps: list[Tensor]) -> Tensor:
        return F.relu(self.sight.heads.heads[3](taps[3]))


class Connoisseur(nn.Module):
    """What a painting is judged in where the style's picture is at hand: relu3_1, relu4_1 and relu5_1 of VGG-19 as a :class:`Sight`
    predicts them, which say most of a style, and the eye's own relu1_1 and relu2_1, which tell the same as VGG-19's in a quarter
    of the channels.

    VGG-19's count for as much as they are strong there, so means and second moments do for a loss.
    """

    style_loss = "mean_moments"
    reach = Eye.reach
    layers = LEVELS

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = sight

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = self.sight.beside(self.sight.eye.blocks(x))
        return [*taps[:2], *(F.relu(head(tap)) for head, tap in zip(self.sight.heads.heads[2:], taps[2:], strict=True))]


def load_sight(device: str | torch.device = "cpu", *, weights: Path = SIGHT_WEIGHTS, eye: Path = EYE_WEIGHTS) -> Sight:
    """The eye with all that predicts VGG-19's features, frozen, from files as :func:`scumble.train.export.export_sight` writes them.

    InputError if those can't be had, or ``weights`` belong to another eye.
    """
    seeing = load_encoder("eye", weights=eye)
    assert isinstance(seeing, Eye)
    sight = Sight(seeing)
    wanted = sight.own()
    found = read_weights(weights, wanted)
    if any(k not in found or found[k].shape != v.shape for k, v in wanted.items()):
        raise errors.InputError(f"{weights} does not hold the sight's weights")
    sight.load_state_dict(dict(found), strict=False)
    return frozen(sight, device)
