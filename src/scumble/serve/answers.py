"""What the API says: the shapes of its JSON, and one sentence with an id for whatever goes wrong."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from scumble import library, weights
from scumble.errors import InputError, MissingExtraError, ScumbleError, UsageError
from scumble.serve.limits import BusyError
from scumble.serve.orders import NotAcceptableError
from scumble.serve.service import StoppedError
from scumble.serve.store import FullError, Job

log = logging.getLogger(__name__)

LINE = 400
"""Characters of a sentence that the log takes."""


class Problem(BaseModel):
    """What went wrong."""

    error: str = Field(description="One sentence: what was given, what is allowed, what to do.")
    id: str = Field(description="Of the request; the service's log has it, too.")


class StyleEntry(BaseModel):
    """A style of the library."""

    name: str
    title: str
    artist: str
    year: str
    medium: str
    group: str


class Styles(BaseModel):
    """The library."""

    styles: list[StyleEntry]


class Progress(BaseModel):
    """How far a job is: steps of a refinement, frames of a film."""

    done: int
    total: int | None
    loss: float | None


class JobState(BaseModel):
    """A job. Times are seconds since 1970; paths are those of the API."""

    id: str
    kind: str = Field(description="picture or film")
    state: str = Field(description="queued, running, done, failed or cancelled")
    created: float
    started: float | None
    finished: float | None
    expires: float | None = Field(description="When the job and its result will be deleted.")
    progress: Progress
    interrupted: bool = Field(description="The result is the best until the job was stopped.")
    error: str | None
    events: str
    preview: str | None
    result: str | None


class Health(BaseModel):
    """Whether the service lives, or is ready."""

    status: str


def job_state(job: Job, root: str) -> JobState:
    """``job`` as the API tells it; ``root`` is the path that a proxy puts before all others."""
    place = f"{root}/v1/jobs/{job.id}"
    return JobState(
        id=job.id, kind=job.kind, state=job.state, created=job.created, started=job.started, finished=job.finished, expires=job.expires,
        progress=Progress(done=job.done, total=job.total, loss=job.loss), interrupted=bool(job.interrupted),
        error=None if job.error is None else without_paths(job.error), events=f"{place}/events",
        preview=f"{place}/preview" if job.previews and not job.ended else None, result=f"{place}/result" if job.result else None,
    )  # fmt: skip


def without_paths(sentence: str) -> str:
    """``sentence`` without the names of the server's folders: they are nobody's business."""
    for folder in (weights.FOLDER, library.user_folder(), Path(tempfile.gettempdir()), Path.home()):
        if len(folder.parts) > 1:
            sentence = sentence.replace(str(folder), "…")
    return sentence


def problem(
    request: Request, status: int, sentence: str, headers: Mapping[str, str] | None = None, cause: Exception | None = None
) -> Response:
    """An error body, of which the log gets a line under the same id; with a ``cause`` that nobody has foreseen, its traceback, too."""
    told, id = without_paths(sentence), getattr(request.state, "id", "")
    # what was sent may be in the sentence: it must not make lines of its own, nor long ones
    line = "".join(c if c.isprintable() else "?" for c in told[:LINE])
    log.log(logging.WARNING if cause is None else logging.ERROR, "request %s: %d, %s", id, status, line, exc_info=cause)
    return JSONResponse({"error": told, "id": id}, status, headers)


async def explain(request: Request, error: Exception) -> Response:
    """The answer for whatever was raised."""
    if isinstance(error, HTTPException):
        return problem(request, error.status_code, _sentence(request, error), error.headers)
    if isinstance(error, BusyError):
        return problem(request, 429, str(error), {"retry-after": str(error.retry_after)})
    if isinstance(error, MemoryError):
        return problem(request, 503, "out of memory; give a smaller picture", {"retry-after": "5"})
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return problem(request, status, str(error), {"retry-after": "60"} if status in (503, 507) else None)
    return problem(request, 500, "something went wrong; the service's log says more under this id", cause=error)


def _sentence(request: Request, error: HTTPException) -> str:
    """What the framework raises says no more than the status does."""
    if error.detail == "Not Found":
        return "there is nothing at this path; see /docs"
    if error.detail == "Method Not Allowed":
        return f"{request.method} can't be done here; allowed: {Headers(error.headers).get('allow', 'nothing')}"
    return str(error.detail)


_STATUS: dict[type[ScumbleError], int] = {
    NotAcceptableError: 406, UsageError: 422, InputError: 422, MissingExtraError: 501, StoppedError: 503, FullError: 507, ScumbleError: 500,
}  # fmt: skip
"""The first that fits counts."""


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the schema: these statuses have a :class:`Problem` for a body."""
    return {status: {"model": Problem, "description": _SAID[status]} for status in (401, 421, 429, *statuses)}


_SAID = {
    400: "The request can't be read",
    401: "A token is needed",
    403: "The request comes from a page of another site",
    404: "There is no such thing, or not any more",
    405: "Not with this method",
    406: "None of the accepted formats can be made",
    408: "The upload did not come in time",
    409: "The job has not ended",
    413: "The upload is too large",
    421: "The service does not answer to this name",
    422: "A setting is out of range, or a file can't be read",
    429: "Too many requests; Retry-After says when to try again",
    501: "An optional part is not installed",
    503: "The service is closing, or out of memory",
    504: "It took too long",
    507: "The disk space for jobs is used up",
}
