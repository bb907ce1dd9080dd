"""Moving pictures: frames in, frames out, sound kept, and no flicker between them.

    from scumble.video import film
    film("holiday.mp4", "great-wave", "painted.mp4", steady=0.5)

Films need the extra ``scumble[video]`` (PyAV, and OpenCV for movement and cameras); animations and numbered pictures do not.
"""

from __future__ import annotations

from scumble.video.film import Filmed, film, open_clip
from scumble.video.frames import Clip, Frame
from scumble.video.reading import Camera, Raw

__all__ = ["Camera", "Clip", "Filmed", "Frame", "Raw", "film", "open_clip"]
