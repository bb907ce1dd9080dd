"""A service that runs in a thread of this process, and pictures to send to it."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from scumble.picture import Picture


def _gradient(height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([x / width, y / height, (x + y) / (height + width)], -1)


@pytest.fixture(scope="session")
def photo():
    """A JPEG of 64 x 48 pixels."""
    return Picture.from_array(_gradient(48, 64)).encode("jpeg")


@pytest.fixture(scope="session")
def brushwork():
    """A PNG that can be a style."""
    return Picture.from_array(np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)).encode("png")


@pytest.fixture(scope="session")
def half():
    """A mask, white on its left half."""
    mask = np.zeros((48, 64, 3), np.float32)
    mask[:, :32] = 1
    return Picture.from_array(mask).encode("png")


@pytest.fixture(scope="session")
def serving():
    """``with serving(settings) as url``: the service without its page, ready to paint."""
    pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'scumble[serve]'")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve: pip install 'scumble[serve]'")
    from scumble.client import Client
    from scumble.serve.app import create_app

    @contextmanager
    def run(settings):
        app = create_app(settings)
        config = uvicorn.Config(app, port=0, log_level="error", server_header=False, lifespan="on", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline and thread.is_alive(), "the service did not start"
            time.sleep(0.02)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        client = Client(url + settings.root_path, settings.token)
        while not client.ready():
            assert time.monotonic() < deadline, "the service did not get ready"
            time.sleep(0.05)
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the service did not stop"

    return run
