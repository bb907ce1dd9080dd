"""What a training is told, refused in a sentence before anything is read: where it runs, how much it takes at once."""

from __future__ import annotations

import torch

from scumble.errors import UsageError, whole

SMALLEST = 32
"""Side in pixels of the smallest crops: the eye halves them four times, and the teacher mirrors what is left."""


def at_least(least: float, **settings: float) -> None:
    """UsageError naming the first of the ``settings`` that is below ``least``, or not a number."""
    for name, value in settings.items():
        if not value >= least:  # also catches NaN
            raise UsageError(f"{_spelt(name)} must be {least:g} or more; got {value:g}")


def sides(multiple: int = 1, **settings: int) -> None:
    """UsageError unless each of the ``settings``, sides of crops in pixels, can go through the nets and comes out as it was."""
    for name, value in settings.items():
        if whole(_spelt(name), value) < SMALLEST or value % multiple:
            asked = f"a multiple of {multiple}, {SMALLEST} at least" if multiple > 1 else f"{SMALLEST} or more"
            raise UsageError(f"{_spelt(name)} must be {asked}; got {value}")


def on_device(name: str) -> None:
    """UsageError unless PyTorch can compute on ``name``."""
    try:
        torch.ones(1, device=name).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # no such word, not compiled in, no such chip, no chip at all
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *(["mps"] if torch.backends.mps.is_available() else [])]
        raise UsageError(f"device must be {' or '.join(found)}, which is what PyTorch finds here; got {name!r}") from error


def _spelt(name: str) -> str:
    """As the command line has it."""
    return name.replace("_", "-")
