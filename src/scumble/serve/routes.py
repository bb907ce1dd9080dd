"""The API: painting at once, jobs for what takes longer, the library, and how the service is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Match

from scumble import library
from scumble.errors import InputError, UsageError, in_range, unknown
from scumble.serve.answers import Health, JobState, StyleEntry, Styles, job_state, responses
from scumble.serve.jobs import Job, Jobs
from scumble.serve.limits import BusyError
from scumble.serve.orders import (
    FILMS,
    MEDIA,
    OF_FILMS,
    FilmOptions,
    Options,
    Order,
    check,
    decoded,
    finished,
    format_named,
    read_order,
    suffix,
)
from scumble.serve.service import PaintService, named
from scumble.serve.telemetry import Telemetry
from scumble.video.animation import Animation, moves
from scumble.video.frames import load_av
from scumble.video.reading import VideoFile

T = TypeVar("T")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
LISTEN = 0.2
"""Seconds between two looks at a job that somebody listens to, or whether a client is still there."""
ALIVE = 15.0
"""Seconds after which a silent stream says that it lives: proxies cut what is silent."""
MOVING = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")


class Api:
    """The routes, over one service."""

    def __init__(self, service: PaintService, jobs: Jobs, telemetry: Telemetry) -> None:
        self.service, self.jobs, self.telemetry = service, jobs, telemetry
        self.settings = service.settings
        self._coming = 0
        self.router = router = APIRouter()
        paint = {"requestBody": _body(Options)}
        pictures = {
            200: {"content": {m: {"schema": {"type": "string", "format": "binary"}} for m in MEDIA.values()}, "description": "The picture"}
        }
        add = router.add_api_route
        add(
            "/v1/stylize", self.stylize, methods=["POST"], tags=["painting"], openapi_extra=paint, response_class=Response,
            responses={**pictures, **responses(400, 403, 406, 408, 413, 422, 501, 503, 504)}, summary="Paint a picture",
        )  # fmt: skip
        add("/v1/styles", self.styles, methods=["GET"], tags=["library"], responses=responses(), summary="The styles of the library")
        add("/v1/styles/{name}", self.style, methods=["GET"], tags=["library"], responses=responses(404), summary="One style")
        add(
            "/v1/jobs", self.submit, methods=["POST"], tags=["jobs"], openapi_extra={"requestBody": _body(FilmOptions)}, status_code=202,
            responses=responses(400, 403, 408, 413, 422, 501, 503, 507), summary="Have a picture or a film painted in the background",
        )  # fmt: skip
        add("/v1/jobs/{id}", self.job, methods=["GET"], tags=["jobs"], responses=responses(404), summary="How a job is")
        add(
            "/v1/jobs/{id}", self.cancel, methods=["DELETE"], tags=["jobs"], responses=responses(403, 404),
            summary="Stop a job with its best so far; delete one that has ended",
        )  # fmt: skip
        streams = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events"}}
        add(
            "/v1/jobs/{id}/events", self.events, methods=["GET"], tags=["jobs"], response_class=StreamingResponse,
            responses={**streams, **responses(404)}, summary="The job's state whenever it changes, until it ends",
        )  # fmt: skip
        films = {m: {"schema": {"type": "string", "format": "binary"}} for m in (*MEDIA.values(), *FILMS.values())}
        found = {200: {"content": films, "description": "The file"}}
        add(
            "/v1/jobs/{id}/preview", self.preview, methods=["GET"], tags=["jobs"], response_class=Response,
            responses={200: {"content": {"image/jpeg": films["image/jpeg"]}, "description": "A JPEG"}, **responses(404)},
            summary="The refinement so far",
        )  # fmt: skip
        add(
            "/v1/jobs/{id}/result", self.result, methods=["GET"], tags=["jobs"], response_class=Response,
            responses={**found, **responses(404, 409)}, summary="What the job has made",
        )  # fmt: skip
        add("/healthz", self.health, methods=["GET"], tags=["service"], summary="Whether the service lives")
        for path, look in (("/healthz", self.health), ("/readyz", self.readiness)):  # some that look after services ask no more
            add(path, look, methods=["HEAD"], include_in_schema=False, response_model=None)
        add(
            "/readyz",
            self.readiness,
            methods=["GET"],
            tags=["service"],
            response_model=Health,
            responses={503: {"model": Health}},
            summary="Whether the nets are loaded",
        )
        plain = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}}
        add(
            "/metrics",
            self.metrics,
            methods=["GET"],
            tags=["service"],
            response_class=Response,
            responses={**plain, **responses()},
            summary="Numbers",
        )
        for path in ("/v1", "/v1/{rest:path}", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            router.add_route(path, self.nowhere, methods=[*METHODS], include_in_schema=False)

    # Painting ---------------------------------------------------------------------------------------------------------------

    async def stylize(self, request: Request) -> Response:
        """Send the picture as a form's part `content`, with styles as names or pictures; or as the body, with the options in the query.
        The answer is the painted picture in its own size, in the format that `Accept` prefers.
        """
        started, cancel = time.monotonic(), threading.Event()
        with _Admission(self):
            order = await read_order(request, Options)
            accept = request.headers.get("accept", "")
            call = self.service.submit(lambda: finished(self.service, order, accept, cancel=cancel))
            left = self.settings.timeout - (time.monotonic() - started)
            data, key, picture = await self._patiently(request, call, left, cancel)
        self.telemetry.painted.inc(picture.width * picture.height)
        spent = 1000 * (time.monotonic() - started)
        headers = {
            "server-timing": f"total;dur={spent:.0f}",
            "vary": "Accept",
            "content-disposition": f'inline; filename="painted{suffix(key)}"',
        }
        return Response(data, media_type=MEDIA[key], headers=headers)

    async def _patiently(self, request: Request, call: Future[T], seconds: float, cancel: threading.Event | None = None) -> T:
        """The result of ``call``; given up, and cancelled where it can be, when time is over or nobody waits for it any more."""
        future, deadline = asyncio.wrap_future(call), time.monotonic() + seconds
        try:
            while True:
                done, _ = await asyncio.wait({future}, timeout=max(0.0, min(5 * LISTEN, deadline - time.monotonic())))
                if done:
                    return future.result()
                if time.monotonic() >= deadline:
                    raise HTTPException(504, f"it took longer than {self.settings.timeout:g} s; send it as a job to /v1/jobs")
                if await request.is_disconnected():
                    raise HTTPException(499, "the client has gone")
        finally:
            if not future.done():
                if cancel is not None:
                    cancel.set()
                future.cancel()

    # The library --------------------------------------------------------------------------------------------------------------

    def styles(self) -> Styles:
        """All styles that have a name, with what is known of the works."""
        return Styles(styles=[_entry(entry) for entry in library.entries().values()])

    def style(self, name: str) -> StyleEntry:
        """One style; a misspelt name gets the nearest one told."""
        try:
            return _entry(named(name[:100]))
        except UsageError as error:
            raise HTTPException(404, str(error)) from error

    # Jobs ---------------------------------------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> JobState:
        """As `/v1/stylize`, for what takes long: refinements, large pictures, films. Follow it by `events`, or ask now and then."""
        started = time.monotonic()
        with _Admission(self):
            order = await read_order(request, FilmOptions)
            left = self.settings.timeout - (time.monotonic() - started)
            job = await self._patiently(request, self.service.submit(lambda: self._added(order)), left)
        return job_state(job, self.settings.root_path)

    def _added(self, order: Order) -> Job:
        """What can be said against the order is said now, not when its turn has come."""
        check(self.service, order)
        if order.format in (None, "gif") and not self.service.refines(order.settings) and moves(order.content.data):
            try:
                _check_film(self.service, order)
            except UsageError as error:
                raise UsageError(f"the content is an animation, and {error}; for its first frame alone give a format, as png") from error
            _check_readable(self.service, order)
            return self.jobs.add(replace(order, format="gif"), "film")
        if _is_film(order):
            load_av()
            _check_film(self.service, order)
            _check_readable(self.service, order)
            return self.jobs.add(order, "film")
        if order.steady is not None:
            raise UsageError("steady is for films")
        if order.format is not None:
            format_named(order.format)
        limit = self.settings.max_pixels
        self.service.check_size(decoded(order.content, "content", limit).size, order.settings)
        for mask in order.masks:
            decoded(mask, "mask", limit)
        return self.jobs.add(order, "picture")

    def _job(self, id: str) -> Job:
        job = self.jobs.store.get(id)
        if job is None:
            raise HTTPException(404, "there is no such job; its result may have expired")
        return job

    def job(self, id: str) -> JobState:
        """Its state, how far it is, and where its result will be."""
        return job_state(self._job(id), self.settings.root_path)

    def cancel(self, id: str) -> JobState:
        """A job that waits is cancelled, a refinement or a film that runs ends with the best so far, another picture without a result;
        one that has ended is deleted.
        """
        job = self._job(id)
        if job.ended:
            self.jobs.store.delete(id)
            return job_state(job, self.settings.root_path).model_copy(update={"result": None})
        self.jobs.cancel(job)
        return job_state(self._job(id), self.settings.root_path)

    async def events(self, request: Request, id: str) -> StreamingResponse:
        """One event for each change, called `job`, its data as `GET /v1/jobs/{id}` has them. The stream ends with the job."""
        self._job(id)
        return StreamingResponse(self._changes(request, id), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _changes(self, request: Request, id: str) -> AsyncGenerator[str, None]:
        said, quiet = "", time.monotonic()
        while True:
            job = await asyncio.to_thread(self.jobs.store.get, id)
            if job is None:
                return
            text = json.dumps(job_state(job, self.settings.root_path).model_dump() | {"previews": job.previews})
            if text != said:
                said, quiet = text, time.monotonic()
                yield f"event: job\ndata: {text}\n\n"
            elif time.monotonic() - quiet > ALIVE:
                quiet = time.monotonic()
                yield ": still there\n\n"
            if job.ended or await request.is_disconnected():
                return
            await asyncio.sleep(LISTEN)

    def preview(self, id: str) -> Response:
        """The latest state of a refinement that runs, at most 1024 pixels."""
        job = self._job(id)
        try:
            return Response(self.jobs.store.path(job.id, "preview.jpg").read_bytes(), media_type="image/jpeg")
        except OSError as error:
            raise HTTPException(404, "there is no preview (yet, or any more)") from error

    def result(self, id: str) -> Response:
        """The painted picture or film."""
        job = self._job(id)
        if not job.ended:
            raise HTTPException(409, f"the job is {job.state}; wait until it has ended")
        path = None if job.result is None else self.jobs.store.path(job.id, job.result)
        if path is None or not path.is_file():
            raise HTTPException(404, f"the job {'has failed' if job.state == 'failed' else 'was stopped'} and has no result")
        return FileResponse(path, media_type=job.media, filename=f"painted{path.suffix}", content_disposition_type="inline")

    # The service --------------------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """200 as long as the process answers."""
        return Health(status="ok")

    def readiness(self) -> Response:
        """200 when pictures can be painted, 503 before."""
        ready = self.service.ready.is_set()
        return JSONResponse({"status": "ready" if ready else "loading"}, 200 if ready else 503)

    def metrics(self) -> Response:
        """Requests, times, queue, jobs, memory."""
        return self.telemetry.response()

    async def nowhere(self, request: Request) -> Response:
        """What is not there must not fall through to the page."""
        allowed: set[str] = set()
        for route in (*request.app.routes, *self.router.routes):
            if route.matches(request.scope)[0] == Match.PARTIAL:
                allowed |= set(getattr(route, "methods", ()))
        if allowed:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
        raise HTTPException(404)


class _Admission:
    """A place among those whose uploads are read: whoever could not be painted anyway is told so before the upload."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def __enter__(self) -> None:
        slots = self.api.service.slots
        if max(self.api._coming, slots.taken) >= slots.room:  # pyright: ignore[reportPrivateUsage]
            raise BusyError(slots.retry_after())
        self.api._coming += 1  # pyright: ignore[reportPrivateUsage]

    def __exit__(self, *_: object) -> None:
        self.api._coming -= 1  # pyright: ignore[reportPrivateUsage]


