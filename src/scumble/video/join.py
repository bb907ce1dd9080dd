"""Segments and sound become one file, without encoding the pictures again."""

from __future__ import annotations

import heapq
import io
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

from scumble.video.frames import Clip, load_av

log = logging.getLogger("scumble")

Timed = tuple[Fraction, Any]
"""When a packet is to be decoded, in seconds, and the packet."""


def join(target: Path, form: str, folder: Path, segments: Sequence[Mapping[str, Any]], clip: Clip, *, cut: bool = False) -> None:
    """Write ``segments`` (``file``, ``start`` and ``end`` of each) one after the other into ``target``, with the clip's sound.

    Memory does not depend on the length: packets are drawn as they are written. With ``cut``, sound ends where the pictures do.
    """
    av = load_av()
    end = Fraction(segments[-1]["end"]) if cut else None
    try:
        _join(target, form, folder, segments, clip, clip.path, end)
    except av.FFmpegError as error:
        if clip.path is None or isinstance(error, OSError):  # a full disk is as full without sound
            raise
        log.warning("the sound can't be joined to the pictures and is left out (%s)", str(error.strerror).lower())
        _join(target, form, folder, segments, clip, None, end)


def _join(
    target: Path,
    form: str,
    folder: Path,
    segments: Sequence[Mapping[str, Any]],
    clip: Clip,
    sound: Path | None,
    end: Fraction | None,
) -> None:
    av = load_av()
    options = {"movflags": "+faststart"} if form in ("mp4", "mov") else {}
    with av.open(os.fspath(folder / segments[0]["file"])) as first, av.open(os.fspath(target), "w", format=form, options=options) as out:
        out.metadata.update(clip.metadata)
        stream = out.add_stream_from_template(first.streams.video[0], opaque=True)
        # of what it is made from the template has the pictures' bytes alone
        stream.codec_context.framerate = clip.rate.limit_denominator(100_000)
        if clip.aspect is not None:
            stream.codec_context.sample_aspect_ratio = clip.aspect
        if sound is None:
            return _mux(out, _pictures(folder, segments, stream, clip))
        with av.open(os.fspath(sound)) as source:
            others = _Sound(source, sound, out, form, clip.start, end)
            _mux(out, heapq.merge(_pictures(folder, segments, stream, clip), others.packets(), key=lambda timed: timed[0]))


def _mux(out: Any, packets: Any) -> None:
    for _, packet in packets:
        out.mux(packet)


def _pictures(folder: Path, segments: Sequence[Mapping[str, Any]], stream: Any, clip: Clip) -> Generator[Timed, None, None]:
    av = load_av()
    for segment in segments:
        start = Fraction(segment["start"])
        with av.open(os.fspath(folder / segment["file"])) as container:
            for packet in container.demux(video=0):
                if packet.pts is None:
                    continue
                time, duration = start + packet.pts * packet.time_base, packet.duration * packet.time_base
                packet.time_base = clip.time_base
                packet.pts = packet.dts = round(time / clip.time_base)
                packet.duration = round(duration / clip.time_base)
                packet.stream = stream
                yield time, packet


