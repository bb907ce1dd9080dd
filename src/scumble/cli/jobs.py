"""Pictures painted one after the other: what is read and written where, and what happens when one fails or is interrupted."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble import large
from scumble._files import checked_target
from scumble._formats import check_sides, check_suffix, format_named
from scumble.cli.reporter import Reporter
from scumble.errors import InputError, MissingExtraError, ScumbleError, UsageError
from scumble.picture import SUFFIXES, Picture, fitted_size, read_size
from scumble.recipe import NOT_THE_STYLIZERS, STDIO, Request, file_sha256, write_recipe
from scumble.style import works_in
from scumble.stylizer import Stylizer, working_scale
from scumble.tiling import least_memory


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
    if output == "":  # which would be none at all, and nobody means by an empty variable
        raise UsageError("an output must be a file, a folder or -; got an empty text")
    if output is not None and not into_folder:
        if len(sources) > 1:
            raise UsageError(f"several inputs need a folder to go to, and its name ends in / if it is to be made; got -o {output}")
        if output != STDIO:
            is_film = Path(output).suffix.lower() in (".mp4", ".mov", ".mkv", ".webm")
            check_suffix(output, "; for films: scumble video" if is_film else "")
        return [Job(sources[0], output)]
    label = re.sub(r"[^\w.+-]+", "-", "+".join(dict.fromkeys(Path(s).stem or "style" for s in styles)))[:100]
    jobs = [Job(source, _target(source, output, label)) for source in sources]
    targets = {job.target for job in jobs}
    # what was painted here and has lost its recipe since
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
    if re.match(r"https?://", given):
        raise UsageError(f"pictures are not fetched; save {given} as a file first, or pipe it in and give -")
    if given == STDIO or not Path(given).is_dir():
        return [given]
    return [os.fspath(p) for p in works_in(Path(given))]


def _target(source: str, folder: str | None, label: str) -> str:
    if source == STDIO:
        return STDIO if folder is None else os.fspath(Path(folder) / f"stdin-{label}.png")
    path = Path(source)
    suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
    return os.fspath((path.parent if folder is None else Path(folder)) / f"{path.stem}-{label}{suffix}")


_HELD = 72
"""Bytes of memory for each pixel of a picture that is held whole: what is read, the result, and what lies between."""


def by_rows(job: Job, settings: Mapping[str, Any], *, resume: bool = False) -> str | None:
    """``painted`` for a picture that is too large to be held, ``read`` where only the input is, and the result of ``--size`` isn't.

    None for all others: also where pyvips is missing and memory may do. MissingExtraError where it can't. What an earlier run has begun by
    rows, and this one is to ``resume``, is painted so whatever memory it has.
    """
    if resume and job.target != STDIO and large.is_begun(Path(job.target)):
        return "painted"
    height, width = read_size(job.source)
    shrink = 1.0 if settings["size"] is None else settings["size"] / max(height, width)
    pixels, memory = height * width * shrink * shrink, settings.get("memory")
    tight = memory is not None and _HELD * pixels > memory
    if max(pixels, height * width) <= large.STREAMED and not tight:
        return None
    held = height * width <= settings["max_pixels"]
    writable = job.target != STDIO and format_named(Path(job.target).suffix) in large.FORMATS
    if not large.is_installed():
        if height * width > settings["max_pixels"]:
            raise MissingExtraError(
                f'{job.source} has {height * width / 1e6:.0f} megapixels; for pictures that memory cannot hold: pip install "scumble[big]"'
            )
        return None
    if pixels <= large.STREAMED and not tight:
        return "read"
    if working_scale(height * shrink, width * shrink, settings["style_scale"]) >= 1 or (held and not writable):
        return None
    return "painted"


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
        resume: bool = False,
        limit: int | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        settings = request.settings
        self.request = request
        self.painter = Stylizer(settings["device"], settings["threads"], settings["max_pixels"])
        request.check(self.painter)
        self.styles = request.open_styles(self.painter)
        self.masks = [Picture.open(mask, max_pixels=settings["max_pixels"]) for mask in request.masks]
        self.overwrite = overwrite
        self.preview = preview
        self.resume = resume
        self.limit = limit  # of pixels, where one was asked for: what is read by rows has no other
        self.recipe = recipe
        self.reporter = Reporter(quiet=quiet, as_json=as_json)

    def paint_all(self, jobs: Sequence[Job]) -> int:
        """Returns the exit code: 0, 1 if several were asked for and some failed, 130 if interrupted. One that fails alone is raised."""
        failures: list[tuple[str, str]] = []
        with self.reporter.running(len(jobs)):
            for job in jobs:
                try:
                    done = self._paint(job)
                except (ScumbleError, OSError, MemoryError) as error:
                    if len(jobs) == 1:
                        raise
                    reason = str(error) or "out of memory"
                    failures.append((job.source, reason))
                    self.reporter.failed(job.source, reason)
                    continue
                self.reporter.painted(done)
                if self.reporter.stopping:
                    break
        if failures:
            self.reporter.table(failures, len(jobs))
        return 130 if self.reporter.stopping else 1 if failures else 0

    def _paint(self, job: Job) -> dict[str, Any]:
        started = time.monotonic()
        if job.source != STDIO and Path(job.source).exists() and not Path(job.source).is_file():  # it can be read but once
            raise InputError(f"{job.source} is no regular file; give one, or - and the picture piped in")
        if job.target != STDIO:  # what can go wrong with it is said before minutes of work
            checked_target(Path(job.target), overwrite=self.overwrite)
        if job.source != STDIO and (way := by_rows(job, self.request.settings, resume=self.resume)) is not None:
            return self._paint_by_rows(job, started) if way == "painted" else self._paint_whole(job, started, *self._reduced(job))
        return self._paint_whole(job, started)

    def _paint_whole(self, job: Job, started: float, content: Picture | None = None, reduced: float = 1.0) -> dict[str, Any]:
        """A picture that is held in memory; ``content`` if it is there already, and by how much it was ``reduced``."""
        if job.source == STDIO:
            data = sys.stdin.buffer.read()
            content, sha256 = Picture.open(data, max_pixels=self.request.settings["max_pixels"]), hashlib.sha256(data).hexdigest()
        else:
            content = content or Picture.open(job.source, max_pixels=self.request.settings["max_pixels"])
            sha256 = file_sha256(Path(job.source))
        format = format_named(Path(job.target).suffix) if job.target != STDIO else content.metadata.format or "PNG"
        check_sides(format, *fitted_size(*content.size, self.request.settings["size"]), "save as PNG or TIFF")
        if self.request.refines:
            painted = self._refined(content, reduced)
        else:
            painted = self.request.paint(self.painter, content, self.styles, self.masks, reduced=reduced)
        recipe = self._recipe(job, sha256)
        if job.target == STDIO:
            sys.stdout.buffer.write(painted.encode(format, recipe=recipe))
        else:
            painted.save(Path(job.target), overwrite=self.overwrite, recipe=recipe)
        return self._done(job, started, recipe, painted.width, painted.height)

    def _paint_by_rows(self, job: Job, started: float) -> dict[str, Any]:
        """A picture that memory can't hold."""
        settings = self.request.settings
        recipe = self._recipe(job, file_sha256(Path(job.source)))
        own = {k: v for k, v in settings.items() if k not in NOT_THE_STYLIZERS}
        with ExitStack() as stack:
            if self.request.refines:
                stack.enter_context(self.reporter.refining())

            def planned(plan: large.Plan, height: int, width: int) -> None:
                stack.close()  # the refinement is over: from here on Ctrl-C stops at once
                self.reporter.planned(job.source, plan, height, width)

            outcome = self._within_memory(
                job.source, self.styles, job.target, painter=self.painter, masks=self.masks, feather=settings["feather"],
                invert_mask=settings["invert_mask"], max_pixels=self.limit or large.MOST_PIXELS, overwrite=self.overwrite,
                resume=self.resume, recipe=recipe, interrupted=lambda: self.reporter.cut, planned=planned, tiles=self.reporter.tiled,
                progress=self.reporter.step, stop=self.reporter.stop, preview=self._show if self.preview else None, **own,
            )  # fmt: skip
        plan = outcome.plan
        return self._done(job, started, recipe, outcome.width, outcome.height) | {
            "tile": plan.tile,
            "tiles": plan.tiles,
            "resumed": outcome.resumed,
            "memory": {"budget": plan.budget, "estimate": plan.estimate},
        }

    def _within_memory(self, source: str, *given: Any, **more: Any) -> large.Outcome:
        """As :func:`scumble.large.paint`; where a picture that is held whole takes less than rows do at the least, that is what is told."""
        try:
            return large.paint(source, *given, **more)
        except large.TooLittleMemoryError as error:
            height, width = read_size(source)
            shrink = 1.0 if more["size"] is None else more["size"] / max(height, width)
            held = max(math.ceil(_HELD * height * width * shrink * shrink), least_memory(more["method"]))
            if max(1.0, shrink * shrink) * height * width > large.STREAMED or held >= error.least or self.request.refines:
                raise
            raise large.TooLittleMemoryError(round(width * shrink), round(height * shrink), held, more["memory"]) from error

    def _reduced(self, job: Job) -> tuple[Picture, float]:
        """A picture that is too large to be held, at the size that is asked for, and what part that is of its own."""
        source = large.Source(job.source, max_pixels=self.limit or large.MOST_PIXELS)
        size = self.request.settings["size"]
        return source.reduced(*fitted_size(source.height, source.width, size)), size / max(source.height, source.width)

    def _recipe(self, job: Job, sha256: str) -> Mapping[str, Any]:
        if self.recipe is not None:
            return self.recipe
        cut = {} if self.reporter.cut is None else {"interrupted": self.reporter.cut}
        return write_recipe(self.request, job.source, sha256, Path(job.target), **cut)

    def _done(self, job: Job, started: float, recipe: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
        return {
            "input": job.source,
            "output": job.target,
            "seconds": round(time.monotonic() - started, 3),
            "size": [width, height],
            "styles": recipe["styles"],
            "settings": recipe["settings"],
            **({} if self.reporter.cut is None else {"interrupted": self.reporter.cut}),
        }

    def _refined(self, content: Picture, reduced: float) -> Picture:
        with self.reporter.refining():
            show = self._show if self.preview else None
            return self.request.paint(
                self.painter,
                content,
                self.styles,
                self.masks,
                reduced=reduced,
                progress=self.reporter.step,
                stop=self.reporter.stop,
                preview=show,
            )

    def _show(self, pixels: NDArray[np.float32]) -> None:
        assert self.preview is not None
        Picture.from_array(np.clip(pixels, 0.0, 1.0)).save(self.preview, overwrite=True)  # which was asked for before the first
