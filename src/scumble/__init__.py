"""Scumble repaints a picture (the content) in the manner of another (the style).

    import scumble
    scumble.stylize("photo.jpg", "great-wave", strength=0.8).save("out.jpg")

The names here are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scumble.errors import InputError, MissingExtraError, ScumbleError, UsageError
    from scumble.mask import Mask
    from scumble.picture import Picture
    from scumble.style import Blend, Style
    from scumble.stylizer import Stylizer, stylize

__all__ = [
    "Blend", "InputError", "Mask", "MissingExtraError", "Picture", "ScumbleError", "Style", "Stylizer", "UsageError", "__version__",
    "stylize",
]  # fmt: skip
__version__ = "0.1.0"

_HOMES = {
    "Blend": "style", "InputError": "errors", "Mask": "mask", "MissingExtraError": "errors", "Picture": "picture", "ScumbleError": "errors",
    "Style": "style", "Stylizer": "stylizer", "UsageError": "errors", "stylize": "stylizer",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"scumble.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
