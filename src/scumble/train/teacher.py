"""The teacher networks: exact VGG-19 to relu3_1, and heads of a distilled one for relu4_1 and relu5_1, or for all five.

Their files are not part of the project; ``folder`` says where they are (``vgg19_to_relu3_4.safetensors`` and
``vgg19_sixteenth_to_relu5_1.safetensors``).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scumble.errors import InputError

PLAN = ("1_1", "1_2", "p", "2_1", "2_2", "p", "3_1", "3_2", "3_3", "3_4", "p", "4_1", "4_2", "4_3", "4_4", "p", "5_1")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():  # what safetensors raises then does not know the file
        raise InputError(f"no teacher networks in {path.parent}; --teacher must name a folder with {path.name}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or not a safetensors file ({error}); get a whole copy of it") from error


class Teacher(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> relu1_1 … relu5_1 of VGG-19, (N, 64 | 128 | 256 | 512 | 512, H / 2^(k-1), W / 2^(k-1)).

    The first three are exact, the last two as predicted by the distilled network; with ``exact=False`` all five are predicted, at
    a quarter of the cost. Frozen. Without ``padded`` the exact ones are a few pixels smaller and 15 % cheaper: enough for statistics.
    """

    mean: Tensor

    def __init__(self, folder: Path, *, exact: bool = True, padded: bool = True) -> None:
        super().__init__()
        self.exact, self.padded = exact, padded
        full = _read(folder / "vgg19_to_relu3_4.safetensors") if exact else {}
        small = _read(folder / "vgg19_sixteenth_to_relu5_1.safetensors")
        for prefix, tensors in (("exact", full), ("small", small)):
            for name, tensor in tensors.items():
                layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
                self.register_buffer(self._key(prefix, name), tensor.contiguous(memory_format=layout))
        self.register_buffer("mean", torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1))

    @staticmethod
    def _key(prefix: str, name: str) -> str:
        return f"{prefix}_{name.replace('.', '__')}"

    def _weights(self, prefix: str, layer: str) -> tuple[Tensor, Tensor]:
        w = getattr(self, self._key(prefix, f"{layer}.weight"))
        b = getattr(self, self._key(prefix, f"{layer}.bias"))
        return w, b

    def _run(self, prefix: str, x: Tensor, last: str) -> dict[str, Tensor]:
        taps: dict[str, Tensor] = {}
        for layer in PLAN:
            if layer == "p":
                x = F.max_pool2d(x, 2)
                continue
            if self.padded or prefix == "small":
                x = F.pad(x, (1, 1, 1, 1), mode="reflect")
            x = F.relu(F.conv2d(x, *self._weights(prefix, f"conv{layer}")))
            taps[layer] = x
            if layer == last:
                break
        return taps

    def first(self, x: Tensor) -> Tensor:
        """relu1_1 alone."""
        return self._run("exact", (x * 255 - self.mean).flip(1), "1_1")["1_1"]

    def deep(self, x: Tensor) -> list[Tensor]:
        """relu4_1 and relu5_1 alone."""
        return self._heads(x, ("4_1", "5_1"))

    def _heads(self, x: Tensor, layers: tuple[str, ...]) -> list[Tensor]:
        small = self._run("small", F.conv2d(x, *self._weights("small", "preprocess")), "5_1")
        return [F.relu(F.conv2d(small[n], *self._weights("small", f"head{n}"))) for n in layers]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        if not self.exact:
            return self._heads(x, ("1_1", "2_1", "3_1", "4_1", "5_1"))
        exact = self._run("exact", (x * 255 - self.mean).flip(1), "3_1")
        return [exact["1_1"], exact["2_1"], exact["3_1"], *self.deep(x)]
