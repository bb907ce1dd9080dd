"""A network of MicroAST's published shape with random weights, as a yardstick of speed.

Wang et al. 2023, *MicroAST: Towards Super-Fast Ultra-Resolution Arbitrary Style Transfer* (AAAI, arXiv 2211.15313), built from the
paper's description: a content encoder with a 9×9 convolution at full resolution, two strided depthwise-separable ones and two
residual blocks at a quarter of the resolution; a decoder that mirrors it; reflection padding throughout. Two instance
normalisations are modulated by the style. Its modulation of the filters changes numbers and not shapes, so it costs nothing once
the style is known, and the style encoder does not run for every picture. Only the content's path is built.

Where the description leaves a choice we took the cheaper one for the yardstick: no normalisation after other convolutions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 17
PARAMETERS = 0.47e6
"""Published, all parts together: content encoder, style encoder, decoder and modulator."""


class _Graph:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes, self.initializers = [], []

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, c_in: int, c_out: int, size: int, *, stride: int = 1, groups: int = 1) -> str:
        fan_in = c_in // groups * size * size
        weight = self.constant(self.rng.normal(0, (2 / fan_in) ** 0.5, (c_out, c_in // groups, size, size)).astype(np.float32))
        bias = self.constant(np.zeros(c_out, np.float32))
        if size > 1:
            p = size // 2
            x = self.node("Pad", x, self.constant(np.array([0, 0, p, p, 0, 0, p, p], np.int64)), mode="reflect")
        return self.node("Conv", x, weight, bias, strides=[stride, stride], group=groups)

    def separable(self, x: str, c_in: int, c_out: int, stride: int = 1) -> str:
        return self.node("Relu", self.conv(self.conv(x, c_in, c_in, 3, stride=stride, groups=c_in), c_in, c_out, 1))

    def residual(self, x: str, c: int) -> str:
        return self.node("Add", x, self.conv(self.node("Relu", self.conv(x, c, c, 3)), c, c, 3))

    def modulated(self, x: str, c: int) -> str:
        gain, bias = (self.rng.normal(m, 0.1, c).astype(np.float32) for m in (1, 0))
        return self.node("InstanceNormalization", x, self.constant(gain), self.constant(bias))

    def doubled(self, x: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return self.node("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def microast_shape(seed: int = 0) -> ModelProto:
    """``content`` (1, 3, H, W) -> ``painted`` of the same size; H and W multiples of 4."""
    g = _Graph(seed)
    x = g.node("Relu", g.conv("content", 3, 16, 9))
    x = g.separable(x, 16, 32, stride=2)
    x = g.separable(x, 32, 64, stride=2)
    for _ in range(2):
        x = g.residual(x, 64)
    for _ in range(2):
        x = g.residual(g.modulated(x, 64), 64)
    x = g.separable(g.doubled(x), 64, 32)
    x = g.separable(g.doubled(x), 32, 16)
    x = g.conv(x, 16, 3, 9)
    g.nodes.append(helper.make_node("Identity", [x], ["painted"]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "height", "width"]) for n in ("content", "painted")]
    graph = helper.make_graph(g.nodes, "microast_shape", ends[:1], ends[1:], g.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def in_pytorch(model: ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    """``model`` (1, 3, H, W) -> the same, run by PyTorch operator by operator, as the paper's own code is."""
    import torch
    from torch.nn import functional as F

    constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    run = {
        "Conv": lambda x, weight, bias, strides, group: F.conv2d(x, weight, bias, stride=strides, groups=group),
        "Pad": lambda x, margins, mode: F.pad(x, [int(margins[2])] * 4, mode=mode.decode()),
        "Relu": F.relu,
        "Add": torch.add,
        "InstanceNormalization": lambda x, gain, bias: F.instance_norm(x, weight=gain, bias=bias),
        "Resize": lambda x, _roi, _scales, **_how: F.interpolate(x, scale_factor=2, mode="nearest"),
        "Identity": lambda x: x,
    }

    def painted(content: np.ndarray) -> np.ndarray:
        left = {"content": torch.from_numpy(content), "": torch.empty(0)}
        uses = Counter(name for node in model.graph.node for name in node.input)
        with torch.inference_mode():
            for node in model.graph.node:
                given = [constants[name] if name in constants else left[name] for name in node.input]
                how = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                left[node.output[0]] = run[node.op_type](*given, **how)
                uses.subtract(node.input)
                left = {name: tensor for name, tensor in left.items() if uses[name] or name == node.output[0]}  # as Python's scopes would
        return left["painted"].numpy()

    return painted


def parameters(model: ModelProto) -> int:
    """Weights and biases of the convolutions."""
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.dims[0] != 4)
