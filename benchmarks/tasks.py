"""What is measured in a process of its own: ``python -m benchmarks.tasks '{"task": "paint", ...}'`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clock import Budget, measure, peak_mib


def photograph(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """(H, W, 3) noise in [0, 1] with the spectrum of photographs, 1/f: what it shows does not matter, that it isn't flat may."""
    rng = np.random.default_rng(seed)
    side = 256
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    f[0, 0] = 1
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, side, side))) / f).real
    tile = np.clip(0.5 + 0.15 * noise / noise.std(), 0, 1).astype(np.float32).transpose(1, 2, 0)
    return np.tile(tile, (-(-height // side), -(-width // side), 1))[:height, :width]  # the noise is periodic: no seams


def paint(method: str, height: int, width: int, budget: dict[str, float]) -> dict[str, Any]:
    """The content's path alone: pixels to pixels, with the style at hand and the nets loaded; ``good`` is the generator after a look."""
    from scumble import cascade
    from scumble.engine import Engine
    from scumble.picture import Picture
    from scumble.style import Style

    engine, pixels = Engine("cpu"), photograph(height, width)
    style = Style.from_image(Picture.from_array(photograph(256, 256, seed=1)), engine=engine)
    if method == "generator":
        modulation = style.modulation(engine)
        times = measure(lambda: engine.paint(pixels, modulation), Budget(**budget))
    elif method == "good":

        def after_a_look() -> None:
            engine.paint(pixels, style.modulation(engine, missed=style.missed_in(pixels, engine), wide=True))

        times = measure(after_a_look, Budget(**budget))
    else:
        times = measure(lambda: cascade.paint(engine, pixels, style, method=method), Budget(**budget))
    return {**asdict(times), "peak": peak_mib()}


def refine(quality: str, height: int, width: int) -> dict[str, Any]:
    """One picture through the whole Stylizer with a quality that optimises; once, because it takes so long."""
    from scumble import Picture, Stylizer

    content, style = (Picture.from_array(photograph(height, width, seed)) for seed in (0, 1))
    painter = Stylizer("cpu")
    start = time.perf_counter()
    painter(content, style, quality=quality)
    return {"seconds": time.perf_counter() - start, "peak": peak_mib()}


def large(source: str, target: str, detail: str) -> dict[str, Any]:
    """A file painted into another one, see :mod:`benchmarks.sizes`."""
    from benchmarks.sizes import paint as painted

    return painted(source, target, detail)


TASKS = {"paint": paint, "refine": refine, "large": large}

if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    print(json.dumps(TASKS[wanted.pop("task")](**wanted)))
