"""VGG-16 and VGG-19 (Simonyan & Zisserman 2014) as feature networks, by the layer names of the field.

Three ways to say where to look, and what each means:

- ``relu4_1``: after the rectifier, as Gatys et al. 2016 and most papers do;
- ``conv4_1``: the same layer before its rectifier;
- ``block4_conv1``, ``block4_pool``: Keras' names. In Keras the convolution contains its rectifier, so ``block4_conv1`` is ``relu4_1``.

The weights are torchvision's (keys ``features.N.weight``). They are not part of Scumble: their training set's terms are for
the user to weigh, and the eye does the job in a hundredth of the size.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scumble import errors
from scumble.fetch import Report, fetch
from scumble.nets.eye import LEVELS, Eye

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks."""
WIDTHS = (64, 128, 256, 512, 512)
SOURCES = {
    "vgg16": (
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "vgg19": (
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    ),
}
"""torchvision's ImageNet weights (address, SHA-256), 553 and 575 MB with the classifier that is not used here."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB values, as torchvision normalises them."""
EYE_WEIGHTS = Path(__file__).parent.parent / "weights" / "eye.safetensors"

Module = TypeVar("Module", bound=nn.Module)
Pooling = Literal["max", "average"]
Padding = Literal["replicate", "zeros"]


def layer_names(architecture: str) -> list[str]:
    """``conv1_1``, ``relu1_1``, … ``pool5``: the place in the list is torchvision's number of the layer."""
    if architecture not in CONVOLUTIONS:
        raise errors.UsageError(errors.unknown("architecture", architecture, CONVOLUTIONS))
    names: list[str] = []
    for block, n in enumerate(CONVOLUTIONS[architecture], start=1):
        for i in range(1, n + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return names


def resolve_layer(architecture: str, name: str) -> str:
    """The ``convB_I``, ``reluB_I`` or ``poolB`` that ``name`` means; UsageError with a suggestion for a name that means none."""
    allowed = {n: n for n in layer_names(architecture)}
    for n in list(allowed):
        block, _, i = n[4:].partition("_")
        if n.startswith("relu"):
            allowed[f"block{block}_conv{i}"] = n
        elif n.startswith("pool"):
            allowed[f"block{block}_pool"] = n
    if name not in allowed:
        raise errors.UsageError(errors.unknown(f"{architecture} layer", name, allowed))
    return allowed[name]


def parse_spec(spec: str) -> tuple[str, tuple[str, ...]]:
    """``"vgg19:relu4_1,conv5_1"`` -> ("vgg19", ("relu4_1", "conv5_1")); without layers relu1_1 … relu5_1. ``"eye"`` has its five."""
    errors.must_be("an encoder must be a text, as 'eye' or 'vgg19:relu4_1'", spec, str)
    architecture, colon, listed = spec.strip().lower().partition(":")
    names = tuple(n.strip() for n in listed.split(",")) if colon else LEVELS
    if architecture == "eye":
        for n in names:
            if n not in LEVELS:
                raise errors.UsageError(errors.unknown("eye level", n, LEVELS))
        if names != LEVELS:
            raise errors.UsageError(f"the eye gives all of its levels ({', '.join(LEVELS)}); write 'eye', not {spec!r}")
        return architecture, LEVELS
    if architecture not in CONVOLUTIONS:
        raise errors.UsageError(errors.unknown("encoder", architecture, ["eye", *CONVOLUTIONS]))
    return architecture, tuple(resolve_layer(architecture, n) for n in names)


class Vgg(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> the taps at ``layers``, in the order asked; a tap of block k is (N, C_k, H / 2^(k-1), W / 2^(k-1)).

    ``pooling="average"`` gives smoother pictures when pixels are optimised (Gatys et al. 2016, section 2): the gradient reaches
    all four pixels of a window and not the largest alone.

    ``padding="replicate"`` repeats the border in conv1_1, where the network was trained with zeros. A zero after the
    normalisation is ImageNet's mean grey, so with ``"zeros"`` every picture has a grey frame, and an optimiser that matches
    the frameless statistics of a style paints against it: a coloured rim. Deeper layers keep their zeros, to which their
    weights are fitted; the rim comes from the first. ``"zeros"`` gives torchvision's numbers exactly.

    Holds the layers down to the deepest that is asked for; ``state_dict`` has torchvision's keys. Weights are random until loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, architecture: str, layers: Sequence[str] = LEVELS, *, pooling: Pooling = "max", padding: Padding = "replicate"
    ) -> None:
        super().__init__()
        for kind, given, allowed in (("pooling", pooling, get_args(Pooling)), ("padding", padding, get_args(Padding))):
            if given not in allowed:
                raise errors.UsageError(errors.unknown(kind, given, allowed))
        if not layers:
            raise errors.UsageError("a feature network needs one layer at least; got none")
        self.architecture = architecture
        self.layers = tuple(resolve_layer(architecture, n) for n in layers)
        self.pooling = pooling
        names = layer_names(architecture)
        self._places = [names.index(n) for n in self.layers]
        self._names = names[: max(self._places) + 1]
        convolutions: dict[str, nn.Module] = {}
        channels = 3
        for place, name in enumerate(self._names):
            if name.startswith("conv"):
                width = WIDTHS[int(name[4]) - 1]
                mode = padding if place == 0 else "zeros"
                convolutions[str(place)] = nn.Conv2d(channels, width, 3, padding=1, padding_mode=mode)
                channels = width
        self.features = nn.ModuleDict(convolutions)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    @property
    def reach(self) -> int:
        """No feature depends on a pixel farther away from its own pixels than this."""
        reach, stride = 0, 1
        for name in self._names:
            reach += stride if not name.startswith("relu") else 0
            stride *= 2 if name.startswith("pool") else 1
        return reach

    def forward(self, x: Tensor, depth: int | None = None) -> list[Tensor]:
        """The first ``depth`` taps (all by default); nothing deeper than they are is computed."""
        places = self._places[:depth]
        taps: dict[int, Tensor] = {}
        x = (x - self.mean) / self.std
        for place, name in enumerate(self._names[: max(places) + 1]):
            if name.startswith("conv"):
                x = self.features[str(place)](x)
            elif name.startswith("relu"):
                x = F.relu(x)
            else:
                x = F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)
            if place in places:
                taps[place] = x
        return [taps[p] for p in places]

    def load_weights(self, path: Path) -> None:
        """Takes what it needs from a file in torchvision's layout (.pth, .pt or .safetensors); InputError if that isn't there."""
        wanted = self.state_dict()
        found = read_weights(path, wanted)
        missing = sorted(set(wanted) - set(found))
        if missing:
            raise errors.InputError(f"{path} is no {self.architecture} in torchvision's layout: it has no {missing[0]}")
        for key, tensor in wanted.items():
            if found[key].shape != tensor.shape:
                raise errors.InputError(
                    f"{path} is no {self.architecture}: {key} has the shape {tuple(found[key].shape)} and should have {tuple(tensor.shape)}"
                )
        self.load_state_dict({k: found[k] for k in wanted})


def read_weights(path: Path, wanted: Iterable[str]) -> Mapping[str, Tensor]:
    """Those of the ``wanted`` tensors that ``path`` (.pth, .pt or .safetensors) holds. No code in the file is run."""
    if not path.is_file():
        raise errors.InputError(f"no weights at {path}; give a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in set(wanted) & set(file.keys())}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as e:
        raise errors.InputError(f"{path} can't be read as weights; give a .pth or .safetensors file of tensors by name") from e
    if not isinstance(state, Mapping):
        raise errors.InputError(f"{path} holds a {type(state).__name__} and not tensors by name")
    return {k: v for k in wanted if isinstance(v := state.get(k), Tensor)}


def load_encoder(
    spec: str,
    *,
    weights: Path | None = None,
    offline: bool = False,
    device: str | torch.device = "cpu",
    pooling: Pooling = "max",
    padding: Padding = "replicate",
    report: Report | None = None,
) -> nn.Module:
    """A frozen encoder, ready to measure with: ``"eye"``, or ``"vgg19"``, ``"vgg16:relu3_1,relu4_1"`` and so on.

    Called with RGB in [0, 1], (N, 3, H, W), it returns its taps as a list. ``weights`` names a local file; without it the eye's
    come with the package, and VGG's are downloaded from torchvision unless they are there already (see
    :func:`scumble.fetch.fetch` for ``offline`` and ``report``). ``pooling`` and ``padding`` are VGG's, see :class:`Vgg`.

    Raises UsageError for a name that does not exist and InputError for weights that can't be had.
    """
    architecture, layers = parse_spec(spec)
    if architecture == "eye":
        net: nn.Module = Eye()
        source = weights or EYE_WEIGHTS
        wanted = net.state_dict()
        found = read_weights(source, wanted)
        if any(k not in found or found[k].shape != v.shape for k, v in wanted.items()):
            raise errors.InputError(f"{source} does not hold the eye's weights")
        net.load_state_dict(found)
    else:
        net = Vgg(architecture, layers, pooling=pooling, padding=padding)
        net.load_weights(weights or fetch(*SOURCES[architecture], offline=offline, report=report))
    return frozen(net, device)


def frozen(net: Module, device: str | torch.device) -> Module:
    """``net`` on ``device``, ready to measure with."""
    net = net.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return net.eval().requires_grad_(False)
