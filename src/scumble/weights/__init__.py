"""The trained nets and the built-in styles, as files, with a manifest of what they are."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from scumble.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Weight:
    """One entry of ``manifest.toml``."""

    name: str
    sha256: str
    bytes: int
    licence: str
    origin: str


def weight_path(name: str) -> Path:
    """Where the weight file ``name`` lies; InputError if this installation lacks it."""
    path = FOLDER / name
    if not path.is_file():
        raise InputError(f"the weight file {name} is missing from {FOLDER}; install scumble again")
    return path


def manifest() -> dict[str, Weight]:
    """All entries by name."""
    with (FOLDER / "manifest.toml").open("rb") as f:
        table = tomllib.load(f)
    return {name: Weight(name, **entry) for name, entry in table.items()}


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def damaged() -> list[str]:
    """Names of weight files that are missing or are not what the manifest says."""
    return [w.name for w in manifest().values() if not (FOLDER / w.name).is_file() or sha256(FOLDER / w.name) != w.sha256]
