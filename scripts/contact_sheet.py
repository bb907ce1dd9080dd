"""Contact sheets: many paintings on one labelled JPEG.

    contact_sheet.py grid OUT.jpg --content A.jpg B.jpg --style great-wave work.jpg [--method wct] [--crop]
    contact_sheet.py pairs OUT.jpg --pairs pairs.csv --content DIR --style DIR --painted DIR [DIR ...]

``grid`` paints every content in every style. ``pairs`` paints nothing: it shows, for each row of pairs.csv, the content, the
style, and CONTENT--STYLE from every folder of painted pictures (scripts/paint_pairs.py makes them).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scumble import Picture, Style, Stylizer
from scumble.picture import SUFFIXES

Cell = tuple[Picture | None, str]
"""A picture and what is written under it."""

LIMIT = 2_000_000
"""Bytes that a sheet may have."""

PAPER, INK = (250, 249, 246), (60, 58, 54)


def sheet(rows: Sequence[Sequence[Cell]], cell: int = 300, *, crop: bool = False) -> Image.Image:
    """Rows of pictures, each reduced to fit ``cell`` × ``cell`` pixels (never enlarged) or cropped to its middle, with their labels."""
    fitted = _middle if crop else _fitted
    font, gap, line = ImageFont.load_default(max(11, cell // 20)), cell // 20, max(16, cell // 13)
    images = [[(fitted(picture, cell) if picture else None, label) for picture, label in row] for row in rows]
    widths = [max((row[k][0].width for row in images if k < len(row) and row[k][0]), default=cell) for k in range(max(map(len, images)))]
    heights = [max((image.height for image, _ in row if image), default=0) + line for row in images]
    whole = Image.new("RGB", (sum(widths) + gap * (len(widths) + 1), sum(heights) + gap * (len(heights) + 1)), PAPER)
    draw, y = ImageDraw.Draw(whole), gap
    for row, height in zip(images, heights, strict=True):
        x = gap
        for (image, label), width in zip(row, widths, strict=False):
            if image:
                whole.paste(image, (x + (width - image.width) // 2, y + height - line - image.height))
            draw.text((x + width // 2, y + height - line // 2), _shortened(label, font, width), INK, font, anchor="mm")
            x += width + gap
        y += height + gap
    return whole


def save(image: Image.Image, path: Path, limit: int = LIMIT) -> Path:
    """Write a JPEG of at most ``limit`` bytes: as little compressed as that allows, reduced if it must be."""
    picture = Picture.from_pil(image)
    while True:
        for quality in (95, 92, 88, 84, 80):
            data = picture.encode("jpeg", quality=quality)
            if len(data) <= limit:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                return path
        picture = picture.resized(width=picture.width * 9 // 10, height=picture.height * 9 // 10)


def grid(
    painter: Stylizer, contents: Sequence[tuple[Picture, str]], styles: Sequence[tuple[Style, str]], **settings: str
) -> list[list[Cell]]:
    """One row a content: itself, then painted in each style; ``settings`` are the Stylizer's."""
    return [
        [(picture, title), *((painter(picture, style, **settings), label) for style, label in styles)]
        for picture, title in contents
    ]  # fmt: skip


def find(folder: Path, stem: str) -> Path:
    """The picture called ``stem`` in ``folder``, whatever its suffix."""
    for suffix in SUFFIXES:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise SystemExit(f"no picture {stem} in {folder}")


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Rows of a CSV with the columns ``content`` and ``style``."""
    with path.open(newline="", encoding="utf-8") as f:
        return [(row["content"], row["style"]) for row in csv.DictReader(f)]


def style_title(style: Style) -> str:
    """``The Great Wave, Hokusai`` as far as it is known, else the style's name."""
    return ", ".join(style.about[k] for k in ("title", "artist") if k in style.about) or style.name


def _fitted(picture: Picture, side: int) -> Image.Image:
    factor = min(1.0, side / max(picture.size))
    return picture.scaled(factor).to_pil().convert("RGB")


def _middle(picture: Picture, side: int) -> Image.Image:
    """``side`` × ``side`` pixels out of the middle, none of them resampled."""
    height, width = min(side, picture.height), min(side, picture.width)
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return picture.to_pil().convert("RGB").crop((left, top, left + width, top + height))


def _shortened(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return label.rstrip(" ,") + "…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    for name in ("grid", "pairs"):
        job = jobs.add_parser(name)
        job.add_argument("out", type=Path)
        job.add_argument("--cell", type=int, default=300, help="longest side of a picture on the sheet (%(default)s)")
        job.add_argument("--crop", action="store_true", help="show the middle of each at 1:1 instead of reducing it")
        job.add_argument("--limit", type=int, default=LIMIT, help="bytes that the sheet may have (%(default)s)")
        if name == "grid":
            job.add_argument("--content", type=Path, nargs="+", required=True)
            job.add_argument("--style", nargs="+", required=True, help="names, pictures, folders or .style files")
            job.add_argument("--method")
        else:
            job.add_argument("--pairs", type=Path, required=True)
            job.add_argument("--content", type=Path, required=True)
            job.add_argument("--style", type=Path, required=True)
            job.add_argument("--painted", type=Path, nargs="+", required=True)
    asked = parser.parse_args()
    if asked.job == "grid":
        painter = Stylizer()
        styles = [(painter.style(s), style_title(painter.style(s))) for s in asked.style]
        rows = grid(
            painter, [(Picture.open(p), p.stem) for p in asked.content], styles, **({"method": asked.method} if asked.method else {})
        )
    else:
        rows = []
        for content, style in read_pairs(asked.pairs):
            named = [(find(asked.content, content), content), (find(asked.style, style), style)]
            named += [(find(folder, f"{content}--{style}"), folder.name) for folder in asked.painted]
            rows.append([(Picture.open(path), label) for path, label in named])
    print(save(sheet(rows, asked.cell, crop=asked.crop), asked.out, asked.limit))


if __name__ == "__main__":
    main()
