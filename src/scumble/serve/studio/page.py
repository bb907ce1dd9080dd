"""The page: what stands where, and what happens when something is touched."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gradio as gr

from scumble.serve.service import defaults
from scumble.serve.studio import widgets
from scumble.serve.studio.desk import Desk
from scumble.serve.studio.sitting import FORMATS, ORIGINAL, Sitting
from scumble.stylizer import METHODS, QUALITIES

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""For every event: what is going on the page says itself, and programs have an API of their own."""
LIVE: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""For what is moved: of all that happens while a preview is painted, only the last counts."""
_QUALITY = {"draft": "Draft", "good": "Good", "fine": "Fine", "best": "Best"}
_METHOD = {
    "generator": "One trained network",
    "linear": "Sum of features",
    "adain": "Means and deviations",
    "wct": "Whitening and colouring",
    "ot": "Optimal transport",
}


def lay_out(desk: Desk) -> gr.Blocks:
    """The page, to be mounted with :func:`scumble.serve.studio.mount`."""
    limit = desk.service.settings.max_body
    with gr.Blocks(title="Scumble", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        sitting = gr.State(None, delete_callback=_close)
        widgets.head()
        with gr.Tabs():
            with gr.Tab("Picture"), gr.Row(elem_id="sc-layout"):
                with gr.Column(elem_id="sc-main"):
                    stage = widgets.stage(limit)
                    with gr.Row(elem_id="sc-actions"):
                        quality = _quality(desk.service.settings.max_steps)
                        stop = gr.Button("Stop, keep the best so far", visible=False, elem_id="sc-stop")
                        download = gr.DownloadButton("Download", visible=False, elem_id="sc-download")
                        paint = gr.Button("Paint in full size", variant="primary", elem_id="sc-paint")
                        status = gr.HTML(elem_classes=["sc-bare"], apply_default_css=False, elem_id="sc-status")
                    past = widgets.past()
                    with gr.Accordion("The same on the command line or in Python", open=False, elem_id="sc-elsewhere"):
                        share = widgets.share()
                with gr.Column(elem_id="sc-side"):
                    gallery = widgets.gallery(limit, desk.thumbnails)
                    with gr.Column(elem_id="sc-controls"):
                        controls = _controls(quality)
            if find_spec("av") is not None:
                from scumble.serve.studio.film import film_tab

                with gr.Tab("Film"):
                    film_tab(desk, sitting, QUIET)

        settings = list(controls.values())
        seen = [stage, share, download, status]
        # what is clicked before the sitting is there would find none
        page.load(desk.sit, None, sitting, **QUIET).success(_seated, None, [stage, gallery], **QUIET)
        for event, take in (("picture", desk.take_picture), ("example", desk.take_example)):
            widgets.on(stage, event)(take, [sitting, stage, *settings], [*seen, gallery], **QUIET)
        for part, event, take in ((gallery, "pick", desk.pick), (stage, "mask", desk.take_mask)):
            widgets.on(part, event)(take, [sitting, part, *settings], seen, **LIVE)
        widgets.on(gallery, "own")(desk.take_styles, [sitting, gallery], gallery, **QUIET)
        controls["style_scale"].input(desk.widen, [sitting, *settings], [controls["natural"], *seen], **LIVE)
        moved = [control.input for name, control in controls.items() if name not in ("format", "style_scale")]
        gr.on(moved, desk.preview, [sitting, *settings], seen, **LIVE)
        controls["format"].input(desk.say, [sitting, *settings], [share, download, status], **QUIET)

        painting = [stage, status, paint, stop, download, past]
        paint.click(desk.paint, [sitting, *settings], painting, trigger_mode="once", **QUIET)
        stop.click(desk.stop, sitting, stop, queue=False, **QUIET)
        widgets.on(past, "back")(desk.back, [sitting, past], [stage, gallery, status, download, past, share, *settings], **QUIET)
    page.queue(default_concurrency_limit=None, max_size=4 * desk.service.settings.queue + 64, api_open=False)
    return page


def _seated(request: gr.Request) -> tuple[gr.HTML, gr.HTML]:
    return gr.HTML(seated=request.session_hash), gr.HTML(seated=request.session_hash)


def _close(sitting: Sitting | None) -> None:
    if sitting is not None:
        sitting.close()


def _quality(most: int) -> gr.Radio:
    """``most`` is how many steps the service takes."""
    refines = find_spec("torch") is not None
    return gr.Radio(
        [(_QUALITY[name], name) for name, steps in QUALITIES.items() if steps <= (most if refines else 0)],
        value=defaults()["quality"],
        label="Quality",
        info=None if refines else "Fine and best need PyTorch on the server",
        elem_id="sc-quality",
    )


def _controls(quality: gr.Radio) -> dict[str, Any]:
    """In the order in which :meth:`~scumble.serve.studio.desk.Desk.set` takes them."""
    usual = defaults()
    strength = widgets.slider(0, 2, usual["strength"], step=0.01, label="Strength", elem_id="sc-strength")
    keep = widgets.slider(0, 1, usual["keep_color"], step=0.01, label="Keep my colours", elem_id="sc-keep")
    light = widgets.slider(0, 1, usual["keep_light"], step=0.01, label="Keep my light", elem_id="sc-light")
    scale = widgets.slider(0.25, 4, 1, step=0.05, label="Brush size", elem_id="sc-brush")
    natural = gr.Checkbox(usual["style_scale"] is None, label="As wide as the artist's own brush", elem_id="sc-natural")
    with gr.Accordion("More", open=False, elem_id="sc-more"):
        method = gr.Dropdown([(_METHOD[name], name) for name in METHODS], value=usual["method"], label="Method", elem_id="sc-method")
        size = gr.Number(0, label="Longer side in pixels", info="0: as the original", precision=0, elem_id="sc-size")
        format = gr.Dropdown(list(FORMATS), value=ORIGINAL, label="File format", elem_id="sc-format")
    return {
        "strength": strength, "keep_color": keep, "keep_light": light, "natural": natural, "style_scale": scale, "quality": quality,
        "method": method, "size": size, "format": format,
    }  # fmt: skip
