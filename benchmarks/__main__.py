"""Prints tables of what is fast: ``python -m benchmarks``, or ``make bench``.

Ratios are measured side by side in one run; times of different days or machines are not to be compared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.util import find_spec

import numpy as np
import onnxruntime
from rich.console import Console

from benchmarks import sizes as large
from benchmarks import tables
from benchmarks.clock import ROOT, Budget


def size(text: str) -> tuple[int, int]:
    """``512`` or ``3840x2160`` (width × height) -> (height, width)."""
    width, _, height = text.lower().partition("x")
    return int(height or width), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few runs, up to 1024 pixels")
    parser.add_argument("--refine", action="store_true", help="also time quality fine and best (minutes; needs PyTorch)")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of tables")
    parser.add_argument("--sizes", nargs="+", type=size, metavar="SIZE", help="512, 3840x2160 …; default 256 512 1024 2048 3840x2160")
    tables_of = ["methods", "versus", "command", "install", "sizes", "gpu"]
    parser.add_argument("--only", nargs="+", choices=tables_of, help="leave out the others")
    asked = parser.parse_args()
    if asked.refine and find_spec("torch") is None:
        parser.error('--refine needs PyTorch: pip install "scumble[torch]"')
    if find_spec("pyvips") is None and (asked.only is None or "sizes" in asked.only):
        parser.error('large pictures need pyvips: pip install "scumble[big]", or --only methods versus command install')
    if find_spec("onnx") is None and (asked.only is None or "versus" in asked.only):
        parser.error('the network of MicroAST\'s shape needs onnx: pip install "scumble[torch]", or --only methods command install')

    sys.path.insert(0, str(ROOT / "src"))
    budget = Budget(2, 3, 2.0) if asked.quick else Budget()
    if asked.only is not None and "gpu" in asked.only and not _has_gpu():
        parser.error("frames on a GPU need PyTorch with CUDA and a GPU; there is none here")
    sizes = asked.sizes or [(n, n) for n in (256, 512, 1024)] + ([] if asked.quick else [(2048, 2048), (2160, 3840)])
    beside = asked.sizes or [(512, 512), (1024, 1024)] + ([] if asked.quick else [(2160, 3840)])
    one = asked.sizes[0] if asked.sizes else (512, 512)
    progress = Console(stderr=True)

    def note(text: str) -> None:
        progress.print(f"[dim]{text} …[/dim]")

    machine = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "matmul_512": asdict(tables.floor(budget)),
    }
    jobs = {
        "versus": lambda: tables.versus(beside, budget, note),
        "methods": lambda: tables.methods(sizes, budget, note),
        "command": lambda: tables.command(one, budget, note),
        "install": tables.install,
        "sizes": lambda: large.sizes(large.SIDES[:2] if asked.quick else large.SIDES, note),
    }
    frames = asked.sizes or [(512, 512), (1080, 1920), (2160, 3840)]
    jobs["gpu"] = lambda: importlib.import_module("benchmarks.gpu").gpu(frames, budget, note)
    wanted = {name: job for name, job in jobs.items() if asked.only is None or name in asked.only}
    if asked.refine:
        wanted["refine"] = lambda: tables.refinement(one, note)

    out = Console(width=None if sys.stdout.isatty() else 140)
    if not asked.json:
        out.print(f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, ONNX Runtime {machine['onnxruntime']}")
    results: dict[str, object] = {"machine": machine}
    for name, job in wanted.items():
        if name == "gpu" and not _has_gpu():
            continue
        results[name], shown = job()
        if not asked.json:
            out.print(shown)
    if asked.json:
        print(json.dumps(results, indent=1))


def _has_gpu() -> bool:
    """Imports PyTorch, so not before the tables that must have the process for themselves."""
    return find_spec("torch") is not None and importlib.import_module("torch").cuda.is_available()


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as f:  # noqa: PTH123  (not a file on disk)
            for line in f:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
