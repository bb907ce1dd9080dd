"""The jobs' workers: long work, done one after the other beside the quick one, surviving whatever ends the process."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.errors import ScumbleError
from scumble.picture import Picture
from scumble.serve.limits import step_back
from scumble.serve.orders import FILMS, MEDIA, OF_FILMS, Order, finished, from_json, suffix, to_json
from scumble.serve.preview import SIDE, fitted
from scumble.serve.service import PaintService, StoppedError
from scumble.serve.store import LEASE, STATES, Job, Store, write_whole

__all__ = ["STATES", "Job", "Jobs"]

log = logging.getLogger(__name__)

SWEEP = 60.0
"""Seconds between two looks for what has expired."""
NICE = 5
"""By how much jobs step back for pictures that somebody waits for: a third of the time where both want all of it."""
LOOK = 1.0
"""Seconds between two looks for jobs of other processes; one's own are seen at once."""


class _Run:
    """A job that is being worked on here."""

    def __init__(self, job: Job, seconds: float) -> None:
        self.job, self.deadline = job, time.monotonic() + seconds
        self.cancel = threading.Event()
        self.told = 0.0  # when progress was last written
        self.why: str | None = None
        """A sentence, if it was stopped because of a limit."""


class Jobs:
    """Workers for the jobs in a store. :meth:`start` begins, :meth:`close` puts back what runs."""

    def __init__(self, service: PaintService) -> None:
        self.service, self.settings = service, service.settings
        self.store = Store(self.settings.folder, self.settings.disk, self.settings.job_queue, self.settings.retention)
        self.owner = secrets.token_hex(8)
        self._runs: dict[str, _Run] = {}
        self._wake, self._over = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the workers and whoever looks after them."""
        for target in (self._keep, *[self._work] * self.settings.jobs):
            thread = threading.Thread(target=target, name="scumble-job", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop; jobs that run wait for the next start, and are then done from their beginning (films: from where they were)."""
        self._over.set()
        self._wake.set()
        for run in list(self._runs.values()):
            run.cancel.set()
        for thread in self._threads:
            thread.join()
        self.store.close()

    def add(self, order: Order, kind: str) -> Job:
        """A job for ``order``; ``kind`` is picture or film. FullError."""
        text, files = to_json(order)
        job = self.store.add(kind, text, files)
        self._wake.set()
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job: one that waits at once, one that runs with the best so far."""
        self.store.cancel(job.id)
        run = self._runs.get(job.id)
        if run is not None:
            run.cancel.set()
        now = self.store.get(job.id)
        if now is not None and now.ended:
            with suppress(OSError):
                self.store.clear_inputs(now)

    def _keep(self) -> None:
        """Renew leases, hear of cancellations, end what takes too long, delete what has expired."""
        swept = -SWEEP
        while not self._over.wait(min(LOOK, LEASE / 5)):
            try:
                for run in list(self._runs.values()):
                    job = self.store.renew(run.job.id, self.owner)
                    if time.monotonic() > run.deadline:
                        run.why = f"the job was stopped after {self.settings.job_timeout:g} s"
                    if job is None or job.cancel or run.why:
                        run.cancel.set()
                if time.monotonic() - swept > SWEEP:
                    self.store.sweep()
                    swept = time.monotonic()
            except Exception:  # a full disk, a locked file: what passes; without this thread all leases would run out
                log.exception("looking after the jobs failed")

    def _work(self) -> None:
        step_back(NICE)
        while not self._over.is_set():
            self._wake.clear()
            try:
                job = self.store.claim(self.owner, list(self._runs))
            except Exception:
                log.exception("the next job can't be had")
                job = None
            if job is None:
                self._wake.wait(LOOK)
                continue
            run = self._runs[job.id] = _Run(job, self.settings.job_timeout)
            if self._over.is_set():  # close() has told those that it saw
                run.cancel.set()
            try:
                self._do(run)
            except Exception:  # its end could not be written; when its lease has run out it is begun again
                log.exception("job %s came to no end", job.id)
            finally:
                del self._runs[job.id]

    def _do(self, run: _Run) -> None:
        """One job to its end; what goes wrong is written to its row; raised is what the store raises."""
        job = run.job
        try:
            order = from_json(job.request, lambda name: self.store.path(job.id, name).read_bytes())
            name, media = (self._film if job.kind == "film" else self._picture)(run, order)
        except BaseException as error:
            if self._over.is_set():
                self.store.put_back(job.id, self.owner)
                return
            if isinstance(error, StoppedError) and run.why is not None:
                self._end(job, "failed", error=run.why)
                return
            if isinstance(error, StoppedError) or (run.cancel.is_set() and run.why is None and isinstance(error, KeyboardInterrupt)):
                self._end(job, "cancelled")
                return
            known = isinstance(error, (ScumbleError, MemoryError))
            if not known:
                log.exception("job %s failed", job.id)
            sentence = "out of memory; give a smaller picture" if isinstance(error, MemoryError) else self._told(job, error)
            self._end(job, "failed", error=sentence if known else "something went wrong; the service's log says more under the job's id")
            return
        if self._over.is_set() and run.cancel.is_set():  # a refinement that the service's end has cut short
            self.store.put_back(job.id, self.owner)
            return
        stopped = run.cancel.is_set()
        size = self.store.path(job.id, name).stat().st_size
        if self.store.used() - job.bytes + size > self.settings.disk:
            self.store.path(job.id, name).unlink(missing_ok=True)
            self._end(job, "failed", error="there was no disk space for the result; delete other jobs and try again")
            return
        more = {} if run.why is None else {"error": run.why}
        state = "cancelled" if stopped and run.why is None else "done"
        self._end(job, state, result=name, media=media, bytes=size, interrupted=int(stopped), **more)

    def _end(self, job: Job, state: str, **more: Any) -> None:
        if self.store.end(job.id, self.owner, state, **{"bytes": 0, **more}):
            ended = self.store.get(job.id)
            if ended is not None:
                with suppress(OSError):
                    self.store.clear_inputs(ended)

    def _told(self, job: Job, error: BaseException) -> str:
        """The error's sentence, without the folder of the job: that is nobody's business."""
        folder = self.store.path(job.id)
        return str(error).replace(str(folder / "content"), "the content").replace(f"{folder}{os.sep}", "").replace(str(folder), "…")

    def _picture(self, run: _Run, order: Order) -> tuple[str, str]:
        def preview(pixels: NDArray[np.float32]) -> None:
            small = fitted(Picture.from_array(np.clip(pixels, 0.0, 1.0)), SIDE)
            write_whole(self.store.path(run.job.id, "preview.jpg"), small.encode("jpeg", quality=85))
            self.store.previewed(run.job.id, self.owner)

        def progress(done: int, total: int, loss: float) -> None:
            self._tell(run, done, total, loss)

        data, key, _ = finished(self.service, order, "", progress=progress, preview=preview, cancel=run.cancel)
        name = f"result{suffix(key)}"
        write_whole(self.store.path(run.job.id, name), data)
        return name, MEDIA[key]

    def _film(self, run: _Run, order: Order) -> tuple[str, str]:
        from scumble.video import film
        from scumble.video.animation import Animation, moves

        name = f"result.{order.format or 'mp4'}"
        folder, settings = self.store.path(run.job.id), self.service.complete(order.settings)
        taken = {name: settings[name] for name in OF_FILMS} | {"grain": order.settings.get("grain", 0.0)}  # that of stills is not 0

        def progress(done: int, total: int | None) -> None:
            if self._tell(run, done, total, None) and self.store.used() - run.job.bytes + _size(folder) > self.settings.disk:
                run.why = "the disk space for jobs was used up"
                run.cancel.set()

        content = folder / "content"
        source = Animation(content, max_pixels=self.settings.max_pixels) if moves(order.content.data) else content
        film(
            source, self.service.blended(order.styles[0]), folder / name, stylizer=self.service.painter, steady=order.steady,
            max_pixels=self.settings.max_pixels, memory=self.settings.memory, overwrite=True,
            resume=source is content and name.rpartition(".")[2] != "gif", progress=progress, stop=run.cancel.is_set, **taken,
        )  # fmt: skip
        return name, FILMS[order.format or "mp4"]

    def _tell(self, run: _Run, done: int, total: int | None, loss: float | None) -> bool:
        """Write progress, four times a second at most; whether it was written."""
        now = time.monotonic()
        if now - run.told < 0.25 and done != total:
            return False
        run.told = now
        self.store.progress(run.job.id, self.owner, done, total, loss)
        return True


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
