"""The eye: a small perceptual network in the shape of VGG-19, distilled to see what VGG-19 sees.

It has VGG-19's layers up to conv5_1 at a quarter of the width or less (Simonyan & Zisserman 2014; distillation of
perceptual encoders after Wang et al. 2020, Collaborative Distillation). Its five taps carry the statistics that make a
:class:`~scumble.style.Style` and are the features in which losses are measured.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
WIDTHS = (16, 32, 64, 128, 128)
TEACHER_WIDTHS = (64, 128, 256, 512, 512)


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    """3×3 convolution, same size. Borders are replicated, not reflected: reflection needs two pixels, and pictures of one exist."""
    return nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="replicate")


class Eye(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> relu1_1 … relu5_1, (N, C_k, H / 2^(k-1), W / 2^(k-1)); 0.8 M parameters.

    Pooling drops odd rows and columns, so callers that need exact geometry pad H and W to a multiple of 16.
    """

    reach = 85
    """No feature depends on a pixel farther away from its own pixels than this."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = widths
        self.widths = tuple(widths)
        # block k runs from after tap k-1 to tap k; the pooling stands where VGG-19 has it
        self.block1 = nn.ModuleList([conv3(3, w1)])
        self.block2 = nn.ModuleList([conv3(w1, w1), conv3(w1, w2)])
        self.block3 = nn.ModuleList([conv3(w2, w2), conv3(w2, w3)])
        self.block4 = nn.ModuleList([conv3(w3, w3), conv3(w3, w3), conv3(w3, w3), conv3(w3, w4)])
        self.block5 = nn.ModuleList([conv3(w4, w4), conv3(w4, w4), conv3(w4, w4), conv3(w4, w5)])
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, x: Tensor, depth: int = 5) -> list[Tensor]:
        """The first ``depth`` taps."""
        return [tap for _, tap in self.blocks(x, depth)]

    def blocks(self, x: Tensor, depth: int = 5) -> list[tuple[Tensor, Tensor]]:
        """What the last convolution of each of the first ``depth`` blocks sees, and its tap; one size both."""
        out: list[tuple[Tensor, Tensor]] = []
        for k in range(1, depth + 1):
            out.append(self._block(k, x))
            x = out[-1][1]
        return out

    def block(self, k: int, x: Tensor) -> Tensor:
        """The k-th tap alone, of the one before it; of pixels for 1."""
        return self._block(k, x)[1]

    def _block(self, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
        *convs, last = getattr(self, f"block{k}")
        if k == 1:
            x = (x - 0.45) * 4.0
        for conv in convs:
            x = F.relu(conv(x))
        if k > 1:
            x = F.max_pool2d(x, 2)
        return x, F.relu(last(x))


class Heads(nn.Module):
    """1×1 convolutions that predict the teacher's (normalised VGG-19's) channels from taps."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, teacher: tuple[int, ...] = TEACHER_WIDTHS) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in zip(widths, teacher, strict=True)])

    def forward(self, taps: list[Tensor]) -> list[Tensor]:
        return [F.relu(h(t)) for h, t in zip(self.heads, taps, strict=False)]
