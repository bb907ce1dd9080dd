"""Picture files as containers: samples and metadata in, bytes out. What the samples mean as colours is ``picture``'s matter.

Pillow's plug-ins are called one by one instead of through ``PIL.Image.open``: that function compares every picture with the
process-wide ``MAX_IMAGE_PIXELS``, which is not ours to change (other threads rely on it) and would warn about pictures that
our own limit allows. Called directly, a plug-in reads the header only, we compare, and then it decodes.
"""

from scumble._formats.kinds import FORMATS, SUFFIXES, Metadata, Raster, check_sides, check_suffix, deep_is_there, format_named, require_deep
from scumble._formats.reading import is_animated, open_moving, raster_of, read, read_recipe, read_size
from scumble._formats.writing import write

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Metadata",
    "Raster",
    "check_sides",
    "check_suffix",
    "deep_is_there",
    "format_named",
    "is_animated",
    "open_moving",
    "raster_of",
    "read",
    "read_recipe",
    "read_size",
    "require_deep",
    "write",
]
