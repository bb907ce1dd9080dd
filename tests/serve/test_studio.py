"""The page, as a visitor has it: in Chromium."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageSequence

from scumble.picture import Picture, read_recipe

pytest.importorskip("gradio", reason='the page needs Gradio: pip install "scumble[serve]"')
pytest.importorskip("playwright", reason="the page is driven with Playwright: pip install playwright")
pytest_plugins = ("studio_browser",)


def test_a_picture_comes_in_is_styled_and_leaves_in_full_with_its_recipe(visit, photo_file, tmp_path):
    visitor = visit()
    visitor.open(photo_file)
    with visitor.repainting():
        visitor.page.click("[data-source=great-wave] .sc-pick")
    with visitor.repainting():
        visitor.slide("strength", 0.6)
    with visitor.repainting():
        visitor.slide("keep", 0.5)
    with visitor.repainting():
        visitor.slide("light", 0.25)
    with visitor.repainting():
        visitor.slide("brush", 2)
    assert not visitor.page.locator("#sc-natural input").is_checked()  # who moves the slider means it
    place = visitor.page.locator("#sc-paint").bounding_box()
    visitor.paint()
    assert visitor.page.locator("#sc-paint").bounding_box() == place
    assert visitor.note.startswith("480 × 360 · good")
    target = visitor.download(tmp_path)
    assert target.name == "holiday-photo-great-wave.png"
    painted, recipe = Picture.open(target), read_recipe(target)
    assert painted.size == (360, 480)
    assert np.abs(painted.pixels - Picture.open(photo_file).pixels).mean() > 0.02
    assert recipe["styles"] == [[{"weight": 1.0, "name": "great-wave"}]]
    settings = recipe["settings"]
    assert [settings[name] for name in ("strength", "keep_color", "keep_light", "style_scale")] == [0.6, 0.5, 0.25, 2.0]
    with visitor.repainting():
        visitor.slide("strength", 1.2)
    assert not visitor.page.is_visible("#sc-download")  # the file is not what is shown any more


def test_whoever_clicks_before_there_is_a_seat_is_served_then(visit, tmp_path, monkeypatch):
    from studio_browser import running

    from scumble.serve.app import create_app
    from scumble.serve.settings import Settings
    from scumble.serve.studio.desk import Desk

    opened, sit = threading.Event(), Desk.sit
    monkeypatch.setattr(Desk, "sit", lambda desk: opened.wait(60) and sit(desk))
    with running(create_app(Settings(data=tmp_path / "data"))) as place:
        visitor = visit(place)
        visitor.page.click("[data-do=example]")
        visitor.page.wait_for_selector(".sc-stage[data-busy]")
        opened.set()
        visitor.page.wait_for_function("document.querySelector('.sc-note').textContent.startsWith('Preview')")
        assert not visitor.page.is_visible(".sc-error")


def test_the_thumbnails_show_the_visitors_picture(visit, photo_file):
    visitor = visit()
    image = "document.querySelector('[data-source=great-wave] img').src"
    visitor.page.wait_for_function(f"{image} !== ''")
    example = visitor.page.evaluate(image)
    visitor.open(photo_file)
    visitor.page.wait_for_function(f"before => {image} !== before", arg=example)
    visitor.page.wait_for_function("!document.querySelector('.sc-gallery').hasAttribute('aria-busy')")
    cards = visitor.page.locator(".sc-card").count()
    assert cards == visitor.page.locator(".sc-card.sc-painted").count() >= 100
    assert visitor.page.evaluate("new Set([...document.querySelectorAll('.sc-card img')].map(i => i.src)).size") == cards
    assert visitor.page.evaluate("document.querySelector('[data-source=irises] img').naturalWidth") == 160


def test_the_thumbnails_show_the_next_picture_too_when_there_are_styles_of_ones_own(visit, photo_file, tmp_path):
    visitor = visit()
    own = Picture.from_array(np.random.default_rng(0).random((90, 70, 3), np.float32)).save(tmp_path / "my own.png")
    visitor.page.set_input_files(".sc-gallery input[type=file]", own)
    visitor.page.wait_for_selector("[data-source^=own]")
    brought = visitor.page.get_attribute("[data-source^=own] img", "src")
    visitor.open(photo_file)
    visitor.page.wait_for_function("!document.querySelector('.sc-gallery').hasAttribute('aria-busy')")
    assert visitor.page.locator(".sc-card:not(.sc-painted)").count() == 0
    assert visitor.page.get_attribute("[data-source^=own] img", "src") == brought


def test_styles_are_found_blended_and_brought_along(visit, photo_file, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.open(photo_file)
    page.fill("input[type=search]", "hokusai")
    assert 0 < page.locator(".sc-card:visible").count() < 20
    with visitor.repainting():
        page.click("[data-source=great-wave] .sc-pick")
    for typed in ("durer", "Dürer", "DU\u0308RER"):
        page.fill("input[type=search]", typed)
        assert page.is_visible("[data-source=young-hare]")
    page.fill("input[type=search]", "no such painter")
    assert page.is_visible(".sc-none")
    page.fill("input[type=search]", "")
    page.hover("[data-source=irises]")
    with visitor.repainting():
        page.click("[data-source=irises] .sc-plus")
    with visitor.repainting():
        page.locator(".sc-term input").nth(1).fill("25")
    assert page.locator(".sc-term output").all_inner_texts() == ["80 %", "20 %"]
    own = tmp_path / "my own.png"
    Picture.from_array(np.random.default_rng(0).random((90, 70, 3), np.float32)).save(own)
    with visitor.repainting():
        page.set_input_files(".sc-gallery input[type=file]", own)
    assert page.locator(".sc-chosen .sc-title").all_inner_texts() == ["my own"]
    page.hover("[data-source=irises]")
    with visitor.repainting():
        page.click("[data-source=irises] .sc-plus")
    visitor.paint()
    terms = read_recipe(visitor.download(tmp_path))["styles"][0]
    assert [term.get("path") or term.get("name") for term in terms] == ["my own.png", "irises"]


def test_a_brushed_mask_leaves_the_rest_to_the_last_bit(visit, photo_file, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.open(photo_file)
    page.click("[data-do=mask]")
    page.locator("[data-mask=feather]").fill("0")
    box = page.locator(".sc-canvas").bounding_box()
    with visitor.repainting():
        page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.5)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5, steps=4)
        page.mouse.up()
    visitor.paint()
    original, painted = Picture.open(photo_file).to_array(), Picture.open(visitor.download(tmp_path)).to_array()
    assert np.array_equal(painted[:, 300:], original[:, 300:])
    assert np.abs(painted[170:190, 75:165].astype(int) - original[170:190, 75:165]).mean() > 5
    with visitor.repainting():
        page.click("text=Eraser")
        page.mouse.move(box["x"] + box["width"] * 0.05, box["y"] + box["height"] * 0.5)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.5, steps=4)
        page.mouse.up()
    with visitor.repainting():
        page.click("[data-do=undo]")
    with visitor.repainting():
        page.check("[data-mask=invert]")
    with visitor.repainting():
        page.click("[data-do=clear]")  # without a mask all is painted


def test_a_refinement_shows_how_it_gets_on_and_stops_with_its_best(visit, small_file, tmp_path):
    pytest.importorskip("torch", reason="refinement needs PyTorch")
    visitor = visit()
    page = visitor.page
    visitor.open(small_file)
    page.click("#sc-quality label:has-text('Best')")
    page.wait_for_function("document.querySelector('.sc-note').textContent === 'Preview, before refining'")
    page.click("#sc-paint")
    page.wait_for_function("document.querySelector('.sc-note').textContent === 'Not done yet'")  # a preview that improves
    page.wait_for_function("document.querySelector('#sc-status progress')?.value > 0")
    assert "of 75" in page.inner_text("#sc-status")
    assert page.evaluate("document.activeElement.id") == "sc-stop"  # the button that was clicked is gone
    page.keyboard.press("Enter")
    page.wait_for_selector("#sc-download:visible")
    assert page.evaluate("document.activeElement.id") in ("sc-download", "sc-paint")
    assert "stopped after" in visitor.note
    target = visitor.download(tmp_path)
    assert 0 <= read_recipe(target)["interrupted"] < 75
    assert Picture.open(target).size == (96, 128)


def test_what_was_painted_comes_back_with_all_its_settings(visit, photo_file, tmp_path):
    visitor = visit()
    page = visitor.page
    visitor.open(photo_file)
    with visitor.repainting():
        page.click("[data-source=irises] .sc-pick")
    with visitor.repainting():
        visitor.slide("strength", 0.7)
    visitor.paint()
    first = visitor.download(tmp_path).read_bytes()
    with visitor.repainting():
        page.click("[data-source=great-wave] .sc-pick")
    with visitor.repainting():
        visitor.slide("strength", 1.5)
    visitor.paint()
    told = page.locator(".sc-strip span").all_inner_texts()
    assert told == ["The Great Wave off Kanagawa", "good · 1.5", "Irises", "good · 0.7"]
    with visitor.repainting():
        page.locator(".sc-strip button").nth(1).click()
    assert page.locator("#sc-strength input[type=range]").input_value() == "0.7"
    assert page.locator(".sc-chosen").get_attribute("data-source") == "irises"
    assert visitor.download(tmp_path).read_bytes() == first


def test_what_is_typed_beyond_a_slider_is_its_end(visit, photo_file, caplog):
    visitor = visit()
    page = visitor.page
    visitor.open(photo_file)
    with visitor.repainting():
        page.fill("#sc-strength input[type=number]", "9")
    page.locator("#sc-strength input[type=number]").blur()
    assert page.input_value("#sc-strength input[type=number]") == "2"
    page.click("#sc-elsewhere button")
    page.wait_for_selector("[data-text=shell]:has-text('--strength 2')")
    with visitor.repainting():
        page.fill("#sc-strength input[type=number]", "")
    assert not [record for record in caplog.records if record.exc_info]


def test_the_copied_command_and_program_paint_the_same(visit, photo_file, tmp_path):
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    page = visitor.page
    visitor.open(photo_file)
    page.hover("[data-source=irises]")
    with visitor.repainting():
        page.click("[data-source=irises] .sc-plus")
    with visitor.repainting():
        visitor.slide("strength", 0.8)
    visitor.paint()
    target = visitor.download(tmp_path)
    painted = Picture.open(target).to_array()
    target.unlink()
    page.click("#sc-elsewhere button")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / photo_file.name).write_bytes(photo_file.read_bytes())
    for name in ("shell", "python"):
        page.click(f"[data-copy={name}]")
        page.wait_for_function(f"document.querySelector('[data-copy={name}]').textContent === 'Copied'")
        text = page.evaluate("navigator.clipboard.readText()")
        words = shlex.split(text)[1:] if name == "shell" else ["-c", text]
        call = [sys.executable, "-m", "scumble", *words] if name == "shell" else [sys.executable, *words]
        subprocess.run(call, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
        # threads split sums in other ways, so the last bit may differ from the service's
        assert np.abs(Picture.open(target).to_array().astype(int) - painted).max() <= 1
        target.unlink()


def test_everything_can_be_done_with_the_keyboard(visit, photo_file):
    visitor = visit()
    page = visitor.page
    visitor.open(photo_file)
    page.focus(".sc-split")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.querySelector('.sc-frame')).getPropertyValue('--split')") == "60%"
    page.focus("input[type=search]")
    for _ in range(60):  # past the button and the periods, into the grid
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "sc-pick":
            break
    page.keyboard.press("ArrowRight")
    with visitor.repainting():
        page.keyboard.press("Enter")
    chosen = page.locator(".sc-chosen").get_attribute("data-source")
    page.keyboard.press("ArrowDown")
    with visitor.repainting():
        page.keyboard.press("+")
    assert page.locator(".sc-chosen").count() == 2 and chosen
    page.focus("[data-do=mask]")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    with visitor.repainting():
        page.keyboard.press(" ")
    with visitor.repainting():
        page.keyboard.press("Control+z")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.do") == "mask" and not page.is_visible(".sc-canvas")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea, a[href], canvas')].filter(e => e.offsetParent
        && !(e.getAttribute('aria-label') || e.innerText || e.title || (e.labels && e.labels.length) || e.getAttribute('aria-labelledby')))
        .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_pasted_and_dropped_pictures_are_opened(visit, photo_file):
    visitor = visit()
    give = """async ([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], kind + '.png', { type: 'image/png' }));
        const event = kind === 'paste' ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
                                       : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector('.sc-stage').dispatchEvent(event);
    }"""
    visitor.page.evaluate(give, ["paste", list(photo_file.read_bytes())])
    visitor.page.wait_for_function("document.querySelector('.sc-note').textContent === 'Preview'")
    with visitor.repainting():
        small = photo_file.with_name("small.png")
        Picture.open(photo_file).resized(width=40, height=60).save(small, overwrite=True)
        visitor.page.evaluate(give, ["drop", list(small.read_bytes())])


def test_a_photograph_is_taken(visit):
    visitor = visit(permissions=["camera"])
    page = visitor.page
    page.click("[data-do=camera]")
    page.wait_for_function("document.querySelector('.sc-camera video').videoWidth > 0")
    page.click("[data-do=shoot]")
    page.wait_for_function("document.querySelector('.sc-note').textContent === 'Preview'")
    assert not page.is_visible(".sc-camera")
    assert page.evaluate("document.querySelector('.sc-camera video').srcObject") is None  # the camera is off again
    assert page.evaluate("document.querySelector('.sc-before').naturalWidth") > 100


def test_what_is_no_picture_is_told_in_a_sentence_and_changes_nothing(visit, photo_file, tmp_path):
    visitor = visit()
    page = visitor.page
    wrong = tmp_path / "letter.png"
    wrong.write_bytes(b"Dear Sirs")
    for _ in range(2):  # also when it is the same one again
        page.set_input_files("[data-file=any]", wrong)
        page.wait_for_selector(".sc-stage .sc-error:visible")
        assert "picture" in page.inner_text(".sc-stage .sc-error")
        assert page.is_visible(".sc-drop") and not page.is_visible(".sc-working")
    page.click("#sc-paint")
    page.wait_for_selector("#sc-status [role=alert]")
    assert page.inner_text("#sc-status") == "There is no picture yet; choose one first."
    colours = [
        page.evaluate(f"getComputedStyle(document.querySelector('{place} .sc-error')).color") for place in (".sc-stage", "#sc-status")
    ]
    assert colours[0] == colours[1], "both are red"
    visitor.open(photo_file)
    assert not page.is_visible(".sc-stage .sc-error") and page.inner_text("#sc-status").strip() == ""
    shown = visitor.after
    page.set_input_files("[data-file=any]", wrong)
    page.wait_for_selector(".sc-stage .sc-error:visible")
    page.wait_for_timeout(700)  # a preview would be there by now
    assert page.is_visible(".sc-stage .sc-error") and visitor.after == shown
    page.set_input_files(".sc-gallery input[type=file]", wrong)
    page.wait_for_selector(".sc-gallery .sc-error:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820])
def test_narrow_screens_light_and_dark(visit, photo_file, scheme, width):
    visitor = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    visitor.open(photo_file)
    page = visitor.page
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    ink, paper = (page.evaluate(f"getComputedStyle(document.querySelector('.sc-stage')).{p}") for p in ("color", "backgroundColor"))
    light = [sum(int(c) for c in colour[4:-1].split(",")[:3]) / 3 for colour in (ink, paper)]
    assert (light[1] > 200 > 100 > light[0]) if scheme == "light" else (light[0] > 200 > 100 > light[1])
    page.locator("#sc-strength").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#sc-strength').scrollIntoView({ block: 'end' })")
    assert page.locator(".sc-after").bounding_box()["y"] >= 0  # the picture stays in sight of the sliders
    page.click("[data-do=theme]")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "light")


def test_behind_a_proxys_path(visit, photo_file, tmp_path):
    from studio_browser import behind_proxy, running

    from scumble.serve.app import create_app
    from scumble.serve.settings import Settings

    with running(behind_proxy(create_app(Settings(data=tmp_path, root_path="/paint")), "/paint")) as place:
        visitor = visit(f"{place}/paint/")
        visitor.open(photo_file)
        with visitor.repainting():
            visitor.page.click("[data-source=great-wave] .sc-pick")
        visitor.paint()
        assert Picture.open(visitor.download(tmp_path)).size == (360, 480)


def test_a_film_is_painted_and_another_one_stopped(visit, tmp_path):
    pytest.importorskip("av", reason="the film tab comes with the extra video")
    visitor = visit()
    page = visitor.page
    page.click("[role=tab]:has-text('Film')")
    for count, stopped in ((4, False), (200, True)):
        source = tmp_path / f"film{count}.gif"
        frames = [
            Image.fromarray(np.roll(np.arange(96 * 72 * 3, dtype=np.uint32) // 90 % 256, 30 * k).astype(np.uint8).reshape(72, 96, 3))
            for k in range(count)
        ]
        frames[0].save(source, save_all=True, append_images=frames[1:], duration=80, loop=0)
        if page.locator("#sc-film-source input[type=file]").count() == 0:
            page.click("#sc-film-source [aria-label*=lear]")
        page.set_input_files("#sc-film-source input[type=file]", source)
        page.wait_for_selector(f"#sc-film-source :text('film{count}')")
        page.click("#sc-film-paint")
        if stopped:
            page.wait_for_function("document.querySelector('#sc-film-status progress')?.value > 0")
            page.click("#sc-film-stop")
        page.wait_for_function("/^[0-9]+ frames/.test(document.querySelector('#sc-film-status').innerText)")
        with page.expect_download() as waited:
            page.click("#sc-film-download")
        painted = Image.open(waited.value.path())
        number = sum(1 for _ in ImageSequence.Iterator(painted))
        assert painted.size == (96, 72) and ((0 < number < 200) if stopped else number == 4)
        shown = f"document.querySelector('#sc-film-moving img[src*=film{count}]')"
        page.wait_for_function(f"{shown}?.naturalWidth === 96")  # of a <video> browsers show nothing here
        assert page.locator("#sc-film-shown video").count() == 0


def test_who_leaves_stops_the_work(visit, small_file):
    pytest.importorskip("torch", reason="refinement needs PyTorch")
    visitor = visit()
    visitor.open(small_file)
    visitor.page.click("#sc-quality label:has-text('Best')")
    visitor.page.click("#sc-paint")
    visitor.page.wait_for_function("document.querySelector('#sc-status progress')?.value > 0")
    steps = visitor.page.inner_text("#sc-status")
    visitor.page.context.close()
    assert "of 75" in steps
    other = visit()  # there is one painter for what takes long: whoever comes next has to get it
    other.open(small_file)
    other.page.click("#sc-quality label:has-text('Fine')")
    other.page.click("#sc-paint")
    other.page.wait_for_function("document.querySelector('#sc-status progress')?.value > 0")


def test_with_a_token_the_page_asks_for_it(browser, photo_file, tmp_path):
    from studio_browser import Visitor, running

    from scumble.serve.app import create_app
    from scumble.serve.settings import Settings

    with running(create_app(Settings(data=tmp_path, token="open-sesame"))) as place:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(place)
        context = browser.new_context(http_credentials={"username": "me", "password": "open-sesame"})
        visitor = Visitor(context.new_page(), place)
        visitor.open(photo_file)
        context.close()
