"""The one flow: a clip comes in, its frames are looked at, painted and steadied, a clip goes out; all of it at once, in threads."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time as clock
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from scumble import __version__, weights
from scumble.engine import FINISH
from scumble.errors import MissingExtraError, UsageError, in_range, whole
from scumble.picture import DEFAULT_MAX_PIXELS, SUFFIXES, fitted_size
from scumble.stylizer import MEMORY, StyleLike, Stylizer, sources_of, working_scale
from scumble.tiling import bytes_a_pixel, largest_side, reach
from scumble.video.animation import ANIMATIONS, Animation, AnimationWriter, check_animation
from scumble.video.frames import DEFAULT_RATE, Reader, load_cv2, one_thread_each
from scumble.video.reading import Numbered, VideoFile, is_numbered
from scumble.video.shots import ShotPainter, Timeline
from scumble.video.stages import painted_frames
from scumble.video.steady import USUAL, Steadier
from scumble.video.writing import FORMATS, Encoding, FilmWriter, NumberedWriter, RawWriter, Writer

log = logging.getLogger(__name__)

SEGMENT = 240
"""Frames in a segment: what ``kill -9`` can cost at most, some ten seconds of film."""

Progress = Callable[[int, int | None], None]
"""Called with (frames done, frames in all as far as that is known)."""


@dataclass(frozen=True)
class Filmed:
    """What became of a clip."""

    frames: int
    """In the result, those of an earlier run among them."""
    seconds: float
    """How long it took."""
    size: tuple[int, int]
    """Width, height."""
    interrupted: bool = False


def film(
    source: str | os.PathLike[str] | Reader,
    style: StyleLike | Sequence[tuple[float | None, StyleLike]],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    stylizer: Stylizer | None = None,
    strength: float = 1.0,
    method: str = "generator",
    style_scale: float | None = None,
    keep_color: float = 0.0,
    grain: float = 0.0,
    steady: float | None = None,
    hold: bool = True,
    size: int | None = None,
    memory: int | None = None,
    codec: str | None = None,
    crf: int | None = None,
    rate: Fraction = DEFAULT_RATE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    overwrite: bool = False,
    resume: bool = False,
    segment: int = SEGMENT,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Filmed:
    """Paint a clip: its frame times, size, orientation, colour description and sound stay.

    Args:
        source: a film, an animation (GIF, WebP, APNG), numbered pictures (``%05d.png``), or a reader such as
            :class:`~scumble.video.reading.Raw` and :class:`~scumble.video.reading.Camera`.
        style: one, or several as (seconds, style), between which it morphs.
        target: a film, an animation, numbered pictures, or a stream that takes raw RGB.
        stylizer: the nets; None loads them, to be run by :func:`painting_threads`.
        strength, method, style_scale, keep_color, size: as in :meth:`scumble.stylizer.Stylizer.__call__`; frames are drafts.
        grain: strokes for what is flat, as there. 0 by default, because they stand still: for drawings and cameras that do so, too.
        memory: bytes that a net may take for a frame; what would take more is painted in tiles. None is 2.5 GB. Of a run that is resumed
            it must be the same.
        steady: how much of each frame is taken from those before, along the movement in the film: 0 (nothing) to 1.
            None is :data:`~scumble.video.steady.USUAL`, or 0 where OpenCV, which finds the movement, is not installed.
        hold: whether statistics are held over a shot; False paints frame by frame, for comparison.
        codec: ``h264``, ``h265``, ``vp9`` or ``av1``; None is h264, or vp9 for ``.webm``.
        crf: the codec's quality, lower is better; None is its usual one.
        rate: frames a second of numbered pictures.
        max_pixels: larger frames are refused, as they come and as ``size`` makes them.
        resume: go on with what an earlier run has finished, if there is such.
        segment: frames in a segment; a run that was killed has lost one at most.
        progress: called after each frame.
        stop: asked after each frame; True ends the work with a whole file of what is done.

    Raises:
        UsageError: a setting is out of range or unknown, or what is to be resumed was begun otherwise.
        InputError: the clip can't be read, or the result can't be written; nothing is left under its name.
        MissingExtraError: PyAV or OpenCV is needed and not there.
    """
    steady = _usual_steadiness() if steady is None else in_range("steady", steady, 0.0, 1.0)
    if strength == 0:  # what comes out is what came in
        steady = 0.0
    in_range("segment", segment, 1, 1_000_000)
    if size is not None:
        in_range("size", whole("size", size), 1, 100_000)
    began = clock.monotonic()
    name = target if isinstance(target, (str, os.PathLike)) else None
    encoding = None if name is None else _check_target(os.fspath(name), codec, crf)
    if not isinstance(source, (str, os.PathLike)) and resume:
        raise UsageError("what came through a pipe or from a camera can't be had again, so there is nothing to resume")
    reader = open_clip(source, rate=rate, max_pixels=max_pixels) if isinstance(source, (str, os.PathLike)) else source
    if name is not None and isinstance(source, (str, os.PathLike)) and _is_itself(reader, os.fspath(source), os.fspath(name)):
        raise UsageError(f"{name} can't be painted over itself; choose another name")
    shape = fitted_size(reader.clip.height, reader.clip.width, size)
    if size is not None and shape[0] * shape[1] > max_pixels:
        raise UsageError(f"size {size} makes {shape[0] * shape[1]:,} pixels of a frame; {max_pixels:,} are allowed, choose less")
    if name is not None and encoding is None and not is_numbered(os.fspath(name)):
        check_animation(Path(name).suffix, reader.clip.frames or 1, *shape)
    painter = stylizer or Stylizer(threads=painting_threads())
    timeline = Timeline.of([(seconds, painter.style(one)) for seconds, one in _timed(style)])
    settings: dict[str, Any] = {
        "strength": strength,
        "method": method,
        "style_scale": style_scale,
        "keep_color": keep_color,
        "grain": grain,
    }
    settings["hold"], settings["memory"] = hold, MEMORY if memory is None else memory
    identity = _identity(reader, source, timeline, settings | {"steady": steady, "size": size, "segment": segment})
    shots = ShotPainter(painter, timeline, **settings)
    if strength > 0:
        _check_memory(settings["memory"], method, *shape, style_scale)
    writer = _open_writer(target, reader, encoding, overwrite=overwrite, identity=identity, resume=resume)
    try:
        with one_thread_each if steady > 0 else nullcontext():
            return _run(reader, shots, Steadier(steady), writer, size=size, segment=segment, began=began, progress=progress, stop=stop)
    except BaseException:
        writer.abandon()
        raise


def _is_itself(reader: Reader, source: str, target: str) -> bool:
    """Whether the clip, or one of its pictures, would be replaced by what is painted from it."""
    numbers = range(reader.first, reader.first + reader.count) if isinstance(reader, Numbered) else range(1)
    sources = [source % k for k in numbers] if isinstance(reader, Numbered) else [source]
    targets = [target % k for k in numbers] if is_numbered(target) else [target] * len(sources)  # a picture keeps its number
    return any(Path(b).exists() and Path(b).samefile(a) for a, b in zip(sources, targets, strict=True))


def _timed(style: StyleLike | Sequence[tuple[float | None, StyleLike]]) -> list[tuple[float | None, StyleLike]]:
    """(seconds, style) of each; UsageError for what is no such thing."""
    if not isinstance(style, Sequence) or isinstance(style, (str, bytes)):
        return [(None, one) for one in sources_of(style)]
    timed: list[tuple[float | None, StyleLike]] = []
    for key in style:
        if not isinstance(key, (tuple, list)) or len(key) != 2:  # pyright: ignore[reportUnnecessaryIsInstance, reportUnnecessaryComparison]
            shape = "[(0, 'great-wave'), (4, 'starry-night')]"
            raise UsageError(f"several styles are given with the seconds at which each is reached, as in {shape}; got {key!r}")
        seconds, one = key
        if seconds is not None:
            in_range("a style's time", seconds, -1e9, 1e9)
        timed.append((seconds, sources_of(one)[0]))
    return timed


def _check_memory(memory: float, method: str, height: int, width: int, style_scale: float | None) -> None:
    """A budget below the smallest tile is refused before the first frame and not at it."""
    factor, each = working_scale(height, width, style_scale), bytes_a_pixel(method)
    if round(height * factor) * round(width * factor) * each > memory:
        largest_side(memory, each, reach(method))


def painting_threads() -> int:
    """All cores but the one that reads, steadies and encodes: on two, with both given to painting, films took three quarters longer."""
    return max(1, (os.cpu_count() or 1) - 1)


def _usual_steadiness() -> float:
    try:
        load_cv2()
    except MissingExtraError:
        return 0.0
    return USUAL


def open_clip(source: str | os.PathLike[str], *, rate: Fraction = DEFAULT_RATE, max_pixels: int = DEFAULT_MAX_PIXELS) -> Reader:
    """A film, an animation or numbered pictures, by the name; ``rate`` is for the latter. InputError where it can't be read."""
    name = os.fspath(source)
    if is_numbered(name) and not Path(name).exists():
        return Numbered(name, rate=rate, max_pixels=max_pixels)
    if Path(name).suffix.lower() in ANIMATIONS:
        return Animation(name, max_pixels=max_pixels)
    return VideoFile(name, max_pixels=max_pixels)


