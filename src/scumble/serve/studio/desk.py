"""The desk: what each event of the page does. It takes and returns what Gradio's components hold; the work is the sitting's."""

from __future__ import annotations

import base64
import logging
import queue
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from inspect import isgeneratorfunction
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any
from weakref import WeakSet

import gradio as gr
from gradio.utils import get_upload_folder

from scumble import library
from scumble.errors import InputError, ScumbleError
from scumble.picture import Picture
from scumble.serve.limits import BusyError, Cache, IsFilmError, Slots, Upload
from scumble.serve.preview import Kept
from scumble.serve.service import PaintService, defaults
from scumble.serve.studio import widgets
from scumble.serve.studio.look import STATIC
from scumble.serve.studio.share import command, python
from scumble.serve.studio.sitting import THUMBNAIL, Painting, Sitting, decoded, shown

log = logging.getLogger(__name__)

EXAMPLE = "example.jpg"
THUMBNAILS = 32_000_000
"""Bytes of thumbnails that are kept: those of some fifty pictures."""
PATIENCE = 0.25
"""Seconds between two looks at how far a painting is."""
ABANDONED = 3600.0
"""Seconds after which an upload that does not go on has broken off."""
ELSEWHERE = "The painting is done: it is the first one below, with the picture and the settings that it was begun with."
_BEATS = count(1)


def seated(work: Callable[..., Any]) -> Callable[..., Any]:
    """For methods about a sitting: where there is none, because the server has begun anew, the visitor is told to reload the page."""

    def check(sitting: Sitting | None) -> None:
        if sitting is None:
            raise gr.Error("The server has begun anew. Reload the page.", duration=None, print_exception=False)

    @wraps(work)
    def at_once(self: Any, sitting: Sitting | None, *rest: Any) -> Any:
        check(sitting)
        return work(self, sitting, *rest)

    @wraps(work)
    def little_by_little(self: Any, sitting: Sitting | None, *rest: Any) -> Any:
        check(sitting)
        yield from work(self, sitting, *rest)

    return little_by_little if isgeneratorfunction(work) else at_once


