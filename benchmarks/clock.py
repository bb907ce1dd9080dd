"""Timing: a call many times, two calls in turn, a call in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.05
"""Seconds before each of several calls: threads of the one before go on spinning for work. PyTorch took a third longer so."""


@dataclass(frozen=True)
class Times:
    """Seconds of ``n`` runs. The best is what the machine can do, the median what one gets."""

    best: float
    median: float
    n: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Times:
        return Times(min(seconds), statistics.median(seconds), len(seconds))


@dataclass(frozen=True)
class Budget:
    """Runs end after ``most`` of them or ``seconds`` in all, but not before ``least``."""

    least: int = 3
    most: int = 15
    seconds: float = 10.0


def measure(call: Callable[[], object], budget: Budget) -> Times:
    """Run ``call`` once for warming up, then as often as the budget allows."""
    return in_turn([call], budget)[0]


def in_turn(calls: Sequence[Callable[[], object]], budget: Budget) -> list[Times]:
    """Times of several calls that take turns, so that whatever else the machine is doing slows all of them alike."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    while len(seconds[0]) < budget.least or (len(seconds[0]) < budget.most and time.perf_counter() - start < budget.seconds * len(calls)):
        for taken, call in zip(seconds, calls, strict=True):
            if len(calls) > 1:
                time.sleep(PAUSE)
            before = time.perf_counter()
            call()
            taken.append(time.perf_counter() - before)
    return [Times.of(taken) for taken in seconds]


def peak_mib() -> float:
    """The most memory that this process has held, in MiB.

    On Linux not ``ru_maxrss``: that survives ``exec``, and a child would report its parent's peak where that was higher.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def apart(task: str, **arguments: Any) -> dict[str, Any]:
    """``benchmarks.tasks.<task>(**arguments)`` in a new process: its peak of memory is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.tasks", json.dumps({"task": task, **arguments})]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{task} {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def environment() -> dict[str, str]:
    """This one, in which ``import scumble`` finds the package beside us whether it is installed or not."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))}


def commands(lines: Sequence[Sequence[str]], budget: Budget) -> list[Times]:
    """Times of whole commands from process start, in turn."""

    def call(line: Sequence[str]) -> None:
        subprocess.run(line, cwd=ROOT, env=environment(), check=True, capture_output=True)

    return in_turn([lambda line=line: call(line) for line in lines], budget)
