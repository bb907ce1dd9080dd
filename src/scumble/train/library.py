"""Make the built-in library: statistics of works of art and what the generator was tuned to them by, none of their pixels."""

from __future__ import annotations

import csv
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble._files import reason
from scumble.engine import Engine
from scumble.errors import InputError
from scumble.library import BUILT_IN
from scumble.picture import Picture
from scumble.style import Style, Tuning, pack
from scumble.train.data import Crops, read_pictures
from scumble.train.export import generator_id, load_generator, replace_file
from scumble.train.judge import Judge
from scumble.train.loop import Recipe
from scumble.train.settings import on_device
from scumble.train.tuning import RECIPE, target_of_pictures, tune
from scumble.weights import FOLDER

log = logging.getLogger(__name__)

COLUMNS = ("name", "title", "artist", "year", "medium", "group")


def build_library(gallery: Path, folder: Path = FOLDER, engine: Engine | None = None, tuned: Path | None = None) -> int:
    """Encode every work of ``gallery/gallery.csv`` (``name.jpg`` beside it); returns their number.

    A column ``crop``, where there is one, says what part of a picture is the work and no margin, mount or frame, which would be taken for
    its manner: left, top, right and bottom in shares of its width and height, as in ``0.03 0.03 0.97 0.93``.
    Correlations go in half precision: 48 KB a work, and 11 KB more if it is among those of :func:`tune_works` in the folder ``tuned``.
    """
    from safetensors.numpy import save

    engine = engine or Engine()
    works = _rows(gallery)
    rows = [{c: row[c] for c in COLUMNS} for row in works]
    tensors: dict[str, NDArray[np.floating]] = {}
    for row in works:
        style = Style.from_image(_work(gallery, row), engine=engine)
        tensors.update({f"{row['name']}/{k}": t for k, t in pack(style.levels, np.float16).items()})
        if style.texture is not None:
            tensors[f"{row['name']}/texture"] = style.texture
        tuning = None if tuned is None else _tuning(tuned, row["name"])
        if tuning is not None:
            tensors[f"{row['name']}/tuning"] = tuning.offset
    metadata = {"format": "scumble-library-1", "entries": json.dumps(rows, ensure_ascii=False), "generator": generator_id()}
    replace_file(folder / BUILT_IN, save(tensors, metadata))
    return len(rows)


def tune_works(
    gallery: Path,
    tuned: Path,
    pack: Path,
    recipe: Recipe = RECIPE,
    *,
    judge: str = "eye",
    teacher: Path | None = None,
    device: str = "cpu",
    bfloat16: bool = False,
    begin: Path | None = None,
    earlier: Path | None = None,
    **settings: Any,
) -> int:
    """Tune to every work of the gallery that ``tuned`` has no ``.style`` file of yet; returns how many it has now.

    Ends early after the recipe's minutes; the same call goes on. What the folder ``begin`` holds for the installed generator is not begun
    anew but gone on from; or what it, or without it ``tuned``, holds for ``earlier``, the weights of another one. ``judge`` is one of
    :data:`~scumble.train.judge.JUDGES`, ``settings`` are those of :func:`~scumble.train.tuning.tune`.
    """
    on_device(device)
    watching = Judge.named(judge, teacher, device, bfloat16)
    photos = Crops(read_pictures(pack / "content.tar"), device)
    tuned.mkdir(parents=True, exist_ok=True)
    rows = _rows(gallery)
    weights = earlier or FOLDER / "generator.safetensors"
    painter = load_generator(weights) if earlier or begin else None
    engine, began = Engine(), time.monotonic()
    for row in rows:
        if _tuning(tuned, row["name"]) is not None:
            continue
        if time.monotonic() - began > recipe.minutes * 60:
            break
        picture = _work(gallery, row)
        style, target = Style.from_image(picture, name=row["name"], engine=engine), target_of_pictures(watching, [picture])
        before = None if painter is None else _tuning(begin or tuned, row["name"], weights)
        style = tune(replace(style, tuning=before), photos, watching, target, recipe, earlier=painter, **settings)
        style.save(tuned / f"{row['name']}.style", overwrite=True)
        log.info("tuned to %s", row["name"])
    return sum(_tuning(tuned, row["name"]) is not None for row in rows)


def _tuning(tuned: Path, name: str, generator: Path = FOLDER / "generator.safetensors") -> Tuning | None:
    """What a work was tuned by, if that is for these weights."""
    path = tuned / f"{name}.style"
    tuning = Style.load(path).tuning if path.is_file() else None
    return tuning if tuning is not None and tuning.generator == generator_id(generator) else None


def _rows(gallery: Path) -> list[dict[str, str]]:
    table = gallery / "gallery.csv"
    try:
        with table.open(encoding="utf-8", newline="") as f:
            reader = csv.DictReader(f)
            if lacking := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
                raise InputError(f"{table} has no column {lacking[0]}; it needs {', '.join(COLUMNS)}, and may have crop")
            return list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table} cannot be read ({reason(error)}); give a folder of pictures with their gallery.csv") from error


def _work(gallery: Path, row: dict[str, str]) -> Picture:
    picture = Picture.open(gallery / f"{row['name']}.jpg")
    if not (crop := row.get("crop")):
        return picture
    try:
        left, top, right, bottom = map(float, crop.split())
    except ValueError:
        left = top = right = bottom = 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InputError(f"the crop of {row['name']} must be left, top, right and bottom between 0 and 1, as in 0.03 0 1 0.9; got {crop!r}")
    rows, columns = (slice(round(a * n), round(b * n)) for a, b, n in ((top, bottom, picture.height), (left, right, picture.width)))
    return Picture.from_array(picture.pixels[rows, columns])
