"""The film tab: a moving picture in, the same painted out, with progress and a stop that keeps what is done."""

from __future__ import annotations

import queue
import time
from collections.abc import Generator
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from scumble.errors import InputError, ScumbleError
from scumble.serve.studio import widgets
from scumble.serve.studio.desk import PATIENCE, Desk, duration, seated, sentence
from scumble.serve.studio.sitting import Sitting
from scumble.video.animation import ANIMATIONS
from scumble.video.film import film
from scumble.video.steady import USUAL

FILMS = (".mp4", ".mov", ".mkv", ".webm", ".m4v", *ANIMATIONS)
AS_PICTURE = ""
"""The choice that takes the style, or the blend, of the picture tab."""


def film_tab(desk: Desk, sitting: gr.State, quiet: dict[str, Any]) -> None:
    """Lay the tab out, within a ``gr.Tab``; ``quiet`` are options for every event."""
    studio, usual = _FilmDesk(desk), {name: parameter.default for name, parameter in signature(film).parameters.items()}
    with gr.Row(elem_id="sc-film", equal_height=False):
        with gr.Column(elem_classes=["sc-panel"]):
            source = gr.File(label="Film", file_types=list(FILMS), type="filepath", height=150, elem_id="sc-film-source")
            styles = [("The styles of the picture tab", AS_PICTURE)]
            styles += [(f"{e.title} · {e.artist}" if e.artist else e.title, e.name) for e in widgets.styles()]
            style = gr.Dropdown(styles, value=AS_PICTURE, label="Style", filterable=True, elem_id="sc-film-style")
            strength = widgets.slider(0, 2, usual["strength"], step=0.01, label="Strength", elem_id="sc-film-strength")
            keep_color = widgets.slider(0, 1, usual["keep_color"], step=0.01, label="Keep my colours", elem_id="sc-film-keep")
            steady = widgets.slider(
                0,
                1,
                USUAL if find_spec("cv2") is not None else 0,  # OpenCV finds the movement
                step=0.05,
                label="Steadiness",
                info="How much is carried from frame to frame",
                elem_id="sc-film-steady",
            )
            size = gr.Number(0, label="Longer side in pixels", info="0: as the film", precision=0, elem_id="sc-film-size")
            with gr.Row():
                start = gr.Button("Paint the film", variant="primary", elem_id="sc-film-paint")
                stop = gr.Button("Stop, keep what is done", visible=False, elem_id="sc-film-stop")
            status = gr.HTML(elem_classes=["sc-bare"], apply_default_css=False, elem_id="sc-film-status")
        with gr.Column(elem_classes=["sc-panel"]):
            empty = gr.HTML(
                '<p class="sc-later">The painted film will be shown here.</p>', elem_classes=["sc-bare"], apply_default_css=False
            )
            shown = gr.Video(label="Painted", interactive=False, visible=False, elem_id="sc-film-shown", height=460)
            # browsers play animations as images, and not at all as films
            moving = gr.Image(label="Painted", interactive=False, visible=False, buttons=[], elem_id="sc-film-moving", height=460)
            download = gr.DownloadButton("Download", visible=False, elem_id="sc-film-download")
    start.click(
        studio.paint,
        [sitting, source, style, strength, keep_color, steady, size],
        [status, start, stop, empty, shown, moving, download],
        trigger_mode="once",
        **quiet,
    )
    stop.click(studio.stop, sitting, stop, queue=False, **quiet)


class _FilmDesk:
    """What the tab's events do."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @seated
    def stop(self, sitting: Sitting) -> Any:
        """-> stop."""
        sitting.cancel_film.set()
        return gr.Button(visible=False)

    @seated
    def paint(
        self, sitting: Sitting, source: str | None, style: str, strength: float, keep_color: float, steady: float, size: float | None
    ) -> Generator[tuple[Any, ...], None, None]:
        """-> status, start, stop, empty, shown, moving, download, again and again until the film is done."""
        news: queue.Queue[tuple[int, int | None] | None] = queue.Queue()
        sitting.cancel_film = cancel = Event()
        settings = self.desk.service.settings
        try:
            if source is None:
                raise InputError("there is no film yet; choose one first")
            taken = Path(source)
            chosen = sitting.style() if style == AS_PICTURE else self.desk.service.style(style)
            suffix = taken.suffix.lower()
            target = sitting.place("film") / f"{taken.stem}-painted{suffix if suffix in ANIMATIONS else '.mp4'}"
            future = self.desk.long.submit(
                lambda: film(
                    taken,
                    chosen,
                    target,
                    stylizer=self.desk.service.painter,
                    strength=float(strength),
                    keep_color=float(keep_color),
                    steady=float(steady),
                    size=int(size) if size else None,
                    max_pixels=settings.max_pixels,
                    memory=settings.memory,
                    overwrite=True,
                    progress=lambda done, total: news.put((done, total)),
                    stop=cancel.is_set,
                )
            )
        except ScumbleError as error:
            yield widgets.said(sentence(error), bad=True), *(gr.skip(),) * 2, *_nothing()
            return
        future.add_done_callback(lambda _: news.put(None))
        began, seen = time.monotonic(), 0.0
        yield widgets.progress(0, "Painting …"), gr.Button(visible=False), gr.Button(visible=True), *_nothing()
        try:
            while (item := news.get()) is not None:
                if time.monotonic() - seen < PATIENCE:
                    continue
                seen = time.monotonic()
                yield widgets.progress(*_progress(*item, seen - began)), *(gr.skip(),) * 6
            done = future.result()
        except Exception as error:  # whatever it is, the button has to come back
            told = sentence(error).replace(str(taken), f"The film {taken.name}").replace(str(target), target.name)
            yield widgets.said(told, bad=True), gr.Button(visible=True), gr.Button(visible=False), *(gr.skip(),) * 4
            return
        finally:
            if not future.done():  # the visitor has gone
                cancel.set()
                future.cancel()
        width, height = done.size
        text = f"{done.frames} {'frame' if done.frames == 1 else 'frames'} · {width} × {height} · {duration(done.seconds)}" + (
            " · stopped early" if done.interrupted else ""
        )
        file = gr.DownloadButton(f"Download {target.suffix[1:].upper()}", value=str(target), visible=True)
        if suffix in ANIMATIONS:
            result = gr.Video(value=None, visible=False), gr.Image(value=str(target), visible=True)
        else:
            result = gr.Video(value=str(target), visible=True), gr.Image(value=None, visible=False)
        yield widgets.said(text), gr.Button(visible=True), gr.Button(visible=False), gr.HTML(visible=False), *result, file


def _nothing() -> tuple[Any, ...]:
    """-> empty, shown, moving, download: no film, nor one of before, whose file is gone."""
    return gr.HTML(visible=True), gr.Video(value=None, visible=False), gr.Image(value=None, visible=False), gr.DownloadButton(visible=False)


def _progress(done: int, total: int | None, elapsed: float) -> tuple[float, str]:
    if not total or total < done:
        return 0.0, f"Frame {done}"
    left = f" · {duration(elapsed / done * (total - done))} left" if done else ""
    return done / total, f"Frame {done} of {total}{left}"
