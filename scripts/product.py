"""The picture of docs/styles.md on products: a cup cut out, on white, painted: ``product.py OUT.jpg``.

The cup is scikit-image's (Pikolo Espresso Bar, CC0). Nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

from contact_sheet import grid, save, sheet
from scumble import Picture, Style, Stylizer, library

STYLES = ("great-wave", "irises", "composition-viii")
SAUCER = (63, 26, 455, 366)
"""Left, top, right, bottom of the ellipse that is cut out."""


def product() -> Picture:
    """600 x 760 pixels, of which the saucer takes a fifth."""
    photograph = Image.fromarray(data.coffee())
    mask = Image.new("L", photograph.size)
    ImageDraw.Draw(mask).ellipse(SAUCER, fill=255)
    page = Image.new("RGB", (760, 600), "white")
    page.paste(
        photograph,
        (760 // 2 - (SAUCER[0] + SAUCER[2]) // 2, 600 // 2 - (SAUCER[1] + SAUCER[3]) // 2),
        mask.filter(ImageFilter.GaussianBlur(1)),
    )
    return Picture.from_array(np.asarray(page))


def main() -> None:
    painter, content = Stylizer(), product()
    styles = [(Style.named(name), library.entry(name).title) for name in STYLES]
    whole = grid(painter, [(content, "Statistics of the whole page")], styles, statistics="exact")
    apart = grid(painter, [(content, "Statistics of the product, as usual")], styles)
    save(sheet([*whole, *apart], 380), Path(sys.argv[1]), limit=400_000)


if __name__ == "__main__":
    main()
