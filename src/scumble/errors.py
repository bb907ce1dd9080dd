"""What can go wrong, as few kinds as a caller can act on.

Every message is one sentence that says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Number, Real


class ScumbleError(Exception):
    """Base of all errors that Scumble raises on purpose; its text is fit to be shown to a user."""


class UsageError(ScumbleError, ValueError):
    """A setting is outside what is allowed (command line: exit code 2)."""


class InputError(ScumbleError):
    """A file can't be read as what it should be, or written where it should go (exit code 1)."""


class MissingExtraError(ScumbleError, ImportError):
    """The job needs an optional part that is not installed."""


def must_be(sentence: str, value: object, *kinds: type) -> None:
    """UsageError unless ``value`` is of one of the ``kinds``; ``sentence`` says what is allowed.

    For doors where callers come in without a type checker, and would else meet an AttributeError from far inside.
    """
    if not isinstance(value, kinds):
        raise UsageError(f"{sentence}; got {_told(value)}")


def _told(value: object) -> str:
    """Short values by themselves, all else (an array, a style) by its type."""
    if value is None or isinstance(value, (str, bytes, os.PathLike, Number)):
        return repr(value)[:80]
    return type(value).__name__


def unknown(kind: str, given: object, allowed: Iterable[str]) -> str:
    """The sentence for a misspelt name, with the nearest allowed one if there is one.

    >>> unknown("method", "wtc", ["adain", "wct"])
    "unknown method 'wtc'; did you mean 'wct'?"
    """
    names = list(allowed)
    near = get_close_matches(given.lower(), names, n=1, cutoff=0.6) if isinstance(given, str) else []
    if near:
        return f"unknown {kind} {given!r}; did you mean {near[0]!r}?"
    return f"unknown {kind} {_told(given)}; allowed: {', '.join(names)}"


def one_of(kind: str, given: object, allowed: Iterable[str]) -> None:
    """UsageError in the house's wording unless ``given`` is ``allowed``."""
    names = list(allowed)
    if not isinstance(given, str) or given not in names:
        raise UsageError(unknown(kind, given, names))


def in_range(name: str, value: float, low: float, high: float) -> float:
    """``value`` if it is a number and ``low <= value <= high``, else a UsageError in the house's wording."""
    must_be(f"{name} must be a number between {low:g} and {high:g}", value, Real)
    if not low <= value <= high:  # also catches NaN
        got = f"a number of {len(str(abs(value)))} digits" if abs(value) > 1e300 and isinstance(value, int) else _number(value)
        raise UsageError(f"{name} must be between {_number(low)} and {_number(high)}; got {got}")
    return value


def _number(value: float) -> str:
    """Whole ones in full, as far as that can be read."""
    return f"{value:.0f}" if abs(value) < 1e12 and value == int(value) else f"{value:g}"


def whole(name: str, value: int) -> int:
    """``value`` as an int, NumPy's integers too; a UsageError for what counts nothing, as 1.5 or a text."""
    must_be(f"{name} must be a whole number", value, Integral)
    return int(value)
