"""All that can be set about the service, and its defaults: the only place where they stand."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from scumble._files import own_folder
from scumble.errors import UsageError, in_range, unknown

ENCODERS = ("vgg16", "vgg19")
"""What can be offered besides the eye."""


def data_folder() -> Path:
    """Where jobs are kept: ``$SCUMBLE_DATA``, else ``scumble/serve`` in the platform's data folder. It is not created."""
    return own_folder("scumble/serve", "SCUMBLE_DATA", windows="LOCALAPPDATA", macos="Application Support", others="XDG_STATE_HOME")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Settings:
    """The service's settings. UsageError if one is out of range, or if the combination would leave the service open by accident."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 7878
    """0 takes a free one."""
    token: str | None = field(default=None, repr=False)
    """What every request has to show; None: requests from this machine need nothing."""
    insecure: bool = False
    """Listen on an address that others can reach, without a token."""
    root_path: str = ""
    """The path under which a proxy shows the service, as in ``/scumble``."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses, separated by commas, whose ``X-Forwarded-For`` and ``-Proto`` are believed."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which a service without a token may be called; see :mod:`scumble.serve.security`."""
    page: bool = True
    """Whether the web page is served at ``/`` besides the API."""

    device: str = "auto"
    """As for :class:`scumble.stylizer.Stylizer`."""
    workers: int = max(1, cores() // 4)
    """Pictures painted at the same time. The cores are split among them, and two threads alone are slower than one after the other with
    both: few workers answer sooner."""
    queue: int = 16
    """Pictures that may wait for a worker; further ones are refused until there is room."""
    per_client: int = 8
    """Requests that one client may have going at the same time."""
    timeout: float = 60.0
    """Seconds until a request has to be answered."""

    max_body: int = 50_000_000
    """Bytes of an upload."""
    max_pixels: int = 50_000_000
    """Of a picture, in and out."""
    memory: int | None = None
    """Bytes that a net may take for one picture, or a film's frame; larger ones are painted in tiles. None is the library's own, 2.5 GB."""
    encoders: tuple[str, ...] = ()
    """What refinements may be measured in besides the eye: ``vgg16``, ``vgg19``. Their weights have to be in the cache."""
    max_steps: int = 1_000
    """Of a refinement."""

    data: Path | None = None
    """The folder for jobs, made when the service starts; None is :func:`data_folder`."""
    jobs: int = 1
    """Jobs done at the same time, beside ``workers`` and with lower priority."""
    job_queue: int = 100
    """Jobs that may wait."""
    job_timeout: float = 3600.0
    """Seconds after which a job is ended: a refinement or a film with its best so far, another picture after the tile that is being
    painted and without a result. One that is painted whole, in seconds, comes to its end."""
    retention: float = 86_400.0
    """Seconds that a finished job and its result are kept."""
    disk: int = 5_000_000_000
    """Bytes that all jobs together may take."""

    kept_styles: int = 256
    """Styles that stay encoded in memory, 0.3 MB each."""
    kept_bytes: int = 512_000_000
    """Memory for pictures that the page is working on."""

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token and not self.insecure:
            raise UsageError(
                f"{self.host} can be reached by others, so a token is needed: give --token or SCUMBLE_TOKEN, "
                "or say --insecure if everybody may use the service"
            )
        if self.token is not None and not 8 <= len(self.token) <= 1024:
            raise UsageError(f"a token must have 8 to 1024 characters; got {len(self.token)}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise UsageError("a token must be made of printable ASCII characters without spaces")
        for name in self.encoders:
            if name not in ENCODERS:
                raise UsageError(unknown("encoder", name, ENCODERS))
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise UsageError(f"the root path must begin with / and not end with it, as in /scumble; got {self.root_path!r}")
        for name, low, high in (
            ("port", 0, 65_535),
            ("workers", 1, 1_024),
            ("queue", 0, 100_000),
            ("per_client", 1, 100_000),
            ("timeout", 0.1, 86_400),
            ("max_body", 1_000, 10**11),
            ("max_pixels", 1, 10**11),
            ("memory", 100_000_000, 10**13),
            ("max_steps", 0, 100_000),
            ("jobs", 1, 1_024),
            ("job_queue", 1, 1_000_000),
            ("job_timeout", 1, 30 * 86_400),
            ("retention", 1, 3_650 * 86_400),
            ("disk", 1_000_000, 10**15),
            ("kept_styles", 1, 100_000),
            ("kept_bytes", 1_000_000, 10**13),
        ):
            value = getattr(self, name)
            if value is not None:
                in_range(name.replace("_", "-"), value, low, high)

    @property
    def folder(self) -> Path:
        """Where jobs are kept."""
        return self.data or data_folder()

    @property
    def threads(self) -> int:
        """Threads for one picture, so that all workers together have one a core."""
        return max(1, cores() // self.workers)
