"""Pictures that memory can't hold: read by rows, painted by tiles, written by rows.

    from scumble import large
    large.paint("panorama.tif", ["great-wave"], "painted.tif", memory=1_000_000_000)

Files are opened here by libvips and not by :mod:`scumble.picture`, which holds pictures whole; what samples mean as colours, and what
becomes of profile, EXIF and XMP, is said there for both.
"""

from scumble.large.painting import MEMORY as MEMORY
from scumble.large.painting import STREAMED as STREAMED
from scumble.large.painting import Outcome as Outcome
from scumble.large.painting import Plan as Plan
from scumble.large.painting import TooLittleMemoryError as TooLittleMemoryError
from scumble.large.painting import paint as paint
from scumble.large.reading import MOST_PIXELS as MOST_PIXELS
from scumble.large.reading import Source as Source
from scumble.large.reading import is_installed as is_installed
from scumble.large.writing import FORMATS as FORMATS
from scumble.large.writing import is_begun as is_begun
