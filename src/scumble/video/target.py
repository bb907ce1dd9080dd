"""Where a result goes: under its own name only when it is whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scumble.errors import InputError


@dataclass(frozen=True)
class Target:
    """A file to be written. InputError, before any work is done, if it can't be."""

    path: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.path.parent.is_dir():
            raise InputError(f"cannot write {self.path}: there is no folder {self.path.parent}; make it first")
        if self.path.is_dir():
            raise InputError(f"cannot write {self.path}: it is a folder; give a file name")
        if not self.overwrite and self.path.exists():
            raise InputError(f"{self.path} exists already; allow overwriting (--overwrite) or choose another name")

    @contextmanager
    def part(self) -> Generator[Path, None, None]:
        """A hidden name beside the target, gone afterwards; what fails there is an InputError."""
        part = self.path.parent / f".scumble-{secrets.token_hex(8)}.part"
        try:
            with writing(self.path):
                yield part
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def publish(self, part: Path) -> None:
        """``part``, safe on the disk, becomes the target."""
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(self.path)


@contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """What the system or FFmpeg has against writing becomes one sentence."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("av."):
            raise
        why = str(getattr(error, "strerror", None) or error).lower()
        raise InputError(f"cannot write {path} ({why}); free space, change permissions or choose another place") from error
