"""Paint the pairs of a CSV (columns content, style) into a folder, as CONTENT--STYLE.png.

    paint_pairs.py pairs.csv OUT --content DIR [--style DIR] [--method wct] [--quality fine]

Without --style, styles are names of the library. What is in OUT already is left alone, so an interrupted run goes on where it was;
files are written whole or not at all. With --square, contents and styles are squeezed to squares before they are painted: scores that
squeeze them afterwards take a standing photograph and a lying painting in two directions, and strokes that are alike no longer look it.
With --style-fit stretch each style is brought to the shape of its content, which stays as it is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from contact_sheet import find, read_pairs
from scumble import Picture, Stylizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--content", type=Path, required=True, help="folder of the contents")
    parser.add_argument("--style", type=Path, help="folder of the styles")
    parser.add_argument("--square", type=int, metavar="PIXELS", help="squeeze contents and styles to squares of so many pixels first")
    parser.add_argument("--device", default="auto")
    settings = parser.add_argument_group("settings of the Stylizer, its defaults where not given")
    names = [settings.add_argument("--method").dest, settings.add_argument("--quality").dest]
    names += [settings.add_argument("--style-fit").dest, settings.add_argument("--steps", type=int).dest]
    names += [settings.add_argument(option, type=float).dest for option in ("--strength", "--style-scale", "--keep-color", "--grain")]
    asked = parser.parse_args()
    if asked.square and not asked.style:
        parser.error("--square reshapes pictures, and a name is none: give their folder with --style")

    def seen(path: Path) -> Picture:
        picture = Picture.open(path)
        return picture.resized(width=asked.square, height=asked.square) if asked.square else picture

    asked.out.mkdir(parents=True, exist_ok=True)
    painter = Stylizer(asked.device)
    chosen = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    todo = [(c, s, asked.out / f"{c}--{s}.png") for c, s in read_pairs(asked.pairs)]
    for content, style, target in todo:
        if target.exists():
            print(f"{target.name} is there already")
            continue
        start = time.perf_counter()
        photo = seen(find(asked.content, content))
        # no Style of a picture: refinement sees more than that holds
        source = seen(find(asked.style, style)) if asked.style else style
        painter(photo, source, **chosen).save(target)
        print(f"{target.name} {time.perf_counter() - start:.2f} s", flush=True)


if __name__ == "__main__":
    main()
