"""Frames out: films (in segments that are joined at the end), numbered pictures, raw bytes into a pipe."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from scumble._files import checked_target, put_in_place
from scumble.errors import InputError, UsageError, unknown
from scumble.picture import Picture
from scumble.video.frames import Bytes, Clip, Frame, as_bytes, load_av
from scumble.video.join import join
from scumble.video.ledger import Ledger
from scumble.video.reading import UNSPECIFIED, guessed_matrix, numbers
from scumble.video.shots import Snapshot

log = logging.getLogger("scumble")

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffixes of films, and what FFmpeg calls the containers."""

CODECS = {
    # without B-frames packets come in the order in which they are shown, so segments join without overlap; at equal quality that
    # costs about a tenth in size
    "h264": {"libx264": ("crf=18", "preset=veryfast", "bf=0"), "libopenh264": ("b=8M",), "h264_videotoolbox": ("q:v=65",)},
    "h265": {"libx265": ("crf=22", "preset=fast", "x265-params=log-level=none:bframes=0"), "hevc_videotoolbox": ("q:v=65",)},
    "vp9": {"libvpx-vp9": ("crf=31", "b=0", "deadline=good", "cpu-used=4", "row-mt=1", "auto-alt-ref=0", "lag-in-frames=0")},
    "av1": {
        "libsvtav1": ("crf=32", "preset=8"),
        "libaom-av1": ("crf=30", "cpu-used=6", "row-mt=1", "lag-in-frames=0"),
        "librav1e": ("qp=90", "speed=8"),
    },
}
"""What can be asked for, the encoders that can do it, the best first, and their settings."""

WITHOUT_AVX512 = "asm=avx2,fma3,bmi2"
"""x264's AVX-512 code is not the same twice: fed with the same planes in one thread (x264 165, threads=1), one run in 20 to 200 gave
other packets on a busy processor, and none in 3000 without it. With ``mbtree=0``, too, all were equal, so it is in passing costs from
block to block; but without that films get larger. The list must hold nothing that the processor lacks, as x264 takes it at its word."""

EVEN = ("h264", "h265")
"""Codecs whose pictures with halved chroma have an even number of rows and columns, and can't say that one of them is not to be shown."""


class Writer(Protocol):
    """Where painted frames go."""

    @property
    def done(self) -> int:
        """Frames that were finished before, by a run that is now gone on with."""
        ...

    @property
    def snapshot(self) -> Snapshot | None:
        """What the painter remembered after these."""
        ...

    def write(self, frame: Frame, snapshot: Snapshot | None = None) -> tuple[int, int]:
        """Take a frame; with a ``snapshot`` of the painter's memory, a segment ends after it. Returns the width and height written."""
        ...

    def finish(self, *, interrupted: bool = False) -> None:
        """Make the result out of all frames so far."""

    def abandon(self) -> None:
        """The work has failed: leave nothing behind but what can be gone on with."""


@dataclass(frozen=True)
class Encoding:
    """A codec, who does it, and how."""

    codec: str
    encoder: str
    options: dict[str, str]

    @staticmethod
    def choose(suffix: str, codec: str | None, crf: int | None) -> Encoding:
        """For a film with this suffix; UsageError, with what there is, where that can't be had."""
        av = load_av()
        form = FORMATS.get(suffix)
        if form is None:
            raise UsageError(f"cannot make a film of the kind {suffix!r}; the suffix must be one of {', '.join(FORMATS)}")
        name = codec or ("vp9" if form == "webm" else "h264")
        if name not in CODECS:
            raise UsageError(unknown("codec", name, CODECS))
        if form == "webm" and name not in ("vp9", "av1"):
            raise UsageError(f"a {suffix} file holds vp9 or av1; got {name}: take one of these, or another suffix")
        here = available()
        if name not in here:
            raise UsageError(
                f"the FFmpeg in PyAV {av.__version__} has no encoder for {name}; it has {', '.join(here) or 'none'}: take one with --codec"
            )
        encoder = here[name]
        options = {key: value for key, _, value in (setting.partition("=") for setting in CODECS[name][encoder])}
        if crf is not None:
            most = 51 if name in EVEN else 63
            if "crf" not in options:
                raise UsageError(f"the encoder that is here for {name}, {encoder}, takes no crf")
            if not 0 <= crf <= most:
                raise UsageError(f"crf must be between 0 and {most} for {name}; got {crf}")
            options["crf"] = str(crf)
        if encoder == "libx264" and _has_avx512():
            options["x264-params"] = WITHOUT_AVX512
        if encoder == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes a page to stderr past FFmpeg's own log
        return Encoding(name, encoder, options)


def _has_avx512() -> bool:
    """Whether the processor has AVX-512, and so all that is in :data:`WITHOUT_AVX512`."""
    try:
        found: Any = np.show_config(mode="dicts")
    except TypeError:  # NumPy 1.24 prints it only
        return False
    extensions = found.get("SIMD Extensions", {})
    return any(name.startswith(("AVX512", "X86_V4")) for kind in ("baseline", "found") for name in extensions.get(kind, ()))


