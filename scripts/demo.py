"""Paint photographs that scikit-image brings with it in some of the built-in styles: ``demo.py OUT.jpg``.

The photographs are an astronaut (NASA, public domain), a cup of coffee (Pikolo Espresso Bar, CC0), a cat (Stefan van der Walt, CC0) and a
rocket (SpaceX, CC0). Nothing is downloaded.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from skimage import data

from contact_sheet import grid, save, sheet, style_title
from scumble import Picture, Style, Stylizer, library

STYLES = ("great-wave", "starry-night", "the-scream", "composition-viii", "water-lilies")


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/contact-sheet.jpg")
    photographs = {"Astronaut": data.astronaut, "Coffee": data.coffee, "Cat": data.chelsea, "Rocket": data.rocket}
    contents = [(Picture.from_array(load()), title) for title, load in photographs.items()]
    known = library.entries()
    styles = [Style.named(name) for name in STYLES if name in known]
    start = time.perf_counter()
    rows = grid(Stylizer(), contents, [(style, style_title(style)) for style in styles])
    seconds = time.perf_counter() - start
    save(sheet(rows), out)
    print(f"{len(contents) * len(styles)} paintings in {seconds:.1f} s: {out}")


if __name__ == "__main__":
    main()
