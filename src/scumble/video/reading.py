"""Frames in: video files, numbered pictures, raw bytes from a pipe, a camera."""

from __future__ import annotations

import logging
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scumble.errors import InputError
from scumble.picture import DEFAULT_MAX_PIXELS, Picture
from scumble.video.frames import DEFAULT_RATE, SRGB, Bytes, Clip, Color, Frame, load_av, load_cv2

log = logging.getLogger("scumble")

UNSPECIFIED = 2
KEEPS_TIME = ("mov", "mp4", "matroska", "webm", "avi", "flv")
"""Formats whose stated duration is written by whoever made them, not guessed from the bit rate: a shorter file is cut off."""


@dataclass
class _Read:
    """What was met on the way through a file."""

    end: Fraction = Fraction(0)
    """Where the last packet ends, in seconds."""
    spoilt: int = 0
    """Packets that can't be decoded."""
    strange: str = ""
    """A size that is not the first frame's, and where it begins."""


class VideoFile:
    """A file in any container and codec that FFmpeg's libraries read. Frames come upright: the rotation tag is applied.

    Raises:
        InputError: no such file, no video, no frames, damaged, more than ``max_pixels`` in a frame.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.path = Path(path)
        av = load_av()
        if not self.path.is_file():
            raise InputError(f"there is no file {path}; check the path")
        try:
            container = av.open(os.fspath(path))
        except av.FFmpegError as error:
            what = (
                "is damaged or incomplete; get a whole copy of it" if self._looks_cut() else f"can't be read as a video ({reason(error)})"
            )
            raise InputError(f"{path} {what}") from error
        with container:
            streams = [s for s in container.streams.video if not _is_cover(s)]
            if not streams:
                raise InputError(f"{path} has no video stream; for a still picture, use `scumble stylize`")
            stream = streams[0]
            self.index: int = stream.index
            context = stream.codec_context
            if context is None:
                raise InputError(f"{path} is coded in a way for which this FFmpeg has no decoder; convert it first")
            first = self._first(container, stream)
            if first.width * first.height > max_pixels:
                size = f"{first.width} x {first.height}"
                raise InputError(f"{path} has {size} pixels a frame, more than {max_pixels:,}; give less, or raise --max-pixels")
            self._stored = (int(first.width), int(first.height))
            self._turn = _turn(first)
            swapped = self._turn[0] % 2 == 1
            aspect = Fraction(stream.sample_aspect_ratio or 0)
            # a file that doesn't say has the clock of its codec for average, a thousand or more a second; the guess looks at the frames
            rate = Fraction(min(filter(None, (stream.average_rate, stream.guessed_rate)), default=DEFAULT_RATE))
            start = Fraction(container.start_time or 0, 1_000_000)
            color = Color(
                int(first.colorspace), int(first.color_range), _code(first, context, "color_primaries"), _code(first, context, "color_trc")
            )
            if _is_rgb(first):  # what is written will have luma and chroma, and somebody has to say how
                color = Color(
                    1, 1, 1 if color.primaries == UNSPECIFIED else color.primaries, 1 if color.transfer == UNSPECIFIED else color.transfer
                )
            if color.transfer in (16, 18):
                log.warning("%s is HDR; it is painted as if it were not, and colours may look flat", path)
            self._length = Fraction(container.duration, 1_000_000) if container.duration and _keeps_time(container) else None
            self._matrix = color.matrix if color.matrix != UNSPECIFIED else guessed_matrix(first.height)
            frames = stream.frames or (round(Fraction(container.duration, 1_000_000) * rate) if container.duration else None)
            self.clip = Clip(
                name=self.path.name,
                width=first.height if swapped else first.width,
                height=first.width if swapped else first.height,
                rate=rate,
                time_base=Fraction(stream.time_base),
                frames=frames or None,
                aspect=None if aspect in (0, 1) else 1 / aspect if swapped else aspect,
                color=color,
                path=self.path,
                start=start,
                metadata={
                    k: v for k, v in container.metadata.items() if k not in ("major_brand", "minor_version", "compatible_brands", "encoder")
                },
            )

    def _first(self, container: Any, stream: Any) -> Any:
        """The first frame that can be decoded: rotation and colours are known for sure only there."""
        av = load_av()
        try:
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        return frame
                except av.error.InvalidDataError:
                    continue
        except av.FFmpegError as error:
            raise InputError(f"{self.path} is damaged ({reason(error)}); get a whole copy of it") from error
        raise InputError(f"{self.path} holds no frame that can be decoded; it is empty or damaged")

    def _looks_cut(self) -> bool:
        """Whether the first bytes are of a film that ends before what is needed to read it."""
        with self.path.open("rb") as file:
            head = file.read(16)
        return head[4:8] in (b"ftyp", b"moov", b"mdat") or head[:4] == b"\x1a\x45\xdf\xa3"

    def __iter__(self) -> Iterator[Frame]:
        av = load_av()
        read, count, last = _Read(), 0, Fraction(-1)
        unit = 1 / self.clip.rate
        with av.open(os.fspath(self.path)) as container:
            stream = container.streams[self.index]
            stream.thread_type = "AUTO"
            try:
                for frame in _deinterlaced(self._decoded(container, read), stream):
                    at = last + unit if frame.pts is None else Fraction(frame.pts) * (frame.time_base or stream.time_base) - self.clip.start
                    last = max(at, last + self.clip.time_base, Fraction(0))  # two frames at a time are none that a file can hold
                    duration = Fraction(frame.duration or 0) * (frame.time_base or stream.time_base) or unit
                    count += 1
                    if (frame.width, frame.height) != self._stored:
                        read.strange = read.strange or f"{frame.width} x {frame.height}, from {float(last):.1f} s on"
                    yield Frame(self._upright(frame), last, duration)
            except av.FFmpegError as error:
                raise InputError(
                    f"{self.path} is damaged after {float(max(last, Fraction(0))):.1f} s ({reason(error)}); get a whole copy of it"
                ) from error
        if not count:
            raise InputError(f"{self.path} holds no frames")
        # some formats count the length from time 0 and some from the start, so what can't be told from whole is whole
        if self._length is not None and read.end + max(self.clip.start, Fraction(0)) < self._length - max(
            Fraction(1, 2), self._length / 50
        ):
            raise InputError(
                f"{self.path} ends after {float(read.end):.1f} of {float(self._length):.1f} s: it is incomplete; get a whole copy of it"
            )
        if read.spoilt:
            packets = "1 packet is" if read.spoilt == 1 else f"{read.spoilt} packets are"
            log.warning("%s: %s damaged, and what frames were in there left out", self.path, packets)
        if read.strange:
            log.warning("%s has frames of %s; they are brought to the size of the first", self.path, read.strange)

    def _decoded(self, container: Any, read: _Read) -> Iterator[Any]:
        av = load_av()
        # all streams, though one is decoded: where the last packet of any of them ends tells whether the file is whole
        for packet in container.demux():
            if packet.pts is not None and packet.time_base:
                read.end = max(read.end, Fraction(packet.pts + (packet.duration or 0)) * packet.time_base - self.clip.start)
            if packet.stream.index != self.index:
                continue
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                read.spoilt += 1

    def _upright(self, frame: Any) -> Bytes:
        """In the size of the first frame: broadcasts change it between two programmes, and no file holds two."""
        width, height = self._stored
        if _is_rgb(frame):
            pixels = frame.reformat(width, height, format="rgb24").to_ndarray()
        else:
            source_range = int(frame.color_range) or (2 if frame.format.name.startswith("yuvj") else 1)
            pixels = frame.reformat(
                width, height, format="rgb24", src_colorspace=self._matrix, src_color_range=source_range, dst_color_range=2
            ).to_ndarray()
        quarters, mirrored = self._turn
        if mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, quarters))


def _deinterlaced(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Where a frame is woven of two fields, rows that were seen half a frame later are interpolated, by FFmpeg's bwdif.

    A net takes their combs for hatching. One frame comes of each, at its time; those that are none of two fields pass as they are.
    """
    av, graph = load_av(), None

    def out(graph: Any) -> Iterator[Any]:
        while True:
            try:
                yield graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    for frame in frames:
        if graph is None:
            if not frame.interlaced_frame:
                yield frame
                continue
            graph = av.filter.Graph()
            source = graph.add_buffer(template=stream, time_base=frame.time_base or stream.time_base)
            graph.link_nodes(source, graph.add("bwdif", mode="send_frame", deint="interlaced"), graph.add("buffersink")).configure()
        graph.push(frame)
        yield from out(graph)
    if graph is not None:
        graph.push(None)
        yield from out(graph)


