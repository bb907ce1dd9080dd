"""Recipes: what a painted picture remembers about how it was made, and how it is made again from that.

A recipe is JSON in the picture's own metadata. Files are named by their paths from the picture's folder, so that a folder can be moved
as a whole and a published picture does not tell where its painter's home is; what they held is told by SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scumble import __version__, library, weights
from scumble.engine import FINISH
from scumble.errors import InputError, UsageError, in_range
from scumble.mask import MOST_FEATHER, Mask
from scumble.picture import DEFAULT_MAX_PIXELS, Picture
from scumble.style import Blend, Style, is_name, works_in
from scumble.stylizer import QUALITIES, defaults

if TYPE_CHECKING:
    from scumble.stylizer import Stylizer

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the recipe; a higher one was written by a later Scumble."""

STDIO = "-"
_BLEND_TERM = re.compile(r"(.+?)=(-?\d*\.?\d+(?:[eE][-+]?\d+)?)(?:,|$)")
"""A path may hold commas and equals signs: what counts is =NUMBER at its end."""
NOT_THE_STYLIZERS = {"device": "auto", "threads": None, "max_pixels": DEFAULT_MAX_PIXELS, "feather": 0.0, "invert_mask": False}
"""Settings of a request that :class:`~scumble.stylizer.Stylizer` does not take when it paints, and what they are if nobody says."""

Term = tuple[float, str]
"""Weight and source of a style: a library name, or the path of a picture, a folder or a ``.style`` file."""


@dataclass(frozen=True)
class Request:
    """All that decides what a picture becomes, but for the picture: what the command line asks for and a recipe remembers."""

    styles: tuple[tuple[Term, ...], ...]
    """One or more, each a single term or the terms of a blend."""
    masks: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """``device``, ``threads``, ``max_pixels``, ``feather``, ``invert_mask``, and what ``Stylizer.__call__`` takes by these names."""

    @property
    def refines(self) -> bool:
        """Whether pixels are optimised after the first pass."""
        steps = self.settings["steps"]
        return self.settings["strength"] > 0 and (QUALITIES.get(self.settings["quality"], 0) if steps is None else steps) > 0

    def open_styles(self, painter: Stylizer) -> list[Style | str]:
        """The styles, encoded once; but where a style has to be seen itself, to refine by it or to bring it to a picture's shape, its path.

        UsageError for an unknown name, InputError for a broken file.
        """
        opened: list[Style | str] = []
        looked_at = self.refines or self.settings.get("style_fit") == "stretch"
        for terms in self.styles:
            styles = [(weight, painter.style(source)) for weight, source in terms]
            if len(styles) > 1:
                opened.append(Blend(tuple(styles)).blended())
            else:
                opened.append(terms[0][1] if looked_at else styles[0][1])
        return opened

    def check(self, painter: Stylizer) -> None:
        """UsageError or MissingExtraError for what is wrong with the settings, and would be with any picture."""
        own = {k: v for k, v in self.settings.items() if k not in NOT_THE_STYLIZERS}
        painter.brush(**{**defaults(), **own})
        in_range("feather", self.settings["feather"], 0.0, MOST_FEATHER)

    def paint(
        self,
        painter: Stylizer,
        content: Picture,
        styles: Sequence[Style | Picture | str],
        masks: Sequence[Picture | Mask],
        *,
        reduced: float = 1.0,
        **calls: Any,
    ) -> Picture:
        """Paint one picture; ``calls`` are ``progress``, ``preview`` and ``stop`` of ``Stylizer.__call__``.

        A mask is brought to the size of ``content``; ``feather`` is in pixels of that before it was ``reduced``.
        """
        own = {k: v for k, v in self.settings.items() if k not in NOT_THE_STYLIZERS}
        feather, invert = reduced * self.settings["feather"], self.settings["invert_mask"]
        fitted = [
            Mask.from_array(m.weights, content.size, feather=feather, invert=invert)
            if isinstance(m, Mask)
            else Mask.from_picture(m, content.size, feather=feather, invert=invert)
            for m in masks
        ]
        for mask, given in zip(fitted, masks, strict=True):
            _warn_of(mask, (given.height, given.width), content)
        return painter(content, list(styles), mask=fitted or None, **own, **calls)


