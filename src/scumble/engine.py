"""The nets, run by ONNX Runtime: the eye, the decoders, the generator.

Pictures come in as (H, W, 3) and features go out as (C, h, w), both float32; what a net needs beyond that (batch axis, padding to
a multiple of its stride) is added and taken away here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scumble import finish, guided
from scumble.errors import InputError, UsageError, one_of, whole
from scumble.weights import weight_path

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[np.float32]

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
WIDTHS = (16, 32, 64, 128, 128)
DEVICES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}

FINISH = ("finish_products", "finish_filter", "finish_raise")
"""Graphs that :mod:`scumble.finish` is computed by."""

EYE_MULTIPLE = 16
GENERATOR_MULTIPLE = 8
GENERATOR_MARGIN = 8
"""The picture is mirrored by this many pixels on every side, and that cut off again: what zeros do at the net's border falls there."""
GENERATOR_RING = 1
"""Mirrored pixels around the margin that the first convolution sees and that are not painted."""
PHASES = (0, 2, 4, 6)
"""Pixels by which a picture is moved, down and to the right, for the paintings that are averaged; see :meth:`Engine.unfinished`."""
FAR = 1.5
"""What differs by more, of colours in [0, 1], between two of these is blown up by a normalisation, and is left out: twelve photographs
in five styles differ by 1.2 at most."""
GENERATOR_REACH = 128 + finish.REACH
"""With frozen statistics a painted pixel depends on nothing farther away than this many pixels: how far tiles have to overlap."""