def _check_target(name: str, codec: str | None, crf: int | None) -> Encoding | None:
    """What can't be meant is said before anything is read."""
    suffix = Path(name).suffix.lower()
    if suffix in FORMATS:
        return Encoding.choose(suffix, codec, crf)
    if codec is not None or crf is not None:
        raise UsageError(f"codec and crf are for films ({', '.join(FORMATS)}); got {name!r}")
    if is_numbered(name):
        if suffix not in SUFFIXES:
            raise UsageError(f"cannot save as {name!r}; the suffix of numbered pictures must be one of {', '.join(SUFFIXES)}")
    elif suffix not in ANIMATIONS:
        allowed = ", ".join([*FORMATS, *ANIMATIONS])
        raise UsageError(f"cannot save as {name!r}; the suffix must be one of {allowed}, or the name one with a number, as in %05d.png")
    return None


def _open_writer(
    target: Any, reader: Reader, encoding: Encoding | None, *, overwrite: bool, identity: dict[str, Any], resume: bool
) -> Writer:
    if not isinstance(target, (str, os.PathLike)):
        if resume:
            raise UsageError("what went into a pipe can't be gone on with; leave out --resume")
        return RawWriter(target)
    name = os.fspath(target)
    if encoding is not None:
        return FilmWriter(Path(name), reader.clip, encoding, overwrite=overwrite, identity=identity, resume=resume)
    if is_numbered(name):
        first = reader.first if isinstance(reader, Numbered) else 1
        return NumberedWriter(name, first=first, frames=reader.clip.frames, overwrite=overwrite, identity=identity, resume=resume)
    if resume:
        raise UsageError("an animation is written in one go, so there is nothing to resume; resume is for films and numbered pictures")
    return AnimationWriter(Path(name), reader.clip, overwrite=overwrite)


