"""From trained modules to the files that users run: ONNX for inference, safetensors for PyTorch, and the manifest.

Weights are rounded to half precision first and stored so: both files hold the very same numbers (a test holds their outputs
to 1e-4), at half the size. Computation is in float32: the casts are folded when a session is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scumble.engine import Engine
from scumble.errors import ScumbleError
from scumble.finish import narrow, texture
from scumble.nets.decoder import Decoder
from scumble.nets.eye import LEVELS, WIDTHS, Eye
from scumble.nets.finish import finish, of_texture
from scumble.nets.generator import MARGIN, MULTIPLE, RING, Generator
from scumble.nets.grain import Grain
from scumble.nets.sight import Sight
from scumble.style import Style
from scumble.weights import FOLDER, sha256

OPSET = 17
"""Of the ONNX files: ONNX Runtime has had it since 1.12."""

LICENCE = "Apache-2.0"


class _Painter(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, content: Tensor, modulation: Tensor, frozen: Tensor, freeze: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        return self.generator.paint(content, modulation, frozen, freeze, inside, shuffled=False, ringed=True)


class _Modulator(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, style: Tensor, beyond: Tensor, missed: Tensor) -> Tensor:
        return self.generator.modulation(style, beyond=beyond, missed=missed)


def _mirrored(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """As many rows or columns mirrored on both sides, the outermost one included: as the engine does, which F.pad can't."""
    n = x.shape[axis]
    first, last = x.narrow(axis, 0, before), x.narrow(axis, n - after, after)
    return torch.cat([first.flip(axis), x, last.flip(axis)], axis)


