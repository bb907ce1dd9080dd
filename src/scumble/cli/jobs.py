"""Pictures painted one after the other: what is read and written where, and what happens when one fails or is interrupted."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble.cli.reporter import Reporter
from scumble.errors import InputError, ScumbleError, UsageError
from scumble.picture import SUFFIXES, Picture
from scumble.recipe import STDIO, Request, file_sha256, write_recipe
from scumble.style import pictures_in
from scumble.stylizer import Stylizer


@dataclass(frozen=True)
class Job:
    """One picture: where it comes from and where it goes, paths or ``-``."""

    source: str
    target: str


def plan(inputs: Sequence[str], output: str | None, styles: Sequence[str]) -> list[Job]:
    """The jobs for ``inputs``, folders among them taken apart; outputs without a name are called after their input and the ``styles``.

    UsageError for an output that can't be meant, before anything is painted.
    """
    sources = list(dict.fromkeys(path for given in inputs for path in _taken_apart(given)))
    into_folder = output is not None and output != STDIO and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    if output is not None and not into_folder:
        if len(sources) > 1:
            raise UsageError(f"several inputs need a folder to go to, and its name ends in / if it is to be made; got -o {output}")
        if output != STDIO and Path(output).suffix.lower() not in SUFFIXES:
            raise UsageError(f"cannot save as {output!r}; the suffix must be one of {', '.join(SUFFIXES)}")
        return [Job(sources[0], output)]
    label = re.sub(r"[^\w.+-]+", "-", "+".join(dict.fromkeys(Path(s).stem or "style" for s in styles)))[:100]
    jobs = [Job(source, _target(source, output, label)) for source in sources]
    targets = {job.target for job in jobs}
    # a folder that was painted before holds pictures of our own, and painting those again is never meant
    jobs = [job for job in jobs if job.source in inputs or job.source not in targets]
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target in taken and job.target != STDIO:
            raise UsageError(f"{taken[job.target]} and {job.source} would both become {job.target}; paint them one at a time with -o")
        taken[job.target] = job.source
    return jobs


def _taken_apart(given: str) -> list[str]:
    if not given:  # as a path that is the current folder, which nobody means by an empty variable
        raise UsageError("an input must be a picture, a folder or -; got an empty text")
    if given == STDIO or not Path(given).is_dir():
        return [given]
    return [os.fspath(p) for p in pictures_in(Path(given))]


def _target(source: str, folder: str | None, label: str) -> str:
    if source == STDIO:
        return STDIO if folder is None else os.fspath(Path(folder) / f"stdin-{label}.png")
    path = Path(source)
    suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
    return os.fspath((path.parent if folder is None else Path(folder)) / f"{path.stem}-{label}{suffix}")


class Session:
    """Paints jobs with one request: nets are loaded and styles encoded once.

    Raises what is wrong with the request (a setting, a style, a mask); what is wrong with a picture is reported, and the next one painted.
    """

    def __init__(
        self,
        request: Request,
        *,
        overwrite: bool = False,
        preview: Path | None = None,
        quiet: bool = False,
        as_json: bool = False,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        settings = request.settings
        self.request = request
        self.painter = Stylizer(settings["device"], settings["threads"])
        self.styles = request.open_styles(self.painter)
        self.masks = [Picture.open(mask, max_pixels=settings["max_pixels"]) for mask in request.masks]
        self.overwrite = overwrite
        self.preview = preview
        self.recipe = recipe
        self.reporter = Reporter(quiet=quiet, as_json=as_json)

    def paint_all(self, jobs: Sequence[Job]) -> int:
        """Returns the exit code: 0, 1 if several were asked for and some failed, 130 if interrupted. One that fails alone is raised."""
        failures: list[tuple[str, str]] = []
        painted = 0
        with self.reporter.running(len(jobs)):
            for job in jobs:
                try:
                    done = self._paint(job)
                except (ScumbleError, OSError, MemoryError) as error:
                    if len(jobs) == 1 or (isinstance(error, UsageError) and not painted):  # a wrong setting is wrong for all of them
                        raise
                    reason = str(error) or "out of memory"
                    failures.append((job.source, reason))
                    self.reporter.failed(job.source, reason)
                    continue
                painted += 1
                self.reporter.painted(done)
                if self.reporter.stopping:
                    break
        if failures:
            self.reporter.table(failures, len(jobs))
        return 130 if self.reporter.stopping else 1 if failures else 0

    def _paint(self, job: Job) -> dict[str, Any]:
        started = time.monotonic()
        target = Path(job.target)
        if job.target != STDIO and not self.overwrite and target.exists():
            raise InputError(f"{target} exists already; allow overwriting (--overwrite) or choose another name")
        if job.source == STDIO:
            data = sys.stdin.buffer.read()
            content, sha256 = Picture.open(data, max_pixels=self.request.settings["max_pixels"]), hashlib.sha256(data).hexdigest()
        else:
            content = Picture.open(job.source, max_pixels=self.request.settings["max_pixels"])
            sha256 = file_sha256(Path(job.source))
        painted = self._refined(content) if self.request.refines else self.request.paint(self.painter, content, self.styles, self.masks)
        recipe = self.recipe
        if recipe is None:
            cut = {} if self.reporter.cut is None else {"interrupted": self.reporter.cut}
            recipe = write_recipe(self.request, job.source, sha256, target, **cut)
        if job.target == STDIO:
            sys.stdout.buffer.write(painted.encode(painted.metadata.format or "PNG", recipe=recipe))
        else:
            painted.save(target, overwrite=self.overwrite, recipe=recipe)
        return {
            "input": job.source,
            "output": job.target,
            "seconds": round(time.monotonic() - started, 3),
            "size": [painted.width, painted.height],
            "styles": recipe["styles"],
            "settings": recipe["settings"],
            **({} if self.reporter.cut is None else {"interrupted": self.reporter.cut}),
        }

    def _refined(self, content: Picture) -> Picture:
        with self.reporter.refining():
            show = self._show if self.preview else None
            return self.request.paint(self.painter, content, self.styles, self.masks, progress=self.reporter.step, preview=show)

    def _show(self, pixels: NDArray[np.float32]) -> None:
        assert self.preview is not None
        Picture.from_array(np.clip(pixels, 0.0, 1.0)).save(self.preview, overwrite=True)
