"""The studio: the web page of the service, made with Gradio, and nothing fetched from elsewhere."""

from __future__ import annotations

import os
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


def mount(app: FastAPI, service: PaintService, path: str = "/") -> FastAPI:
    """Put the page into ``app`` at ``path``, after all other routes: at ``/`` it answers what they don't."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio asks this wherever it would tell others about its use
    settings, desk, lifespan = service.settings, Desk(service), app.router.lifespan_context

    @asynccontextmanager
    async def until_closed(app: FastAPI) -> AsyncGenerator[Any, None]:
        async with lifespan(app) as state:
            try:
                yield state
            finally:
                desk.close()

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
    return app


async def _nowhere(request: Request, error: HTTPException) -> Response:
    """What is at no path falls through to the page, and gets the same answer as everywhere; the page's own errors are its own."""
    return await (explain if error.status_code in (404, 405) else http_exception_handler)(request, error)