def _run(
    reader: Reader,
    shots: ShotPainter,
    steadier: Steadier,
    writer: Writer,
    *,
    size: int | None,
    segment: int,
    began: float,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> Filmed:
    """Frames are encoded here, in the thread that asked for the film; what comes before has threads of its own."""
    count, painted_size, interrupted = writer.done, (0, 0), False
    steadied = painted_frames(reader, shots, steadier, writer, size=size, segment=segment)
    try:
        for item in steadied:
            if isinstance(writer, AnimationWriter) and writer.is_full(item.frame):
                log.warning("an animation holds no more: what comes after frame %d is left out; a film (.mp4) holds it", count)
                interrupted = True
                break
            painted_size = writer.write(item.frame, item.snapshot)
            count += 1
            if progress is not None:
                progress(count, reader.clip.frames)
            if stop is not None and stop():
                interrupted = True
                break
    finally:
        steadied.close()
    writer.finish(interrupted=interrupted)
    return Filmed(count, clock.monotonic() - began, painted_size, interrupted)


def _identity(reader: Reader, source: Any, timeline: Timeline, settings: dict[str, Any]) -> dict[str, Any]:
    """All that decides what comes out, to tell whether an earlier run was about the same."""
    clip = reader.clip
    found: dict[str, Any] = {"Scumble": __version__, **settings, "clip": [clip.width, clip.height, str(clip.time_base), clip.frames]}
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        paths = [Path(name % (reader.first + k)) for k in range(reader.count)] if isinstance(reader, Numbered) else [Path(name)]
        stamps = [[stat.st_size, stat.st_mtime_ns] for stat in (path.stat() for path in paths)]
        found["source"] = [os.fspath(Path(name).absolute()), hashlib.sha256(json.dumps(stamps).encode()).hexdigest()]
    found["style"] = [[seconds, style.digest] for seconds, style in timeline.keys]
    nets = ["generator.onnx", "modulator.onnx"] if settings["method"] == "generator" else [f"decoder{k}.onnx" for k in range(1, 6)]
    used = ["eye.onnx", *nets, *(f"{name}.onnx" for name in FINISH)]
    found["weights"] = [weights.manifest()[name].sha256 for name in used if name in weights.manifest()]
    return found


def standard_output() -> BinaryIO:
    """Where raw frames go for ``-``; UsageError if that is a terminal."""
    if sys.stdout.isatty():
        raise UsageError("raw frames would fill the terminal; pipe them into another program, or give -o FILE")
    return sys.stdout.buffer
