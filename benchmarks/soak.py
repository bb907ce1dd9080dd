"""Load on a service of its own, on the loopback: throughput and latencies, then memory under full load for some minutes; or the page's
sliders, as a browser moves them.

python benchmarks/soak.py --minutes 10
python benchmarks/soak.py --sliders
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

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


def processor(pid: int) -> float:
    """Seconds that a process has computed, all threads together."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Visitor:
    """The page without a browser: Gradio's events, sent as its script sends them."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, secrets.token_hex(6)
        self.page = self._json("/config")
        self.parts = {c["id"]: c["props"].get("elem_id") for c in self.page["components"]}

    def fire(self, part: str | None, event: str, values: dict[str, Any], then: bool = False) -> list[Any]:
        """The outputs of what ``event`` of ``part`` starts (with ``then``, of what follows on it), waited for."""
        events = self.page["dependencies"]
        place = next(i for i, e in enumerate(events) if any(self.parts.get(c) == part and on == event for c, on in e["targets"]))
        asked = events[place + then]
        data = [values.get(self.parts.get(id) or "") for id in asked["inputs"]]
        self._json("/gradio_api/queue/join", {"data": data, "fn_index": asked["id"], "session_hash": self.session})
        with urllib.request.urlopen(f"{self.url}/gradio_api/queue/data?session_hash={self.session}", timeout=120) as stream:
            for line in stream:
                told = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if told.get("msg") == "process_completed":
                    assert told["success"], told
                    return told["output"]["data"]
        raise AssertionError("the stream ended before the event did")

    def bring(self, content: bytes) -> dict[str, str]:
        """Upload a picture; what the page then says about it."""
        form = b'--b\r\ncontent-disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + content + b"\r\n--b--\r\n"
        request = urllib.request.Request(f"{self.url}/gradio_api/upload", form, {"content-type": "multipart/form-data; boundary=b"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {"path": json.load(answer)[0], "name": "a.jpg"}

    def _json(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def measure_sliders(url: str, pid: int, content: bytes, changes: int) -> bool:
    """One visitor who moves one slider after the other; prints what a change takes, from the event until the answer has been read."""
    visitor = Visitor(url)
    values: dict[str, Any] = {
        "sc-strength": 1.0, "sc-keep": 0.0, "sc-natural": True, "sc-brush": 1.0, "sc-quality": "draft", "sc-method": "generator",
        "sc-size": 0, "sc-format": "as the original",
    }  # fmt: skip

    def blend(share: float) -> dict[str, Any]:
        return {"sc-gallery-block": {"terms": [[1 - share, "great-wave"], [share, "irises"]]}}

    visitor.fire(None, "load", {})
    visitor.fire("sc-stage-block", "picture", {"sc-stage-block": visitor.bring(content)})
    visitor.fire("sc-stage-block", "picture", values, then=True)
    time.sleep(2)  # as somebody who looks at it
    sliders: Sequence[tuple[str, str, str, Callable[[float], dict[str, Any]]]] = (
        ("none: the file format", "sc-format", "input", lambda t: {"sc-format": "PNG"}),
        ("strength, below 1", "sc-strength", "input", lambda t: {"sc-strength": 0.1 + 0.8 * t}),
        ("strength, above 1", "sc-strength", "input", lambda t: {"sc-strength": 1.1 + 0.8 * t}),
        ("keep my colours", "sc-keep", "input", lambda t: {"sc-keep": 0.1 + 0.8 * t}),
        ("strength, colours kept", "sc-strength", "input", lambda t: {"sc-strength": 0.1 + 1.8 * t, "sc-keep": 0.5}),
        ("brush", "sc-brush", "input", lambda t: {"sc-brush": 0.5 + 2 * t}),
        ("blend", "sc-gallery-block", "pick", lambda t: blend(0.1 + 0.8 * t)),
        ("strength, adain", "sc-strength", "input", lambda t: {"sc-strength": 0.1 + 1.8 * t, "sc-method": "adain"}),
        ("strength, ot", "sc-strength", "input", lambda t: {"sc-strength": 0.1 + 1.8 * t, "sc-method": "ot"}),
    )
    print(f"{'slider':24} {'first':>8} {'p50':>8} {'p95':>8} {'processor':>10}  (of {changes} changes)")
    within = True
    for name, part, event, at in sliders:
        seconds: list[float] = []
        used = 0.0
        for k in range(changes + 1):
            began, computed = time.monotonic(), processor(pid)
            visitor.fire(part, event, {**values, **at(k / changes)})
            seconds.append(time.monotonic() - began)
            used += (processor(pid) - computed) * (k > 0)
        p50, p95 = (float(np.percentile(seconds[1:], p)) for p in (50, 95))
        within &= p50 < 0.3 or name.endswith(("adain", "ot"))
        first, mean = seconds[0], used / changes
        print(f"{name:24} {1000 * first:5.0f} ms {1000 * p50:5.0f} ms {1000 * p95:5.0f} ms {1000 * mean:7.0f} ms", flush=True)
    return within


@contextmanager
def serving(*options: str) -> Generator[tuple[str, int], None, None]:
    """A service of one's own: its address and its process."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "scumble", "serve", "--port", "0", "--data", data, *options]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert service.stdout is not None
            url = re.search(r"(http://[^/]+)/docs", service.stdout.readline())
            assert url is not None, "the service has ended"
            while not Client(url[1]).ready():
                if service.poll() is not None:
                    sys.exit("the service has ended")
                time.sleep(0.1)
            yield url[1], service.pid
        finally:
            service.terminate()
            service.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help=f"of full load, at most {MOST_MINUTES}")
    parser.add_argument("--each", type=float, default=20.0, help="seconds at each concurrency")
    parser.add_argument("--side", type=int, help="longer side of the picture; 512, for sliders 1024")
    parser.add_argument("--sliders", action="store_true", help="measure the page's sliders in place of all that")
    parser.add_argument("--changes", type=int, default=30, help="of each slider")
    given = parser.parse_args()
    if not 0 <= given.minutes <= MOST_MINUTES:
        parser.error(f"--minutes must be between 0 and {MOST_MINUTES}")
    if given.sliders:
        with serving() as (url, pid):
            good = measure_sliders(url, pid, picture(given.side or 1024), given.changes)
    else:
        with serving("--no-page", "--per-client", "64") as (url, pid):
            good = measure(url, pid, picture(given.side or 512), given.each, given.minutes)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
