"""A sitting: what one visitor of the page works on, from the first picture to the last one painted. Knows nothing of Gradio."""

from __future__ import annotations

import base64
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scumble import library
from scumble.color import keep_color
from scumble.errors import InputError, UsageError, in_range
from scumble.light import keep_light
from scumble.mask import Mask, composite
from scumble.picture import SUFFIXES, Picture
from scumble.serve.limits import Upload, opened
from scumble.serve.preview import SIDE, Kept, fitted
from scumble.serve.service import ForgottenError, PaintService, Terms
from scumble.serve.studio.share import MASK, Shared
from scumble.style import Style

Pixels = NDArray[np.float32]

MOST_STYLES = 24
"""Pictures that a visitor may bring as styles."""
MOST_PAINTINGS = 24
"""Paintings that are kept in a sitting; the oldest makes room."""
THUMBNAIL = 160
ORIGINAL = "as the original"
FORMATS = (ORIGINAL, "JPEG", "PNG", "WebP", "TIFF", "AVIF")
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}
_OWN = "own:"
_MOST_BYTES = 200
"""Of a file's name without its suffix; file systems take 255 for both."""


@dataclass(frozen=True)
class Look:
    """All that decides what the picture becomes. UsageError for weights that no blend can have."""

    terms: tuple[tuple[float, str], ...]
    """Weight and source: a name of the library, or ``own:`` and the key of a style that the visitor brought."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """See :data:`scumble.serve.service.OPTIONS`; without ``feather`` and ``invert_mask``."""
    mask: bytes = b""
    """A PNG file, white where to paint; empty: everywhere."""
    softness: float = 0.0
    """Of the mask's edge, as a share of the picture's longer side: it means the same for a preview and for the full picture."""
    invert: bool = False

    def __post_init__(self) -> None:
        for weight, _ in self.terms:
            in_range("the weight of a style", weight, 0.0, 1e6)
        if sum(weight for weight, _ in self.terms) <= 0:
            raise UsageError("the weights of a blend must not all be 0")


@dataclass(frozen=True)
class Own:
    """A style that the visitor brought."""

    source: str
    upload: Upload
    style: Style
    thumbnail: str


@dataclass(frozen=True)
class Content:
    """A picture that the visitor brought."""

    key: str
    name: str
    path: Path


@dataclass(frozen=True)
class Painting:
    """A painting in full resolution."""

    number: int
    content: Content
    path: Path
    look: Look
    format: str
    title: str
    note: str
    shown: str
    """The address of a smaller copy, for the page."""
    thumbnail: str


@dataclass(frozen=True)
class Work:
    """What is to be painted, and how: stays as it is when the visitor goes on to something else."""

    content: Content
    kept: Kept
    look: Look
    format: str
    """One of :data:`FORMATS`."""


class Sitting:
    """One visitor's pictures; ``style`` is what it begins with. Files live in a folder of their own, which goes when the sitting ends."""

    def __init__(self, service: PaintService, style: str) -> None:
        self.service = service
        self.look = Look(((1.0, style),))
        self.format = ORIGINAL
        """Of the file to be written, one of :data:`FORMATS`."""
        self.own: dict[str, Own] = {}
        self.paintings: list[Painting] = []
        self.paints = False
        """Whether a painting is being made, of which the page shows how far it is."""
        self.cancel = threading.Event()
        """Once set, the painting at hand ends with its best so far."""
        self.cancel_film = threading.Event()
        """The same for the film at hand."""
        self._folder = TemporaryDirectory(prefix="scumble-", ignore_cleanup_errors=True)
        self._content: Content | None = None
        self._painted = 0
        self._turns = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop what is being painted, and delete the files."""
        self.cancel.set()
        self.cancel_film.set()
        self._folder.cleanup()

    def place(self, name: str) -> Path:
        """A folder of this sitting, called ``name``; what was in it makes room."""
        folder = Path(self._folder.name) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def turn(self) -> int:
        """A number for a preview that is about to be painted."""
        with self._lock:
            self._turns += 1
            return self._turns

    def is_latest(self, turn: int) -> bool:
        """Whether no later preview has been asked for: an overtaken one must not be shown."""
        return turn == self._turns

    # What comes in --------------------------------------------------------------------------------------------------------

    def open(self, upload: Upload) -> Kept:
        """Take ``upload`` as the picture to be painted, without a mask. InputError if it can't be read."""
        key = self.service.keep(upload)
        path = Path(self._folder.name) / key
        with self._lock:
            path.write_bytes(upload.data)
            self._turn_to(Content(key, _called(upload, "picture.png"), path))
        self.look = Look(self.look.terms, self.look.settings)
        return self.service.kept(key)

    @property
    def is_open(self) -> bool:
        """Whether there is a picture."""
        return self._content is not None

    def kept(self) -> Kept:
        """The picture. UsageError if there is none yet."""
        content = self._opened()
        try:
            return self.service.kept(content.key)
        except ForgottenError:  # it made room for others' pictures in memory; the file is still here
            self.service.keep(Upload(content.name, content.path.read_bytes()))
            return self.service.kept(content.key)

    def _turn_to(self, content: Content) -> None:
        former, self._content = self._content, content
        if former is not None:
            self._let_go(former)

    def _let_go(self, content: Content) -> None:
        """Delete the file of a picture, unless it is at hand or has been painted: by its path, as one file may come under two names."""
        if content.path not in {c.path for c in (self._content, *(p.content for p in self.paintings)) if c is not None}:
            content.path.unlink(missing_ok=True)

    def _opened(self) -> Content:
        if self._content is None:
            raise UsageError("there is no picture yet; choose one first")
        return self._content

    def add_style(self, upload: Upload) -> Own:
        """Encode a picture as a style. InputError if it can't be read, UsageError if there are too many."""
        source = f"{_OWN}{upload.sha256[:16]}"
        if source not in self.own:
            if len(self.own) >= MOST_STYLES:
                raise UsageError(f"at most {MOST_STYLES} styles of your own fit here; reload the page to begin anew")
            picture = opened(upload.data, self.service.settings.max_pixels)
            name = _called(upload, "style")
            named = Upload(name if "." in name else f"{name}.png", upload.data)
            self.own[source] = Own(source, named, self.service.style(upload), shown(fitted(picture, THUMBNAIL)))
        return self.own[source]

    # What goes out --------------------------------------------------------------------------------------------------------

    def style(self) -> Style:
        """The one at hand, blended."""
        return self.service.blended(self._terms(self.look))

    def preview(self) -> Picture:
        """What the look at hand would give, at most 1024 pixels."""
        kept, look = self.kept(), self.look
        style = self.service.blended(self._terms(look), quick=True)
        return self.service.preview(kept.key, [[(1.0, style)]], self._settings(look, kept), masks=_masks(look))

    def refines(self) -> bool:
        """Whether painting will take long, and can be stopped with the best so far."""
        return self.service.refines(self.look.settings)

    def at_hand(self) -> Work:
        """The picture and the look at hand. UsageError if there is no picture yet."""
        return Work(self._opened(), self.kept(), self.look, self.format)

    def is_at_hand(self, work: Work) -> bool:
        """Whether the visitor still has this picture and these settings."""
        content = self._content
        return content is not None and (content.key, self.look, self.format) == (work.content.key, work.look, work.format)

    def paint(
        self,
        work: Work,
        *,
        progress: Callable[[int, int, float], None] | None = None,
        preview: Callable[[Picture], None] | None = None,
        cancel: threading.Event,
    ) -> Painting:
        """Paint in full resolution, in this thread, and keep the file; once ``cancel`` is set a refinement ends with its best so far.

        ``preview`` is shown how far a refinement has come. The file carries the recipe. Raises as
        :meth:`scumble.serve.service.PaintService.painted`.
        """
        content, kept, look, format, began = work.content, work.kept, work.look, work.format, time.monotonic()
        settings, steps = self._settings(look, kept), [0, 0]
        show = None if preview is None else lambda pixels: preview(_unfinished(work, pixels))

        def step(done: int, total: int, loss: float) -> None:
            steps[:] = done, total
            if progress is not None:
                progress(done, total, loss)

        picture = opened(kept.upload.data, self.service.settings.max_pixels)
        # a refinement looks at the picture that was brought, and so does who replays it: what a style is in numbers does not do for it
        named = [(weight, self.own[source].upload if source in self.own else source) for weight, source in look.terms]
        painted = self.service.painted(picture, [named], settings, masks=_masks(look), progress=step, preview=show, cancel=cancel)
        cut = {"interrupted": steps[0]} if steps[0] < steps[1] else {}
        recipe = self.service.recipe(
            Upload(content.name, kept.upload.data), [named], settings, [Upload(MASK, look.mask)] if look.mask else [], **cut
        )
        with self._lock:
            self._painted += 1
            number = self._painted
        place = self.place(str(number)) / self._target(content.name, look, format)
        painted.save(place, recipe=recipe)
        note = f"{painted.width} × {painted.height} · {self.service.complete(settings)['quality']} · {time.monotonic() - began:.1f} s"
        note += f" · stopped after {steps[0]} of {steps[1]} steps" if cut else ""
        painting = Painting(
            number, content, place, look, format, self._title(look), note, shown(fitted(painted, SIDE)), shown(fitted(painted, THUMBNAIL))
        )
        self._remember(painting, kept.upload.data)
        return painting

    def back(self, number: int) -> Painting:
        """A painting from this sitting; its picture and its look become those at hand. UsageError if it is gone."""
        with self._lock:
            for painting in self.paintings:
                if painting.number == number:
                    self.look, self.format = painting.look, painting.format
                    self._turn_to(painting.content)
                    return painting
        raise UsageError("that painting is not kept any more; paint it again")

    def shared(self) -> Shared:
        """The look at hand, to be said elsewhere."""
        look, name = self.look, self._content.name if self._content else "picture.jpg"
        settings = self._settings(look, self.kept() if self.is_open else None)
        terms = [(weight, self._file_or_name(source)) for weight, source in look.terms]
        return Shared(name, self._target(name, look, self.format), terms, settings, bool(look.mask))

    def _terms(self, look: Look) -> Terms:
        return [(weight, self.own[source].style if source in self.own else source) for weight, source in look.terms]

    def _settings(self, look: Look, kept: Kept | None) -> dict[str, Any]:
        """For the service: the mask's softness in pixels of the full picture."""
        if not look.mask:
            return dict(look.settings)
        side = max(kept.size) if kept is not None else SIDE
        return {**look.settings, "feather": round(look.softness * side), "invert_mask": look.invert}

    def _title(self, look: Look) -> str:
        own = self.own
        return " + ".join(Path(own[s].upload.name).stem if s in own else library.entry(s).title for _, s in look.terms)

    def _file_or_name(self, source: str) -> str:
        return self.own[source].upload.name if source in self.own else source

    def _target(self, name: str, look: Look, format: str) -> str:
        """The name of the file to be written: made of what the visitor's files are called, and nothing but letters, digits and dashes."""
        stem, dot, end = name.rpartition(".")
        suffix = _SUFFIXES.get(format) or (f".{end.lower()}" if f".{end.lower()}" in SUFFIXES else ".png")
        words = [stem if dot else end, *(Path(self._file_or_name(source)).stem for _, source in look.terms)]
        name = "-".join(re.sub(r"[^\w-]+", "-", word).strip("-") for word in words)
        return name.encode()[:_MOST_BYTES].decode(errors="ignore") + suffix  # what the cut leaves of a character goes

    def _remember(self, painting: Painting, original: bytes) -> None:
        """Keep it, and let the oldest ones go that are too many, or take too much room."""
        with self._lock:
            self.paintings.append(painting)
            if not painting.content.path.exists():  # the visitor has opened another picture meanwhile
                painting.content.path.write_bytes(original)
            while len(self.paintings) > 1 and (len(self.paintings) > MOST_PAINTINGS or self._room() > self.service.settings.kept_bytes):
                gone = self.paintings.pop(0)
                gone.path.unlink(missing_ok=True)
                self._let_go(gone.content)

    def _room(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in Path(self._folder.name).rglob("*") if path.is_file())


