"""A client for the service that ``scumble serve`` starts: Python's own library and nothing else.

>>> client = Client("http://127.0.0.1:7878")  # doctest: +SKIP
>>> painted = client.stylize("photo.jpg", "great-wave", strength=0.8)  # doctest: +SKIP
>>> job = client.submit("photo.jpg", "irises", quality="best")  # doctest: +SKIP
>>> client.wait(job.id).save("out.png")  # doctest: +SKIP
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

from scumble._files import checked_target, reason, write_whole
from scumble.errors import InputError, ScumbleError, UsageError, in_range, must_be

T = TypeVar("T")

Content = str | os.PathLike[str] | bytes
"""The path of a file, or its bytes."""

TRIES = 5
"""How often a request that the service is too busy for is sent."""
LONGEST_WAIT = 30.0
"""Seconds between two of them, at most, whatever the service asks for."""


class ServiceError(ScumbleError):
    """The service has refused; the text is its sentence."""

    def __init__(self, sentence: str, status: int, request_id: str = "", retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.request_id, self.retry_after = status, request_id, retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status), self.__dict__  # an exception's own gives back its text alone


@dataclass(frozen=True)
class StyleInfo:
    """A style of the service's library."""

    name: str
    title: str
    artist: str
    year: str
    medium: str
    group: str


@dataclass(frozen=True)
class JobInfo:
    """A job as the service tells it; times are seconds since 1970."""

    id: str
    kind: str
    state: str
    """queued, running, done, failed or cancelled."""
    done: int
    total: int | None
    loss: float | None
    created: float
    started: float | None
    finished: float | None
    expires: float | None
    interrupted: bool
    """The result is the best until the job was stopped."""
    error: str | None
    has_result: bool

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Painted:
    """A file that the service has made."""

    data: bytes
    media_type: str

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write it, whole or not at all; InputError if there is such a file already or it can't be written."""
        must_be("what was painted is saved under a path", path, str, os.PathLike)
        write_whole(checked_target(Path(path), overwrite=overwrite), self.data, overwrite=overwrite)
        return Path(path)


