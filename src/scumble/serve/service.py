"""The one door to painting, for the API and for the page: thread-safe, bounded, with everything kept that is worth keeping.

>>> service = PaintService()  # doctest: +SKIP
>>> key = service.keep(Path("photo.jpg").read_bytes())  # doctest: +SKIP
>>> small = [picture for name, picture in service.previews(service.small(key))]  # doctest: +SKIP
>>> preview = service.preview(key, [[(1.0, "great-wave")]], {"strength": 0.8})  # doctest: +SKIP
>>> blend = [(0.7, "great-wave"), (0.3, Upload("mine.jpg", data))]  # doctest: +SKIP
>>> painted = service.paint(service.content(key), [blend], {"quality": "fine"})  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from copy import copy
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from scumble import library, stylizer
from scumble.engine import Engine
from scumble.errors import InputError, MissingExtraError, ScumbleError, UsageError, in_range, unknown
from scumble.fetch import cache_folder
from scumble.mask import Mask
from scumble.picture import Picture, fitted_size
from scumble.recipe import Request, write_recipe
from scumble.serve.limits import BusyError, Cache, Slots, Upload, opened
from scumble.serve.preview import Kept, Previewer, fitted
from scumble.serve.settings import Settings
from scumble.style import Blend, Style
from scumble.stylizer import Stylizer

__all__ = ["BusyError", "ForgottenError", "PaintService", "StoppedError", "StyleSource", "Terms", "Upload"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Array = NDArray[np.float32]

StyleSource = str | bytes | Upload | Picture | Style
"""A name of the library, the bytes of a picture, or what is one already."""
Terms = Sequence[tuple[float, StyleSource]]
"""A style: one term, or the terms of a blend with their weights."""

OPTIONS = (
    "strength", "method", "style_scale", "style_fit", "keep_color", "keep_light", "grain", "quality", "steps", "encoder", "size", "detail",
    "statistics", "feather", "invert_mask",
)  # fmt: skip
"""What a request may set, by the names that the library has for it. Not among them: ``device``, ``threads`` and ``memory``, which are the
service's own."""


class StoppedError(ScumbleError):
    """The painting was cancelled before there was anything, or the service is closing."""


class _Stoppable:
    """An engine that does nothing more once ``cancel`` is set: every tile asks it for something."""

    def __init__(self, engine: Engine, cancel: threading.Event) -> None:
        self._engine, self._cancel = engine, cancel

    def __getattr__(self, name: str) -> Any:
        if self._cancel.is_set():
            raise StoppedError("the painting was cancelled")
        return getattr(self._engine, name)


class ForgottenError(InputError):
    """The picture had to make room for others; hand it in again with :meth:`PaintService.keep`."""


def named(name: str) -> library.Entry:
    """The library's style called ``name``; the UsageError of an unknown one gives no advice of the command line."""
    try:
        return library.entry(name)
    except UsageError as error:
        if "did you mean" in str(error):
            raise
        raise UsageError(
            f"unknown style {name[:80]!r}; GET /v1/styles lists them, or send a picture as the part style (with curl: style=@FILE)"
        ) from error


def defaults() -> dict[str, Any]:
    """The default of each of :data:`OPTIONS`, from the library's signatures."""
    return dict(_defaults())


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:  # reading signatures takes as long as encoding a preview
    known = {n: p.default for n, p in inspect.signature(Mask.from_picture).parameters.items()} | dict(stylizer.defaults())
    names = {"invert_mask": "invert"}
    return {option: known[names.get(option, option)] for option in OPTIONS}