def _entry(entry: library.Entry) -> StyleEntry:
    return StyleEntry(name=entry.name, title=entry.title, artist=entry.artist, year=entry.year, medium=entry.medium, group=entry.group)


def _is_film(order: Order) -> bool:
    """By what the client says: the suffix of the name, or a format that only films have."""
    return order.content.name.lower().endswith(MOVING) or (order.format in FILMS and order.format != "gif")


def _check_film(service: PaintService, order: Order) -> None:
    if order.format is not None and order.format not in FILMS:
        raise UsageError(unknown("film format", order.format, FILMS))
    if len(order.styles) != 1 or order.masks:
        raise UsageError("a film has one style (or one blend) and no masks")
    if service.refines(order.settings):
        raise UsageError("films are painted in one pass; leave out quality and steps")
    if service.complete(order.settings)["style_fit"] != "own":
        raise UsageError("a film takes its style in its own shape; leave out style_fit")
    if strange := [name for name in order.settings if name not in OF_FILMS]:
        raise UsageError(f"films have no {strange[0]}, but {', '.join(OF_FILMS)} and steady; leave it out")
    if order.steady is not None:
        in_range("steady", order.steady, 0.0, 1.0)


def _check_readable(service: PaintService, order: Order) -> None:
    """InputError for a film that can't be opened, UsageError for frames that would be too large. Decoders want a file."""
    with TemporaryDirectory(prefix="scumble-", ignore_cleanup_errors=True) as folder:
        place = Path(folder) / "content"
        place.write_bytes(order.content.data)
        try:
            clip = (Animation if moves(order.content.data) else VideoFile)(place, max_pixels=service.settings.max_pixels).clip
        except InputError as error:
            told = str(error).replace(str(place), "the file")
            for theirs, ours in _ADVICE.items():
                told = told.replace(theirs, ours)
            raise InputError(f"content: {told}") from error
    service.check_size((clip.height, clip.width), order.settings, "a frame")


_ADVICE = {
    "give less, or raise --max-pixels": "send a smaller one",
    "for a still picture, use `scumble stylize`": "send a still picture with a file name such as photo.jpg, and without a film's format",
}
"""What the library tells the command line, and what we do."""


def _body(model: type[Options]) -> dict[str, Any]:
    """The request's body for the schema: a form, or a picture alone."""
    schema = model.model_json_schema()
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {
            **schema["properties"],
            "content": {**binary, "description": "The picture."},
            "mask": {"type": "array", "items": binary, "description": "White is painted, black stays."},
        },
        "required": ["content"],
        "additionalProperties": False,
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": form}, **{m: {"schema": binary} for m in MEDIA.values()}}}
