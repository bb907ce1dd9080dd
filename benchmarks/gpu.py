"""Frames a second on a GPU, in PyTorch: bfloat16, channels last, compiled; how many bytes move in that time, beside what the memory can do.

As a film is painted: the style is known, statistics and the finish's filters are held. Frames lie on the device, so decoding and the way
there don't count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.clock import Budget
from benchmarks.tables import Row, Size, named, table
from benchmarks.tasks import photograph

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

BATCHES = (1, 4)
"""Frames at a time: one as it comes from a camera, several as they come from a file."""


def gpu(
    sizes: Sequence[Size], budget: Budget, note: Callable[[str], None], *, device: str = "cuda", compiled: bool = True
) -> tuple[list[Row], Table]:
    import torch

    from scumble.nets.finish import autocovariances, finish, narrow
    from scumble.nets.generator import MULTIPLE
    from scumble.train.export import load_generator

    generator = load_generator().requires_grad_(False).to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    cpu_rng = torch.Generator().manual_seed(0)
    style = generator.style_mean + generator.style_std * torch.randn(generator.shape.style, generator=cpu_rng).to(device)
    modulation = generator.modulation(style[None])

    def planes_of(x: Tensor, modulation: Tensor, statistics: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device == "cuda"):
            return generator.paint(x, modulation, statistics, 1.0)[0].float()

    def finished(planes: Tensor, content: Tensor, filters: Any) -> Tensor:
        return finish(planes, content, wanted, filters)[0].clamp(0, 1)

    # one after the other: of both as one, PyTorch 2.13's compiler makes an assertion fail
    paint, end = (torch.compile(f, dynamic=False) if compiled else f for f in (planes_of, finished))
    wanted = narrow(autocovariances(_batch(photograph(256, 256, seed=1), 1, device)))
    bandwidth = _bandwidth(device, budget)
    rows: list[Row] = []
    with torch.inference_mode():
        for size in sizes:
            pixels = photograph(*(-(-n // MULTIPLE) * MULTIPLE for n in size))
            x = _batch(pixels, 1, device)
            planes, statistics = generator.paint(x, modulation)
            filters = finish(planes, x, wanted)[1]
            exact = finish(generator.paint(x, modulation, statistics, 1.0)[0], x, wanted, filters)[0].clamp(0, 1)
            for batch in BATCHES:
                note(f"{batch} of {named(size)} on {device}")
                frames, mod, stats = _batch(pixels, batch, device), modulation.repeat(batch, 1), statistics.repeat(batch, 1)
                of_each = [f and (f[0].repeat(batch, 1, 1, 1, 1), f[1].repeat(batch, 1)) for f in filters]
                seconds = _seconds(lambda f=frames, m=mod, s=stats, e=of_each: end(paint(f, m, s), f, e), device, budget) / batch
                error = (end(paint(frames, mod, stats), frames, of_each)[:1] - exact).abs().mean().item() * 255
                least = 2 * frames[0].numel() * frames.element_size()  # the frame read once and the painting written once
                moved = least / seconds
                row = {"size": size, "batch": batch, "seconds": seconds, "error": error, "bytes_a_second": moved, "bandwidth": bandwidth}
                rows.append(row | {"share": moved / bandwidth})
    shown = table(
        f"Frames on {torch.cuda.get_device_name() if device == 'cuda' else device}",
        ["size", "at a time", "frames a second", "ms", "share of the memory's limit", "mean error"],
        [
            [
                named(r["size"]), str(r["batch"]), f"{1 / r['seconds']:.1f}", f"{1000 * r['seconds']:.2f}", f"{100 * r['share']:.1f} %",
                f"{r['error']:.2f}",
            ]
            for r in rows
        ],
        f"the limit: reading a frame and writing its painting once, at the {bandwidth / 1e9:.0f} GB/s that copying reaches here; "
        "error: of 255, beside single precision",
    )  # fmt: skip
    return rows, shown


def _batch(pixels: Any, n: int, device: str) -> Tensor:
    import torch

    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).repeat(n, 1, 1, 1)
    return x.to(device).contiguous(memory_format=torch.channels_last)


def _seconds(call: Callable[[], object], device: str, budget: Budget) -> float:
    """Of one call, the mean of many in a row: a GPU works off what it is given while the next is being asked for."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):  # compiles, and chooses among convolutions
        call()
    wait()
    start, n = time.perf_counter(), 0
    while n < budget.least or time.perf_counter() - start < budget.seconds / 5:
        for _ in range(5):
            call()
        wait()
        n += 5
    return (time.perf_counter() - start) / n


def _bandwidth(device: str, budget: Budget) -> float:
    """Bytes a second of a copy, read and written."""
    import torch

    source = torch.zeros(1 << (28 if device == "cuda" else 24), device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / _seconds(lambda: target.copy_(source), device, budget)
