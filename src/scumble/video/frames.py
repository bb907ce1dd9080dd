"""What all the readers and writers speak of: a frame, a clip, and work done ahead in a thread."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scumble.errors import MissingExtraError, UsageError
from scumble.picture import Picture

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
T = TypeVar("T")

DEFAULT_RATE = Fraction(25)
"""Frames a second where nothing tells: numbered pictures without ``fps``, cameras that don't know."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture and when it is shown. Times are exact: files count in units that no float holds."""

    pixels: Bytes | Floats
    """(H, W, 3) sRGB, upright: uint8, or float32 in [0, 1]."""
    time: Fraction
    """Seconds from the start of the clip."""
    duration: Fraction
    """Seconds."""
    alpha: Bytes | None = None
    """(H, W), 255 is opaque; None where all is."""
    picture: Picture | None = None
    """The file that the frame came from, where each has one: its profile and metadata go on with it."""


@dataclass(frozen=True)
class Color:
    """How numbers in a file stand for colours: the codes of ITU-T H.273, and 1 for the narrow range, 2 for the full one."""

    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2


SRGB = Color(1, 1, 1, 1)
"""What is written where the source is plain sRGB: BT.709 throughout, narrow range."""


@dataclass(frozen=True, eq=False)
class Clip:
    """What is known of a clip before its first frame."""

    name: str
    width: int
    height: int
    rate: Fraction
    """Frames a second, on average."""
    time_base: Fraction
    """The unit of time, in seconds, in which frame times are whole numbers."""
    frames: int | None = None
    """How many there are, as far as the file tells; progress counts to it."""
    aspect: Fraction | None = None
    """Width of a pixel over its height; None if it is 1 or unknown."""
    color: Color = field(default_factory=Color)
    loop: int = 0
    """How often an animation is shown; 0 is for ever."""
    path: Path | None = None
    """The file, where its sound can be had from."""
    start: Fraction = Fraction(0)
    """The file's own time, in seconds, of what is time 0 here."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])


class Reader(Protocol):
    """A clip that can be read once, from its start."""

    clip: Clip

    def __iter__(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown; InputError where they can't be read."""
        ...


def as_float(pixels: Bytes | Floats) -> Floats:
    """Pixels in [0, 1]."""
    if pixels.dtype == np.uint8:
        return np.divide(pixels, np.float32(255), dtype=np.float32)
    return pixels.astype(np.float32, copy=False)


def as_bytes(pixels: Bytes | Floats) -> Bytes:
    """Pixels in 0 … 255, rounded."""
    if pixels.dtype == np.uint8:
        return pixels  # pyright: ignore[reportReturnType]
    return (np.clip(pixels, 0.0, 1.0) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """``items``, drawn in a thread of their own, at most ``depth`` of them waiting; what they raise is raised here.

    Closing the generator ends the thread and closes ``items``, so a chain of these ends from its last link.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    over = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not over.is_set():
            try:
                return waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if over.is_set():
                    break
            put(None, StopIteration())
        except BaseException as error:  # whatever it is, it belongs to whoever waits for the items
            put(None, error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, name="scumble-video", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error = waiting.get(timeout=0.2)  # with a limit: on Windows, Ctrl-C is noticed between two waits only
            except queue.Empty:
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # pyright: ignore[reportReturnType]
    finally:
        over.set()
        thread.join()


def load_av() -> Any:
    """PyAV; MissingExtraError without it."""
    return _extra("av", "PyAV")


def load_cv2() -> Any:
    """OpenCV; MissingExtraError without it."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # read on import; of a camera that isn't there each backend writes to stderr
    return _extra("cv2", "OpenCV")


class _OneThreadEach:
    """Meanwhile OpenCV works in the thread that calls it; then as before, once no film needs that: the setting is the whole program's."""

    def __init__(self) -> None:
        self._lock, self._films, self._before = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        cv2 = load_cv2()
        with self._lock:
            if not self._films:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._films += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._films -= 1
            if not self._films:
                load_cv2().setNumThreads(self._before)


one_thread_each = _OneThreadEach()
"""For all films at once."""


def _extra(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f'this needs {name}: pip install "scumble[video]"') from error


def parse_raw(text: str) -> tuple[int, int, Fraction]:
    """``640x480@25`` -> width, height, frames a second (``@30000/1001`` too); UsageError if that can't be read so."""
    size, _, rate = text.partition("@")
    width, _, height = size.lower().partition("x")
    try:
        found = int(width), int(height), parse_rate(rate or "0")
    except ValueError:
        found = 0, 0, Fraction(0)
    if min(found) <= 0:
        raise UsageError(f"raw frames are described as WIDTHxHEIGHT@FPS, as in 640x480@25; got {text!r}")
    return found


def parse_rate(text: str) -> Fraction:
    """``25``, ``29.97`` or ``30000/1001`` -> frames a second; UsageError if that is no rate."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 10_000:
        raise UsageError(f"a frame rate is a number such as 25 or 30000/1001, up to 10000; got {text!r}")
    return rate
