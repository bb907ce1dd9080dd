"""The page's own parts: markup and script from ``static/``, wrapped as Gradio components that talk through ``value`` and events."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, Protocol

import gradio as gr

from scumble import library
from scumble.serve.studio.look import asset

PERIODS = ("Post-Impressionism", "Japanese Ukiyo-e", "Impressionism", "Modern", "Chinese Classical")
"""What comes first: the manners that can be told at the size of a thumbnail. The others follow in the library's order."""


class Listener(Protocol):
    """Registers a function for an event, as Gradio's components do."""

    def __call__(self, fn: Callable[..., Any], inputs: Any = None, outputs: Any = None, **options: Any) -> Any: ...


def head() -> gr.HTML:
    """The name, what it is for, the way to the API, light or dark."""
    return _part("head")


def stage(limit: int) -> gr.HTML:
    """The picture: dropped, pasted, chosen or photographed; before and after; the mask. ``limit`` is in bytes."""
    return _part("stage", elem_id="sc-stage-block", seated="", before="", after="", note="", error="", restored=None, limit=limit, beat=0)


def gallery(limit: int, thumbnails: Callable[[Sequence[Any]], Mapping[str, Any]]) -> gr.HTML:
    """The styles of the library and the visitor's own.

    ``thumbnails`` is called with (key of the picture, names of styles); it answers ``{"painted": {name: address}}``, ``{"wait": seconds}``,
    or ``{}`` if the picture is not there any more.
    """

    def answer(asked: Sequence[Any]) -> Mapping[str, Any]:
        return thumbnails(asked)  # Gradio marks the function it is given, which a method does not suffer

    entries = styles()
    markup = asset("gallery.html").replace("@count", str(len(entries))).replace("@chips", _chips(entries))
    markup = markup.replace("@cards", "".join(_card(entry) for entry in entries))
    return _part(
        "gallery",
        markup,
        elem_id="sc-gallery-block",
        seated="",
        content="",
        own=[],
        chosen="",
        restored=None,
        error="",
        limit=limit,
        beat=0,
        server_functions=[answer],
    )


def styles() -> list[library.Entry]:
    """All styles that have a name, in the order in which the page shows them."""
    return sorted(library.entries().values(), key=lambda entry: PERIODS.index(entry.group) if entry.group in PERIODS else len(PERIODS))


def past() -> gr.HTML:
    """What was painted in this sitting."""
    return _part("past", elem_id="sc-past-block", items=[], current=0)


def share() -> gr.HTML:
    """The settings as a command and as Python, with buttons that copy them."""
    return _part("share", shell="", python="")


def slider(low: float, high: float, value: float, **options: Any) -> gr.Slider:
    """A slider that takes what is typed into its field as the nearest number that it has.

    Gradio's own answers with an error, and brings the number within its limits when the field is left, of which it tells nobody. As an
    output it may be given a number, but no other component in its place, which would be Gradio's own.
    """
    made = gr.Slider(low, high, value, **options)
    made.preprocess = lambda payload: min(high, max(low, payload or 0.0))
    return made


def on(part: gr.HTML, event: str) -> Listener:
    """What registers a function for an event that the part's own script triggers."""
    return partial(getattr(part, event))


def progress(done: float, text: str) -> str:
    """A bar, ``done`` of 1, and what it stands for; told to screen readers."""
    return (
        f'<div class="sc-status" role="status"><progress max="1" value="{done:.3f}" aria-label="Progress"></progress>'
        f"<p>{escape(text)}</p></div>"
    )


def said(text: str, *, bad: bool = False) -> str:
    """A sentence below the buttons; a bad one is read out at once."""
    if not text:
        return ""
    return (
        f'<div class="sc-status"><p class="sc-error" role="alert">{escape(text)}</p></div>'
        if bad
        else f'<div class="sc-status" role="status"><p>{escape(text)}</p></div>'
    )


def _part(name: str, markup: str | None = None, **props: Any) -> gr.HTML:
    return gr.HTML(
        None,
        html_template=markup or asset(f"{name}.html"),
        js_on_load=asset(f"{name}.js"),
        apply_default_css=False,
        elem_classes=["sc-bare"],
        **props,
    )


def _chips(entries: Sequence[library.Entry]) -> str:
    periods = list(dict.fromkeys(entry.group for entry in entries))
    chips = [("", "All"), *((period, period) for period in periods), ("yours", "Yours")]
    return "".join(
        f'<button type="button" data-period="{escape(key)}" aria-pressed="{str(not key).lower()}">{escape(text)}</button>'
        for key, text in chips
    )


def plain(text: str) -> str:
    """As it is searched: in small letters, without accents. ``gallery.js`` does the same with what is typed."""
    return "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))


def _card(entry: library.Entry) -> str:
    told = escape(", ".join(part for part in (entry.title, entry.artist, entry.year) if part))
    words = plain(" ".join([entry.name, entry.title, entry.artist, entry.year, entry.medium, entry.group]))
    return (
        f'<div class="sc-card" data-source="{escape(entry.name)}" data-title="{escape(entry.title)}" data-period="{escape(entry.group)}" '
        f'data-words="{escape(words)}"><button type="button" class="sc-pick" aria-pressed="false" tabindex="-1" aria-label="{told}" '
        f'title="{told}"><span class="sc-thumb"><img alt=""></span><span class="sc-title">{escape(entry.title)}</span>'
        f'<span class="sc-artist">{escape(entry.artist or "Yours")}</span></button>'
        f'<button type="button" class="sc-plus" tabindex="-1" title="Blend with the others"></button></div>'
    )
