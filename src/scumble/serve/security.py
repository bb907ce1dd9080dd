"""The guard in front of everything: who may call, how much they may send, and what browsers are told.

Closed by default. Without a token only this machine is served, and of that only what names it as such: a page on the web that a
browser shows may neither post to the service (``Origin``) nor reach it under a name of its own (``Host``, DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scumble.serve.answers import problem
from scumble.serve.settings import Settings, is_loopback

OPEN = ("/healthz", "/readyz")
"""What a load balancer may ask without a token."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    # the page's framework evaluates and inlines; what counts is that nothing is loaded from or sent to anywhere else
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'",
}
SAFE = ("GET", "HEAD", "OPTIONS")

Observer = Callable[[Scope, int, float], None]
"""Told (scope, status, seconds) when a response has ended."""


class RefusedError(HTTPException):
    """The request is not for us. What is left of its body is not read, so the connection can't be used again."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, sentence, {"connection": "close", **(headers or {})})


class Guard:
    """ASGI middleware around the whole service, page included."""

    def __init__(self, app: ASGIApp, settings: Settings, observe: Observer) -> None:
        self.app, self.settings, self.observe = app, settings, observe
        self._going: Counter[str] = Counter()
        self._streams: set[asyncio.Task[Any]] = set()
        self._closing = False

    def close_streams(self) -> None:
        """End the responses that have no end of their own, events: the server waits for all others, which have one."""
        self._closing = True
        for task in self._streams:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        path = _placed(scope, self.settings.root_path)
        headers = Headers(scope=scope)
        started, status, begun, task = time.monotonic(), 500, False, asyncio.current_task()
        scope.setdefault("state", {})["id"] = request_id = secrets.token_hex(8)

        async def dressed(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                told = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    told.setdefault(name, value)
                told["x-request-id"] = request_id
                if _is_api(path):
                    told.setdefault("cache-control", "no-store")
                if task is not None and told.get("content-type", "").startswith("text/event-stream"):
                    self._streams.add(task)
            await send(message)

        client = _client(scope)
        counted = _is_api(path)  # a page holds connections open, and asks for much at a time
        self._going[client] += counted
        try:
            try:
                self._admit(scope, path, headers, client)
                await self.app(scope, self._metered(receive, path), dressed)
            except RefusedError as error:  # raised here; what is raised while the body is read, the application tells itself
                if begun:
                    raise
                await _refuse(scope, receive, dressed, error)
            except asyncio.CancelledError:
                if not (self._closing and task in self._streams):
                    raise
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if task is not None:
                self._streams.discard(task)
            self._going[client] -= counted
            if not self._going[client]:
                del self._going[client]
            if scope["type"] == "http":
                self.observe(scope, status, time.monotonic() - started)

    def _admit(self, scope: Scope, path: str, headers: Headers, client: str) -> None:
        """RefusedError for whoever may not come in."""
        if path in OPEN:
            return
        if self.settings.token is None:
            self._check_host(headers.get("host", ""))
        elif not authorized(headers.get("authorization", ""), self.settings.token):
            scheme = 'Bearer realm="scumble"' if _is_api(path) else 'Basic realm="scumble", charset="UTF-8"'
            raise RefusedError(401, "a token is needed: send Authorization: Bearer TOKEN", {"www-authenticate": scheme})
        if scope["type"] == "websocket" or scope["method"] not in SAFE:
            self._check_origin(headers)
        if _is_api(path) and self._going[client] > self.settings.per_client:
            raise RefusedError(
                429, f"at most {self.settings.per_client} requests at a time are answered; wait for one", {"retry-after": "1"}
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise RefusedError(400, "the content-length is not a number")
        if int(length) > self.settings.max_body:
            raise self._too_large()

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the upload is larger than {self.settings.max_body:,} bytes")

    def _check_host(self, host: str) -> None:
        if self.settings.insecure:
            return
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # no address at all, as in [::1
            name = ""
        if not is_loopback(name) and name not in map(str.lower, (self.settings.host, *self.settings.allowed_hosts)):
            raise RefusedError(
                421, "without a token the service answers to names of this machine only; add the name with --allow-host, or set a token"
            )

    def _check_origin(self, headers: Headers) -> None:
        origin, host = headers.get("origin"), headers.get("x-forwarded-host", headers.get("host", ""))
        cross = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        try:
            cross = cross or (origin is not None and urlsplit(origin).netloc.lower() != host.lower())
        except ValueError:  # no address at all, as in http://[x
            cross = True
        if cross:
            raise RefusedError(403, "requests from pages of other sites are not answered")

    def _metered(self, receive: Receive, path: str) -> Receive:
        """``receive``, counting bytes, and for the API with a limit on how long all of them may take to come."""
        taken, deadline, whole = 0, time.monotonic() + self.settings.timeout, False

        async def metered() -> Message:
            nonlocal taken, whole
            if whole or not _is_api(path):
                message = await receive()
            else:
                try:
                    message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
                except (asyncio.TimeoutError, TimeoutError) as error:
                    raise RefusedError(408, f"the upload did not come within {self.settings.timeout:g} s") from error
            if message["type"] == "http.request":
                whole = not message.get("more_body", False)
                taken += len(message.get("body", b""))
                if taken > self.settings.max_body:
                    raise self._too_large()
            return message

        return metered


async def _refuse(scope: Scope, receive: Receive, send: Send, error: RefusedError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await problem(Request(scope), error.status_code, error.detail, error.headers)(scope, receive, send)


def authorized(header: str, token: str) -> bool:
    """Whether ``header`` shows the token, as a bearer's or as the password of any user (which is what browsers can ask for)."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())


def _placed(scope: Scope, root: str) -> str:
    """The path below ``root``. Proxies that cut the prefix off and proxies that leave it are both understood."""
    path: str = scope["path"]
    inside = not root or path == root or path.startswith(root + "/")
    scope["root_path"], scope["path"] = root, path if inside else root + path
    if root and "raw_path" in scope and not inside:
        scope["raw_path"] = root.encode() + scope["raw_path"]
    return path[len(root) :] if root and inside else path


def _is_api(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _client(scope: Scope) -> str:
    client: Iterable[object] | None = scope.get("client")
    return str(next(iter(client))) if client else ""
