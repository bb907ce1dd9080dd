"""How much a painted film flickers: ``python -m benchmarks.steadiness``.

Temporal warping error (after Lai et al. 2018, "Learning blind video temporal consistency", eq. 7, of which this is the root): each
painted frame against the one ``gap`` frames before, carried along by the movement of the film, where both show the same thing; root
mean square over pixels, channels and frames, in 8-bit steps. Our clips are made by rule, so the movement is exact; films from
elsewhere (``--clip``) have theirs from optical flow. Rows: the source itself (what sampling alone costs), the net frame by frame, with
statistics held over the shot, and with ``--steady`` on top, as usual and at its most.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scumble.picture import Picture
from scumble.stylizer import Stylizer
from scumble.video.frames import as_bytes, as_float
from scumble.video.shots import Cuts, ShotPainter, Timeline
from scumble.video.steady import USUAL, Flow, Steadier, carry

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Movement = tuple[Floats, NDArray[np.bool_]]
"""(H, W, 2): the pixel at (x, y) was at (x + u, y + v); and (H, W): whether it was there at all."""

GAPS = (1, 8)
RATE = 25.0


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (H, W, 3), and the movement from frame ``t`` to ``t - gap``."""

    name: str
    frames: list[Bytes]
    movement: Callable[[int, int], Movement]


