"""Animated GIF, WebP and APNG, in and out, with their durations, loops and transparency.

Pillow holds a whole animation before it writes it: these grow with their length, unlike films, up to a limit.

Beside ``picture`` this is the one module that opens and writes image files. A Picture is one frame with its profile and metadata;
durations, loops, disposal and a palette that lasts have no place in it, and nothing else would ever ask it for them.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from scumble._files import checked_target, write_whole
from scumble._formats import check_sides, is_animated, open_moving
from scumble.errors import InputError, ScumbleError
from scumble.picture import DEFAULT_MAX_PIXELS, Picture
from scumble.video.frames import SRGB, Bytes, Clip, Frame, as_bytes
from scumble.video.shots import Snapshot

ANIMATIONS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
"""Suffixes, and what Pillow calls the formats."""

UNHURRIED = Fraction(1, 10)
"""Seconds for which a frame without a duration is shown: all browsers agree on it."""

SHAME = 1.25
"""A GIF keeps its palette from frame to frame, lest colours flicker, until a palette of the frame's own errs so much less."""


MOST_PIXELS = 2_000_000_000
"""In all frames of an animation that is written: 2 GB of memory for a GIF, three to four times that for the others."""


def moves(data: bytes) -> bool:
    """Whether a file is an animation of more than one frame."""
    try:
        return is_animated(open_moving(io.BytesIO(data), ""))
    except ScumbleError:  # what it is, the decoder says in better words
        return False


def check_animation(suffix: str, frames: int, height: int, width: int) -> None:
    """InputError for more pixels than an animation can hold, UsageError for longer sides than one of this kind can have."""
    check_sides(ANIMATIONS[suffix.lower()], height, width, "make a film (.mp4), or give a smaller size")
    if frames * height * width > MOST_PIXELS:
        shape = f"{width} x {height} pixels"
        much = f"1 frame of {shape} is too large" if frames == 1 else f"{frames} frames of {shape} are too many"
        raise InputError(f"{much} for an animation, which holds {MOST_PIXELS:,} pixels at most; make a film (.mp4), or give a smaller size")