def _warn_of(mask: Mask, size: tuple[int, int], content: Picture) -> None:
    """Of what can hardly be meant."""
    if not mask.weights.any():
        log.warning("a mask is black all over, so nothing is painted by it: white is painted, and what is transparent counts as black")
    (height, width), (high, wide) = size, content.size
    if abs(width * high / (height * wide) - 1) > 0.02:
        log.warning("a mask of %d x %d is stretched to a picture of %d x %d, which has another shape", width, height, wide, high)


def parse_blend(text: str) -> tuple[Term, ...]:
    """``"great-wave=0.7,night.jpg=0.3"`` -> its terms; UsageError if that can't be read so."""
    terms = list(_BLEND_TERM.finditer(text))
    if not terms or terms[-1].end() != len(text):
        raise UsageError(f"a blend is written NAME=WEIGHT,NAME=WEIGHT, as in great-wave=0.7,starry-night=0.3; got {text!r}")
    for term in terms:
        name, equals, rest = term[1].partition("=")
        if equals and name in library.entries():  # no path: what follows was meant for its weight
            raise UsageError(f"the weight of {name} must be a number, as in {name}=0.7; got {rest.partition(',')[0]!r}")
    return tuple((float(term[2]), term[1]) for term in terms)


def write_recipe(request: Request, content: str, content_sha256: str, target: Path, **more: Any) -> dict[str, Any]:
    """The recipe of the picture that is about to be written to ``target``. ``content`` is a path, or ``-`` for standard input."""
    folder = target.absolute().parent
    named = any(is_name(source) for terms in request.styles for _, source in terms)
    return {
        "recipe": FORMAT,
        "scumble": __version__,
        "verb": "stylize",
        "content": {"path": content if content == STDIO else _relative(content, folder), "sha256": content_sha256},
        "styles": [[{"weight": weight, **_described(source, folder)} for weight, source in terms] for terms in request.styles],
        "masks": [_described(mask, folder) for mask in request.masks],
        "settings": dict(request.settings),
        "weights": {name: file_sha256(weights.weight_path(name)) for name in weights_used(request, named)},
        "versions": versions(torch=request.refines),
        **more,
    }


def restore(recipe: Mapping[str, Any], painted: Path, content: Path | None = None) -> tuple[Request, Path]:
    """The request and the content that ``painted`` was made of, found and verified.

    Files are looked for where the recipe has them, then by their names beside ``painted``; ``content`` says where the content is
    now. InputError, in one sentence, for the first thing that is missing or not what it was.
    """
    if recipe.get("recipe") != FORMAT or recipe.get("verb") != "stylize":
        raise InputError(f"{painted} was made by Scumble {recipe.get('scumble', '?')} in a way that {__version__} does not know")
    try:
        if "interrupted" in recipe:
            raise InputError(f"{painted} is where a refinement was interrupted; that moment can't be had again")
        _check_weights(recipe, painted)
        folder = painted.absolute().parent
        found = _find(recipe["content"], folder, "content", "say where it is with --content FILE", content)
        put = f"put a copy beside {painted.name}"
        styles = tuple(
            tuple((float(term["weight"]), _restored(term, folder, "style", put)) for term in terms) for terms in recipe["styles"]
        )
        masks = tuple(_restored(mask, folder, "mask", put) for mask in recipe["masks"])
        settings: dict[str, Any] = {**defaults(), **NOT_THE_STYLIZERS, **recipe["settings"]}
        if strange := settings.keys() - defaults().keys() - NOT_THE_STYLIZERS.keys():
            raise InputError(f"{painted} was painted with a setting that Scumble {__version__} does not know: {', '.join(sorted(strange))}")
        return Request(styles, masks, settings), found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise InputError(f"the recipe in {painted} is damaged") from error