class Client:
    """One service.

    Args:
        url: where it is, with the path that a proxy may have put before it.
        token: if it wants one; None takes ``$SCUMBLE_TOKEN``.
        timeout: seconds for one answer; None waits as long as it takes.

    UsageError for what can't be one of these.
    """

    def __init__(self, url: str = "http://127.0.0.1:7878", token: str | None = None, timeout: float | None = 90.0) -> None:
        must_be("the service's address is a text as in http://127.0.0.1:7878", url, str)
        try:
            parts = urlsplit(url)
            self._host, self._root = parts.netloc.rpartition("@")[2], quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=")
            _ = (parts.hostname or "").encode("idna"), parts.port  # both look at what they give, as does the line below; none connects
            http.client.HTTPConnection(self._host)
        except (ValueError, http.client.InvalidURL) as error:
            raise UsageError(f"the service's address must be as in http://127.0.0.1:7878; got {url!r} ({error})") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"the service's address begins with http:// or https://; got {url!r}")
        self._secure = parts.scheme == "https"
        self._token = token if token is not None else os.environ.get("SCUMBLE_TOKEN") or None
        if self._token is not None:
            _check_header("the service's token", self._token)
        self._timeout = None if timeout is None else in_range("timeout", timeout, 0.001, 1e6)

    def styles(self) -> list[StyleInfo]:
        """The service's library."""
        return self._told("GET", "/v1/styles", lambda told: [_known(StyleInfo, entry) for entry in told["styles"]])

    def stylize(
        self,
        content: Content,
        style: str | Content | Sequence[Content] = (),
        *,
        blend: Mapping[str, float] | None = None,
        weights: Sequence[float] | None = None,
        masks: Content | Sequence[Content] = (),
        accept: str = "*/*",
        **options: Any,
    ) -> Painted:
        """A painted picture.

        Args:
            content: the picture.
            style: a name of the library, a picture (a path, or bytes), or several: one for each mask, or with ``weights``. A text without
                folder and suffix is a name, whatever files there are: ``./irises`` is a path in any case.
            blend: several names in one, with their weights, in place of ``style``.
            weights: one for each style: they are blended into one.
            masks: one or several; white is painted.
            accept: a media type as ``image/png``; by default it is as the content.
            **options: as for :meth:`scumble.stylizer.Stylizer.__call__`: ``strength``, ``quality``, …

        Raises:
            ServiceError: the service has refused, or can't be reached.
            InputError: a file can't be read.
            UsageError: something is of a wrong kind.
        """
        _check_header("accept", accept)
        body, kind = _form(content, style, blend, weights, masks, options)
        with self._answer("POST", "/v1/stylize", body, {"content-type": kind, "accept": accept}) as answer:
            return _painted(answer)

    def submit(
        self,
        content: Content,
        style: str | Content | Sequence[Content] = (),
        *,
        blend: Mapping[str, float] | None = None,
        weights: Sequence[float] | None = None,
        masks: Content | Sequence[Content] = (),
        **options: Any,
    ) -> JobInfo:
        """Have a picture or a film painted in the background; as :meth:`stylize`, with ``format``, and ``steady`` for films."""
        body, kind = _form(content, style, blend, weights, masks, options)
        return self._told("POST", "/v1/jobs", _job, body, {"content-type": kind})

    def job(self, job: str) -> JobInfo:
        """How a job is; ServiceError with status 404 if there is none such, or not any more."""
        return self._told("GET", _job_path(job), _job)

    def events(self, job: str) -> Generator[JobInfo, None, None]:
        """The job whenever it changes, until it ends."""
        with self._answer("GET", _job_path(job, "/events")) as answer:
            for line in answer:
                if line.startswith(b"data: ") and line.endswith(b"\n"):  # one that was cut off tells nothing
                    yield _job(json.loads(line[6:]))

    def wait(self, job: str) -> Painted:
        """The result of a job when it has ended; ServiceError if there is none."""
        last: JobInfo | None = None
        broken = 0
        while last is None or not last.ended:  # a connection that breaks ends the events, not the job
            try:
                for seen in self.events(job):
                    last, broken = seen, 0
                if last is None or not last.ended:
                    last = self.job(job)
            except ServiceError as error:
                broken += 1
                if error.status or broken == TRIES:
                    raise
                time.sleep(broken)  # a service that is started again is back in seconds, and has the job
        if not last.has_result:
            raise ServiceError(last.error or f"the job is {last.state} and has no result", 404)
        return self.result(job)

    def result(self, job: str) -> Painted:
        """What a job that has ended has made."""
        with self._answer("GET", _job_path(job, "/result")) as answer:
            return _painted(answer)

    def cancel(self, job: str) -> JobInfo:
        """Stop a job with its best so far; delete one that has ended."""
        return self._told("DELETE", _job_path(job), _job)

    def ready(self) -> bool:
        """Whether the service is there and can paint."""
        try:
            return self._told("GET", "/readyz", lambda told: told["status"] == "ready", tries=1)
        except ServiceError:
            return False

    def _told(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        tries: int = TRIES,
    ) -> T:
        """What ``read`` makes of an answer in JSON; ServiceError where that is none of this service."""
        with self._answer(method, path, body, headers, tries) as answer:
            data = answer.read()
        try:
            return read(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceError(_STRANGE.format(answer.headers.get_content_type()), answer.status) from error

    @contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, tries: int = TRIES
    ) -> Generator[http.client.HTTPResponse, None, None]:
        """The response to a request, sent again as long as the service is busy and says so."""
        for left in reversed(range(tries)):
            connection = (
                http.client.HTTPSConnection(self._host, timeout=self._timeout, context=ssl.create_default_context())
                if self._secure
                else http.client.HTTPConnection(self._host, timeout=self._timeout)
            )
            try:
                token = {"authorization": f"Bearer {self._token}"} if self._token else {}
                try:
                    connection.request(method, self._root + path, body, {**token, **(headers or {})})
                    answer = connection.getresponse()
                except (OSError, http.client.HTTPException) as error:
                    raise ServiceError(f"the service at {self._host} can't be reached ({error or type(error).__name__})", 0) from error
                if answer.status < 300:
                    try:
                        yield answer
                    except (OSError, http.client.HTTPException) as error:
                        sentence = f"the connection to the service at {self._host} broke off ({error or type(error).__name__}); try again"
                        raise ServiceError(sentence, 0) from error
                    return
                refused = _refused(answer)
            finally:
                connection.close()
            if refused.status != 429 or not left:
                raise refused
            time.sleep(min(LONGEST_WAIT, refused.retry_after or 1.0))


