"""The pictures of docs/studio.md: the page in Chromium, at work.

scumble serve --port 7878 &
python scripts/studio_screenshots.py http://127.0.0.1:7878 docs/images
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

# without these Chromium waits for servers of its maker where there is no network
FLAGS = [
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",
    "--disable-gpu",
]


def opened(browser: Browser, address: str, width: int, height: int, scheme: str) -> Page:
    """The page with the example, all thumbnails painted."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(address)
    page.click("[data-do=example]")
    page.wait_for_function("document.querySelector('.sc-note').textContent === 'Preview'")
    page.wait_for_function("!document.querySelector('.sc-gallery').hasAttribute('aria-busy')", timeout=120_000)
    return page


def repaint(page: Page, action: str) -> None:
    """Run a bit of JavaScript that changes the painting, and wait for that."""
    before = page.get_attribute(".sc-after", "src")
    page.evaluate(action)
    page.wait_for_function("before => document.querySelector('.sc-after').src !== before", arg=before)
    page.wait_for_timeout(700)


def keep(page: Page, path: Path) -> None:
    """A screenshot, reduced so that all of them together are about a megabyte."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.thumbnail((920, 640), Image.Resampling.LANCZOS)
    shot.save(path, optimize=True)


def blended(browser: Browser, address: str, path: Path) -> None:
    """Two styles, before and after."""
    page = opened(browser, address, 1440, 900, "light")
    repaint(page, "document.querySelector('[data-source=cafe-terrace-at-night] .sc-pick').click()")
    repaint(page, "document.querySelector('[data-source=irises] .sc-plus').click()")
    keep(page, path)


def masked(browser: Browser, address: str, path: Path) -> None:
    """All but the portrait painted, in the dark, and ready to be downloaded."""
    page = opened(browser, address, 1440, 900, "dark")
    repaint(page, "document.querySelector('[data-source=irises] .sc-pick').click()")
    page.click("[data-do=mask]")
    box = page.locator(".sc-canvas").bounding_box()
    if box is None:
        raise SystemExit("the page shows no canvas to brush a mask on")
    head, body = (
        [(0.42, 0.1), (0.45, 0.3)],
        [(0.3, 0.5), (0.5, 0.45), (0.3, 0.72), (0.5, 0.62), (0.2, 0.95), (0.4, 0.8), (0.55, 0.72), (0.45, 0.97)],
    )
    for width, line in ((180, head), (200, body), (200, [(0.68, 0.75), (0.7, 0.95), (0.85, 0.85), (0.55, 0.95)])):
        page.locator("[data-mask=width]").fill(str(width))
        for number, (x, y) in enumerate(line):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
            if number == 0:
                page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(1200)
    page.locator("[data-mask=feather]").fill("25")
    page.check("[data-mask=invert]")
    page.wait_for_timeout(2000)
    page.click("#sc-paint")
    page.wait_for_selector("#sc-download:visible")
    page.mouse.move(5, 5)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(700)
    keep(page, path)


def narrow(browser: Browser, address: str, path: Path) -> None:
    """A telephone: the picture stays in sight of the sliders."""
    page = opened(browser, address, 390, 844, "light")
    repaint(page, "document.querySelector('[data-source=sunflowers] .sc-pick').click()")
    keep(page, path)


def main() -> None:
    """All pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="where the service runs")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for make in (blended, masked, narrow):
            target = given.folder / f"studio-{make.__name__}.png"
            make(browser, given.address, target)
            print(target, target.stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
