"""Frames on their way: threads that run ahead, bytes and floats."""

import threading
import time

import numpy as np
import pytest

from scumble.errors import InputError
from scumble.video.frames import ahead, as_bytes, as_float


class TestAhead:
    def test_bounded(self):
        drawn = []
        items = ahead((drawn.append(k) or k for k in range(100)), 3)
        assert next(items) == 0
        time.sleep(0.1)
        assert len(drawn) <= 6
        items.close()
        assert len(drawn) < 10

    def test_order_and_end(self):
        assert list(ahead(ahead(range(50), 2), 3)) == list(range(50))

    def test_errors_come_through(self):
        def items():
            yield 1
            raise InputError("broken")

        with pytest.raises(InputError, match="broken"):
            list(ahead(ahead(items(), 1), 1))

    def test_closing_ends_all_threads(self):
        before = threading.active_count()
        items = ahead(ahead(iter(range(1000)), 1), 1)
        next(items)
        items.close()
        assert threading.active_count() == before


def test_as_bytes_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    np.testing.assert_array_equal(as_bytes(as_float(every)), every)