def _check_header(what: str, value: object) -> None:
    if not (isinstance(value, str) and value.isascii() and value.isprintable()):  # which is not told: a token is a secret
        raise UsageError(f"{what} must be a text of printable ASCII characters; check for a line break at its end")


def _job_path(job: str, more: str = "") -> str:
    must_be("a job is named by its id, a text", job, str)
    return f"/v1/jobs/{quote(job)}{more}"


def _refused(answer: http.client.HTTPResponse) -> ServiceError:
    try:
        told = json.loads(answer.read())
        sentence, request_id = str(told["error"]), str(told.get("id", ""))
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        place = answer.headers.get("location")
        elsewhere = f" and points to {place}; give its address as it is there" if place else ""
        sentence, request_id = f"the service answered with status {answer.status}{elsewhere}", ""
    after = answer.headers.get("retry-after", "")
    return ServiceError(sentence, answer.status, request_id, float(after) if after.isdigit() else None)


_STRANGE = "what answers is no Scumble, or another version of it (it sent {}); check the address"


def _painted(answer: http.client.HTTPResponse) -> Painted:
    """A page that a proxy shows in the service's place must not be saved as a picture."""
    data, kind = answer.read(), answer.headers.get_content_type()
    if not kind.startswith(("image/", "video/")):
        raise ServiceError(_STRANGE.format(kind), answer.status)
    return Painted(data, kind)


def _known(kind: type[T], told: Mapping[str, Any]) -> T:
    """A later service may tell more."""
    return kind(**{f.name: told[f.name] for f in fields(cast(Any, kind))})


def _job(told: Mapping[str, Any]) -> JobInfo:
    known = {name: told[name] for name in ("id", "kind", "state", "created", "started", "finished", "expires", "interrupted", "error")}
    return JobInfo(**known, **told["progress"], has_result=told["result"] is not None)


def _form(
    content: Content,
    style: str | Content | Sequence[Content],
    blend: Mapping[str, float] | None,
    weights: Sequence[float] | None,
    masks: Content | Sequence[Content],
    options: Mapping[str, Any],
) -> tuple[bytes, str]:
    """A form as multipart/form-data (RFC 7578) and its content type."""
    if "mask" in options:
        raise UsageError("the service's client takes masks under that name, one or several, as in masks='sky.png'; got mask=")
    fields = [(name, str(value)) for name, value in options.items() if value is not None]
    files = [("content", *_file(content))]
    for one in _several("style must be a name, a path", style):
        if isinstance(one, str) and Path(one).name == one and not Path(one).suffix:
            fields.append(("style", one))
        else:
            files.append(("style", *_file(one)))
    files += [("mask", *_file(mask)) for mask in _several("masks must be a path", masks)]
    if blend is not None:
        must_be("blend gives each name its weight, as in {'great-wave': 0.7, 'irises': 0.3}", blend, Mapping)
        for name, weight in blend.items():
            must_be(f"the weight of {name} in blend must be a number", weight, Real)
        fields.append(("blend", ",".join(f"{name}={weight:.9f}" for name, weight in blend.items())))
    if weights is not None:
        must_be("weights are numbers, one for each style, as in [0.7, 0.3]", weights, Iterable)
        weights = list(weights)
        for weight in weights:
            must_be("weights are numbers, one for each style, as in [0.7, 0.3]", weight, Real)
        fields.append(("weights", ",".join(repr(float(weight)) for weight in weights)))
    boundary = secrets.token_hex(16)
    parts = [f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields]
    for name, filename, data in files:
        shown = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")  # as browsers do; else it is UTF-8 as it stands
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"; filename="{shown}"\r\n'
        parts += [f"{head}content-type: application/octet-stream\r\n\r\n".encode(), data, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _several(rule: str, given: Content | Sequence[Content]) -> list[Content]:
    must_be(f"{rule}, a file's bytes, or several", given, str, os.PathLike, bytes, Iterable)
    return [given] if isinstance(given, (str, os.PathLike, bytes)) else list(given)


def _file(source: Content) -> tuple[str, bytes]:
    must_be("a picture must be a path, or a file's bytes (Picture.encode makes them)", source, str, os.PathLike, bytes)
    if isinstance(source, bytes):
        return "picture", source
    if source == "":
        raise InputError("an empty path was given; give that of a picture file")
    try:
        return Path(source).name, Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{source} can't be read ({reason(error)}); check the path") from error