class Desk:
    """One for the page; whatever belongs to a visitor is in their sitting."""

    def __init__(self, service: PaintService) -> None:
        self.service = service
        # what takes minutes must not keep the previews of all others waiting
        self.long = Slots(service.settings.jobs, service.settings.queue, "scumble-studio", nice=5)
        self._example = Upload(EXAMPLE, (STATIC / EXAMPLE).read_bytes())
        self._thumbnails: Cache[tuple[str, str], str] = Cache(THUMBNAILS, len)
        self._sittings: WeakSet[Sitting] = WeakSet()

    def sweep(self) -> None:
        """Delete what is left of uploads that broke off: Gradio writes them to files that it forgets."""
        for path in Path(get_upload_folder()).glob("tmp*"):
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def sit(self) -> Sitting:
        """A visitor comes."""
        sitting = Sitting(self.service, widgets.styles()[0].name)
        self._sittings.add(sitting)
        return sitting

    def close(self) -> None:
        """Whatever is being painted ends with its best so far; all files of all visitors go."""
        for sitting in list(self._sittings):
            sitting.cancel.set()
            sitting.cancel_film.set()
        self.long.close()
        for sitting in list(self._sittings):
            sitting.close()

    # What comes in --------------------------------------------------------------------------------------------------------

    @seated
    def take_picture(self, sitting: Sitting, value: Mapping[str, Any], *controls: Any) -> Generator[tuple[Any, ...], None, None]:
        """-> stage, share, download, status, gallery: the picture, then its preview.

        What is wrong with the picture is said on the stage, and nothing else happens.
        """
        try:
            kept = sitting.open(received(value))
        except IsFilmError as error:
            yield _stage(error=f"{sentence(error)[:-1]}; the tab Film takes it."), *(gr.skip(),) * 4
            return
        except ScumbleError as error:
            yield _stage(error=sentence(error)), *(gr.skip(),) * 4
            return
        yield from self._opened(sitting, kept, controls)

    @seated
    def take_example(self, sitting: Sitting, _value: object, *controls: Any) -> Generator[tuple[Any, ...], None, None]:
        """-> stage, share, download, status, gallery, as :meth:`take_picture`."""
        yield from self._opened(sitting, sitting.open(self._example), controls)

    def _opened(self, sitting: Sitting, kept: Kept, controls: Sequence[Any]) -> Generator[tuple[Any, ...], None, None]:
        sitting.turn()  # a preview that is still on its way shows another picture
        stage = gr.HTML(before=shown(kept.small), after="", note="Painting a preview …", error="", restored=None)
        yield stage, *(gr.skip(),) * 3, gr.HTML(content=kept.key)
        yield *self.preview(sitting, *controls), gr.skip()

    @seated
    def take_styles(self, sitting: Sitting, value: Mapping[str, Any]) -> Any:
        """-> gallery, with the visitor's own styles; the last one that arrived is picked."""
        problems: list[str] = []
        chosen = ""
        for sent in value["files"]:
            try:
                chosen = sitting.add_style(received(sent)).source
            except ScumbleError as error:
                problems.append(f"{sent['name']}: {error}.")
        own = [{"source": o.source, "title": Path(o.upload.name).stem, "thumbnail": o.thumbnail} for o in sitting.own.values()]
        return gr.HTML(own=own, chosen=chosen, error=" ".join(problems), beat=next(_BEATS))

    @seated
    def pick(self, sitting: Sitting, value: Mapping[str, Any], *controls: Any) -> tuple[Any, ...]:
        """-> stage, share, download, status: another style, or another blend."""
        terms = tuple((float(weight), str(source)) for weight, source in value["terms"])
        try:
            sitting.look = replace(sitting.look, terms=terms)
        except ScumbleError as error:
            return _stage(error=sentence(error)), *(gr.skip(),) * 3
        return self.preview(sitting, *controls)

    @seated
    def take_mask(self, sitting: Sitting, value: Mapping[str, Any], *controls: Any) -> tuple[Any, ...]:
        """-> stage, share, download, status: another mask, or another edge of it."""
        try:
            mask = decoded(value["mask"], self.service.settings.max_body)
        except ScumbleError as error:
            return _stage(error=sentence(error)), *(gr.skip(),) * 3
        sitting.look = replace(sitting.look, mask=mask, softness=float(value["feather"]), invert=bool(value["invert"]))
        return self.preview(sitting, *controls)

    def thumbnails(self, asked: Sequence[Any]) -> Mapping[str, Any]:
        """``[key of the picture, names of styles]`` -> the picture in each of them, small; see :func:`.widgets.gallery`.

        Without a key it is the example: what the page shows before there is a picture. What the library doesn't know is left out.
        """
        key, known = str(asked[0]), library.entries()
        names = [name for name in map(str, asked[1][:32]) if name in known]  # a style may have been removed since the page was loaded
        try:
            key = key or self.service.keep(self._example)
            painted = {name: found for name in names if (found := self._thumbnails.peek((key, known[name].key))) is not None}
            missing = [name for name in names if name not in painted]
            for name, picture in self.service.previews(self.service.small(key), missing, THUMBNAIL) if missing else ():
                painted[name] = self._thumbnails.get((key, known[name].key), lambda picture=picture: shown(picture))
            return {"painted": painted}
        except BusyError as error:
            return {"wait": error.retry_after}
        except ScumbleError:
            return {}  # the picture is gone, or was never there: the page goes on without thumbnails

    # What goes out --------------------------------------------------------------------------------------------------------

    def set(self, sitting: Sitting, controls: Sequence[Any]) -> None:
        """Take the settings from the controls, in the order of :func:`.page._controls`."""
        strength, keep_color, keep_light, natural, style_scale, quality, method, size, format = controls
        settings = {
            "strength": float(strength),
            "keep_color": float(keep_color),
            "keep_light": float(keep_light),
            "style_scale": None if natural else float(style_scale),
            "quality": quality,
            "method": method,
            "size": int(size) if size else None,
        }
        sitting.look, sitting.format = replace(sitting.look, settings=settings), str(format)

    @seated
    def say(self, sitting: Sitting, *controls: Any) -> tuple[Any, Any, Any]:
        """-> share, download, status: the settings for elsewhere. What was painted, or said, before is not what they give."""
        self.set(sitting, controls)
        shared = sitting.shared()
        status = gr.skip() if sitting.paints else ""
        return gr.HTML(shell=command(shared), python=python(shared)), gr.DownloadButton(visible=False), status

    @seated
    def preview(self, sitting: Sitting, *controls: Any) -> tuple[Any, Any, Any, Any]:
        """-> stage, share, download, status: what the settings would give, unless a later preview has overtaken this one."""
        said = self.say(sitting, *controls)
        if not sitting.is_open:
            return gr.skip(), *said
        turn = sitting.turn()
        try:
            painted = sitting.preview()
        except Exception as error:
            return _stage(error=sentence(error)), *said
        if not sitting.is_latest(turn):
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        note = "Preview, before refining" if sitting.refines() else "Preview"
        return _stage(after=shown(painted), note=note, error=""), *said

    @seated
    def widen(self, sitting: Sitting, *controls: Any) -> tuple[Any, ...]:
        """-> natural, stage, share, download, status: who moves the slider of the brush wants it to be of that size."""
        strength, keep_color, keep_light, _, *others = controls
        return False, *self.preview(sitting, strength, keep_color, keep_light, False, *others)

    @seated
    def paint(self, sitting: Sitting, *controls: Any) -> Generator[tuple[Any, ...], None, None]:
        """-> stage, status, paint, stop, download, past, again and again until the painting is done.

        Who goes on to another picture or other settings meanwhile keeps what is shown of them: the painting goes into the history.
        """
        self.set(sitting, controls)
        news: queue.Queue[Any] = queue.Queue()
        sitting.cancel = cancel = Event()

        def progress(done: int, total: int, _loss: float) -> None:
            news.put((done, total))

        def preview(unfinished: Picture) -> None:
            if sitting.is_at_hand(work):
                news.put(shown(unfinished))

        try:
            work, refines = sitting.at_hand(), sitting.refines()
            slots = self.long if refines else self.service.slots
            future = slots.submit(lambda: sitting.paint(work, progress=progress, preview=preview, cancel=cancel))
        except ScumbleError as error:
            yield (gr.skip(), widgets.said(sentence(error), bad=True), *(gr.skip(),) * 4)
            return
        future.add_done_callback(lambda _: news.put(None))
        sitting.paints = True
        try:
            text = "Waiting for a free painter …" if slots.taken > slots.workers else "Painting …"
            yield gr.skip(), widgets.progress(0, text), gr.Button(visible=False), gr.Button(visible=refines), gr.skip(), gr.skip()
            yield from _followed(news)
            painting = future.result()
        except Exception as error:  # whatever it is, the button has to come back
            yield (
                gr.skip(),
                widgets.said(sentence(error), bad=True),
                gr.Button(visible=True),
                gr.Button(visible=False),
                gr.skip(),
                gr.skip(),
            )
            return
        finally:
            sitting.paints = False
            if not future.done():  # the visitor has gone
                cancel.set()
                future.cancel()
        buttons = gr.Button(visible=True), gr.Button(visible=False)
        if not sitting.is_at_hand(work):
            yield gr.skip(), widgets.said(ELSEWHERE), *buttons, gr.skip(), _past(sitting)
            return
        sitting.turn()  # a preview that is still on its way is older than this
        stage = _stage(after=painting.shown, note=painting.note, error="")
        yield stage, widgets.said(""), *buttons, _download(painting), _past(sitting, painting)

    @seated
    def stop(self, sitting: Sitting) -> Any:
        """-> stop: the refinement ends with its best so far."""
        sitting.cancel.set()
        return gr.Button(visible=False)

    @seated
    def back(self, sitting: Sitting, value: Mapping[str, Any]) -> tuple[Any, ...]:
        """-> stage, gallery, status, download, past, share, and the controls: a painting from this sitting, with all its settings."""
        try:
            painting = sitting.back(int(value["id"]))
        except ScumbleError as error:
            return gr.skip(), gr.skip(), widgets.said(sentence(error), bad=True), *(gr.skip(),) * 12
        look, kept = painting.look, sitting.kept()
        s = look.settings
        mask = {"mask": _address(look.mask), "feather": look.softness, "invert": look.invert, "at": next(_BEATS)}
        sitting.turn()
        shared = sitting.shared()
        return (
            _stage(before=shown(kept.small), after=painting.shown, note=painting.note, error="", restored=mask),
            gr.HTML(restored={"terms": look.terms, "at": next(_BEATS)}, content=kept.key),
            "",
            _download(painting),
            _past(sitting, painting),
            gr.HTML(shell=command(shared), python=python(shared)),
            s["strength"], s["keep_color"], s["keep_light"], s["style_scale"] is None, s["style_scale"] or 1.0,
            s["quality"], s["method"], s["size"] or 0, painting.format,
        )  # fmt: skip


