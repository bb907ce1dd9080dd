"""What keeps the service within its means: a pool of workers with a bounded queue, and caches with a limit."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Generic, TypeVar

from scumble.errors import InputError, ScumbleError
from scumble.picture import Picture, read_size

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BusyError(ScumbleError):
    """All workers are busy and the queue is full; ``retry_after`` is in seconds, at least 1."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"as many pictures wait as there is room for; try again in {retry_after} s")
        self.retry_after = retry_after


class IsFilmError(InputError):
    """A film where a picture is wanted; what to do with it depends on where it came from."""


def opened(data: bytes, max_pixels: int) -> Picture:
    """The picture in ``data``; InputError if it is none, or larger, IsFilmError for a film.

    The limit is the service's: who sent it can but send a smaller one.
    """
    try:
        height, width = read_size(data)
    except InputError as error:  # it speaks to the command line, and calls whatever comes without a name a picture
        if "is a film" in str(error):
            raise IsFilmError("the file is a film, and a picture is wanted here") from error
        raise InputError(str(error).replace("the picture is not a picture", "the file is not a picture")) from error
    if height * width > max_pixels:
        raise InputError(f"the picture is {width} x {height} pixels, and this service takes {max_pixels:,} at most; send a smaller one")
    return Picture.open(data, max_pixels=max_pixels)


class Slots:
    """A fixed number of threads, and a queue in front of them that is never longer than agreed.

    Args:
        workers: threads.
        queue: calls that may wait for one.
        nice: by how much the threads step back for others (Linux; elsewhere it changes nothing).
    """

    def __init__(self, workers: int, queue: int, name: str, nice: int = 0) -> None:
        self.workers, self.room = workers, workers + queue
        self._pool = ThreadPoolExecutor(workers, name, initializer=step_back, initargs=(nice,))
        self._lock = threading.Lock()
        self._taken = 0
        self._seconds = 1.0  # what a call takes, as a running mean

    @property
    def taken(self) -> int:
        """Calls that run or wait."""
        return self._taken

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have ``call`` done by a worker. BusyError if too many wait already. A future that is cancelled in time leaves the queue."""
        with self._lock:
            if self._taken >= self.room:
                raise BusyError(self.retry_after())
            self._taken += 1
        try:
            future = self._pool.submit(self._timed, call)
        except BaseException:
            self._release()
            raise
        future.add_done_callback(lambda _: self._release())
        return future

    def retry_after(self) -> int:
        """Seconds until there should be room: the queue's length times what a call has been taking."""
        return min(600, max(1, ceil(self._seconds * max(1, self._taken - self.workers) / self.workers)))

    def close(self) -> None:
        """Waiting calls are cancelled, running ones are waited for."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, call: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            return call()
        finally:
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)

    def _release(self) -> None:
        with self._lock:
            self._taken -= 1


def step_back(nice: int) -> None:
    """Lower the priority of this thread, and of the threads that it will start: Linux keeps it for each thread, not for the process."""
    if nice and sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


class Cache(Generic[K, V]):
    """The most recently used values, up to a limit; what two ask for at the same time is made once.

    Args:
        limit: on the sum of the values' costs. The value used last stays in any case.
        cost: of a value; 1 each if not given.
    """

    def __init__(self, limit: float, cost: Callable[[V], float] | None = None) -> None:
        self.limit, self._cost = limit, cost or (lambda _: 1.0)
        self._lock = threading.Lock()
        self._values: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._coming: dict[K, Future[V]] = {}
        self.made = 0
        """How often a value had to be made."""

    @property
    def cost(self) -> float:
        """Of all values together."""
        with self._lock:
            return sum(cost for _, cost in self._values.values())

    def peek(self, key: K) -> V | None:
        """The value if it is here, which counts as a use."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of ``key``, by ``make`` if it is not here; what that raises is raised for all who wait, and nothing is kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            mine: Future[V] = Future()
            coming = self._coming.setdefault(key, mine)
        if coming is not mine:
            return coming.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self.made += 1
            self._values[key] = (value, self._cost(value))
            del self._coming[key]
            total = sum(cost for _, cost in self._values.values())
            while total > self.limit and len(self._values) > 1:
                total -= self._values.popitem(last=False)[1][1]
        mine.set_result(value)
        return value


@dataclass(frozen=True)
class Upload:
    """A file that somebody sent. Its name is remembered in recipes and never used as a path."""

    name: str
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """In hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()
