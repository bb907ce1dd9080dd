"""What the page's tests need: a service on a free port of this machine, and Chromium. Skipped with the reason where that can't be had."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn
from playwright import sync_api

from scumble.picture import Picture
from scumble.serve.app import create_app
from scumble.serve.settings import Settings

CHROMIUM = os.environ.get("SCUMBLE_CHROMIUM") or shutil.which("chromium") or ""
# without the last ones Chromium waits for servers of its maker where there is no network
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--use-fake-device-for-media-stream"]  # a camera that shows a pattern
PATIENCE = 120_000
"""Milliseconds until a step has failed: two slow cores may be busy with other things."""


@contextlib.contextmanager
def running(app):
    """The app on a free port; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended before it began"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive(), "the server did not end"


def behind_proxy(app, prefix):
    """``app`` as a proxy shows it: under ``prefix``, which the proxy takes away; whatever lies elsewhere is not there."""

    async def proxy(scope, receive, send):
        if scope["type"] == "http":
            if not scope["path"].startswith(f"{prefix}/"):
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body", "body": b"this is another site"})
                return
            path = scope["path"][len(prefix) :]
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    return proxy


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the page is."""
    with running(create_app(Settings(data=tmp_path_factory.mktemp("data")))) as place:
        yield place


@pytest.fixture(scope="module")
def browser():
    """Chromium; not for longer than a module, because its driver keeps an event loop in the main thread."""
    if not CHROMIUM:
        pytest.skip("there is no chromium on the path (Debian: apt-get install chromium); SCUMBLE_CHROMIUM names another")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visitor:
    """A page, and what one does with it again and again."""

    def __init__(self, page, address):
        self.page, self.requests, self.errors = page, [], []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".sc-card.sc-painted")

    @property
    def note(self):
        return self.page.inner_text(".sc-note")

    @property
    def after(self):
        """The address of the painted picture, which holds its pixels."""
        return self.page.get_attribute(".sc-after", "src")

    def open(self, path):
        self.page.set_input_files("[data-file=any]", path)
        self.page.wait_for_function("document.querySelector('.sc-note').textContent.startsWith('Preview')")

    @contextlib.contextmanager
    def repainting(self):
        """What is done within repaints the picture."""
        before = self.after
        yield
        self.page.wait_for_function("before => document.querySelector('.sc-after').src !== before", arg=before)

    def slide(self, name, value):
        self.page.locator(f"#sc-{name} input[type=range]").fill(str(value))

    def paint(self):
        """Paint in full size; returns the status when that is done."""
        self.page.click("#sc-paint")
        self.page.wait_for_selector("#sc-download:visible")

    def download(self, folder):
        with self.page.expect_download() as waited:
            self.page.click("#sc-download")
        target = folder / waited.value.suggested_filename
        waited.value.save_as(target)
        return target


@pytest.fixture
def visit(browser, address):
    """Opens the page as a new visitor; whatever the page reports as an error, or asks of another server, fails the test."""
    contexts = []

    def come(place=address, **options):
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 860}, "accept_downloads": True, **options})
        contexts.append(context)
        visitor = Visitor(context.new_page(), place)
        visits.append((visitor, place))
        return visitor

    visits = []
    yield come
    for visitor, place in visits:
        assert visitor.errors == []
        assert [url for url in visitor.requests if not url.startswith((f"{place.rstrip('/')}/", "data:", "blob:"))] == []
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def photo_file(tmp_path_factory):
    """A PNG of 480 x 360 with a little of everything: a slope, a disc, noise."""
    y, x = np.mgrid[0:360, 0:480].astype(np.float32) / 3
    pixels = np.stack([x / 160, y / 120, 0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 7)], -1)
    pixels[np.hypot(x - 50, y - 60) < 30] = (0.9, 0.3, 0.2)
    pixels += np.random.default_rng(7).normal(0, 0.03, pixels.shape).astype(np.float32)
    return Picture.from_array(np.clip(pixels, 0, 1).astype(np.float32)).save(tmp_path_factory.mktemp("photo") / "holiday photo.png")


@pytest.fixture(scope="session")
def small_file(photo_file):
    """The same, 128 x 96: for what takes long."""
    return Picture.open(photo_file).resized(width=128, height=96).save(photo_file.with_name("small photo.png"))
