"""The library of styles by name: the built-in ones, and those the user has added.

Built-in styles are statistics alone (means, deviations, correlations), all in one safetensors file; nothing of the
pictures themselves is kept. A user's own are ``.style`` files in one folder.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble._files import own_folder
from scumble.errors import InputError, UsageError, must_be, unknown
from scumble.weights import weight_path

BUILT_IN = "library.safetensors"

_NAMED = 4
"""How many styles a suggestion names."""


@dataclass(frozen=True)
class Entry:
    """One style of the library."""

    name: str
    title: str = ""
    artist: str = ""
    year: str = ""
    medium: str = ""
    group: str = ""
    path: Path | None = None
    """The ``.style`` file of a style that the user added; None for the built-in ones."""

    @property
    def key(self) -> str:
        """The name, and when the file was written: what is kept of a style under that is kept until it is replaced."""
        try:
            return self.name if self.path is None else f"{self.name}@{self.path.stat().st_mtime_ns}"
        except OSError:  # it has just been removed
            return self.name


def user_folder() -> Path:
    """Where the user's own styles lie: ``$SCUMBLE_STYLES``, else ``styles`` in the platform's data folder. It may not exist."""
    return own_folder("scumble/styles", "SCUMBLE_STYLES", windows="APPDATA", macos="Application Support", others="XDG_DATA_HOME")


@lru_cache(maxsize=1)
def _built_in_entries() -> dict[str, Entry]:
    from safetensors import safe_open

    with safe_open(os.fspath(weight_path(BUILT_IN)), framework="np") as f:
        rows: list[dict[str, Any]] = json.loads(f.metadata()["entries"])
    return {row["name"]: Entry(**row) for row in rows}


def entries() -> dict[str, Entry]:
    """All styles that have a name, the user's own after the built-in ones; hidden files are none."""
    found = dict(_built_in_entries())
    folder = user_folder()
    if folder.is_dir():
        for path in sorted(folder.glob("[!.]*.style")):
            found.setdefault(path.stem, Entry(path.stem, title=path.stem, group="your own", path=path))
    return found


def entry(name: str) -> Entry:
    """The style called ``name``; UsageError with the nearest name if there is none."""
    must_be("a style's name must be a text, as 'great-wave'", name, str)
    known = entries()
    if name in known:
        return known[name]
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    if wanted in known:
        return known[wanted]
    raise UsageError(_suggest(name, known))


def _suggest(name: str, known: Mapping[str, Entry]) -> str:
    """The sentence for a style that there is none of: what is by that artist, or has that in its title, or is spelt nearly so."""
    words = _words(name)
    meant = [e.name for e in known.values() if words and words <= _words(f"{e.artist} {e.title}")]
    if meant:
        more = f" and {len(meant) - _NAMED} more" if len(meant) > _NAMED else ""
        return f"unknown style {name!r}; did you mean {', '.join(map(repr, meant[:_NAMED]))}{more}?"
    said = unknown("style", name, known)
    if "did you mean" in said:
        return said
    return f"unknown style {name!r}; see `scumble styles list`, or give a picture, a folder or a .style file"


def _words(text: str) -> set[str]:
    """In small letters, without accents."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return set(re.findall("[a-z0-9]+", plain))


def tensors(name: str) -> tuple[dict[str, NDArray[np.floating]], str]:
    """Those of a built-in style, and the generator that it was tuned for, if it was.

    ``mean1``, ``std1``, ``correlation1`` (upper triangle, half precision) … of levels 1 to 5; ``tuning``, if it was.
    """
    from safetensors import safe_open

    prefix = f"{name}/"
    with safe_open(os.fspath(weight_path(BUILT_IN)), framework="np") as f:
        found = {key[len(prefix) :]: f.get_tensor(key) for key in f.keys() if key.startswith(prefix)}  # noqa: SIM118  (not a dict)
        return found, f.metadata().get("generator", "")


def check_name(name: str) -> str:
    """``name`` if a style can be called so, else a UsageError: it becomes a file name."""
    if not name or len(name) > 64 or not all(c.isalnum() or c in "-_" for c in name):
        raise UsageError(f"a style's name is up to 64 letters, digits, '-' and '_'; got {name!r}")
    if name in _built_in_entries():
        raise UsageError(f"{name!r} is a built-in style; choose another name")
    return name


def remove(name: str) -> Path:
    """Delete a style that the user has added; UsageError for a built-in or unknown one."""
    found = entry(name)
    if found.name != name:  # what is deleted has to be named as it is
        raise UsageError(f"unknown style {name!r}; did you mean {found.name!r}?")
    if found.path is None:
        raise UsageError(f"{found.name!r} is a built-in style and stays; only your own can be removed")
    try:
        found.path.unlink()
    except OSError as e:
        raise InputError(f"cannot remove {found.path}: {e.strerror}") from e
    return found.path
