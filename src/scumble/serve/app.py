"""The application: API, page and guard put together."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from scumble import __version__
from scumble.errors import ScumbleError
from scumble.serve.answers import explain
from scumble.serve.jobs import Jobs
from scumble.serve.routes import Api
from scumble.serve.security import Guard
from scumble.serve.service import PaintService
from scumble.serve.settings import Settings
from scumble.serve.telemetry import Telemetry

log = logging.getLogger(__name__)

ABOUT = """Repaints a picture in the manner of another.

Errors are `{"error": one sentence, "id": of the request}`. With a token, send `Authorization: Bearer TOKEN`."""


def create_app(settings: Settings | None = None) -> Guard:
    """The whole service, to be run by one process: workers, caches and limits are this process' own.

    UsageError for settings that can't be meant, InputError where the folder for jobs can't be written.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what it warns of is answered, and logged with the request's id
    service = PaintService(settings)
    jobs = Jobs(service)
    telemetry = Telemetry(service, jobs)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        warming = threading.Thread(target=_warm, args=(service,), name="scumble-warm", daemon=True)
        warming.start()
        jobs.start()
        try:
            yield
        finally:
            jobs.close()
            service.close()
            warming.join()  # a process that ends while a net runs in a thread ends by SIGABRT

    app = FastAPIOffline(redoc_url=None, title="Scumble", version=__version__, description=ABOUT, lifespan=lifespan)
    app.state.service, app.state.jobs = service, jobs
    for kind in (ScumbleError, RequestValidationError, HTTPException, MemoryError, Exception):
        app.add_exception_handler(kind, explain)
    app.include_router(Api(service, jobs, telemetry).router)
    if service.settings.page:
        from scumble.serve.studio import mount

        app = mount(app, service)
    return Guard(app, service.settings, telemetry.observe)


def _warm(service: PaintService) -> None:
    try:
        service.warm()
    except Exception:
        log.exception("the nets can't be loaded; the service stays unready")
