"""What is finished of a long job, on the disk: after ``kill -9`` it is still known, and the rest can be done.

A hidden folder beside the target holds finished segments, the painter's memory after the last of them, and ``state.json``, which
is replaced as a whole when all else is safe.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from scumble.errors import InputError, UsageError
from scumble.video.shots import Snapshot

FORMAT = 1


class Ledger:
    """The segments finished so far of one target.

    Args:
        target: the file, or the pattern of files, that is being made.
        identity: all that decides what comes out, as JSON values: a job can be gone on with only if it is the same.
        resume: take up what is there; else it is thrown away by :meth:`begin`, so that a run that is refused costs nothing.

    UsageError if what is there was begun otherwise, InputError if it is damaged.
    """

    def __init__(self, target: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = target.parent / f".{target.name.replace('%', '_')}.parts"
        self.target = target
        self.identity = json.loads(json.dumps(identity))
        self.segments: list[dict[str, Any]] = []
        self.snapshot: Snapshot | None = None
        self.cut: list[int] | None = None
        """Size and time of the target that Ctrl-C left: it may be replaced by a longer one."""
        self.foreign: int | None = None
        """Of pictures made, the number of the first that was there before, and is not to be replaced."""
        self.taken_up = resume and (self.folder / "state.json").is_file() and self._take_up()
        """Whether an earlier run is gone on with, be it from its first frame."""
        self.begun = False
        """Whether this run has made anything."""

    def begin(self) -> None:
        """The first frame is there: from now on it is this run that can be gone on with."""
        if self.begun:
            return
        self.begun = True
        if not self.taken_up:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._write()

    @property
    def done(self) -> int:
        """Frames that are finished."""
        return sum(segment["frames"] for segment in self.segments)

    @property
    def made_target(self) -> bool:
        """Whether the file under the target's name is the one that an interruption left there."""
        return self.cut is not None and self.target.exists() and self.cut == _stamp(self.target)

    def path(self, name: str) -> Path:
        """A place in the folder, which is made if need be."""
        self.folder.mkdir(exist_ok=True)
        return self.folder / name

    def record(self, segment: Mapping[str, Any], snapshot: Snapshot) -> None:
        """A segment is finished and safe, and this is what the painter remembers after it."""
        number = len(self.segments)
        with self.path(f"after-{number}.npz").open("wb") as file:
            np.savez(file, **snapshot)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        self.segments.append(dict(segment))
        self._write()
        with suppress(OSError):
            (self.folder / f"after-{number - 1}.npz").unlink(missing_ok=True)

    def close(self, *, keep: bool, cut: bool = False) -> None:
        """The folder goes, unless it is to be kept; a target that is ``cut``, of what there is so far, is remembered."""
        if not keep:
            return shutil.rmtree(self.folder, ignore_errors=True)
        if cut:
            self.cut = _stamp(self.target)
        with suppress(OSError):  # on a full disk the older state does
            self._write()

    def _write(self) -> None:
        state = {"format": FORMAT, "identity": self.identity, "segments": self.segments, "cut": self.cut, "foreign": self.foreign}
        part = self.path("state.json.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / "state.json")

    def _take_up(self) -> bool:
        try:
            state = json.loads((self.folder / "state.json").read_text("utf-8"))
            then = state["identity"]
            other = [key for key in self.identity if then.get(key) != self.identity[key]] if state["format"] == FORMAT else ["version"]
            if other and not state["segments"]:
                return False  # nothing is finished, so nothing is lost by beginning again
            if other:
                raise UsageError(f"{self.target} was begun otherwise ({', '.join(other)}); give the same, or begin again without --resume")
            self.segments, self.cut, self.foreign = state["segments"], state["cut"], state.get("foreign")
            if self.segments:
                with np.load(self.folder / f"after-{len(self.segments) - 1}.npz") as arrays:
                    self.snapshot = {key: arrays[key] for key in arrays.files}
            missing = [s["file"] for s in self.segments if "file" in s and not (self.folder / s["file"]).is_file()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, UsageError):
                raise
            raise InputError(f"what is finished of {self.target} can't be read any more; begin again without --resume") from error
        if missing:
            raise InputError(f"of what was finished of {self.target}, {missing[0]} is missing; begin again without --resume")
        return True


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
