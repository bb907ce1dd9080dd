"""Megapixels a second and peak memory from 1 to 400 megapixels, whole commands: reading, painting and writing included."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.clock import apart

SIDES = (1000, 2000, 4000, 8000, 20_000)


def paint(source: str, target: str, detail: str) -> dict[str, Any]:
    """One picture by the command line's own way, in this process."""
    from benchmarks.clock import peak_mib
    from scumble.cli import run

    start = time.perf_counter()
    code = run(["stylize", source, "-s", "starry-night", "-o", target, "--detail", detail, "--quiet", "--overwrite"])
    assert code == 0
    return {"seconds": time.perf_counter() - start, "peak": peak_mib()}


def photograph(side: int, path: Path) -> None:
    """A JPEG of noise with the spectrum of photographs, written by rows."""
    import numpy as np
    import pyvips

    from benchmarks.tasks import photograph as noise

    tile = pyvips.Image.new_from_array((noise(512, 512) * 255).astype(np.uint8), interpretation="srgb")
    count = -(-side // 512)
    tile.replicate(count, count).crop(0, 0, side, side).jpegsave(str(path), Q=90)


def sizes(sides: tuple[int, ...], note: Callable[[str], None]) -> tuple[list[dict[str, Any]], Table]:
    """(e) What large pictures cost, each in a process of its own; with painted detail, the more expensive kind, at all sizes."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            note(f"{side} x {side}")
            source, target = Path(folder) / "in.jpg", Path(folder) / "out.tif"
            photograph(side, source)
            for detail in ("content", "painted"):
                done = apart("large", source=str(source), target=str(target), detail=detail)
                rows.append({"megapixels": side * side / 1e6, "detail": detail, **done, "speed": side * side / 1e6 / done["seconds"]})
    shown = Table(title="Pictures of all sizes, JPEG to TIFF")
    for heading in ("megapixels", "detail", "seconds", "megapixels a second", "peak MiB"):
        shown.add_column(heading, justify="right")
    for r in rows:
        shown.add_row(f"{r['megapixels']:.0f}", r["detail"], f"{r['seconds']:.1f}", f"{r['speed']:.2f}", f"{r['peak']:.0f}")
    return rows, shown
