"""The verb ``serve``: the service and its page."""

from __future__ import annotations

import os
import re
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scumble.cli.commands import defaults_from
from scumble.cli.painting import parse_memory, parse_pixels
from scumble.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from scumble.serve.settings import Settings

ServeCommand = defaults_from("scumble.serve.settings:Settings")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def parse_duration(text: str | float) -> float:
    """``24h`` -> 86 400 seconds; s, m, h and d."""
    found = _DURATION.fullmatch(str(text).strip().lower())
    if found is None:
        raise typer.BadParameter(f"it must be a time such as 90s, 15m, 24h or 7d; got {text!r}")
    return float(found[1]) * _UNITS[found[2] or "s"]


def serve(
    *,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere, and needs a token.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="0 takes a free one.")] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="SCUMBLE_TOKEN", help="What every request has to show; better set in the environment."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen where others can reach it, without a token.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name under which a service without a token answers; repeated.")
    ] = None,
    root_path: Annotated[str | None, typer.Option(metavar="PATH", help="Where a proxy shows the service, as in /scumble.")] = None,
    trusted_proxies: Annotated[
        str | None, typer.Option(metavar="ADDRESSES", help="Proxies whose X-Forwarded-For is believed, with commas between.")
    ] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help="Serve the web page besides the API.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, coreml or directml.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Pictures painted at the same time; the cores are split.")] = None,
    queue: Annotated[int | None, typer.Option(metavar="N", help="Pictures that may wait; further ones get 429.")] = None,
    per_client: Annotated[int | None, typer.Option(metavar="N", help="Requests that one client may have going.")] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="TIME", parser=parse_duration, help="A request has to be answered within it; 90s, 2m.")
    ] = None,
    max_body: Annotated[int | None, typer.Option(metavar="BYTES", parser=parse_pixels, help="The largest upload; 50M, 1G.")] = None,
    max_pixels: Annotated[int | None, typer.Option(metavar="N", parser=parse_pixels, help="The largest picture, in and out; 50M.")] = None,
    memory: Annotated[
        int | None,
        typer.Option(metavar="1GB", parser=parse_memory, help="What a net may take for a picture; larger ones are painted in tiles."),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Offer refinement in the features of vgg16 or vgg19, whose weights are there; repeated."),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(metavar="N", help="The most steps that a refinement may have.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where jobs are kept. Default: the platform's folder.", show_default=False),
    ] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Jobs done at the same time.")] = None,
    job_queue: Annotated[int | None, typer.Option(metavar="N", help="Jobs that may wait.")] = None,
    job_timeout: Annotated[
        float | None, typer.Option(metavar="TIME", parser=parse_duration, help="A job is stopped after it; 30m, 2h.")
    ] = None,
    retention: Annotated[
        float | None, typer.Option(metavar="TIME", parser=parse_duration, help="How long results are kept; 24h, 7d.")
    ] = None,
    disk: Annotated[
        int | None, typer.Option(metavar="BYTES", parser=parse_pixels, help="The disk space that all jobs together may take; 5G.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Start the web page and the API, until Ctrl-C.

    Only this machine is served unless --host says otherwise. Nothing is fetched from the network.
    """
    given: dict[str, Any] = {
        "host": host, "port": port, "token": token, "insecure": insecure, "root_path": root_path, "trusted_proxies": trusted_proxies,
        "page": page, "device": device, "workers": workers, "queue": queue, "per_client": per_client, "timeout": timeout,
        "max_body": max_body, "max_pixels": max_pixels, "max_steps": max_steps, "data": data, "jobs": jobs, "job_queue": job_queue,
        "job_timeout": job_timeout, "retention": retention, "disk": disk, "allowed_hosts": tuple(allow_host or ()),
        "memory": memory, "encoders": tuple(encoder or ()),
    }  # fmt: skip
    from scumble.serve.settings import Settings

    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    _pin_threads(settings.threads)
    needed = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "fastapi_offline", *(["gradio"] if settings.page else []))
    missing = [module for module in needed if find_spec(module) is None]  # looked for, not loaded: a port that is taken is told at once
    if missing:
        raise MissingExtraError(f'the service needs {", ".join(missing)}: pip install "scumble[serve]"')
    _run(settings, quiet=quiet)


def _pin_threads(threads: int) -> None:
    """Threads of what reads the environment when it is loaded. BLAS gets one: its matrices are small, and its threads wait by spinning,
    which on a busy machine made a blend of two styles take a minute in place of a tenth of a second.
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _run(settings: Settings, *, quiet: bool) -> None:
    try:
        listening = socket.create_server(
            (settings.host.strip("[]"), settings.port), family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise InputError(f"can't listen on {settings.host}, port {settings.port} ({reason}); choose another with --port") from error
    import uvicorn

    from scumble.serve.app import create_app

    os.environ["SCUMBLE_OFFLINE"] = "1"  # what is not there is not fetched, whatever a request asks for
    with listening:
        port = listening.getsockname()[1]
        app = create_app(settings)
        if not quiet:
            shown = f"[{settings.host}]" if ":" in settings.host and not settings.host.startswith("[") else settings.host
            at = f"http://{shown}:{port}{settings.root_path}"
            typer.echo(f"{f'{at}/ is the page, ' if settings.page else ''}{at}/docs is the API; Ctrl-C ends the service")
            if settings.insecure and settings.token is None:
                typer.echo("anybody who reaches this address may use the service: --insecure was given", err=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=True,
            forwarded_allow_ips=settings.trusted_proxies, timeout_keep_alive=10, timeout_graceful_shutdown=10, lifespan="on",
        )  # fmt: skip

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                app.close_streams()
                await super().shutdown(sockets)

        Server(config).run(sockets=[listening])
