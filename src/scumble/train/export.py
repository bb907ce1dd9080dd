"""From trained modules to the files that users run: ONNX for inference, safetensors for PyTorch, and the manifest.

Weights are rounded to half precision first and stored so: both files hold the very same numbers (a test holds their outputs
to 1e-4), at half the size. Computation is in float32: the casts are folded when a session is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from scumble.nets.decoder import Decoder
from scumble.nets.eye import LEVELS, WIDTHS, Eye
from scumble.nets.generator import Generator
from scumble.weights import FOLDER, sha256

OPSET = 17
"""Of the ONNX files: ONNX Runtime has had it since 1.12."""

LICENCE = "Apache-2.0"


class _Painter(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, content: Tensor, modulation: Tensor, frozen: Tensor, freeze: Tensor) -> tuple[Tensor, Tensor]:
        return self.generator.paint(content, modulation, frozen, freeze)


class _Modulator(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, style: Tensor) -> Tensor:
        return self.generator.modulation(style)


def halved(module: nn.Module) -> nn.Module:
    """``module`` in place, contiguous float32 on the CPU, every parameter rounded to half precision."""
    module = module.cpu().float().to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.half().float())
    return module


def export_eye(eye: Eye, folder: Path = FOLDER) -> None:
    """``eye.onnx`` (pixels (1, 3, H, W) -> five taps) and ``eye.safetensors``."""
    halved(eye)
    _onnx(eye, (torch.rand(1, 3, 64, 48),), folder / "eye.onnx", ["pixels"], list(LEVELS), ["pixels", *LEVELS])
    _safetensors(eye, folder / "eye.safetensors")


def export_decoder(decoder: Decoder, folder: Path = FOLDER) -> None:
    """``decoder1.onnx`` … ``decoder5.onnx`` (features (1, C_k, h, w) -> the level above) and ``decoder.safetensors``."""
    halved(decoder)
    for level in range(1, 6):
        features = torch.rand(1, WIDTHS[level - 1], 8, 6)
        _onnx(decoder.block(level), (features,), folder / f"decoder{level}.onnx", ["features"], ["above"], ["features", "above"])
    _safetensors(decoder, folder / "decoder.safetensors")


def export_generator(generator: Generator, folder: Path = FOLDER) -> None:
    """``generator.onnx`` (content, modulation, frozen, freeze -> painted, statistics), ``modulator.onnx`` (style -> modulation), ``generator.safetensors``."""
    halved(generator)
    style = torch.rand(1, generator.shape.style)
    with torch.no_grad():
        modulation = generator.modulation(style)
    inputs = (torch.rand(1, 3, 64, 48), modulation, torch.rand(1, generator.statistics), torch.tensor(0.0))
    _onnx(_Painter(generator), inputs, folder / "generator.onnx", ["content", "modulation", "frozen", "freeze"], ["painted", "statistics"], ["content", "painted"])
    _onnx(_Modulator(generator), (style,), folder / "modulator.onnx", ["style"], ["modulation"], [])
    _safetensors(generator, folder / "generator.safetensors")


def write_manifest(origins: Mapping[str, str], folder: Path = FOLDER) -> None:
    """``manifest.toml``: every weight file in ``folder`` with its sha256, size, licence and origin (by the name's stem, digits dropped)."""
    lines = ["# Written by scumble.train.export; see MODEL_CARD.md for data, recipe and scores.", ""]
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".onnx", ".safetensors")):
        origin = origins[path.stem.rstrip("0123456789")]
        lines += [f'["{path.name}"]', f'sha256 = "{sha256(path)}"', f"bytes = {path.stat().st_size}", f'licence = "{LICENCE}"', f'origin = "{origin}"', ""]
    (folder / "manifest.toml").write_text("\n".join(lines), encoding="utf-8")


def _safetensors(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save

    data = save({k: v.half().contiguous() for k, v in module.state_dict().items()}, {"format": "pt"})
    _replace(path, data)


def _onnx(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, names: list[str], outputs: list[str], dynamic: Sequence[str]) -> None:
    """Export with free height and width for the tensors named in ``dynamic``; weights in half precision behind casts."""
    import io

    import onnx
    from onnx import TensorProto, helper, numpy_helper

    buffer = io.BytesIO()
    axes = {n: {2: f"{n}_height", 3: f"{n}_width"} for n in dynamic}
    torch.onnx.export(module, inputs, buffer, input_names=names, output_names=outputs, dynamic_axes=axes, opset_version=OPSET, dynamo=False)
    model = onnx.load_from_string(buffer.getvalue())
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor)
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(array.astype("float16"), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    model.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    _replace(path, model.SerializeToString())


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
