"""What can go wrong, as few kinds as a caller can act on.

Every message is one sentence that says what was given, what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ScumbleError(Exception):
    """Base of all errors that Scumble raises on purpose; its text is fit to be shown to a user."""


class UsageError(ScumbleError, ValueError):
    """A setting is outside what is allowed (command line: exit code 2)."""


class InputError(ScumbleError):
    """A file can't be read as what it should be, or written where it should go (exit code 1)."""


class MissingExtraError(ScumbleError, ImportError):
    """The job needs an optional part that is not installed."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> str:
    """The sentence for a misspelt name, with the nearest allowed one if there is one.

    >>> unknown("method", "wtc", ["adain", "wct"])
    "unknown method 'wtc'; did you mean 'wct'?"
    """
    names = list(allowed)
    near = get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    if near:
        return f"unknown {kind} {given!r}; did you mean {near[0]!r}?"
    return f"unknown {kind} {given!r}; allowed: {', '.join(names)}"


def in_range(name: str, value: float, low: float, high: float) -> float:
    """``value`` if ``low <= value <= high``, else a UsageError in the house's wording."""
    if not low <= value <= high:  # also catches NaN
        got = f"a number of {len(str(abs(value)))} digits" if abs(value) > 1e300 and isinstance(value, int) else f"{value:g}"
        raise UsageError(f"{name} must be between {low:g} and {high:g}; got {got}")
    return value
