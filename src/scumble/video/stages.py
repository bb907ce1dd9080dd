"""What happens to a frame on its way through a film: it is looked at, its fade and movement found, painted, steadied."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from scumble.picture import fitted_size
from scumble.stylizer import resize
from scumble.video.animation import AnimationWriter
from scumble.video.fades import Fade, part_of
from scumble.video.frames import Floats, Frame, Reader, ahead, as_bytes, as_float
from scumble.video.shots import Change, Cuts, ShotPainter, Snapshot
from scumble.video.steady import Flow, Past, Steadier
from scumble.video.writing import NumberedWriter, Writer

DEPTH = 3
"""Frames that wait between two stages: enough to even out their times, few enough for 4K."""

AHEAD, HELD = 50, 256_000_000
"""Frames of a fade-in that are held back until it is over, and bytes of them: two seconds, and at 3840 x 2160 ten frames."""

WHITE = 255
"""What stands behind transparent pixels where transparency can't be kept."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """A frame, and what it is to those before and to come."""

    frame: Frame
    change: Change
    glide: int
    thumbnail: Floats
    share: float
    """Of :class:`~scumble.video.shots.Cuts`: 0 where there is nothing in the frame."""
    rising: bool
    grows: bool
    fresh: bool
    """Of :class:`~scumble.video.fades.Light`."""
    fade: Fade | None
    snapshot: Snapshot | None
    """What is remembered of it and all before; at the end of a segment only."""
    full: Frame | None = None
    """What is faded in, once it is there."""
    past: Past | None = None


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted frame."""

    frame: Frame
    seen: _Seen
    snapshot: Snapshot | None


def painted_frames(
    reader: Reader, shots: ShotPainter, steadier: Steadier, writer: Writer, *, size: int | None, segment: int
) -> Generator[Painted, None, None]:
    """The frames that ``writer`` lacks, one by one. Reading, looking, painting and steadying have a thread each.

    Each closes the one before when it fails: one that were left at work within OpenCV when the process ends would end it by SIGABRT.
    """
    keeps_alpha = isinstance(writer, (AnimationWriter, NumberedWriter))
    fades = shots.hold and shots.strength > 0
    looked = _foreseen(_look(ahead(reader, DEPTH), writer, size=size, segment=segment, keeps_alpha=keeps_alpha, fades=fades))
    seen = ahead(_move(looked, writer, Flow() if steadier.amount > 0 else None), DEPTH)
    painted = ahead(_paint(seen, shots, writer), DEPTH)
    return ahead(_steady(painted, steadier, writer), DEPTH)


def _look(
    frames: Generator[Frame, None, None], writer: Writer, *, size: int | None, segment: int, keeps_alpha: bool, fades: bool
) -> Generator[_Seen, None, None]:
    """Sizes, cuts and fades. Frames of an earlier run are read once more and passed over: reading is quick, and exact."""
    cuts = Cuts()
    if writer.snapshot is not None:
        cuts.restore(_under("cuts", writer.snapshot))
    with closing(frames):
        for number, given in enumerate(frames, 1):
            if number <= writer.done:
                continue
            frame = _resized(given, size)
            if frame.alpha is not None and not keeps_alpha:
                frame = _on_white(frame)
            change, light = cuts(as_bytes(frame.pixels)), cuts.light
            snapshot = _named("cuts", cuts.snapshot()) if number % segment == 0 else None
            rising, fade = (light.rising, cuts.fade) if fades else (False, None)
            yield _Seen(frame, change, cuts.glide, cuts.thumbnail, cuts.share, rising, light.grows, light.fresh, fade, snapshot)


def _foreseen(seen: Generator[_Seen, None, None]) -> Generator[_Seen, None, None]:
    """What fades in is held back until it is there, or as many frames as may be: then it is a part of the last of them."""
    held: deque[_Seen] = deque()
    with closing(seen):
        for item in seen:
            held.append(item)
            most = max(4, min(AHEAD, HELD // item.frame.pixels.nbytes))
            while held and (len(held) > most or not all(later.rising for later in held)):
                yield _part_of_what_comes(held)
                held.popleft()
    while held:
        yield _part_of_what_comes(held)
        held.popleft()


def _part_of_what_comes(held: deque[_Seen]) -> _Seen:
    """The first of ``held``, that knows of the others."""
    first = full = held[0]
    for item in islice(held, 1, None):
        if not first.rising or not item.rising or item.fresh:
            break
        full = item if item.grows else full
    if full is not first:
        fade = part_of(first.thumbnail, full.thumbnail, first.share)
        return first if fade is None else replace(first, change="none", fade=fade, full=full.frame)
    return replace(first, change="none", full=first.frame) if first.rising and first.grows and not first.fresh else first


def _move(seen: Generator[_Seen, None, None], writer: Writer, flow: Flow | None) -> Generator[_Seen, None, None]:
    """The movement of what is painted, without its fades; where there is nothing, nothing is carried along."""
    if flow is not None and writer.snapshot is not None:
        flow.restore(_under("flow", writer.snapshot))
    with closing(seen):
        for item in seen:
            if flow is None:
                yield item
                continue
            pixels = as_bytes(item.frame.pixels if item.fade is None else item.fade.undone(as_float(item.frame.pixels)))
            past = flow(pixels, cut=item.change == "cut" or item.fresh or item.share == 0)
            snapshot = None if item.snapshot is None else item.snapshot | _named("flow", flow.snapshot())
            yield replace(item, past=past, snapshot=snapshot)


def _paint(seen: Generator[_Seen, None, None], shots: ShotPainter, writer: Writer) -> Generator[Painted, None, None]:
    if writer.snapshot is not None:
        shots.restore(_under("shots", writer.snapshot))
    with closing(seen):
        for item in seen:
            pixels, fade, full = as_float(item.frame.pixels), item.fade, item.full
            painted = shots(
                pixels if fade is None else fade.undone(pixels),
                float(item.frame.time),
                item.change,
                glide=item.glide,
                faded=fade is not None,
                full=None if full is None else (float(full.time), as_float(full.pixels)),
            )
            snapshot = None if item.snapshot is None else item.snapshot | _named("shots", shots.snapshot())
            yield Painted(replace(item.frame, pixels=painted), item, snapshot)


def _steady(painted: Generator[Painted, None, None], steadier: Steadier, writer: Writer) -> Generator[Painted, None, None]:
    if writer.snapshot is not None:
        steadier.restore(_under("steadier", writer.snapshot))
    with closing(painted):
        for item in painted:
            frame, pixels, seen = item.frame, as_float(item.frame.pixels), item.seen
            if steadier.amount > 0:
                pixels = steadier(pixels, seen.past)
            if seen.fade is not None:
                pixels = seen.fade.redone(pixels, as_float(seen.frame.pixels))
            snapshot = None if item.snapshot is None else item.snapshot | _named("steadier", steadier.snapshot())
            yield Painted(replace(frame, pixels=pixels if frame.picture is not None else as_bytes(pixels)), seen, snapshot)


def _named(part: str, snapshot: Snapshot) -> Snapshot:
    return {f"{part}:{key}": value for key, value in snapshot.items()}


def _under(part: str, snapshot: Snapshot) -> Snapshot:
    return {key.partition(":")[2]: value for key, value in snapshot.items() if key.startswith(f"{part}:")}


def _resized(frame: Frame, size: int | None) -> Frame:
    height, width, _ = frame.pixels.shape
    if size is None or size == max(height, width):
        return frame
    h, w = fitted_size(height, width, size)
    if frame.picture is not None:
        picture = frame.picture.resized(width=w, height=h)
        return replace(frame, pixels=picture.pixels, picture=picture)
    pixels = resize(as_float(frame.pixels), h, w)
    alpha = None if frame.alpha is None else as_bytes(resize(np.repeat(as_float(frame.alpha)[:, :, None], 3, -1), h, w)[:, :, 0])
    return replace(frame, pixels=as_bytes(pixels), alpha=alpha)


def _on_white(frame: Frame) -> Frame:
    assert frame.alpha is not None
    share = as_float(frame.alpha)[:, :, None]
    return replace(frame, pixels=as_bytes(as_float(frame.pixels) * share + (np.float32(1) - share) * np.float32(WHITE / 255)), alpha=None)