class _SelfContained(nn.Module):
    """Grain, padding, generator, finish and clipping in one graph; with a modulation at hand the style is folded in."""

    def __init__(self, generator: Generator, modulation: Tensor | None, grain: float) -> None:
        super().__init__()
        self.generator, self.grain = generator, Grain(grain) if grain > 0 else nn.Identity()
        self.modulation, self.texture = (None, None) if modulation is None else modulation.tensor_split([generator.modulations], 1)

    def forward(self, content: Tensor, style: Tensor | None = None, texture: Tensor | None = None) -> Tensor:
        modulation = self.modulation
        if modulation is None:
            assert style is not None
            modulation = self.generator.modulation(style)
        else:
            texture = self.texture
        content = self.grain(content)
        height, width = content.shape[2], content.shape[3]
        below, right = -(height + 2 * MARGIN) % MULTIPLE, -(width + 2 * MARGIN) % MULTIPLE
        m = MARGIN + RING
        padded = _mirrored(_mirrored(content, 2, m, m + below), 3, m, m + right)
        inside = [MARGIN // MULTIPLE, (MARGIN + height) // MULTIPLE, MARGIN // MULTIPLE, (MARGIN + width) // MULTIPLE]
        painted = self.generator.paint(padded, modulation, inside=inside, ringed=True)[0]
        painted = painted[:, :, MARGIN : MARGIN + height, MARGIN : MARGIN + width]
        if texture is not None and texture.numel():
            painted = finish(painted, content, of_texture(texture), every_patch=True)[0]
        return painted.clamp(0, 1)


def load_generator(path: Path = FOLDER / "generator.safetensors") -> Generator:
    """The generator with the weights of ``path``, in float32, ready to run."""
    from safetensors.torch import load_file

    generator = Generator()
    generator.load_state_dict(load_file(path))
    return generator.eval()


def generator_id(path: Path = FOLDER / "generator.safetensors") -> str:
    """Names the weights in a file: what was tuned for some fits no others.

    But for those that a first painting at strength 1 does not need: they can be trained anew (``--only-beyond``, ``--only-look``) and all
    tunings stay.
    """
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(os.fspath(path), framework="np") as f:
        for name in sorted(f.keys()):
            if not name.startswith("beyond.") and name != "look":
                # + 0: a moving average that goes on from -0.0 has 0.0 there, and that must not be another net
                digest.update(name.encode() + (f.get_tensor(name) + 0).tobytes())
    return digest.hexdigest()[:16]


def export_self_contained(path: Path, style: Style | None = None, grain: float = 1.0) -> float:
    """One ONNX file that needs nothing of this library: pixels in, painted pixels out; checked against PyTorch.

    Input ``content`` (1, 3, H, W) in [0, 1], at least 128 pixels each way; output ``painted`` of the same size. Without ``style`` there
    are two more, ``style`` (1, 736), a :class:`~scumble.style.Style`'s ``vector``, and ``texture`` (1, 480), its texture of
    :func:`~scumble.finish.narrow` patches; with it the style is folded in. What is flat gets ``grain`` in [0, 4], as in
    :class:`~scumble.stylizer.Stylizer`, and the painting is a draft of that.
    Returns the largest difference between ONNX Runtime and PyTorch, at a size the export did not see; a ScumbleError if it
    is over 1e-3 (of 1), in which case nothing is written.
    """
    import numpy as np
    import onnxruntime as ort

    generator = load_generator()
    vector = torch.rand(1, generator.shape.style)
    net = _SelfContained(generator, None if style is None else torch.from_numpy(style.modulation(Engine("cpu")))[None], grain).eval()
    any_texture = torch.from_numpy(narrow(texture(np.random.rand(64, 64, 3).astype(np.float32))))[None]
    with_style = () if style is not None else (vector, any_texture)
    part = path.with_name(f".{path.name}.part")
    names = ["content", "style", "texture"][: 1 + len(with_style)]
    try:
        said = {"content": "RGB in [0, 1], (1, 3, height, width)", "painted": "the same"}
        said |= {} if style is not None else {"style": "Style.vector[None]", "texture": "scumble.finish.narrow(Style.texture)[None]"}
        _onnx(net, (torch.rand(1, 3, 136, 144), *with_style), part, names, ["painted"], ["content", "painted"], said)
        content = torch.rand(1, 3, 217, 191)
        content[..., :96] = 0.5  # flat
        with torch.no_grad():
            expected = net(content, *with_style).numpy()
        session = ort.InferenceSession(os.fspath(part), providers=["CPUExecutionProvider"])
        feeds = dict(zip(names, (content.numpy(), *(v.numpy() for v in with_style)), strict=True))
        difference = float(np.abs(session.run(None, feeds)[0] - expected).max())
        if not difference <= 1e-3:
            raise ScumbleError(f"the exported file differs from the network by {difference:.2g}, 0.001 is allowed; nothing was written")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return difference


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


def export_sight(sight: Sight, folder: Path = FOLDER) -> None:
    """``sight.safetensors``: what it has beside the eye's weights."""
    halved(sight)
    _safetensors(nn.ModuleDict({"beside": sight.beside, "heads": sight.heads}), folder / "sight.safetensors")


def export_decoder(decoder: Decoder, folder: Path = FOLDER) -> None:
    """``decoder1.onnx`` … ``decoder5.onnx`` (features (1, C_k, h, w) -> the level above) and ``decoder.safetensors``."""
    halved(decoder)
    for level in range(1, 6):
        features = torch.rand(1, WIDTHS[level - 1], 8, 6)
        _onnx(decoder.block(level), (features,), folder / f"decoder{level}.onnx", ["features"], ["above"], ["features", "above"])
    _safetensors(decoder, folder / "decoder.safetensors")


def export_generator(generator: Generator, folder: Path = FOLDER) -> None:
    """``generator.onnx``, ``modulator.onnx`` and ``generator.safetensors``, and what :func:`export_finish` writes.

    The first takes content, modulation, frozen, freeze, inside and gives cells, statistics, see
    :meth:`~scumble.nets.generator.Generator.paint`; the second style, beyond, missed and gives modulation, see ``modulation`` there.
    Metadata: ``norms`` are the channels of the first one's normalised places, ``id`` is
    :func:`generator_id`.
    """
    halved(generator)
    _safetensors(generator, folder / "generator.safetensors")
    style = torch.rand(1, generator.shape.style)
    with torch.no_grad():
        modulation = generator.modulation(style)
    size = generator.statistics
    inputs = (
        torch.rand(1, 3, 64 + 2 * RING, 48 + 2 * RING),
        modulation,
        torch.rand(1, size),
        torch.zeros(size),
        torch.tensor([0, 8, 0, 6]),
    )
    _onnx(
        _Painter(generator),
        inputs,
        folder / "generator.onnx",
        ["content", "modulation", "frozen", "freeze", "inside"],
        ["cells", "statistics"],
        ["content", "cells"],
        {"norms": " ".join(map(str, generator.norms)), "id": generator_id(folder / "generator.safetensors")},
    )
    given = (style, torch.zeros(1, 1), torch.zeros_like(style))
    _onnx(_Modulator(generator), given, folder / "modulator.onnx", ["style", "beyond", "missed"], ["modulation"], [])
    export_finish(folder)


def export_finish(folder: Path = FOLDER) -> None:
    """What :mod:`scumble.finish` has computed: graphs without weights, those of its cells (1, 12, h, w) for any height and width.

    ``finish_products.onnx``: rows (n, c, k) -> products (n, c, c) of each with each.
    ``finish_raise.onnx``: cells + change (1, 3, h', w') enlarged by a kernel (12, 3, 3, 3) -> raised, ``margins`` (8,) saying by how much
    the edge of the change is repeated, which brings it to (1, 3, h + 2, w + 2); ``finish_filter.onnx``: cells (1, D, h, w), kernel
    (C, D, K, L), bias (C,) -> filtered (1, C, h, w).

    Kernels are given with every call, those that never change as well: of what it knows when a session is made, ONNX Runtime makes
    convolutions for multiples of 16 channels, and 3 took it twice as long.
    """
    from onnx import TensorProto, helper

    def write(name: str, nodes: list[Any], inputs: Mapping[str, list[Any]], output: Mapping[str, list[Any]]) -> None:
        kinds = {"margins": TensorProto.INT64}
        given, made = (
            [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), shape) for n, shape in tensors.items()]
            for tensors in (inputs, output)
        )
        graph = helper.make_graph(nodes, name, given, made)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="scumble")
        replace_file(folder / f"{name}.onnx", model.SerializeToString())

    cells = [1, 12, "height", "width"]
    write(
        "finish_products",
        [
            helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["rows", "columns"], ["products"]),
        ],
        {"rows": ["n", "c", "k"]},
        {"products": ["n", "c", "c"]},
    )
    write(
        "finish_raise",
        [
            helper.make_node("Pad", ["change", "margins"], ["around"], mode="edge"),
            helper.make_node("Conv", ["around", "kernel"], ["twice"]),
            helper.make_node("Add", ["cells", "twice"], ["raised"]),
        ],
        {"cells": cells, "change": [1, 3, "change_height", "change_width"], "margins": [8], "kernel": [12, 3, 3, 3]},
        {"raised": cells},
    )
    write(
        "finish_filter",
        [helper.make_node("Conv", ["cells", "kernel", "bias"], ["filtered"], auto_pad="SAME_UPPER")],
        {"cells": [1, "given", "height", "width"], "kernel": ["channels", "given", "rows", "columns"], "bias": ["channels"]},
        {"filtered": [1, "channels", "height", "width"]},
    )