def _unfinished(work: Work, pixels: Pixels) -> Picture:
    """What a refinement has come to so far, with light and colours kept and mask as they will be in the end."""
    height, width, _ = pixels.shape
    content, look = work.kept.small.resized(width=width, height=height), work.look
    layer = keep_light(np.clip(pixels, 0.0, 1.0), content.pixels, look.settings.get("keep_light", 0.0))
    layer = keep_color(layer, content.pixels, look.settings.get("keep_color", 0.0))
    feather = look.softness * max(content.size)
    masks = [Mask.from_picture(m, content.size, feather=feather, invert=look.invert) for m in _masks(look)]
    return content.with_pixels(composite(content.pixels, [(layer, mask) for mask in masks]) if masks else layer)


def _called(upload: Upload, otherwise: str) -> str:
    """The file's own name: no folders, nothing that can't be seen, not too long."""
    name = "".join(c for c in upload.name.replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return name[-100:].strip() or otherwise


def shown(picture: Picture) -> str:
    """The picture as an address that a browser shows without asking for it: JPEG, or WebP where something is transparent."""
    bare = Picture(picture.pixels, picture.alpha)
    kind, data = ("webp", bare.encode("webp", quality=85)) if bare.alpha is not None else ("jpeg", bare.encode("jpg", quality=88))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def decoded(address: str, limit: int) -> bytes:
    """The PNG that a canvas gave as an address; empty for an empty one. InputError for anything else, or for more than ``limit`` bytes."""
    if not address:
        return b""
    head, _, body = address.partition(",")
    if head != "data:image/png;base64" or len(body) > 4 * limit // 3:
        raise InputError("the mask did not arrive as a PNG file; brush it once more")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise InputError("the mask arrived damaged; brush it once more") from error


def _masks(look: Look) -> Sequence[Picture]:
    return [Picture.open(look.mask, max_pixels=4_000_000)] if look.mask else []