class Engine:
    """Sessions for all nets, each loaded when it is first used.

    Args:
        device: ``auto`` takes CUDA when the installed ONNX Runtime has it, else the CPU; or one of :data:`DEVICES`.
        threads: for one net's computation, as far as there are cores; None leaves it to ONNX Runtime (all cores).

    One engine serves many threads: sessions hold no state between runs.
    """

    def __init__(self, device: str = "auto", threads: int | None = None) -> None:
        one_of("device", device, ["auto", *DEVICES])
        if threads is not None and whole("threads", threads) < 1:
            raise UsageError(f"threads must be at least 1; got {threads}")
        self.device = device
        self._nets: dict[str, onnxruntime.InferenceSession] = {}
        self._loading = threading.Lock()
        if device not in ("auto", "cpu"):
            self._providers()  # or say at once that there is none
        # threads wait for each other by spinning: more of them than cores take many times as long, and thousands never end
        self.threads = None if threads is None else min(int(threads), os.cpu_count() or 1)
        self.alone = True
        """Whether nothing else wants the processor and the memory. Then threads of a net wait for each other by spinning, which takes a
        third more of the processor's time, and their memory is kept from one picture to the next: the system's clearing of new
        pages took a third of its time at 3840 × 2160. Counts for nets that are loaded after it is set."""

    def __getstate__(self) -> dict[str, Any]:
        """Without the nets, which are no data: a copy, or another process, loads its own."""
        return {"device": self.device, "threads": self.threads, "alone": self.alone}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _nets={}, _loading=threading.Lock())

    def _providers(self) -> list[str]:
        import onnxruntime as ort

        available = ort.get_available_providers()
        device = ("cuda" if DEVICES["cuda"] in available else "cpu") if self.device == "auto" else self.device
        if DEVICES[device] not in available:
            raise UsageError(
                f"device {device!r} is not in the installed ONNX Runtime, which has "
                f"{', '.join(k for k, v in DEVICES.items() if v in available)}; for CUDA install onnxruntime-gpu in place of onnxruntime"
            )
        return [DEVICES[device], DEVICES["cpu"]] if device != "cpu" else [DEVICES["cpu"]]

    def _net(self, name: str) -> onnxruntime.InferenceSession:
        """Loaded once, also when several threads want it at the same moment."""
        if name not in self._nets:
            with self._loading:
                if name not in self._nets:
                    self._nets[name] = self._session(name)
        return self._nets[name]

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        if self.alone:  # one net's threads would spin on while the next one wants the cores: a look at a draft took 97 ms, not 78
            options.add_session_config_entry("session.force_spinning_stop", "1")
        else:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        options.enable_mem_pattern = False  # a pattern is one block for all of a run's tensors: half as much memory again, and no quicker
        # never given back, so not where a service would hold the peak of its largest picture for ever. The eye's: 69 ms for a look, not 78
        options.enable_cpu_mem_arena = name.startswith(("generator", "finish", "eye")) and self.alone
        if options.enable_cpu_mem_arena:
            _open_arena()
            options.add_session_config_entry("session.use_env_allocators", "1")
        return ort.InferenceSession(os.fspath(weight_path(f"{name}.onnx")), options, providers=self._providers())

    def eye(self, pixels: Array) -> list[Array]:
        """Picture (H, W, 3) in [0, 1] -> relu1_1 … relu5_1, (C_k, ⌈H/16⌉·16 / 2^(k-1), …): its edge is repeated up to a multiple of 16."""
        height, width, _ = pixels.shape
        below, right = -height % EYE_MULTIPLE, -width % EYE_MULTIPLE
        padded = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else pixels
        return [t[0] for t in _run(self._net("eye"), {"pixels": np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)})]

    def decode(self, level: int, features: Array) -> Array:
        """One block of the decoder: tap ``level`` (C_k, h, w) -> the one above (C_{k-1}, 2h, 2w); level 1 -> RGB (3, h, w), not clipped."""
        return _run(self._net(f"decoder{level}"), {"features": features[None]})[0][0]

    @cached_property
    def norms(self) -> tuple[int, ...]:
        """Channels of the generator's normalised places in the order in which it visits them.

        A statistics vector is mean and variance place by place, so it has twice their sum, and then the finish's filters.
        """
        return tuple(int(c) for c in self._net("generator").get_modelmeta().custom_metadata_map["norms"].split())

    @cached_property
    def modulations(self) -> int:
        """Numbers that a style sets in the generator; those beyond are the texture that the finish gives."""
        return int(self._net("generator").get_inputs()[1].shape[1])

    @cached_property
    def generator_id(self) -> str:
        """Names the generator's weights: what was tuned for one does not fit another."""
        return self._net("generator").get_modelmeta().custom_metadata_map["id"]

    def modulation(self, style_vector: Array, offset: Array | None = None, beyond: float = 0.0, missed: Array | None = None) -> Array:
        """Style vector (736,) -> what it sets in the generator: gains, biases, mixing matrices, kernels (M,).

        ``offset`` (T,) is added to all of that but the mixing matrices, which lie in the middle. ``beyond`` in [0, 1] is by how much the
        strength is above 1. ``missed`` (736,) is by how much a painting fell short of the style vector.
        """
        given = {"style": style_vector, "beyond": np.full(1, beyond), "missed": np.zeros_like(style_vector) if missed is None else missed}
        feeds = {name: value[None].astype(np.float32) for name, value in given.items()}
        found: Array = _run(self._net("modulator"), feeds)[0][0]
        if offset is not None:
            first = 2 * sum(self.norms)
            if not first <= len(offset) <= len(found):
                raise InputError(f"a style's tuning of {len(offset)} numbers is none of this generator's; tune the style again")
            found[:first] += offset[:first]
            found[first - len(offset) :] += offset[first:]
        return found

    def paint(
        self,
        pixels: Array,
        modulation: Array,
        frozen: Array | None = None,
        freeze: float | Array = 1.0,
        inside: tuple[int, int, int, int] | None = None,
        *,
        spun: bool | None = None,
    ) -> tuple[Array, Array]:
        """Picture (H, W, 3) in [0, 1] -> painted picture of the same size, clipped to [0, 1], and statistics (S,).

        A modulation that goes on with a texture (T,) has the painting finished (:mod:`scumble.finish`). Statistics are what the
        normalisations used, and the finish's filters; ``frozen`` ones replace the measured ones to the share ``freeze``, a number or (S,).
        They are measured in the window ``inside`` = (top, bottom, left, right) of the picture, multiples of :data:`GENERATOR_MULTIPLE`
        (at least one of it each way); by default in all of it. A side below four of them is measured with its margin. ``spun`` is for
        :meth:`unfinished`; by default it is where the texture is of the larger patches.
        """
        size = 2 * sum(self.norms)
        net, wanted = np.split(modulation, [self.modulations])
        filtered = finish.filters_size(finish.patch_of(wanted)) if len(wanted) else 0
        shares = np.full(size + filtered, 0.0 if frozen is None else freeze, np.float32)
        given = (None, None) if frozen is None else (frozen[:size], frozen[size:])
        cells, used = self.unfinished(pixels, net, given[0], shares[:size], inside, spun=finish.is_wide(wanted) if spun is None else spun)
        if len(wanted):
            planes, filters = finish.finish(cells, guided.guide(pixels), wanted, self, given[1], shares[size:])
            used = np.concatenate([used, filters])
        else:
            planes = cells.planes
        if frozen is None and _is_flat(pixels):
            planes[:] = planes.mean((1, 2), keepdims=True)
        return np.clip(planes, 0.0, 1.0, out=planes).transpose(1, 2, 0), used

    def unfinished(
        self,
        pixels: Array,
        modulation: Array,
        frozen: Array | None,
        freeze: Array,
        inside: tuple[int, int, int, int] | None = None,
        *,
        spun: bool = False,
    ) -> tuple[finish.Cells, Array]:
        """What the net itself makes of it, not clipped, and its statistics; see :meth:`paint`.

        The net's stride is 8 pixels, and what it makes of an edge depends on where in these that lies: a slanted one came out as a string
        of beads. ``spun``, what is coarse in it is the mean of paintings at several :data:`PHASES` (cycle spinning: Coifman & Donoho 1995,
        "Translation-invariant de-noising"), all with the statistics of the first one. What is fine stays that one's: means of strokes
        have no contrast.
        """
        cells, used = self._passed(pixels, modulation, frozen, freeze, inside, 0)
        if not spun:
            return cells, used
        first = _around(cells)
        total = np.zeros_like(first)
        for phase in PHASES[1:]:
            apart = _around(self._passed(pixels, modulation, used, np.ones_like(freeze), inside, phase)[0]) - first
            if frozen is None and not _within(apart, FAR):
                # a channel that hardly varies at the first phase (drawings, patterns) and does at this one is blown up by the
                # statistics of the first: this one is measured by itself
                apart = _around(self._passed(pixels, modulation, None, freeze, inside, phase)[0]) - first
            if not _within(apart, FAR):
                apart[~(np.abs(apart) < FAR)] = 0
            total += apart
        total /= len(PHASES)
        change = self.lowered(finish.Cells(total, finish.AROUND, cells.height, cells.width).edged())
        return self.raised(cells, change), used

    def _passed(
        self, pixels: Array, modulation: Array, frozen: Array | None, freeze: Array, inside: tuple[int, int, int, int] | None, phase: int
    ) -> tuple[finish.Cells, Array]:
        """One pass of the net, the picture moved down and to the right by ``phase`` pixels, an even number."""
        height, width, _ = pixels.shape
        m = GENERATOR_MARGIN
        top, bottom, left, right = inside or (0, height, 0, width)
        # of a side too short to vary the mirrored margin counts as well: next to no variance would be blown up
        if height < 4 * GENERATOR_MULTIPLE:
            top, bottom = -m, height + m
        if width < 4 * GENERATOR_MULTIPLE:
            left, right = -m, width + m
        feeds = {
            "content": _mirrored(pixels, GENERATOR_MULTIPLE, m + phase, GENERATOR_RING),
            "modulation": modulation[None].astype(np.float32),
            "frozen": (np.zeros(len(freeze), np.float32) if frozen is None else frozen.astype(np.float32))[None],
            "freeze": freeze.astype(np.float32),
            "inside": np.array([m + top, m + bottom, m + left, m + right], np.int64) // GENERATOR_MULTIPLE,
        }
        cells, statistics = _run(self._net("generator"), feeds)
        return finish.Cells(cells[0], (m + phase) // 2, height, width), statistics[0]

    def products(self, rows: Array) -> Array:
        """See :class:`~scumble.finish.Computing`."""
        found: Array = _run(self._net("finish_products"), {"rows": rows})[0]
        return found

    def raised(self, level: finish.Cells, change: Array) -> finish.Cells:
        """See :class:`~scumble.finish.Computing`."""
        before = np.array([level.margin, level.margin]) + 1  # one more, for the window of the enlargement
        after = np.array(level.array.shape[1:]) + 2 - before - change.shape[1:]
        margins = np.array([0, 0, *before, 0, 0, *after], np.int64)
        feeds = {"cells": level.array[None], "change": change[None], "margins": margins, "kernel": finish.enlarging()}
        return replace(level, array=_run(self._net("finish_raise"), feeds)[0][0])

    def filtered(self, level: finish.Cells, kernel: Array, bias: Array) -> finish.Cells:
        """See :class:`~scumble.finish.Computing`."""
        return replace(level, array=self._convolved(level.array, kernel, bias))

    def lowered(self, level: finish.Cells) -> Array:
        """See :class:`~scumble.finish.Computing`."""
        rows, columns = finish.lowering()
        return np.ascontiguousarray(self._convolved(self._convolved(level.array, rows), columns)[(slice(None), *level.inside)])

    def _convolved(self, array: Array, kernel: Array, bias: Array | None = None) -> Array:
        """(D, h, w), kernel (C, D, K, L), K and L odd -> (C, h, w), zeros around it."""
        feeds = {"cells": array[None], "kernel": kernel, "bias": np.zeros(len(kernel), np.float32) if bias is None else bias}
        found: Array = _run(self._net("finish_filter"), feeds)[0][0]
        return found


@cache
def _open_arena() -> None:
    """Memory that is used again instead of given back, one for all sessions that ask for it: each its own would hold every one's peak."""
    import onnxruntime as ort

    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def _run(session: onnxruntime.InferenceSession, feeds: dict[str, Any]) -> Sequence[Any]:
    return session.run(None, feeds)


def _around(cells: finish.Cells) -> Array:
    """Those of the picture and :data:`~scumble.finish.AROUND` it."""
    rows, columns = (slice(s.start - finish.AROUND, s.stop + finish.AROUND) for s in cells.inside)
    return cells.array[:, rows, columns]


def _within(array: Array, limit: float) -> bool:
    """Whether all of it is a number between -limit and limit."""
    return bool(-limit < array.min() and array.max() < limit)


def _is_flat(pixels: Array) -> bool:
    """Whether (H, W, 3) is one colour, within a step of 8 bits: normalised again and again, what is left is how sums were rounded."""
    return all(np.ptp(p, axis=(0, 1)).max() < 1.01 / 255 for p in (pixels[::16, ::16], pixels))  # nearly always the first says no


def _mirrored(pixels: Array, multiple: int, margin: int, ring: int) -> Array:
    """(H, W, 3) -> (1, 3, H', W'): mirrored around by ``margin``, below and to the right up to a ``multiple`` of pixels, and by a ``ring``
    around all that.
    """
    height, width, _ = pixels.shape
    below, right = -(height + 2 * margin) % multiple, -(width + 2 * margin) % multiple
    margin += ring
    found = np.empty((1, 3, height + 2 * margin + below, width + 2 * margin + right), np.float32)
    rows, columns = (np.pad(np.arange(n), (margin, margin + more), "symmetric") for n, more in ((height, below), (width, right)))
    middle = found[:, :, margin : margin + height]
    middle[..., margin : margin + width] = pixels.transpose(2, 0, 1)  # straight to its place: np.pad goes over all of it twice
    for beside in (slice(0, margin), slice(margin + width, None)):
        middle[..., beside] = middle[..., margin + columns[beside]]
    for beside in (slice(0, margin), slice(margin + height, None)):
        found[:, :, beside] = found[:, :, margin + rows[beside]]
    return found