def write_manifest(origins: Mapping[str, str], folder: Path = FOLDER) -> None:
    """``manifest.toml``: every weight file in ``folder`` with its sha256, size, licence and origin (by the name's stem, digits dropped)."""
    lines = ["# Written by scumble.train.export; see MODEL_CARD.md for data, recipe and scores.", ""]
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".onnx", ".safetensors")):
        # of JSON's escapes TOML lacks those of halves of a character, and it wants one for DEL, which JSON leaves
        origin = json.dumps(origins[path.stem.rstrip("0123456789")].encode(errors="replace").decode(), ensure_ascii=False)
        lines += [
            f'["{path.name}"]',
            f'sha256 = "{sha256(path)}"',
            f"bytes = {path.stat().st_size}",
            f'licence = "{LICENCE}"',
            "origin = " + origin.replace("\x7f", "\\u007f"),
            "",
        ]
    (folder / "manifest.toml").write_text("\n".join(lines), encoding="utf-8")


def _safetensors(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save

    halves = {name for name, _ in module.named_parameters()}  # buffers stay: ONNX has them whole, and small deviations would become 0
    data = save({k: (v.half() if k in halves else v).contiguous() for k, v in module.state_dict().items()}, {"format": "pt"})
    replace_file(path, data)


def _onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: list[str],
    outputs: list[str],
    dynamic: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Export with free height and width for the tensors named in ``dynamic``; weights in half precision behind casts."""
    import io

    import onnx
    from onnx import TensorProto, helper, numpy_helper

    buffer = io.BytesIO()
    axes = {n: {2: f"{n}_height", 3: f"{n}_width"} for n in dynamic}
    names_and_axes: dict[str, Any] = {"input_names": names, "output_names": outputs, "dynamic_axes": axes}
    target: Any = buffer  # a file object is as good as a path, though the type says otherwise
    with warnings.catch_warnings():
        # the exporter by tracing is old and says so; the new one needs a further dependency and writes opset 18 at least
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, target, opset_version=OPSET, dynamo=False, **names_and_axes)
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
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    replace_file(path, model.SerializeToString())


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` as a whole or not at all; an OSError names it."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:  # of a full disc it knows no file, and would be taken for standard output's
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        part.unlink(missing_ok=True)
