"""Segments and sound become one file, without encoding the pictures again."""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from fractions import Fraction
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
    options = {"movflags": "+faststart"} if form in ("mp4", "mov") else {}
    end = Fraction(segments[-1]["end"]) if cut else None
    with av.open(os.fspath(folder / segments[0]["file"])) as first, av.open(os.fspath(target), "w", format=form, options=options) as out:
        out.metadata.update(clip.metadata)
        stream = out.add_stream_from_template(first.streams.video[0], opaque=True)
        if clip.path is None:
            return _mux(out, _pictures(folder, segments, stream, clip))
        with av.open(os.fspath(clip.path)) as source:
            others = _Sound(source, out, form, clip.start, end)
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
    """Sound and subtitles of the source on their way into the result: copied where the container takes them, sound else encoded anew."""

    def __init__(self, source: Any, out: Any, form: str, start: Fraction, end: Fraction | None) -> None:
        self.source, self.start, self.end = source, start, end
        self._copied: dict[int, Any] = {}
        self._encoded: dict[int, Any] = {}
        for stream in (*source.streams.audio, *source.streams.subtitles):
            context = stream.codec_context
            name = context.codec.canonical_name if context is not None else None
            if name in out.supported_codecs:
                self._copied[stream.index] = out.add_stream_from_template(stream, opaque=True)
            elif stream.type == "audio" and context is not None:
                rate = 48_000 if form == "webm" else context.sample_rate
                encoder = out.add_stream("libopus" if form == "webm" else "aac", rate=rate)
                encoder.codec_context.layout = context.layout
                self._encoded[stream.index] = encoder
            else:
                log.warning("%s of the kind %s has no place in this kind of file and is left out", stream.type, name or "unknown")
                continue
            made = self._copied.get(stream.index) or self._encoded[stream.index]
            made.metadata.update({k: v for k, v in stream.metadata.items() if k in ("language", "title")})

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
                packet.dts -= offset
                packet.pts = packet.dts if packet.pts is None else packet.pts - offset
                packet.stream = self._copied[index]
                yield time, packet
        except av.FFmpegError as error:  # pictures are what was asked for; they are not lost for a broken sound
            log.warning("the sound ends early: it is damaged (%s)", error.strerror)
        for encoder in self._encoded.values():
            yield from ((time, made) for made in encoder.encode(None))

    def _anew(self, packet: Any, encoder: Any) -> Generator[Any, None, None]:
        av = load_av()
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            return
        for frame in decoded:
            if frame.pts is not None:
                frame.pts -= round(self.start / frame.time_base)
            yield from encoder.encode(frame)