def received(sent: Mapping[str, Any]) -> Upload:
    """A file that the page has sent: read, and gone from where Gradio put it. InputError if it is not there.

    The path comes back from the browser, so it may say anything: only Gradio's own folder of uploads counts.
    """
    place, folder = Path(str(sent["path"])).resolve(), Path(get_upload_folder()).resolve()
    if not place.is_relative_to(folder) or not place.is_file():
        raise InputError("the file did not arrive; send it once more")
    data = place.read_bytes()
    with suppress(OSError):  # another visitor has sent the same file and it is gone already
        place.unlink()
        place.parent.rmdir()
    return Upload(str(sent["name"]), data)


def _stage(**props: Any) -> Any:
    return gr.HTML(beat=next(_BEATS), **props)


def sentence(error: Exception) -> str:
    """An error, as the page says it; what nobody has foreseen, the log says."""
    if isinstance(error, MemoryError):
        return "Out of memory; take a smaller picture."
    if isinstance(error, CancelledError):
        return "The service is closing."
    if not isinstance(error, ScumbleError):
        log.error("the page: something went wrong", exc_info=error)
        return "Something went wrong; the service's log says more."
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _followed(news: queue.Queue[Any]) -> Generator[tuple[Any, ...], None, None]:
    """What the page shows while a painting is made, until it is (None in the queue): at most four times a second."""
    began = seen = 0.0
    while (item := news.get()) is not None:
        if isinstance(item, str):
            yield _stage(after=item, note="Not done yet", error=""), *(gr.skip(),) * 5
        elif time.monotonic() - seen > PATIENCE:
            seen = time.monotonic()
            began = began or seen  # what comes before the first step, loading nets, says nothing about the time the others take
            done, total = item
            left = (seen - began) / done * (total - done) if done else None
            text = f"Step {done} of {total}" + ("" if left is None else f" · {duration(left)} left")
            yield gr.skip(), widgets.progress(done / max(1, total), text), *(gr.skip(),) * 4


def duration(seconds: float) -> str:
    """For people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _download(painting: Painting) -> Any:
    size = painting.path.stat().st_size
    text = f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{max(1, size // 1000)} KB"
    return gr.DownloadButton(f"Download {painting.path.suffix[1:].upper()} · {text}", value=str(painting.path), visible=True)


def _past(sitting: Sitting, current: Painting | None = None) -> Any:
    items = [{"id": p.number, "title": p.title, "how": _how(p), "thumbnail": p.thumbnail} for p in reversed(sitting.paintings)]
    return gr.HTML(items=items, current=current.number if current else 0)


def _how(painting: Painting) -> str:
    """What tells paintings in the same style apart."""
    settings = defaults() | dict(painting.look.settings)
    return f"{settings['quality']} · {settings['strength']:g}"


def _address(mask: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(mask).decode()}" if mask else ""
