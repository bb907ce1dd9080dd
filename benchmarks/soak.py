"""Load on a service of its own, on the loopback: throughput and latencies, then memory under full load for some minutes.

python benchmarks/soak.py --minutes 10
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scumble.client import Client, ServiceError
from scumble.picture import Picture

MOST_MINUTES = 30
STYLES = ("great-wave", "irises", "starry-night")


def picture(side: int) -> bytes:
    y, x = np.mgrid[0 : side * 3 // 4, 0:side].astype(np.float32) / np.float32(side)
    return Picture.from_array(np.stack([x, y, 0.5 + 0.5 * np.sin(30 * x) * np.sin(20 * y)], -1)).encode("jpeg")


class Load:
    """So many requests at a time for so many seconds; each asks for the next when it has its answer."""

    def __init__(self, url: str, content: bytes) -> None:
        self.client, self.content = Client(url), content
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def run(self, concurrency: int, seconds: float) -> float:
        self.seconds, self.errors = [], []
        began = time.monotonic()
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(lambda worker: self._ask(worker, began + seconds), range(concurrency)))
        return time.monotonic() - began

    def _ask(self, worker: int, until: float) -> None:
        asked = worker
        while time.monotonic() < until:
            started = time.monotonic()
            try:
                self.client.stylize(self.content, STYLES[asked % len(STYLES)])
            except ServiceError as error:
                with self._lock:
                    self.errors.append(str(error))
                continue
            asked += 1
            with self._lock:
                self.seconds.append(time.monotonic() - started)


def memory(pid: int) -> float:
    """Resident megabytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
    assert found is not None
    return int(found[1]) / 1024


def measure(url: str, pid: int, content: bytes, each: float, minutes: float) -> bool:
    load = Load(url, content)
    load.run(2, 3)  # warm
    print(f"{'at a time':>10} {'a second':>9} {'p50':>8} {'p95':>8} {'p99':>8} {'refused':>8}")
    for concurrency in (1, 4, 16):
        wall = load.run(concurrency, each)
        p50, p95, p99 = (f"{1000 * np.percentile(load.seconds, p):.0f} ms" for p in (50, 95, 99))
        print(f"{concurrency:>10} {len(load.seconds) / wall:>9.2f} {p50:>8} {p95:>8} {p99:>8} {len(load.errors):>8}", flush=True)
    seen, until = [], time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        load.run(16, min(30.0, max(1.0, until - time.monotonic())))
        seen.append(memory(pid))
        print(
            f"memory after {len(seen)} x 30 s at 16: {seen[-1]:.0f} MB, {len(load.seconds)} painted, {len(load.errors)} refused", flush=True
        )
    half = len(seen) // 2
    if half < 2:
        return True
    early, late = float(np.median(seen[:half])), float(np.median(seen[half:]))
    flat = late < 1.05 * early + 20
    print(f"memory: median {early:.0f} MB in the first half, {late:.0f} MB in the second: {'flat' if flat else 'GROWING'}")
    return flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help=f"of full load, at most {MOST_MINUTES}")
    parser.add_argument("--each", type=float, default=20.0, help="seconds at each concurrency")
    parser.add_argument("--side", type=int, default=512, help="longer side of the picture")
    given = parser.parse_args()
    if not 0 <= given.minutes <= MOST_MINUTES:
        parser.error(f"--minutes must be between 0 and {MOST_MINUTES}")
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "scumble", "serve", "--port", "0", "--no-page", "--per-client", "64", "--data", data]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert service.stdout is not None
            url = service.stdout.readline().split("/docs")[0]
            while not Client(url).ready():
                if service.poll() is not None:
                    sys.exit("the service has ended")
                time.sleep(0.1)
            flat = measure(url, service.pid, picture(given.side), given.each, given.minutes)
        finally:
            service.terminate()
            service.wait(60)
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
