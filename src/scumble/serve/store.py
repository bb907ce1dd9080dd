"""Jobs on disk: a row each in SQLite and a folder for the files, so that both outlive the process, however it ends.

A folder is whole before its row is there, and a result has its name before the row says so. Whoever works on a job holds it by a lease
that has to be renewed: of a process that was killed nothing is left but a lease that runs out, and the job is taken up again.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scumble._files import reason
from scumble.errors import InputError, ScumbleError

STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = ("done", "failed", "cancelled")
LEASE = 15.0
"""Seconds; after a kill this is how long a job that was running waits."""
ATTEMPTS = 3
"""How often a job is begun; one that has ended its process as often is not begun again."""
ORPHAN = 3600.0
"""Seconds after which a folder without a row is nobody's: its request was killed half-way."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL, expires REAL,
    owner TEXT, lease REAL, attempts INTEGER NOT NULL DEFAULT 0, cancel INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, total INTEGER, loss REAL, previews INTEGER NOT NULL DEFAULT 0,
    interrupted INTEGER NOT NULL DEFAULT 0, error TEXT, result TEXT, media TEXT, bytes INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
"""
_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class FullError(ScumbleError):
    """The disk space for jobs, or their queue, is used up."""


@dataclass(frozen=True)
class Job:
    """A row; times are seconds since 1970."""

    id: str
    kind: str
    state: str
    request: str
    created: float
    started: float | None
    finished: float | None
    expires: float | None
    owner: str | None
    lease: float | None
    attempts: int
    cancel: int
    done: int
    total: int | None
    loss: float | None
    previews: int
    interrupted: int
    error: str | None
    result: str | None
    media: str | None
    bytes: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED


class Store:
    """The jobs in ``folder``; several processes may share it.

    Args:
        disk: bytes that all of it may take.
        queue: jobs that may wait.
        retention: seconds that a job is kept after its end.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, disk: int, queue: int, retention: float, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.disk, self.queue, self.retention, self.clock = folder, disk, queue, retention, clock
        try:
            (folder / "jobs").mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(folder / "jobs.sqlite3", timeout=30, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"jobs can't be kept in {folder} ({reason(error)}); choose another folder with --data") from error
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def path(self, job: str, name: str = "") -> Path:
        """A file of a job."""
        if not _ID.fullmatch(job):
            raise ValueError("not the id of a job")
        return self.folder / "jobs" / job / name

    def add(self, kind: str, request: str, files: Mapping[str, bytes]) -> Job:
        """A new job. FullError if too many wait already or the disk space is used up."""
        job, size = secrets.token_urlsafe(16), sum(map(len, files.values()))
        self._check_room(size)
        folder = self.path(job)
        folder.mkdir(mode=0o700)
        try:
            for name, data in files.items():
                write_whole(folder / name, data)
            with self._transaction():
                self._check_room(size)  # once more, where nobody comes between
                self._db.execute(
                    "INSERT INTO jobs (id, kind, state, request, created, bytes) VALUES (?, ?, 'queued', ?, ?, ?)",
                    (job, kind, request, self.clock(), size),
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._known(job)

    def _check_room(self, size: int) -> None:
        if self.count("queued") >= self.queue:
            many = "1 job is" if self.queue == 1 else f"{self.queue} jobs are"
            raise FullError(f"{many} waiting already, which fills the queue of jobs; try again later")
        if self.used() + size > self.disk:
            raise FullError("the disk space for jobs is used up; try again when results have expired, or delete some")

    def get(self, job: str) -> Job | None:
        """The job, or None if there is none, or none any more."""
        if not _ID.fullmatch(job):
            return None
        row = self._one("SELECT * FROM jobs WHERE id = ?", (job,))
        return None if row is None else Job(**dict(row))

    def _known(self, job: str) -> Job:
        found = self.get(job)
        assert found is not None
        return found

    def count(self, state: str) -> int:
        """How many jobs are in ``state``."""
        row = self._one("SELECT COUNT(*) AS n FROM jobs WHERE state = ?", (state,))
        return 0 if row is None else int(row["n"])

    def used(self) -> int:
        """Bytes that the files of all jobs take."""
        row = self._one("SELECT COALESCE(SUM(bytes), 0) AS n FROM jobs")
        return 0 if row is None else int(row["n"])

    def claim(self, owner: str, running: Sequence[str] = ()) -> Job | None:
        """The oldest job that waits, or whose worker has died, now ``owner``'s; None if there is none.

        ``running`` are those that the owner works on: a lease renewed too late doesn't give them to another of its threads.
        """
        now = self.clock()
        died = f"state = 'running' AND lease < ? AND id NOT IN ({', '.join('?' * len(running))})"
        with self._transaction():
            self._db.execute(
                f"UPDATE jobs SET state = 'failed', finished = ?, expires = ?, bytes = 0, error = ? WHERE {died} AND attempts >= ?",
                (now, now + self.retention, f"the job ended the service {ATTEMPTS} times and is not tried again", now, *running, ATTEMPTS),
            )
            row = self._one(f"SELECT id FROM jobs WHERE state = 'queued' OR ({died}) ORDER BY created LIMIT 1", (now, *running))
            if row is None:
                return None
            self._db.execute(
                "UPDATE jobs SET state = 'running', owner = ?, lease = ?, attempts = attempts + 1, started = COALESCE(started, ?) "
                "WHERE id = ?",
                (owner, now + LEASE, now, row["id"]),
            )
            return self._known(row["id"])

    def renew(self, job: str, owner: str) -> Job | None:
        """Hold a job for longer; None if it is not ``owner``'s any more."""
        changed = self._change(job, owner, "lease = ?", self.clock() + LEASE)
        return self.get(job) if changed else None

    def progress(self, job: str, owner: str, done: int, total: int | None, loss: float | None) -> None:
        """How far a job is."""
        self._change(job, owner, "done = ?, total = ?, loss = ?", done, total, loss)

    def previewed(self, job: str, owner: str) -> None:
        """There is a new preview."""
        self._change(job, owner, "previews = previews + 1")

    def put_back(self, job: str, owner: str) -> None:
        """A job that could not be brought to its end, through no fault of its own, waits again."""
        self._change(job, owner, "state = 'queued', owner = NULL, lease = NULL, attempts = attempts - 1")

    def end(self, job: str, owner: str, state: str, **more: Any) -> bool:
        """A job has come to its end, with ``error``, or ``result``, ``media``, ``bytes`` and ``interrupted``; False if it is another's."""
        columns = "".join(f", {name} = ?" for name in more)
        return self._change(
            job, owner, f"state = ?, finished = ?, expires = ?{columns}", state, self.clock(), self.clock() + self.retention, *more.values()
        )

    def cancel(self, job: str) -> None:
        """A job that waits is cancelled and its files count no longer, one that runs is told to stop."""
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ?, expires = ?, bytes = 0 WHERE id = ? AND state = 'queued'",
                (self.clock(), self.clock() + self.retention, job),
            )
            self._db.execute("UPDATE jobs SET cancel = 1 WHERE id = ? AND state = 'running'", (job,))

    def delete(self, job: str) -> None:
        """Row and files of a job that has ended."""
        with self._transaction():
            self._db.execute(f"DELETE FROM jobs WHERE id = ? AND state IN {ENDED}", (job,))
        if self.get(job) is None:
            shutil.rmtree(self.path(job), ignore_errors=True)

    def sweep(self) -> None:
        """Delete what has expired, the inputs of what has ended, and folders that nobody knows."""
        now = self.clock()
        with self._lock:
            rows = self._db.execute("SELECT id FROM jobs WHERE expires < ?", (now,)).fetchall()
        for row in rows:
            self.delete(row["id"])
        for folder in (self.folder / "jobs").iterdir():
            job = self.get(folder.name)
            with suppress(OSError):  # another process deletes as well
                if job is not None and job.ended:
                    self.clear_inputs(job)
                elif job is None and now - folder.stat().st_mtime > ORPHAN:
                    shutil.rmtree(folder, ignore_errors=True)

    def clear_inputs(self, job: Job) -> None:
        """What a job that has ended was made of."""
        for path in self.path(job.id).iterdir():
            if path.name != job.result:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _change(self, job: str, owner: str, what: str, *values: Any) -> bool:
        with self._lock:
            done = self._db.execute(
                f"UPDATE jobs SET {what} WHERE id = ? AND owner = ? AND state = 'running'",
                (*values, job, owner),
            )
            return done.rowcount == 1

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Row | None:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def write_whole(path: Path, data: bytes) -> None:
    """A file, on the disk before it has its name."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