def changes(recipe: Mapping[str, Any]) -> list[str]:
    """What is not as it was when the recipe was written and may change bits, each as ``numpy 2.0.0 is now 2.1.0``."""
    now = versions(torch="torch" in recipe["versions"])
    return [f"{name} {then} is now {now.get(name, 'missing')}" for name, then in recipe["versions"].items() if now.get(name) != then]


def versions(*, torch: bool) -> dict[str, str]:
    """Versions of what computes, ``torch`` only where it takes part, and on what."""
    from importlib import import_module

    names = ("numpy", "onnxruntime", "PIL", *(["torch"] if torch else []))
    machine = {"processors": f"{os.cpu_count()} {platform.machine()}"}  # sums are split among them
    return {name: str(import_module(name).__version__) for name in names} | machine


def weights_used(request: Request, named: bool) -> list[str]:
    """Names of the weight files that take part in ``request``."""
    used = ["eye.onnx", *(f"{name}.onnx" for name in FINISH)]
    if request.settings["method"] == "generator":
        used += ["generator.onnx", "modulator.onnx"]
    else:
        used += [f"decoder{k}.onnx" for k in range(1, 6)]
    if request.refines and request.settings["encoder"] == "eye":
        used += ["eye.safetensors", "sight.safetensors"]
    return [*used, library.BUILT_IN] if named else used


def file_sha256(path: Path) -> str:
    """Of a file, or of the pictures in a folder with their names (what a style is made of); computed once as long as nothing is written."""
    if not path.is_dir():
        return _sha256(path, path.stat().st_mtime_ns)
    digest = hashlib.sha256()
    for picture in works_in(path):
        digest.update(f"{file_sha256(picture)} {picture.name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, _written: int) -> str:
    return weights.sha256(path)


def _relative(path: str, folder: Path) -> str:
    """From the picture's folder; the name alone where that way leads through the top of the file system, or through where homes are: it
    would tell the whole path.
    """
    where = Path(path).absolute()
    try:
        common = Path(os.path.commonpath([where, folder]))
    except ValueError:  # another drive
        return where.name
    if len(common.parts) == 1 or common in Path.home().parents:
        return where.name
    return Path(os.path.relpath(where, folder)).as_posix()


def _described(source: str, folder: Path) -> dict[str, str]:
    if not is_name(source):
        return {"path": _relative(source, folder), "sha256": file_sha256(Path(source))}
    entry = library.entry(source)
    return {"name": entry.name} if entry.path is None else {"name": entry.name, "sha256": file_sha256(entry.path)}


def _restored(item: Mapping[str, str], folder: Path, kind: str, advice: str) -> str:
    if "name" not in item:
        return os.fspath(_find(item, folder, kind, advice))
    entry = library.entries().get(item["name"])
    if entry is None:
        raise InputError(f"the style {item['name']} is not in your library any more; add it again with `scumble styles add`")
    if (None if entry.path is None else file_sha256(entry.path)) != item.get("sha256"):
        raise InputError(f"the style {entry.name} in your library is not the one that was painted with")
    return entry.name


def _find(item: Mapping[str, str], folder: Path, kind: str, advice: str, given: Path | None = None) -> Path:
    recorded = Path(item["path"])
    changed: Path | None = None
    for path in [given] if given is not None else [folder / recorded, folder / recorded.name]:
        if not path.exists():
            continue
        if file_sha256(path) == item["sha256"]:
            return path
        changed = changed or path
    if changed is not None:
        raise InputError(f"the {kind} {changed} is not what was painted from (its SHA-256 differs); {advice}")
    where = "came by standard input" if item["path"] == STDIO else f"{given or recorded} is not there"
    raise InputError(f"the {kind} {where}; {advice}")


def _check_weights(recipe: Mapping[str, Any], painted: Path) -> None:
    for name, sha256 in recipe["weights"].items():
        if not (weights.FOLDER / name).is_file() or file_sha256(weights.FOLDER / name) != sha256:
            was = recipe["scumble"]
            raise InputError(f"{painted} was painted by Scumble {was} with another {name} than this Scumble {__version__} has")
