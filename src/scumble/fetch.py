"""Downloads of weights that are too large to ship: resumed where they broke off, verified, never half there.

Nothing is downloaded unless it is asked for by name; the project's own nets come with the package. A file grows as
``NAME.part`` and gets its name only when its SHA-256 is right, so what bears the name can be trusted.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scumble import errors
from scumble._files import own_folder
from scumble.weights import sha256 as hash_of

Report = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes in all (None where the server doesn't say)."""

ATTEMPTS = 4
PAUSE_SECONDS = 1.0
"""Before the second attempt; twice as long before each further one."""
TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|\?xml)", re.IGNORECASE | re.DOTALL)


class _BrokenOffError(Exception):
    """The connection failed in a way that may not repeat; the text says how."""


def cache_folder() -> Path:
    """Where downloads go: ``SCUMBLE_CACHE``, else ``scumble`` in the platform's cache folder. It is not created."""
    name = "scumble/Cache" if sys.platform == "win32" else "scumble"
    return own_folder(name, "SCUMBLE_CACHE", windows="LOCALAPPDATA", macos="Caches", others="XDG_CACHE_HOME")


def is_offline() -> bool:
    """Whether ``SCUMBLE_OFFLINE`` forbids the network (any value but empty and 0)."""
    return os.environ.get("SCUMBLE_OFFLINE", "0") not in ("", "0")


def fetch(url: str, sha256: str, folder: Path | None = None, *, offline: bool = False, report: Report | None = None) -> Path:
    """The file at ``url``, from ``folder`` if it is there and else downloaded to it; its name is the last part of the address.

    ``sha256`` is the hash in hexadecimal, or its first digits where only those are known (8 at least: torchvision puts
    them into its file names). It is checked on every call, also for a file that somebody put there by hand.
    ``folder`` defaults to :func:`cache_folder`. With ``offline``, or ``SCUMBLE_OFFLINE=1``, the network is not touched.

    An interrupted download leaves ``NAME.part`` and goes on from there the next time. Several processes and threads may ask
    for the same file: one downloads, the others wait.

    Raises :class:`~scumble.errors.UsageError` for an address or hash that can't be one, and
    :class:`~scumble.errors.InputError` when the file can't be had; the text says what to do.
    """
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not name:
        raise errors.UsageError(f"a download address must start with https:// or http:// and end in a file name; got {url!r}")
    sha256 = sha256.lower()
    if not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise errors.UsageError(f"sha256 must be 8 to 64 hexadecimal digits; got {sha256!r}")
    folder = cache_folder() if folder is None else folder
    target = folder / name
    if target.exists() and hash_of(target).startswith(sha256):
        return target
    if offline or is_offline():
        fault = "has another SHA-256 than it should" if target.exists() else "is needed"
        raise errors.InputError(
            f"{target} {fault}, and the network is off; download {url} elsewhere and put it there as {name}, or allow the network"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            if not (target.exists() and hash_of(target).startswith(sha256)):  # another process may have been quicker
                _download_verified(url, sha256, target, report)
    except OSError as e:
        raise errors.InputError(f"{name} can't be written to {folder} ({e.strerror or e}); SCUMBLE_CACHE can name another folder") from e
    return target


def _download_verified(url: str, sha256: str, target: Path, report: Report | None) -> None:
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    _download(url, part, report)
    found = hash_of(part)
    if resumed and not found.startswith(sha256):
        # the beginning may stem from another version of the file, so it gets one chance without it
        part.unlink()
        _download(url, part, report)
        found = hash_of(part)
    if not found.startswith(sha256):
        part.unlink()
        raise errors.InputError(
            f"{url} has the SHA-256 {found} and should have {sha256}: it was changed or damaged on its way; nothing was kept"
        )
    part.replace(target)


def _download(url: str, part: Path, report: Report | None) -> None:
    """Bring ``part`` to its full length."""
    for attempt in range(ATTEMPTS):
        try:
            _attempt(url, part, report)
            return
        except _BrokenOffError as e:
            if attempt == ATTEMPTS - 1:
                here = part.stat().st_size if part.exists() else 0
                raise errors.InputError(
                    f"{url} can't be downloaded ({e}); {here} bytes are here and the next try goes on from them; "
                    f"or download it elsewhere and put it at {part.with_suffix('')}"
                ) from e
            time.sleep(PAUSE_SECONDS * 2**attempt)


def _attempt(url: str, part: Path, report: Report | None) -> None:
    start = part.stat().st_size if part.exists() else 0
    # identity: a compressed answer would make Range and Content-Length count other bytes than ours
    headers = {"User-Agent": "scumble", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as e:
        with e:
            if e.code == 416:  # nothing after what is here: it is complete, or too long, which the hash tells
                return
            if e.code >= 500 or e.code == 429:
                raise _BrokenOffError(f"the server answered {e.code} {e.reason}") from e
            raise errors.InputError(f"{url} can't be downloaded: the server answered {e.code} {e.reason}") from e
    except (OSError, http.client.HTTPException) as e:
        raise _BrokenOffError(str(getattr(e, "reason", e)) or type(e).__name__) from e
    with answer:
        resumes = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
        here = start if resumes else 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length and length.isdigit() else None
        chunk = _read(answer)
        if here == 0 and _HTML.match(chunk):
            raise errors.InputError(
                f"{url} is a web page and not weights: the address is dead, or a proxy or login page answers in its place; nothing was kept"
            )
        with part.open("ab" if resumes else "wb") as file:
            while chunk:
                file.write(chunk)
                here += len(chunk)
                if report is not None:
                    report(here, total)
                chunk = _read(answer)
    if total is not None and here < total:
        raise _BrokenOffError(f"the connection ended after {here} of {total} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    """What has arrived, a chunk at most: ``read`` would wait for a whole one and lose it when interrupted."""
    try:
        return answer.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as e:
        raise _BrokenOffError(str(e) or type(e).__name__) from e


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Holds ``path`` against all other processes and threads. The system frees it when a process dies, so it can't go stale."""
    with path.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:  # LK_LOCK gives up after ten seconds, a download may take longer
                    continue
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file frees the lock