class Animation:
    """The frames of an animated file. InputError where it can't be read.

    Pillow and not :class:`~scumble.picture.Picture` opens it: a Picture is one frame.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"there is no file {path}; check the path")
        try:
            with self.path.open("rb") as stream:
                image = open_moving(stream, self.path.name)
                size = image.size
                frames = int(getattr(image, "n_frames", 1)) - _first(image)
                loop, form = image.info.get("loop"), image.format
        except Exception as error:  # of a file that breaks off Pillow's plug-ins say so in a dozen ways
            raise InputError(f"{path} can't be read as an animation: it is another format, damaged or incomplete") from error
        if size[0] * size[1] > max_pixels:
            shape = f"{size[0]} x {size[1]}"
            raise InputError(f"{path} has {shape} pixels a frame, more than {max_pixels:,}; give less, or raise --max-pixels")
        # a GIF says how often it is shown again, and says nothing if it is shown once; the others say how often it is shown
        plays = (1 if loop is None else loop + 1 if loop else 0) if form == "GIF" else int(loop or 0)
        self.clip = Clip(self.path.name, *size, rate=1 / UNHURRIED, time_base=Fraction(1, 1000), frames=frames, loop=plays, color=SRGB)

    def __iter__(self) -> Iterator[Frame]:
        at = Fraction(0)
        try:
            with self.path.open("rb") as stream:
                image = open_moving(stream, self.path.name)
                for k in range(_first(image), int(getattr(image, "n_frames", 1))):
                    image.seek(k)
                    shown = image.convert("RGBA")
                    duration = Fraction(image.info.get("duration") or 0).limit_denominator(1_000_000) / 1000 or UNHURRIED
                    picture = Picture.from_pil(shown)
                    alpha = np.asarray(shown)[:, :, 3]
                    yield Frame(picture.pixels, at, duration, None if alpha.min() == 255 else np.ascontiguousarray(alpha))
                    at += duration
        except ScumbleError:
            raise
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
            raise InputError(f"{self.path} is damaged or incomplete; get a whole copy of it") from error


class AnimationWriter:
    """Frames into one animated file; all of it is written by :meth:`finish`."""

    done = 0
    snapshot = None

    def __init__(self, path: Path, clip: Clip, *, overwrite: bool = False) -> None:
        self.path, self.overwrite, self.loop = checked_target(path, overwrite=overwrite), overwrite, clip.loop
        self.form = ANIMATIONS[path.suffix.lower()]
        self._frames: list[PIL.Image.Image] = []
        self._ends: list[Fraction] = []
        self._palette: PIL.Image.Image | None = None

    def write(self, frame: Frame, snapshot: Snapshot | None = None) -> tuple[int, int]:
        """Add a frame; ``snapshot`` is not for animations."""
        pixels = as_bytes(frame.pixels)
        self._frames.append(self._indexed(pixels, frame.alpha) if self.form == "GIF" else _with_alpha(pixels, frame.alpha))
        self._ends.append(frame.time + frame.duration)
        return pixels.shape[1], pixels.shape[0]

    def is_full(self, frame: Frame) -> bool:
        """Whether ``frame`` would be more than an animation can hold."""
        height, width, _ = frame.pixels.shape
        return (len(self._frames) + 1) * height * width > MOST_PIXELS

    def finish(self, *, interrupted: bool = False) -> None:
        """Write the file under its name; InputError if that is not possible."""
        if not self._frames:
            return
        unit = 10 if self.form == "GIF" else 1  # milliseconds; rounding the ends and not the durations, the whole stays as long
        ends = [0, *(round(end * 1000 / unit) * unit for end in self._ends)]
        durations = [max(unit, b - a) for a, b in pairwise(ends)]
        options: dict[str, Any] = {"save_all": True, "append_images": self._frames[1:], "duration": durations}
        if self.form == "GIF":
            options |= {"optimize": False, "disposal": 2 if any("transparency" in f.info for f in self._frames) else 1}
            options |= {} if self.loop == 1 else {"loop": max(0, self.loop - 1)}
        elif self.form == "WEBP":
            options |= {"loop": self.loop, "quality": 90, "method": 4}
        else:
            options |= {"loop": self.loop, "blend": 0, "default_image": False}
        whole = io.BytesIO()
        self._frames[0].save(whole, self.form, **options)
        write_whole(self.path, whole.getvalue(), overwrite=self.overwrite)

    def abandon(self) -> None:
        """Nothing was written yet."""
        self._frames.clear()

    def _indexed(self, pixels: Bytes, alpha: Bytes | None) -> PIL.Image.Image:
        """At most 255 colours, and one for what is transparent."""
        image = PIL.Image.fromarray(pixels)
        own = image.quantize(255, PIL.Image.Quantize.MEDIANCUT, dither=PIL.Image.Dither.NONE)
        indexed = own
        if self._palette is not None:
            indexed = image.quantize(palette=self._palette, dither=PIL.Image.Dither.NONE)
        if self._palette is None or _error(indexed, pixels) > SHAME * _error(own, pixels) + 0.5:
            indexed, self._palette = own, own
        if alpha is None:
            return indexed
        indexed.paste(255, mask=PIL.Image.fromarray(np.where(alpha < 128, np.uint8(255), np.uint8(0))))
        indexed.info["transparency"] = 255
        return indexed


def _first(image: PIL.Image.Image) -> int:
    """1 where the first picture is not of the animation: an APNG may have one for those alone who can't read APNG."""
    return 1 if getattr(image, "default_image", False) else 0


def _with_alpha(pixels: Bytes, alpha: NDArray[np.uint8] | None) -> PIL.Image.Image:
    return PIL.Image.fromarray(pixels if alpha is None else np.dstack([pixels, alpha]))


def _error(indexed: PIL.Image.Image, pixels: Bytes) -> float:
    return float(np.abs(np.asarray(indexed.convert("RGB"), np.int16) - pixels).mean())