class _Sound:
    """Sound, subtitles and chapters of the source on their way into the result.

    They are copied where the container takes them; sound is else encoded anew.
    """

    def __init__(self, source: Any, path: Path, out: Any, form: str, start: Fraction, end: Fraction | None) -> None:
        self.source, self.start, self.end = source, start, end
        self._copied: dict[int, Any] = {}
        self._encoded: dict[int, Any] = {}
        self._resamplers: dict[int, tuple[Any, Any]] = {}
        self._last: dict[int, int] = {}
        for stream in (*source.streams.audio, *source.streams.subtitles):
            if _takes(form, path, stream.index):
                made = self._copied[stream.index] = out.add_stream_from_template(stream, opaque=True)
            elif stream.type == "audio" and (found := _encoder(form, path, stream.index)) is not None:
                name, rate, layout = found
                made = self._encoded[stream.index] = out.add_stream(name, rate=rate)
                made.codec_context.layout = layout
            else:
                name = "unknown" if stream.codec_context is None else stream.codec_context.codec.canonical_name
                log.warning("%s of the kind %s has no place in this kind of file and is left out", stream.type, name)
                continue
            made.metadata.update({k: v for k, v in stream.metadata.items() if k in ("language", "title")})
            made.disposition = stream.disposition.value  # which is the default one, which a comment
        out.set_chapters([*self._chapters()])

    def _chapters(self) -> Generator[dict[str, Any], None, None]:
        for chapter in self.source.chapters():
            begin, end = (Fraction(chapter[key]) * chapter["time_base"] - self.start for key in ("start", "end"))
            end = end if self.end is None else min(end, self.end)
            if end > begin:
                yield {**chapter, "start": round(max(begin, Fraction(0)) * 1000), "end": round(end * 1000), "time_base": Fraction(1, 1000)}

    def packets(self) -> Generator[Timed, None, None]:
        av = load_av()
        wanted = [self.source.streams[k] for k in (*self._copied, *self._encoded)]
        if not wanted:
            return
        time = Fraction(0)
        try:
            for packet in self.source.demux(wanted):
                index = packet.stream.index
                if packet.dts is not None:
                    time = Fraction(packet.dts) * packet.time_base - self.start
                    if self.end is not None and time >= self.end:
                        continue
                elif index in self._copied:  # the empty packet at the end is for decoders
                    continue
                if index in self._encoded:
                    yield from ((time, made) for made in self._anew(packet, self._encoded[index]))
                    continue
                offset = round(self.start / packet.time_base)
                dts = packet.dts - offset
                # of two packets at a time, as where a broadcast was cut, muxers take the first and then nothing more
                last = self._last.get(index)
                dts = self._last[index] = dts if last is None else max(dts, last + 1)
                packet.dts, packet.pts = dts, dts if packet.pts is None else max(packet.pts - offset, dts)
                packet.stream = self._copied[index]
                yield time, packet
        except av.FFmpegError as error:  # pictures are what was asked for; they are not lost for a broken sound
            log.warning("the sound ends early: it is damaged (%s)", error.strerror)
        for index, encoder in self._encoded.items():
            if index in self._resamplers:
                yield from ((time, made) for frame in self._resamplers[index][1].resample(None) for made in encoder.encode(frame))
            yield from ((time, made) for made in encoder.encode(None))

    def _anew(self, packet: Any, encoder: Any) -> Generator[Any, None, None]:
        av = load_av()
        index = packet.stream.index
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            return
        for frame in decoded:
            if frame.pts is not None:
                frame.pts -= round(self.start / frame.time_base)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if index not in self._resamplers or self._resamplers[index][0] != kind:  # broadcasts change it between two programmes
                context = encoder.codec_context
                self._resamplers[index] = kind, av.AudioResampler(context.format, context.layout, context.sample_rate)
            for resampled in self._resamplers[index][1].resample(frame):
                yield from encoder.encode(resampled)


def _takes(form: str, path: Path, index: int) -> bool:
    """Whether the container takes the stream's packets as they are. Muxers say it in full only when they have written one."""
    av = load_av()
    try:
        with av.open(os.fspath(path)) as source, av.open(io.BytesIO(), "w", format=form) as trial:
            stream = source.streams[index]
            made = trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
            if stream.type == "subtitle":  # whose first packet may be an hour away
                return True
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = made
                    trial.mux(packet)
                    break
    except (av.FFmpegError, ValueError):
        return False
    return True


def _encoder(form: str, path: Path, index: int) -> tuple[str, int, str] | None:
    """Encoder, samples a second and layout that come nearest to the sound as it is; what that is its first frame tells for sure."""
    av = load_av()
    name = "libopus" if form == "webm" else "aac"
    try:
        with av.open(os.fspath(path)) as source:
            first = next(source.decode(source.streams[index]))
    except (av.FFmpegError, StopIteration):
        return None
    count = first.layout.nb_channels
    usual = f"{count}c"  # what so many channels are where nothing tells
    for layout, rate in product(dict.fromkeys([first.layout.name, usual, "stereo"]), dict.fromkeys([first.sample_rate, 48_000])):
        try:
            context = av.CodecContext.create(name, "w")
            context.layout = av.AudioLayout(layout)
            context.sample_rate, context.format, context.time_base = rate, context.codec.audio_formats[0], Fraction(1, rate)
            context.open()
        except (av.FFmpegError, ValueError):
            continue
        if context.layout.name.endswith("channels"):  # it takes what says nothing, and says nothing itself
            continue
        return name, rate, context.layout.name
    return None
