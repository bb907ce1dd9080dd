"""Scumble repaints a picture (the content) in the manner of another (the style).

    import scumble
    scumble.stylize("photo.jpg", "great-wave", strength=0.8).save("out.jpg")

The four names here are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scumble.picture import Picture
    from scumble.style import Style
    from scumble.stylizer import Stylizer, stylize

__all__ = ["Picture", "Style", "Stylizer", "__version__", "stylize"]
__version__ = "0.1.0"

_HOMES = {"Picture": "scumble.picture", "Style": "scumble.style", "Stylizer": "scumble.stylizer", "stylize": "scumble.stylizer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
