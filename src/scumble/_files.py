"""Files as such: streams to read from, writing whole or not at all, and where what is a user's lies."""

from __future__ import annotations

import io
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from scumble.errors import InputError, UsageError

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def stream_of(source: Source) -> tuple[BinaryIO, str]:
    """A seekable stream of our own, and what messages call it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), "the picture"
    if isinstance(source, (str, os.PathLike)):
        if source == "":  # which Path takes for the working folder
            raise InputError("an empty path was given; give that of a picture file")
        path = Path(source)
        try:
            stream = path.open("rb")
            if not stream.seekable():
                with stream:
                    return io.BytesIO(stream.read()), str(path)
            return stream, str(path)
        except FileNotFoundError:
            raise InputError(f"there is no file {path}; check the path") from None
        except IsADirectoryError:
            raise InputError(f"{path} is a folder; give a picture file") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            if isinstance(error, PermissionError):
                if path.is_dir():  # what Windows calls a denied permission
                    raise InputError(f"{path} is a folder; give a picture file") from None
                raise InputError(f"{path} may not be read; change its permissions") from None
            raise InputError(f"{str(path)!r} cannot be read ({reason(error)}); check the path") from error
    if not hasattr(source, "read"):
        raise UsageError(f"a picture must be a path, bytes or a binary file object; got {type(source).__name__}")
    try:
        data: Any = source.read()
    except (OSError, ValueError) as error:
        raise InputError(f"the picture cannot be read ({reason(error)}); check the file object") from error
    if not isinstance(data, bytes):
        raise UsageError("a file object must be opened in binary mode ('rb')")
    return io.BytesIO(data), "the picture"


def is_there(path: Path) -> bool:
    """As ``path.exists()``, which raises for a name that is too long to be one."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


_USUAL = {
    "APPDATA": "AppData/Roaming",
    "LOCALAPPDATA": "AppData/Local",
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}


def own_folder(name: str, own: str, *, windows: str, macos: str, others: str) -> Path:
    """The folder that the variable ``own`` names, else ``name`` in the platform's: on Windows and elsewhere the one that a variable of
    theirs names, where it is empty their usual one; on macOS one of the Library. It may not exist.
    """
    if given := os.environ.get(own):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / macos / name
    variable = windows if sys.platform == "win32" else others
    return Path(os.environ.get(variable) or Path.home() / _USUAL[variable]) / name


def reason(error: Exception) -> str:
    """What went wrong, to stand in brackets within a sentence."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:]


def checked_target(target: Path, *, overwrite: bool) -> Path:
    """Where to write; what can go wrong with it is said before the work of encoding."""
    try:
        if target.parent.exists() and not target.parent.is_dir():
            raise InputError(f"cannot write {target}: {target.parent} is no folder; choose another place")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {target}: there is no folder {target.parent}; make it first")
        if target.is_dir():
            raise InputError(f"cannot write {target}: it is a folder; give a file name")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise InputError(f"{target} exists already; allow overwriting (--overwrite) or choose another name")
        return target.resolve() if overwrite else target  # overwriting a link means what it points to
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"cannot write {str(target)!r} ({reason(error)}); choose another name") from error


def write_whole(target: Path, data: bytes, *, overwrite: bool) -> None:
    """Bytes into a hidden file beside the target, onto the disk, and only then under the target's name."""
    temporary = target.parent / f".scumble-{secrets.token_hex(8)}.part"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, target, overwrite=overwrite)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """A file that is whole and on the disk comes under its name. InputError if that is taken or can't be had."""
    try:
        if overwrite:
            with suppress(OSError):
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        else:
            _claim(temporary, target)
        if os.name == "posix":
            with suppress(OSError):
                folder = os.open(target.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
    except FileExistsError:
        raise InputError(f"{target} exists already; allow overwriting (--overwrite) or choose another name") from None
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {target} ({reason(error)}); free space, change permissions or choose another place")


def _claim(temporary: Path, target: Path) -> None:
    """Move to a name that nobody else has; a second writer gets FileExistsError, however close the race.

    A hard link does both at once. Where the file system has none, the name is reserved by an empty file first: killed in that instant
    (and only there), the process leaves it behind.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        target.open("xb").close()
        try:
            temporary.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
