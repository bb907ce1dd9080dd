"""Pictures painted window by window, so that memory is bounded whatever their size.

What makes it possible are frozen statistics: with them given, a net sees no farther than its reach, and tiles that overlap by that
are the whole picture's pixels. Where the statistics come from is :func:`~scumble.tiling.local.freeze`'s matter; files are
:mod:`scumble.large`'s.
"""

from scumble.tiling.exact import Sweep as Sweep
from scumble.tiling.local import LOOK_BYTES as LOOK_BYTES
from scumble.tiling.local import STATISTICS as STATISTICS
from scumble.tiling.local import Limit as Limit
from scumble.tiling.local import Local as Local
from scumble.tiling.local import Painting as Painting
from scumble.tiling.local import Read as Read
from scumble.tiling.local import bytes_a_pixel as bytes_a_pixel
from scumble.tiling.local import freeze as freeze
from scumble.tiling.local import least_memory as least_memory
from scumble.tiling.local import missed as missed
from scumble.tiling.local import paint as paint
from scumble.tiling.local import reach as reach
from scumble.tiling.local import sweep_over as sweep_over
from scumble.tiling.scales import DETAILS as DETAILS
from scumble.tiling.scales import Layer as Layer
from scumble.tiling.scales import resampled as resampled
from scumble.windows import LEAST_TILE as LEAST_TILE
from scumble.windows import Window as Window
from scumble.windows import is_out_of_memory as is_out_of_memory
from scumble.windows import largest_side as largest_side
from scumble.windows import parse_bytes as parse_bytes
from scumble.windows import partition as partition
from scumble.windows import too_small as too_small