def available() -> dict[str, str]:
    """The codecs that can be written here, and by which encoder."""
    av = load_av()
    found: dict[str, str] = {}
    for codec, encoders in CODECS.items():
        for encoder in encoders:
            try:
                av.Codec(encoder, "w")
            except av.codec.codec.UnknownCodecError:
                continue
            found.setdefault(codec, encoder)
    return found


@contextmanager
def _writing(path: Path) -> Generator[None, None, None]:
    """What the system or FFmpeg has against writing becomes one sentence."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("av."):
            raise
        why = str(getattr(error, "strerror", None) or error).lower()
        raise InputError(f"cannot write {path} ({why}); free space, change permissions or choose another place") from error


class FilmWriter:
    """A film: each segment a file of its own, finished and safe on the disk, all joined by stream copy when the end is reached.

    The sound is that of ``clip.path``, copied where the container takes it, else encoded anew. A frame is shown when the clip
    shows it. Sizes are never changed; where a codec wants even ones, the last column or row is repeated, and a warning says so.
    """

    def __init__(
        self,
        path: Path,
        clip: Clip,
        encoding: Encoding,
        *,
        overwrite: bool = False,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.clip, self.encoding = clip, encoding
        path = checked_target(path, overwrite=True) if overwrite else path  # of a link, what is finished lies beside what it points to
        self.ledger = Ledger(path, {**(identity or {}), "codec": [encoding.encoder, encoding.options]}, resume=resume)
        self.overwrite = overwrite or self.ledger.made_target
        self.path = checked_target(path, overwrite=self.overwrite)
        self.done, self.snapshot = self.ledger.done, self.ledger.snapshot
        self._segment: _Segment | None = None
        self._told = False
        if clip.aspect is not None and encoding.codec not in EVEN and FORMATS[path.suffix.lower()] in ("matroska", "webm"):
            log.warning(
                "%s can't say that its pixels are %s as wide as high: of %s, PyAV hands that on to .mp4 and .mov only; players will"
                " show it in another shape",
                path, clip.aspect, encoding.codec,
            )  # fmt: skip

    def write(self, frame: Frame, snapshot: Snapshot | None = None) -> tuple[int, int]:
        """Encode a frame; with a ``snapshot`` the segment ends after it. InputError where that fails."""
        pixels = self._even(as_bytes(frame.pixels))
        with _writing(self.path):
            if self._segment is None:
                self.ledger.begin()
                number = len(self.ledger.segments)
                self._segment = _Segment(self.ledger.path(f"segment-{number:05}.mp4.part"), self.clip, self.encoding, frame.time)
            self._segment.write(pixels, frame)
            if snapshot is not None:
                self.ledger.record(self._close_segment(), snapshot)
        return pixels.shape[1], pixels.shape[0]

    def finish(self, *, interrupted: bool = False) -> None:
        """Join all that is encoded, with the sound as far as it goes. What is finished stays for ``resume`` if ``interrupted``."""
        with _writing(self.path):
            last = None if self._segment is None else self._close_segment()
            segments = [*self.ledger.segments, *([last] if last else [])]
            if segments:
                joined = self.ledger.path(f"joined{self.path.suffix}")
                join(joined, FORMATS[self.path.suffix.lower()], self.ledger.folder, segments, self.clip, cut=interrupted)
                with joined.open("rb+") as file:
                    os.fsync(file.fileno())
                put_in_place(joined, self.path, overwrite=self.overwrite)
            if last:
                (self.ledger.folder / last["file"]).unlink(missing_ok=True)
        self.ledger.close(keep=interrupted, cut=interrupted)

    def abandon(self) -> None:
        """Nothing under the final name; finished segments stay for ``resume``, and a warning says so."""
        if self._segment is not None:
            self._segment.discard()
            self._segment = None
        for left in self.ledger.folder.glob("joined*"):
            left.unlink(missing_ok=True)
        if self.ledger.begun:
            self.ledger.close(keep=self.ledger.done > 0 or self.ledger.made_target)
        if self.ledger.done:
            log.warning("%d frames are finished and kept; --resume goes on after them", self.ledger.done)

    def _close_segment(self) -> dict[str, Any]:
        assert self._segment is not None
        segment, self._segment = self._segment, None
        return segment.close()

    def _even(self, pixels: Bytes) -> Bytes:
        height, width, _ = pixels.shape
        if self.encoding.codec not in EVEN or not (height % 2 or width % 2):
            return pixels
        if not self._told:
            self._told = True
            log.warning(
                "%s is %d x %d, and %s has even sizes only: the last %s repeated; vp9 and av1, as in a .webm, keep the size",
                self.path, width, height, self.encoding.codec,
                "column and row are" if height % 2 and width % 2 else "column is" if width % 2 else "row is",
            )  # fmt: skip
        return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class _Segment:
    """One encoder from its first frame, at time 0, to its last. MP4, which keeps times exact."""

    def __init__(self, part: Path, clip: Clip, encoding: Encoding, start: Fraction) -> None:
        av = load_av()
        self.part, self.clip, self.start = part, clip, start
        self.end, self.frames, self._last = start, 0, -1
        self._durations: dict[int, int] = {}
        self._container = av.open(os.fspath(part), "w", format="mp4")
        self._stream = self._container.add_stream(encoding.encoder, rate=clip.rate.limit_denominator(100_000), options=encoding.options)
        context = self._stream.codec_context
        context.pix_fmt = "yuv420p"
        context.time_base = clip.time_base
        if clip.aspect is not None:
            context.sample_aspect_ratio = clip.aspect
        color = clip.color
        context.colorspace, context.color_primaries, context.color_trc = color.matrix, color.primaries, color.transfer
        context.color_range = color.range
        self._ready = False

    def write(self, pixels: Bytes, frame: Frame) -> None:
        av, color = load_av(), self.clip.color
        if not self._ready:
            self._stream.height, self._stream.width, _ = pixels.shape
            self._ready = True
        matrix = color.matrix if color.matrix not in (0, UNSPECIFIED) else guessed_matrix(self.clip.height)
        coded = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        coded = coded.reformat(format="yuv420p", dst_colorspace=matrix, src_color_range=2, dst_color_range=color.range or 1)
        coded.time_base = self.clip.time_base
        coded.pts = self._last = max(self._last + 1, round((frame.time - self.start) / self.clip.time_base))
        self._durations[self._last] = max(1, round(frame.duration / self.clip.time_base))
        self.end, self.frames = max(self.end, frame.time + frame.duration), self.frames + 1
        self._mux(self._stream.encode(coded))

    def close(self) -> dict[str, Any]:
        """The segment is whole, on the disk, and has its name."""
        self._mux(self._stream.encode(None))
        self._container.close()
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.part.with_suffix(""))
        return {"file": self.part.with_suffix("").name, "frames": self.frames, "start": str(self.start), "end": str(self.end)}

    def discard(self) -> None:
        try:
            self._container.close()
        except Exception as error:
            log.debug("closing an abandoned segment: %s", error)
        self.part.unlink(missing_ok=True)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)


class NumberedWriter:
    """Pictures ``out/%05d.png``, numbered as those they were painted from, or from 1 on; each is whole or not there."""

    def __init__(
        self,
        pattern: str,
        *,
        first: int = 1,
        frames: int | None = None,
        overwrite: bool = False,
        identity: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        path = Path(pattern)
        if not path.parent.is_dir():
            raise InputError(f"cannot write {pattern}: there is no folder {path.parent}; make it first")
        self.pattern, self.first = pattern, first
        self.ledger = Ledger(path, identity or {}, resume=resume)
        self.done, self.snapshot = self.ledger.done, self.ledger.snapshot
        self.overwrite = overwrite
        if not self.ledger.taken_up:
            self.ledger.foreign = min((n for n in numbers(pattern) if n >= first), default=None)
            if not overwrite and self.ledger.foreign is not None and self.ledger.foreign < first + (frames or 1):
                raise InputError(f"{pattern % self.ledger.foreign} exists already; allow overwriting (--overwrite) or choose another name")
        self._next, self._recorded = self.done, self.done

    def write(self, frame: Frame, snapshot: Snapshot | None = None) -> tuple[int, int]:
        """Save a frame; InputError where that fails."""
        picture = frame.picture.with_pixels(frame.pixels) if frame.picture is not None else None
        if picture is None:
            whole = frame.pixels if frame.alpha is None else np.dstack([as_bytes(frame.pixels), frame.alpha])
            picture = Picture.from_array(whole)
        with _writing(Path(self.pattern)):
            self.ledger.begin()
        number, foreign = self.first + self._next, self.ledger.foreign
        # of a run that is gone on with nothing but its last segment is known: pictures after that are its own
        own = self.ledger.taken_up and (foreign is None or number < foreign)
        picture.save(self.pattern % number, overwrite=self.overwrite or own)
        self._next += 1
        if snapshot is not None:
            with _writing(Path(self.pattern)):
                self.ledger.record({"frames": self._next - self._recorded}, snapshot)
            self._recorded = self._next
        return picture.width, picture.height

    def finish(self, *, interrupted: bool = False) -> None:
        """All pictures are there already."""
        self.ledger.close(keep=interrupted)

    def abandon(self) -> None:
        """The pictures so far stay: each of them is whole."""
        if self.ledger.begun:
            self.ledger.close(keep=True)


class RawWriter:
    """Bytes R, G, B, row after row and frame after frame."""

    done = 0
    snapshot = None

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def write(self, frame: Frame, snapshot: Snapshot | None = None) -> tuple[int, int]:
        """Write a frame at once, for whoever waits at the other end of the pipe."""
        self.stream.write(np.ascontiguousarray(as_bytes(frame.pixels)).data)
        self.stream.flush()
        return frame.pixels.shape[1], frame.pixels.shape[0]

    def finish(self, *, interrupted: bool = False) -> None:
        """All is written already."""

    def abandon(self) -> None:
        """What is written can't be taken back."""
