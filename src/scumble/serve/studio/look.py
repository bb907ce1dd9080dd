"""How the page looks: files of ``static/`` and Gradio's variables. Fonts are the system's own; nothing comes from elsewhere."""

from __future__ import annotations

from functools import lru_cache
from inspect import signature
from pathlib import Path

from gradio.themes import Base

STATIC = Path(__file__).parent / "static"


@lru_cache
def asset(name: str) -> str:
    """The text of a file in ``static/``."""
    return (STATIC / name).read_text(encoding="utf-8")


COLOURS = {
    "body_background_fill": "var(--sc-page)",
    "body_text_color": "var(--sc-ink)",
    "body_text_color_subdued": "var(--sc-soft)",
    "background_fill_primary": "var(--sc-card)",
    "background_fill_secondary": "var(--sc-well)",
    "block_background_fill": "var(--sc-card)",
    "block_border_color": "var(--sc-line)",
    "block_label_text_color": "var(--sc-soft)",
    "block_title_text_color": "var(--sc-ink)",
    "block_info_text_color": "var(--sc-soft)",
    "border_color_primary": "var(--sc-line)",
    "border_color_accent": "var(--sc-accent)",
    "color_accent": "var(--sc-accent)",
    "color_accent_soft": "var(--sc-tint)",
    "slider_color": "var(--sc-accent)",
    "input_background_fill": "var(--sc-page)",
    "input_border_color": "var(--sc-line)",
    "input_placeholder_color": "var(--sc-soft)",
    "button_primary_background_fill": "var(--sc-accent)",
    "button_primary_background_fill_hover": "var(--sc-accent)",
    "button_primary_text_color": "var(--sc-on-accent)",
    "button_secondary_background_fill": "var(--sc-card)",
    "button_secondary_background_fill_hover": "var(--sc-well)",
    "button_secondary_text_color": "var(--sc-ink)",
    "button_secondary_border_color": "var(--sc-line)",
    "checkbox_background_color_selected": "var(--sc-accent)",
    "checkbox_border_color_selected": "var(--sc-accent)",
    "checkbox_label_background_fill": "var(--sc-page)",
    "checkbox_label_background_fill_selected": "var(--sc-tint)",
    "checkbox_label_border_color_selected": "var(--sc-accent)",
    "checkbox_label_text_color_selected": "var(--sc-ink)",
    "link_text_color": "var(--sc-accent)",
}
"""Gradio's variables, in terms of those that ``page.css`` defines (and defines anew for the dark)."""


def theme() -> Base:
    """Gradio's parts in the page's colours and the system's fonts."""
    base = Base(
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace"],
        radius_size="lg",
    )
    known = signature(base.set).parameters
    return base.set(**{name + shade: value for name, value in COLOURS.items() for shade in ("", "_dark") if name + shade in known})
