"""Clips for the tests of moving pictures: made, looked at, and the benchmark that measures how steady they are."""

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="needs PyAV: pip install 'scumble[video]'")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'scumble[video]'")

ROOT = Path(__file__).resolve().parent.parent.parent
W, H, N = 64, 48, 12
AUDIO_RATE = 16_000


def _benchmark():
    spec = importlib.util.spec_from_file_location("steadiness", ROOT / "benchmarks" / "steadiness.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["steadiness"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


steadiness = _benchmark()


def picture(t, width=W, height=H):
    """Smooth, so that coding and chroma subsampling change little; it moves by a pixel a frame, and every frame has its own shade."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x = x - t
    rgb = np.stack([0.5 + 0.3 * np.sin(x / 9), 0.5 + 0.3 * np.cos(y / 11 + x / 17), 0.45 + 0.25 * np.sin((x + y) / 13)], -1)
    return np.uint8(np.clip(rgb * 255 + t, 0, 255))


def make(
    path,
    *,
    frames=N,
    size=(W, H),
    codec="libx264",
    unit=Fraction(1, 12800),
    times=None,
    sound="aac",
    layout="mono",
    samples=None,
    offset=0,
    picture=picture,
    turn=None,
    matrix=None,
    options=None,
    **context,
):
    """A film with a tone, at ``times`` in seconds; every frame coded well. Of PCM, ``samples`` are in a packet."""
    times = times or [Fraction(k, 25) for k in range(frames)]
    options = (options or {}) | (
        {"crf": "4", "preset": "ultrafast"}
        if codec in ("libx264", "libx265")
        else {"crf": "10", "b": "0", "cpu-used": "8"}
        if "vpx" in codec
        else {}
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = context.pop("pix_fmt", "yuv420p")
        stream.codec_context.time_base = unit
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if turn is not None:
            turn(stream)
        audio = None
        if sound:
            audio = out.add_stream(sound, rate=48_000 if sound in ("libopus", "ac3") else AUDIO_RATE)
            audio.codec_context.layout = layout
        for k, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(k, *size), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=context.get("color_range") or 1)
            frame.pts, frame.time_base = round((at + offset) / unit), unit
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio:
            rate = audio.codec_context.sample_rate
            n = int(float(times[-1] + Fraction(1, 25)) * rate)
            wave = np.int16(8000 * np.sin(np.arange(n) / 20))[None]
            for at in range(0, n, samples or n):
                tone = av.AudioFrame.from_ndarray(wave[:, at : at + (samples or n)], format="s16", layout="mono")
                tone.sample_rate, tone.pts, tone.time_base = rate, int(offset * rate) + at, Fraction(1, rate)
                out.mux(audio.encode(tone))
            out.mux(audio.encode(None))
    return path


def shown(path):
    """(seconds, RGB) of every frame, as FFmpeg decodes it."""
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound_of(path):
    with av.open(str(path)) as container:
        return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in container.demux(audio=0) if p.pts is not None]


def hidden(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def animate(path, frames, durations, **options):
    first, *rest = (Image.fromarray(f) for f in frames)
    first.save(path, save_all=True, append_images=rest, duration=durations, **options)
    return path


def animation(path):
    """Durations in milliseconds, loop, RGBA frames."""
    with Image.open(path) as image:
        durations, frames = [], []
        for k in range(image.n_frames):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGBA")))
            durations.append(image.info["duration"])
        return durations, image.info.get("loop"), frames


class Killed(BaseException):
    """Nobody catches it, as nobody catches a signal 9."""


def killed_after(frames):
    def progress(done, _total):
        if done == frames:
            raise Killed

    return progress
