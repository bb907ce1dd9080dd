"""The studio: the web page of the service, made with Gradio, and nothing fetched from elsewhere."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount

from scumble.serve.answers import explain
from scumble.serve.service import PaintService
from scumble.serve.studio.desk import Desk
from scumble.serve.studio.look import STATIC, theme
from scumble.serve.studio.page import lay_out

__all__ = ["mount"]


SWEEP = 60.0
"""Seconds between two looks for what is left of visitors who have gone."""
SILENT = 3600.0
"""Seconds after which somebody who isn't heard of has gone; in the background browsers let pages ask once a minute, if at all."""


def mount(app: FastAPI, service: PaintService, path: str = "/") -> FastAPI:
    """Put the page into ``app`` at ``path``, after all other routes: at ``/`` it answers what they don't."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio asks this wherever it would tell others about its use
    settings, desk, beats, lifespan = service.settings, Desk(service), Beats(), app.router.lifespan_context
    app.add_api_route(f"{path.rstrip('/')}/gradio_api/heartbeat/{{session}}", beats.hear, methods=["GET"], include_in_schema=False)

    @asynccontextmanager
    async def until_closed(app: FastAPI) -> AsyncGenerator[Any, None]:
        async with lifespan(app) as state:
            looking = asyncio.create_task(look_after())
            try:
                yield state
            finally:
                looking.cancel()
                desk.close()

    async def look_after() -> None:
        while True:
            await asyncio.to_thread(desk.sweep)
            beats.sweep()
            await asyncio.sleep(SWEEP)

    app.router.lifespan_context = until_closed
    app = gr.mount_gradio_app(
        app,
        lay_out(desk),
        path=path,
        server_name=settings.host,
        server_port=settings.port,
        root_path=settings.root_path or None,
        theme=theme(),
        css_paths=[STATIC / "page.css"],
        footer_links=[],
        favicon_path=str(STATIC / "favicon.png"),
        max_file_size=settings.max_body,
        show_error=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    page = next(r.app for r in reversed(app.routes) if isinstance(r, Mount) and isinstance(r.app, FastAPI))
    page.add_exception_handler(HTTPException, _nowhere)
    beats.page = page
    return app


class Beats:
    """Who is still there. Gradio's pages hold a connection open for it; a browser has six for a server, and with six tabs open no
    request came through. So that one is answered at once, and ``stage.js`` asks again every minute.
    """

    def __init__(self) -> None:
        self.page: Any = None
        """Gradio's application, which knows the sessions."""
        self._heard: dict[str, float] = {}

    def hear(self, session: str) -> Response:
        """The answer to a beat."""
        self._heard[session] = time.monotonic()
        self._close(session, closed=False)
        return Response("data: ALIVE\n\n", media_type="text/plain")

    def sweep(self) -> None:
        """Close the sessions that have been silent for too long: Gradio forgets them at its next look."""
        for session, heard in list(self._heard.items()):
            if time.monotonic() - heard > SILENT:
                del self._heard[session]
                self._close(session, closed=True)

    def _close(self, session: str, *, closed: bool) -> None:
        if session in self.page.state_holder.session_data:
            self.page.state_holder.session_data[session].is_closed = closed


async def _nowhere(request: Request, error: Exception) -> Response:
    """What is at no path falls through to the page, and gets the same answer as everywhere; the page's own errors are its own."""
    assert isinstance(error, HTTPException)
    return await (explain if error.status_code in (404, 405) else http_exception_handler)(request, error)