class PaintService:
    """Paints for many at once. Every method may be called from any thread; :meth:`warm` loads the nets beforehand.

    InputError where weights of the encoders that it should offer are not in the cache.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        _check_weights(self.settings.encoders)
        self.painter = Stylizer(self.settings.device, self.settings.threads)
        self.painter.engine.alone = False  # jobs, previews and other workers share the cores
        self.slots = Slots(self.settings.workers, self.settings.queue, "scumble-paint")
        self.ready = threading.Event()
        """Set when the nets are loaded and have painted once."""
        self._closing = threading.Event()
        self._previewer = Previewer(self.painter, self.settings.kept_bytes / 4, self.settings.memory)
        self._styles: Cache[str, Style] = Cache(self.settings.kept_styles)
        self._modulations: Cache[str, Array] = Cache(4 * self.settings.kept_styles)
        self._kept: Cache[str, Kept] = Cache(self.settings.kept_bytes * 3 / 4, lambda kept: kept.cost)
        self._encoding = threading.Semaphore(self.settings.workers)

    def warm(self) -> None:
        """Load the nets, measure their speed, and make ready the library's styles."""
        self._previewer.calibrate()
        if not self._closing.is_set():
            self.ready.set()
        self._readable(library.entries())  # the page shows all of them at once

    # Styles ---------------------------------------------------------------------------------------------------------------

    def style(self, source: StyleSource) -> Style:
        """The Style of ``source``, encoded once: also when two ask for the same one at the same moment.

        A text is a name of the library and never a path. UsageError for an unknown one, InputError for bytes that are no picture.
        """
        if isinstance(source, Style):
            return source
        if isinstance(source, str):
            entry = named(source)
            return self._styles.get(f"name:{entry.key}", lambda: Style.named(entry.name))
        if isinstance(source, Picture):
            digest = sha256(repr(source.size).encode() + np.ascontiguousarray(source.pixels).data).hexdigest()
            return self._styles.get(f"pixels:{digest}", lambda: self._encoded(source))
        upload = source if isinstance(source, Upload) else Upload("", bytes(source))
        return self._styles.get(f"sha256:{upload.sha256}", lambda: self._encoded(opened(upload.data, self.settings.max_pixels)))

    def blended(self, terms: Terms, *, quick: bool = False) -> Style:
        """One Style of one or more terms, see :meth:`Blend.blended`. UsageError if there are none, or for weights that can't be meant."""
        styles = tuple((weight, self.style(source)) for weight, source in terms)
        if not styles:
            raise UsageError("a style needs one term at least; got none")
        return styles[0][1] if len(styles) == 1 else Blend(styles).blended(quick=quick)

    @property
    def styles_encoded(self) -> int:
        """How many styles have been read or encoded so far; those that were still there are not counted."""
        return self._styles.made

    def _encoded(self, picture: Picture) -> Style:
        with self._encoding:
            return Style.from_image(picture, engine=self.painter.engine)

    def _modulation(self, name: str) -> Array:
        style = self.style(name)
        return self._modulations.get(style.digest, lambda: style.modulation(self.painter.engine))

    def _readable(self, names: Iterable[str]) -> dict[str, Array]:
        """The modulations of those styles that can be read: for one of the user's own that is damaged the others must not go without."""
        found: dict[str, Array] = {}
        for name in names:
            if self._closing.is_set():
                break
            try:
                found[name] = self._modulation(name)
            except InputError as error:
                log.warning("%s", error)
        return found

    # Painting -------------------------------------------------------------------------------------------------------------

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """``settings`` with the library's default for what they leave out. UsageError for a name that is not in :data:`OPTIONS`."""
        for name in settings:
            if name not in OPTIONS:
                raise UsageError(unknown("setting", name, OPTIONS))
        return defaults() | dict(settings)

    def check(self, styles: Sequence[Terms], settings: Mapping[str, Any], masks: int = 0) -> None:
        """Raise what painting would raise about styles and settings, without painting: UsageError, or InputError for a broken style.

        The rules live in the Stylizer, so it is asked.
        """
        whole = self.complete(settings)
        self._check_settings(whole, len(styles), masks)
        for terms in styles:
            self._seen(terms, whole)

    def _check_settings(self, whole: Mapping[str, Any], styles: int, masks: int) -> None:
        if not styles:
            raise UsageError("give a style")
        self._check_steps(whole)
        self._check_encoder(whole["encoder"])
        if (whole["feather"] or whole["invert_mask"]) and not masks:
            raise UsageError("feather and invert_mask need a mask")
        stylizer.one_for_each(styles, masks)
        self._request(whole).check(self.painter)

    def _check_steps(self, whole: Mapping[str, Any]) -> None:
        """UsageError for more than are allowed, whether they are given or a quality's."""
        most, steps = self.settings.max_steps, stylizer.QUALITIES.get(whole["quality"], 0)
        if whole["steps"] is not None:
            in_range("steps", whole["steps"], 0, most)
        elif steps > most:
            raise UsageError(f"quality {whole['quality']!r} takes {steps} steps, and this service takes {most} at most; choose a lower one")

    def _check_encoder(self, spec: str) -> None:
        """UsageError unless it is the eye, or one of those that the service offers and with layers that it has."""
        if spec == "eye":
            return
        architecture = spec.strip().lower().partition(":")[0]
        offered = ("eye", *self.settings.encoders)
        if architecture not in offered:
            raise UsageError(f"the encoder {architecture[:40]!r} is not offered here; there is {' and '.join(offered)}")
        try:
            from scumble.nets.vgg import parse_spec
        except ImportError as error:
            raise MissingExtraError('refinement needs PyTorch: pip install "scumble[torch]"') from error
        parse_spec(spec)

    def _seen(self, terms: Terms, whole: Mapping[str, Any]) -> Style | Picture:
        """A style as painting with these settings has to see it: encoded, but as the picture where its pixels are needed."""
        refines, stretched = self.refines(whole), whole["style_fit"] == "stretch"
        if not refines and not stretched:
            return self.blended(terms)
        source = terms[0][1] if len(terms) == 1 else None
        if source is None or isinstance(source, (str, Style)):
            if not stretched and whole["encoder"] == "eye":
                return self.blended(terms)
            what = "style-fit 'stretch'" if stretched else "an encoder other than 'eye'"
            raise UsageError(f"{what} needs one picture for a style: names and blends hold what the eye has seen and nothing else")
        if isinstance(source, Picture):
            return source
        return opened(source.data if isinstance(source, Upload) else source, self.settings.max_pixels)

    def paint(
        self,
        content: Picture,
        styles: Sequence[Terms],
        settings: Mapping[str, Any] | None = None,
        *,
        masks: Sequence[Picture] = (),
        progress: Callable[[int, int, float], None] | None = None,
        preview: Callable[[Array], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Picture:
        """Paint ``content`` when a worker is free, and wait for it.

        Args:
            styles: one, or as many as there are masks.
            settings: see :data:`OPTIONS`; what is left out has the library's default.
            masks: white is painted; brought to the size of the result.
            progress: called after every step of a refinement with (steps done, steps in all, loss), in the worker's thread.
            preview: called now and then with the refined pixels so far, (H, W, 3) in [0, 1], in the worker's thread.
            cancel: once set, a refinement ends with the best so far, and other paintings after the tile that is being painted.

        Raises:
            BusyError: too many wait already.
            StoppedError: it was cancelled before it began, or before there was anything.
            UsageError, InputError, MissingExtraError: as the Stylizer.
        """
        call = self.submit(
            lambda: self.painted(content, styles, settings or {}, masks=masks, progress=progress, preview=preview, cancel=cancel)
        )
        try:
            return call.result()
        except CancelledError as error:
            raise StoppedError("the service is closing") from error

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have ``call`` done by a worker; BusyError if too many wait. A call must not wait for another one."""
        return self.slots.submit(call)

    def painted(
        self,
        content: Picture,
        styles: Sequence[Terms],
        settings: Mapping[str, Any],
        *,
        masks: Sequence[Picture | Mask] = (),
        progress: Callable[[int, int, float], None] | None = None,
        preview: Callable[[Array], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Picture:
        """As :meth:`paint`, in this thread and at once: for those who hold a worker already."""
        if cancel is not None and cancel.is_set():
            raise StoppedError("the painting was cancelled before it began")
        whole = self.complete(settings)
        self._check_steps(whole)
        self.check_size(content.size, whole)
        self._check_encoder(whole["encoder"])
        encoded = [self._seen(terms, whole) for terms in styles]

        painter, stop = self.painter, None if cancel is None else cancel.is_set
        if cancel is not None and not self.refines(whole):  # a refinement ends with its best, for which it needs the nets
            painter = copy(painter)
            painter.engine = cast(Engine, _Stoppable(painter.engine, cancel))
        return self._request(whole).paint(painter, content, encoded, masks, progress=progress, preview=preview, stop=stop)

    def refines(self, settings: Mapping[str, Any]) -> bool:
        """Whether painting with ``settings`` optimises pixels, which takes long and can be cancelled."""
        return self._request(self.complete(settings)).refines

    def recipe(
        self,
        content: Upload,
        styles: Sequence[Sequence[tuple[float, str | Upload]]],
        settings: Mapping[str, Any],
        masks: Sequence[Upload] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """What the painted picture should remember; `scumble replay` reads it where the uploads lie beside the picture."""
        named = tuple((weight, source) for terms in styles for weight, source in terms if isinstance(source, str))
        request = Request((named,) if named else (), (), self._request(self.complete(settings)).settings)
        recipe = write_recipe(request, content.name or "content", content.sha256, Path("painted"), **more)
        recipe["content"] = _described(content, "content")
        described = iter(recipe["styles"][0] if named else ())
        recipe["styles"] = [
            [next(described) if isinstance(source, str) else {"weight": weight, **_described(source, "style")} for weight, source in terms]
            for terms in styles
        ]
        recipe["masks"] = [_described(mask, "mask") for mask in masks]
        return recipe

    def _request(self, whole: Mapping[str, Any]) -> Request:
        service = {"device": self.painter.engine.device, "threads": self.settings.threads}
        return Request((), (), {**whole, **service, "memory": self.settings.memory, "max_pixels": self.settings.max_pixels})

    def check_size(self, of: tuple[int, int], settings: Mapping[str, Any], what: str = "this picture") -> None:
        """UsageError for a result with more pixels than are allowed; ``of`` is the content's (height, width)."""
        size = settings.get("size")
        if size is None:
            return
        in_range("size", size, 1, 100_000)
        height, width = fitted_size(*of, size)
        pixels = height * width
        if pixels > self.settings.max_pixels:
            raise UsageError(f"size {size} makes {pixels:,} pixels of {what}; {self.settings.max_pixels:,} are allowed, choose less")

    # Pictures that the page works on ----------------------------------------------------------------------------------------

    def keep(self, source: bytes | Upload | Picture | str | Path) -> str:
        """Decode a picture (bytes, or the path of a file of our own) and keep it; returns its key. InputError if it can't be read."""
        if isinstance(source, Picture):
            source = source.encode("png")
        if isinstance(source, (str, Path)):
            path = Path(source)
            try:
                source = Upload(path.name, path.read_bytes())
            except OSError as error:
                raise InputError("the picture is not there any more; upload it again") from error
        upload = source if isinstance(source, Upload) else Upload("", source)
        self._kept.get(upload.sha256, lambda: self._decoded(upload))
        return upload.sha256

    def _decoded(self, upload: Upload) -> Kept:
        return Kept.of(upload, opened(upload.data, self.settings.max_pixels))

    def kept(self, key: str) -> Kept:
        """What :meth:`keep` was given, with its size and its reduced picture. ForgottenError if it had to make room."""
        found = self._kept.peek(key)
        if found is None:
            raise ForgottenError("the picture had to make room for others; hand it in again")
        return found

    def small(self, key: str) -> Picture:
        """The kept picture, its longer side at most 1024 pixels."""
        return self.kept(key).small

    def content(self, key: str) -> Picture:
        """The kept picture in full, with its metadata: decoded again, because in memory it may be a hundred times its file."""
        return opened(self.kept(key).upload.data, self.settings.max_pixels)

    def preview(
        self, key: str, styles: Sequence[Terms], settings: Mapping[str, Any] | None = None, *, masks: Sequence[Picture] = ()
    ) -> Picture:
        """What the settings would give, its longer side at most 1024 pixels, in one pass (no refinement); BusyError, ForgottenError.

        ``feather`` counts in pixels of the kept picture, as it does when that is painted in full.
        """
        kept, whole = self.kept(key), self.complete(settings or {})
        feather = whole["feather"] * max(kept.small.size) / max(kept.size)

        def call() -> Picture:
            encoded = [self.blended(terms) for terms in styles]
            soft = [Mask.from_picture(m, kept.small.size, feather=feather, invert=whole["invert_mask"]) for m in masks]
            return self._previewer(kept, encoded, whole, soft)

        self._check_settings(whole, len(styles), len(masks))
        painted = self.submit(call).result()
        with suppress(BusyError):  # while the visitor looks at it
            if not self._previewer.is_prepared(kept, whole):
                self.submit(lambda: self._previewer.prepare(kept, whole))
        return painted

    def previews(self, content: Picture, names: Iterable[str] | None = None, side: int = 160) -> Generator[tuple[str, Picture], None, None]:
        """``content`` in each of the styles called ``names`` (None: the whole library), longer side ``side``, as they get done.

        They take one worker, for all of them together; a style that can't be read is left out, with a warning. Closing the generator ends
        the work. BusyError, UsageError for a name.
        """
        wanted = list(library.entries() if names is None else names)
        small = fitted(content, 4 * side)
        done: queue.Queue[tuple[str, Picture] | BaseException | None] = queue.Queue()
        over = threading.Event()

        def call() -> None:
            try:
                for item in self._previewer.gallery(small, self._readable(wanted), side):
                    done.put(item)
                    if over.is_set():
                        return
                done.put(None)
            except BaseException as error:  # it belongs to whoever waits
                done.put(error)

        future = self.submit(call)
        future.add_done_callback(lambda f: done.put(StoppedError("the service is closing")) if f.cancelled() else None)
        try:
            while (item := done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            over.set()
            future.cancel()

    def close(self) -> None:
        """Let what runs come to its end; what waits is cancelled."""
        self._closing.set()
        self.ready.clear()
        self.slots.close()


def _check_weights(encoders: Sequence[str]) -> None:
    """The service fetches nothing, so what it offers has to be here."""
    if not encoders:
        return
    try:
        from scumble.nets.vgg import SOURCES
    except ImportError as error:
        raise MissingExtraError('refinement needs PyTorch: pip install "scumble[torch]"') from error
    for name in encoders:
        file = SOURCES[name][0].rpartition("/")[2]
        if not (cache_folder() / file).is_file():
            raise InputError(
                f"the weights of {name} are not in {cache_folder()}; put {file} there, or let `scumble stylize --encoder {name}` fetch it"
            )


def _described(upload: Upload, otherwise: str) -> dict[str, str]:
    return {"path": upload.name.replace("\\", "/").rpartition("/")[2] or otherwise, "sha256": upload.sha256}
