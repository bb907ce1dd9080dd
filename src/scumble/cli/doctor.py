"""The verb ``doctor``: is everything here, and does it work?"""

from __future__ import annotations

import json
import platform
import time
from importlib import import_module
from typing import Annotated, Any

import typer

from scumble import __version__

OPTIONAL = {
    "torch": "torch",
    "onnx": "torch",
    "pillow_heif": "heif",
    "tifffile": "deep",
    "imagecodecs": "deep",
    "av": "video",
    "cv2": "video",
    "pyvips": "big",
}
"""Modules that need not be here, and the extras that bring them."""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Check the installation: versions, weights, formats, a test painting. The exit code is 1 if something is broken."""
    from scumble import fetch, library, weights

    broken: list[str] = []
    painting = _test_painting()
    damaged = weights.damaged()
    if damaged:
        broken.append(f"weights that are damaged or missing: {', '.join(damaged)}; install scumble again")
    if "error" in painting:
        broken.append(f"the test painting failed: {painting['error']}")
    found: dict[str, Any] = {
        "scumble": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in ("numpy", "PIL", "onnxruntime", *OPTIONAL)},
        "providers": _providers(),
        "weights": {"folder": str(weights.FOLDER), "files": len(weights.manifest()), "damaged": damaged},
        "formats": _formats(),
        "painting": painting,
        "styles": {"folder": str(library.user_folder()), "known": len(library.entries())},
        "cache": {"folder": str(fetch.cache_folder()), "offline": fetch.is_offline()},
        "broken": broken,
    }
    typer.echo(json.dumps(found) if as_json else _readable(found))
    if broken:
        raise typer.Exit(1)


def _version(module: str) -> str | None:
    try:
        return str(import_module(module).__version__)
    except (ImportError, OSError):  # OSError: pyvips without libvips
        return None


def _providers() -> list[str]:
    try:
        return import_module("onnxruntime").get_available_providers()
    except ImportError:
        return []


def _formats() -> dict[str, bool]:
    """Which suffixes can be written and read here, found out by doing it."""
    import numpy as np

    from scumble.errors import ScumbleError
    from scumble.picture import SUFFIXES, Picture

    sample = Picture.from_array(np.linspace(0, 1, 16 * 16 * 3).reshape(16, 16, 3))
    works: dict[str, bool] = {}
    for suffix in SUFFIXES:
        try:
            works[suffix] = Picture.open(sample.encode(suffix)).size == sample.size
        except ScumbleError:
            works[suffix] = False
    return works


def _test_painting() -> dict[str, Any]:
    """A small gradient, painted in the manner of noise: seconds for the second time, when all is loaded, or the error."""
    import numpy as np

    from scumble import Picture, Stylizer

    try:
        painter = Stylizer()
        noise = painter.style(Picture.from_array(np.random.default_rng(0).random((64, 64, 3))))
        content = Picture.from_array(np.linspace(0, 1, 256 * 256 * 3).reshape(256, 256, 3))
        painter(content, noise)
        started = time.perf_counter()
        painted = painter(content, noise)
        seconds = time.perf_counter() - started
        if painted.size != content.size or not float(painted.pixels.std()) > 0:
            return {"error": "the result is empty"}
        return {"seconds": round(seconds, 3), "size": [painted.width, painted.height]}
    except Exception as error:  # whatever it is, it is what the doctor was asked for
        return {"error": f"{type(error).__name__}: {error}"}


def _readable(found: dict[str, Any]) -> str:
    extras = [
        f"{n} {v}" if v else f'{n} is not here (pip install "scumble[{OPTIONAL[n]}]")'
        for n, v in found["versions"].items()
        if n in OPTIONAL
    ]
    weights, painting, formats = found["weights"], found["painting"], found["formats"]
    size = " x ".join(map(str, painting.get("size", ())))
    rows = {
        "scumble": f"{found['scumble']}, Python {found['python']}, {found['platform']}",
        "needed": ", ".join(f"{n} {v or 'is not here'}" for n, v in found["versions"].items() if n not in OPTIONAL),
        "optional": "\n".join(extras),
        "providers": ", ".join(found["providers"]),
        "weights": f"{weights['files']} files in {weights['folder']}{'' if weights['damaged'] else ', all as they should be'}",
        "formats": ", ".join(s for s, works in formats.items() if works),
        "not here": ", ".join(s for s, works in formats.items() if not works) or "-",
        "painting": painting.get("error") or f"{size} pixels in {painting['seconds']} s",
        "styles": f"{found['styles']['known']} known; your own in {found['styles']['folder']}",
        "cache": f"{found['cache']['folder']}{' (offline)' if found['cache']['offline'] else ''}",
    }
    lines = [f"{name if not n else '':<10} {line}" for name, text in rows.items() for n, line in enumerate(text.splitlines() or [""])]
    return "\n".join([*lines, *(f"broken: {b}" for b in found["broken"]), *([] if found["broken"] else ["all is well"])])