def guessed_matrix(height: int) -> int:
    """Where a file doesn't say: BT.601 for standard definition, BT.709 above, as players do."""
    return 1 if height > 576 else 6


def reason(error: Exception) -> str:
    """What FFmpeg or the system has to say, without numbers and paths."""
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the still picture that comes with a piece of music."""
    return "attached_pic" in str(getattr(stream, "disposition", "")).lower()


def _is_rgb(frame: Any) -> bool:
    return bool(frame.format.is_rgb) or frame.format.name.startswith(("gray", "pal8", "mono"))


def _keeps_time(container: Any) -> bool:
    return any(name in KEEPS_TIME for name in container.format.name.split(","))


def _code(frame: Any, context: Any, name: str) -> int:
    return int(getattr(frame, name, getattr(context, name, UNSPECIFIED)))


def _turn(frame: Any) -> tuple[int, bool]:
    """Mirror left to right first?, then so many quarter turns counter-clockwise make the frame upright: (turns, mirror).

    From the display matrix (ISO/IEC 14496-12, 8.3.2): a pixel at (x, y) is shown at (a x + c y, b x + d y). Of any
    other angle the nearest quarter is taken: no camera writes one.
    """
    try:
        data = next((bytes(s) for s in frame.side_data if s.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # a kind of data beside it that PyAV has no name for, as EXIF: then it gives none, but the angle
        return round(frame.rotation / 90) % 4, False
    if data is None or len(data) < 36:
        return 0, False
    a, b, _, c, d = struct.unpack("<5i", data[:20])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(float(np.degrees(np.arctan2(-b, a))) / 90) % 4, mirrored


class Numbered:
    """Pictures with numbers in their names: ``frames/%05d.png``, from the lowest on to the first that is missing.

    InputError if there are none, or one differs in size from the first.
    """

    def __init__(self, pattern: str, *, rate: Fraction = DEFAULT_RATE, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.pattern, self.max_pixels = pattern, max_pixels
        there = numbers(pattern)
        if not there:
            raise InputError(f"there is no picture {pattern}; check the path")
        self.first = min(there)
        picture = Picture.open(pattern % self.first, max_pixels=max_pixels)
        count = 1
        while self.first + count in there:
            count += 1
        self.count = count
        name = Path(pattern).parent.name or "frames"
        self.clip = Clip(name, picture.width, picture.height, rate, 1 / rate, frames=count, color=SRGB)

    def __iter__(self) -> Iterator[Frame]:
        for k in range(self.count):
            picture = Picture.open(self.pattern % (self.first + k), max_pixels=self.max_pixels)
            if (picture.width, picture.height) != (self.clip.width, self.clip.height):
                name, size = self.pattern % (self.first + k), f"{picture.width} x {picture.height}"
                raise InputError(f"{name} is {size}, the first one {self.clip.width} x {self.clip.height}; all must be of one size")
            alpha = None if picture.alpha is None else np.round(picture.alpha * 255).astype(np.uint8)
            yield Frame(picture.pixels, k / self.clip.rate, 1 / self.clip.rate, alpha, picture)


def numbers(pattern: str) -> set[int]:
    """Those for which there is a file named so."""
    path = Path(pattern)
    name = re.compile(re.sub(r"%0?\d*d", r"(\\d+)", re.escape(path.name).replace(r"\%", "%")))
    found = [name.fullmatch(p.name) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return {int(m[1]) for m in found if m and path.name % int(m[1]) == m[0]}


def is_numbered(name: str) -> bool:
    """Whether ``name`` stands for many files, one a number."""
    return len(re.findall(r"%0?\d*d", name)) == 1 and name.count("%") == 1


class Raw:
    """Bytes R, G, B, row after row and frame after frame, until ``stream`` ends; InputError if it ends within a frame."""

    def __init__(self, stream: BinaryIO, width: int, height: int, rate: Fraction) -> None:
        self.stream = stream
        self.clip = Clip("stdin", width, height, rate, 1 / rate, color=SRGB)

    def __iter__(self) -> Iterator[Frame]:
        size, count = self.clip.width * self.clip.height * 3, 0
        while data := self._exactly(size):
            if len(data) < size:
                raise InputError(f"standard input ended within frame {count + 1}, after {len(data)} of {size} bytes; is --raw right?")
            pixels = np.frombuffer(data, np.uint8).reshape(self.clip.height, self.clip.width, 3)
            yield Frame(pixels, count / self.clip.rate, 1 / self.clip.rate)
            count += 1
        if not count:
            raise InputError("standard input holds no frames")

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size and (part := self.stream.read(size - len(parts))):
            parts += part
        return bytes(parts)


class Camera:
    """What a camera sees, frame times by the clock, until it has no more.

    ``open_capture`` gives what reads camera ``number`` in the manner of OpenCV's ``VideoCapture``. InputError if it can't be opened.
    """

    def __init__(
        self, number: int, *, open_capture: Callable[[int], Any] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.capture: Any = (open_capture or load_cv2().VideoCapture)(number)
        self.clock = clock
        found, frame = self.capture.read() if self.capture.isOpened() else (False, None)
        if not found or frame is None:
            self.capture.release()
            raise InputError(f"camera {number} can't be opened; is it there, and free?")
        rate = Fraction(float(self.capture.get(5) or 0)).limit_denominator(1001)  # 5: CAP_PROP_FPS
        height, width, _ = frame.shape
        self.clip = Clip(f"camera-{number}", width, height, rate if 0 < rate <= 1000 else DEFAULT_RATE, Fraction(1, 1000), color=SRGB)

    def __iter__(self) -> Iterator[Frame]:
        began, last = self.clock(), Fraction(-1, 1000)
        try:
            while True:
                found, frame = self.capture.read()
                if not found:
                    return
                last = max(Fraction(round((self.clock() - began) * 1000), 1000), last + Fraction(1, 1000))
                yield Frame(np.ascontiguousarray(frame[:, :, ::-1]), last, 1 / self.clip.rate)  # OpenCV has B, G, R
        finally:
            self.capture.release()