def moving_textures(frames: int, height: int, width: int, seed: int = 0) -> Clip:
    """Three textures, a wall and two discs before it, that each move in their own way, never by whole pixels.

    Textures are sums of waves, so they are known between pixels; the discs come into the picture and leave it.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    paint = [_waves(rng, min(height, width)) for _ in range(3)]
    speed = rng.uniform(0.4, 1.6, (3, 2)) * rng.choice([-1, 1], (3, 2)) * min(height, width) / 180
    radius = np.array([0.22, 0.3]) * min(height, width)
    start = np.array([[0.3 * width, 0.4 * height], [0.8 * width, 0.7 * height]])

    def layers(t: float, px: NDArray[Any], py: NDArray[Any]) -> NDArray[np.int64]:
        which = np.zeros(px.shape, np.int64)
        for k in range(2):
            cx, cy = start[k] + t * speed[k + 1]
            which[(px - cx) ** 2 + (py - cy) ** 2 < radius[k] ** 2] = k + 1
        return which

    def frame(t: int) -> Bytes:
        which = layers(t, x, y)
        out = np.zeros((height, width, 3))
        for k in range(3):
            here = which == k
            out[here] = paint[k](x[here] - t * speed[k, 0], y[here] - t * speed[k, 1])
        return as_bytes(out.astype(np.float32))

    def movement(t: int, gap: int) -> Movement:
        which = layers(t, x, y)
        flow = -gap * speed[which]
        px, py = x + flow[..., 0], y + flow[..., 1]
        inside = (px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)
        # a pixel's own footprint must have shown the same layer: edges are a mix of two
        same = inside & np.logical_and.reduce([layers(t - gap, px + a, py + b) == which for a in (-1, 1) for b in (-1, 1)])
        return flow.astype(np.float32), same

    return Clip("moving textures", [frame(t) for t in range(frames)], movement)


def _waves(rng: np.random.Generator, side: int) -> Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]:
    """A texture in colours of its own, of waves from half the picture down to six pixels."""
    n = 20
    length = np.exp(rng.uniform(np.log(6), np.log(max(12, side / 2)), n))
    angle, phase = rng.uniform(0, 2 * np.pi, n), rng.uniform(0, 2 * np.pi, n)
    kx, ky = 2 * np.pi * np.cos(angle) / length, 2 * np.pi * np.sin(angle) / length
    color = rng.normal(0, 0.09, (n, 3)) * (length / length.max())[:, None] ** 0.3
    base = rng.uniform(0.25, 0.75, 3)

    def at(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        return np.clip(base + np.sin(x[..., None] * kx + y[..., None] * ky + phase) @ color, 0.0, 1.0)

    return at


def pan(photo: Floats, frames: int, height: int, width: int) -> Clip:
    """A camera over a photograph (H, W, 3): it moves, turns and comes nearer, evenly."""
    rows, columns, _ = photo.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    scale = 0.6 * min(rows / height, columns / width)

    def pose(t: float) -> tuple[NDArray[Any], NDArray[Any]]:
        share = t / max(1, frames - 1)
        zoom, angle = scale * (1 - 0.15 * share), np.radians(4 * share)
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # half a pixel a frame at least, so that short clips move too, and never out of the photograph
        reach = min(0.12, frames * 0.02)
        center = np.array([columns * (0.5 - reach + 2 * reach * share), rows * (0.5 + reach / 2 - reach * share)])
        return turn, center

    middle = np.array([(width - 1) / 2, (height - 1) / 2])

    def seen(t: float) -> NDArray[Any]:
        turn, center = pose(t)
        return (np.stack([x, y], -1) - middle) @ turn.T + center

    reduced = cv2.GaussianBlur(photo, (0, 0), max(0.3, 0.45 * scale))  # as a lens would, lest fine detail flicker by itself

    def frame(t: int) -> Bytes:
        at = seen(t).astype(np.float32)
        return as_bytes(np.clip(cv2.remap(reduced, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), 0, 1))

    def movement(t: int, gap: int) -> Movement:
        turn, center = pose(t - gap)
        was = (seen(t) - center) @ np.linalg.inv(turn).T + middle
        inside = (was[..., 0] >= 0) & (was[..., 0] <= width - 1) & (was[..., 1] >= 0) & (was[..., 1] <= height - 1)
        return (was - np.stack([x, y], -1)).astype(np.float32), inside

    return Clip("camera over a photograph", [frame(t) for t in range(frames)], movement)


def passer_by(photo: Floats, frames: int, height: int, width: int) -> Clip:
    """A camera that stands still before a photograph, while something large and bright goes by: what is behind must stay as it is."""
    still = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = 0.4 * height

    def passing(t: int) -> NDArray[np.bool_]:
        at = -radius + (t + 0.5) / frames * (width + 2 * radius)
        return (x - at) ** 2 + (y - 0.6 * height) ** 2 < radius**2

    def frame(t: int) -> Bytes:
        return as_bytes(np.where(passing(t)[..., None], np.array([1.0, 0.9, 0.3], np.float32), still))

    def movement(t: int, gap: int) -> Movement:
        # neither the passer-by nor what a net of this reach paints of it into its surroundings
        near = cv2.dilate((passing(t) | passing(t - gap)).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        return np.zeros((height, width, 2), np.float32), ~near

    return Clip("a passer-by", [frame(t) for t in range(frames)], movement)


def film_from(path: Path, frames: int, side: int) -> Clip:
    """The start of a film, its longer side reduced to ``side``; movement by optical flow, where that is sure of itself."""
    from scumble.video import open_clip

    taken: list[Bytes] = []
    for shown in open_clip(path):
        pixels = as_bytes(shown.pixels)
        factor = min(1.0, side / max(pixels.shape[:2]))
        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        taken.append(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
        if len(taken) == frames:
            break

    def movement(t: int, gap: int) -> Movement:
        flow = Flow(side)  # finer than what the steadier goes by
        flow(taken[t - gap], cut=True)
        found = flow(taken[t], cut=False)
        assert found is not None
        across, trust = found.last.across(*taken[t].shape[:2])
        return across, trust > 0.5

    return Clip(path.name, taken, movement)


def warping_error(frames: Sequence[Bytes], clip: Clip, gap: int) -> float:
    """Root mean square over all pixels that were seen ``gap`` frames before, in 8-bit steps. NaN for clips that are shorter."""
    total, count = 0.0, 0
    for t in range(gap, len(frames)):
        flow, seen = clip.movement(t, gap)
        difference = frames[t].astype(np.float32) - carry(frames[t - gap].astype(np.float32), flow)
        total += float((difference[seen] ** 2).sum())
        count += int(seen.sum()) * 3
    return float(np.sqrt(total / count)) if count else float("nan")


def painted(
    clip: Clip, stylizer: Stylizer, style: str | Picture, *, hold: bool, steady: float = 0.0, **settings: Any
) -> tuple[list[Bytes], float]:
    """The clip painted, and the seconds a frame took, finding cuts and movement among them."""
    shots = ShotPainter(stylizer, Timeline.of([(None, stylizer.style(style))]), hold=hold, **settings)
    shots(as_float(clip.frames[0]), 0.0, "cut")  # warm
    cuts, flow, steadier = Cuts(), Flow() if steady else None, Steadier(steady)
    out: list[Bytes] = []
    began = time.perf_counter()
    for t, pixels in enumerate(clip.frames):
        change = cuts(pixels)
        frame = shots(as_float(pixels), t / RATE, change)
        if flow is not None:
            frame = steadier(frame, flow(pixels, cut=change == "cut"))
        out.append(as_bytes(frame))
    return out, (time.perf_counter() - began) / len(clip.frames)


WAYS: dict[str, dict[str, Any]] = {
    "frame by frame": {"hold": False},
    "held": {"hold": True},
    f"held, steady {USUAL}": {"hold": True, "steady": USUAL},
    "held, steady 1": {"hold": True, "steady": 1.0},
}


def measure(clip: Clip, stylizer: Stylizer, style: str | Picture, **settings: Any) -> dict[str, dict[str, float]]:
    """Rows by name: the error at each gap as ``gap 1`` …, ``milliseconds`` a frame, ``saved 1`` … against frame by frame."""
    rows: dict[str, dict[str, float]] = {"source": {f"gap {g}": warping_error(clip.frames, clip, g) for g in GAPS}}
    for name, how in WAYS.items():
        frames, seconds = painted(clip, stylizer, style, **how, **settings)
        rows[name] = {f"gap {g}": warping_error(frames, clip, g) for g in GAPS} | {"milliseconds": 1000 * seconds}
    for row in list(rows.values())[2:]:
        row |= {f"saved {g}": 1 - row[f"gap {g}"] / rows["frame by frame"][f"gap {g}"] for g in GAPS}
    return rows


def sheet(clip: Clip, stylizer: Stylizer, style: str | Picture, *, wide: int = 8, gap: int = 6, **settings: Any) -> Picture:
    """The source and each way side by side: the last frame, and below it its middle column at all times, ``wide`` pixels for each."""
    films = [clip.frames, *(painted(clip, stylizer, style, **how, **settings)[0] for how in WAYS.values())]
    columns: list[Bytes] = []
    for frames in films:
        last = frames[-1]
        times = np.stack([f[:, f.shape[1] // 2] for f in frames[-(last.shape[1] // wide) :]], 1).repeat(wide, 1)
        times = np.pad(times, ((gap, 0), (0, last.shape[1] - times.shape[1]), (0, 0)), constant_values=255)
        columns.append(np.pad(np.concatenate([last, times]), ((0, 0), (0, gap), (0, 0)), constant_values=255))
    return Picture.from_array(np.concatenate(columns, 1)[:, :-gap])


def photograph(path: Path | None) -> Floats:
    """The given one, or what comes with scikit-image."""
    if path is not None:
        return Picture.open(path).pixels
    from skimage import data

    return data.astronaut().astype(np.float32) / 255


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.steadiness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="320x180", metavar="WxH")
    parser.add_argument("--frames", type=int, default=32, metavar="N")
    parser.add_argument("--style", default="great-wave", metavar="STYLE")
    parser.add_argument("--method", default="generator")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--photo", type=Path, metavar="FILE", help="what the camera moves over; default: scikit-image's portrait")
    parser.add_argument("--clip", type=Path, nargs="*", default=[], metavar="FILE", help="films to measure, too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="no figures: the camera's clip in all ways, side by side, and over time"
    )
    asked = parser.parse_args()
    width, height = (int(n) for n in asked.size.split("x"))
    photo = photograph(asked.photo)
    if asked.picture is not None:
        camera = pan(photo, asked.frames, height, width)
        sheet(camera, Stylizer("cpu", asked.threads), asked.style, method=asked.method).save(asked.picture, overwrite=True, quality=88)
        return
    clips = [moving_textures(asked.frames, height, width), *(make(photo, asked.frames, height, width) for make in (pan, passer_by))]
    clips += [film_from(path, asked.frames, max(width, height)) for path in asked.clip]
    stylizer = Stylizer("cpu", asked.threads)
    results = {clip.name: measure(clip, stylizer, asked.style, method=asked.method) for clip in clips}
    if asked.json:
        what = {"style": asked.style, "method": asked.method, "size": [width, height], "frames": asked.frames}
        print(json.dumps(what | {"clips": results}, indent=1))
        return
    what = f"{asked.style}, {asked.method}, {width} x {height}, {asked.frames} frames"
    print(f"{what}; error in 8-bit steps, in brackets against frame by frame")
    for name, rows in results.items():
        print(f"\n{name:<28}{'gap 1':>16}{'gap 8':>16}{'ms a frame':>12}")
        for row, cells in rows.items():
            shown = [f"{cells[f'gap {g}']:.2f}" + (f" ({-cells[f'saved {g}']:+.0%})" if f"saved {g}" in cells else "") for g in GAPS]
            print(f"  {row:<26}{shown[0]:>16}{shown[1]:>16}" + (f"{cells['milliseconds']:>12.1f}" if "milliseconds" in cells else ""))


if __name__ == "__main__":
    main()
