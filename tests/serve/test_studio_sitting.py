"""The page without a browser: sittings, the desk's events, and the settings said elsewhere."""

from __future__ import annotations

import ast
import asyncio
import base64
import os
import shlex
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gradio", reason='the page needs Gradio: pip install "scumble[serve]"')

import gradio
from gradio.utils import get_upload_folder
from starlette.testclient import TestClient

from scumble import library
from scumble.errors import InputError, UsageError
from scumble.picture import Picture, read_recipe
from scumble.recipe import restore
from scumble.serve import studio
from scumble.serve.app import create_app
from scumble.serve.limits import Upload
from scumble.serve.service import PaintService, defaults
from scumble.serve.settings import Settings
from scumble.serve.studio import sitting as module
from scumble.serve.studio.desk import Desk, received
from scumble.serve.studio.look import STATIC
from scumble.serve.studio.page import _quality
from scumble.serve.studio.share import Shared, command, python
from scumble.serve.studio.sitting import ORIGINAL, Look, Sitting, decoded, shown
from scumble.style import Blend, Style
from scumble.stylizer import Stylizer

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = PaintService(Settings(data=tmp_path_factory.mktemp("data")))
    yield service
    service.close()


@pytest.fixture
def sitting(service):
    sitting = Sitting(service, "great-wave")
    yield sitting
    sitting.close()


def a_picture(height=48, width=64, format="png"):
    return Picture.from_array(RNG.random((height, width, 3), np.float32)).encode(format)


def painted(sitting, format=ORIGINAL, **calls):
    sitting.format = format
    return sitting.paint(sitting.at_hand(), cancel=threading.Event(), **calls)


# Sittings -----------------------------------------------------------------------------------------------------------------


def test_without_a_picture_nothing_is_painted(sitting):
    assert not sitting.is_open
    with pytest.raises(UsageError, match="choose one first"):
        sitting.preview()


def test_a_painting_is_what_the_library_paints_and_says_how_it_was_made(sitting, service):
    data = a_picture()
    sitting.open(Upload("so la la.png", data))
    sitting.look = Look(((0.5, "irises"), (0.5, "great-wave")), {"strength": 0.7, "keep_color": 0.3})
    painting = painted(sitting)
    blend = 0.5 * Style.named("irises") + 0.5 * Style.named("great-wave")
    wanted = Stylizer(threads=service.settings.threads)(Picture.open(data), blend, strength=0.7, keep_color=0.3)
    assert np.array_equal(Picture.open(painting.path).to_array(), wanted.to_array())
    assert painting.path.name == "so-la-la-irises-great-wave.png"
    assert painting.title == "Irises + The Great Wave off Kanagawa" and painting.note.startswith("64 × 48 · good")
    recipe = read_recipe(painting.path)
    assert recipe["content"]["path"] == "so la la.png" and recipe["settings"]["strength"] == 0.7
    assert [(term["weight"], term["name"]) for term in recipe["styles"][0]] == [(0.5, "irises"), (0.5, "great-wave")]


@pytest.mark.parametrize(
    ("name", "format", "wanted"),
    [
        ("../../etc/passwd", ORIGINAL, "passwd-irises.png"),
        ("a.JPEG", ORIGINAL, "a-irises.jpeg"),
        ("a.svg", ORIGINAL, "a-irises.png"),
        ("-rf ~; é.png", "WebP", "rf-é-irises.webp"),
        ("", "TIFF", "picture-irises.tif"),
        (f"{'浪' * 95}.png", ORIGINAL, f"{'浪' * 66}.png"),  # 3 bytes each, of which 200 may be used
    ],
)
def test_files_are_called_after_the_picture_and_stay_in_their_folder(sitting, name, format, wanted):
    sitting.open(Upload(name, a_picture(8, 8)))
    sitting.look = Look(((1.0, "irises"),), {"strength": 0.0})
    path = painted(sitting, format).path
    assert path.name == wanted and path.parent.parent == sitting.place("other").parent
    assert Picture.open(path).size == (8, 8)


def test_a_mask_means_the_same_in_the_preview_and_in_the_painting(sitting):
    sitting.open(Upload("a.png", a_picture(1200, 2048)))
    half = np.zeros((600, 1024), np.float32)
    half[:, :512] = 1
    sitting.look = Look(((1.0, "irises"),), {}, Picture.from_array(half).encode("png"), softness=0.05)
    original = sitting.kept().small.pixels
    changed = np.abs(sitting.preview().pixels - original).mean((0, 2))
    assert changed[:400].min() > 0 and changed[640:].max() == 0  # 51 pixels soften the edge to either side, three σ at the most
    assert sitting.shared().settings["feather"] == 102  # pixels of the full picture
    sitting.look = replace(sitting.look, invert=True)
    changed = np.abs(sitting.preview().pixels - original).mean((0, 2))
    assert changed[:384].max() == 0 and changed[640:].min() > 0


def test_what_is_not_done_yet_is_shown_with_mask_and_colours_of_when_it_began(sitting, monkeypatch):
    sitting.open(Upload("a.png", a_picture()))
    mask = np.zeros((48, 64), np.float32)
    mask[:, :32] = 1
    sitting.look = Look(((1.0, "irises"),), {"keep_color": 1.0}, Picture.from_array(mask).encode("png"))
    content = sitting.kept().small.resized(width=32, height=24).pixels

    def painted(picture, styles, settings, *, preview, **_):
        sitting.open(Upload("b.png", Picture.from_array(np.zeros((90, 20, 3), np.float32)).encode("png")))  # goes on to something else
        sitting.look = Look(((1.0, "irises"),), {})
        preview(np.full((24, 32, 3), 0.5, np.float32))
        return picture

    monkeypatch.setattr(sitting.service, "painted", painted)
    shown = []
    sitting.paint(sitting.at_hand(), preview=shown.append, cancel=threading.Event())
    seen = shown[0].pixels
    assert np.array_equal(seen[:, 17:], content[:, 17:])
    assert np.abs(seen[:, :15] - content[:, :15]).max() > 0.1 and np.ptp(seen[:, :15], axis=2).max() > 0.05


def test_a_refinement_by_ones_own_picture_is_replayed_to_the_bit(sitting, service, tmp_path):
    pytest.importorskip("torch", reason="refinement needs PyTorch")
    files = {"a.png": a_picture(), "mine.png": a_picture(40, 40)}
    sitting.open(Upload("a.png", files["a.png"]))
    own = sitting.add_style(Upload("mine.png", files["mine.png"]))
    sitting.look = Look(((1.0, own.source),), {"steps": 1})
    path = painted(sitting).path.rename(tmp_path / "painted.png")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    request, content = restore(read_recipe(path), path)
    again = request.paint(service.painter, Picture.open(content), request.open_styles(service.painter), [])
    assert np.array_equal(Picture.open(path).to_array(), again.to_array())


def test_a_refinement_that_is_stopped_says_so(sitting):
    pytest.importorskip("torch", reason="refinement needs PyTorch")
    sitting.open(Upload("a.png", a_picture()))
    sitting.look = Look(((1.0, "irises"),), {"quality": "best"})
    assert sitting.refines()
    cancel = threading.Event()
    painting = sitting.paint(sitting.at_hand(), cancel=cancel, progress=lambda done, total, loss: done == 2 and cancel.set())
    assert "stopped after 2 of 75 steps" in painting.note and read_recipe(painting.path)["interrupted"] == 2


def test_paintings_come_back_with_their_picture_and_the_oldest_make_room(sitting, monkeypatch):
    monkeypatch.setattr(module, "MOST_PAINTINGS", 2)
    made = []
    for name in ("irises", "great-wave", "starry-night"):
        sitting.open(Upload(f"{name}.png", a_picture(16, 16)))
        sitting.look = Look(((1.0, name),), {"strength": 0.5})
        made.append(painted(sitting))
    assert [p.number for p in sitting.paintings] == [2, 3]
    assert not made[0].path.exists() and not made[0].content.path.exists() and made[1].path.exists()
    back = sitting.back(2)
    assert back is sitting.paintings[0] and sitting.look.terms == ((1.0, "great-wave"),)
    assert sitting.shared().content == "great-wave.png"
    with pytest.raises(UsageError, match="not kept"):
        sitting.back(1)


def test_of_the_pictures_that_were_opened_those_are_kept_that_were_painted(sitting):
    def files():
        return {path.name for path in sitting.place("other").parent.iterdir() if path.is_file()}

    sitting.look = Look(sitting.look.terms, {"strength": 0.5})
    first, second, third = (a_picture(16, 16) for _ in range(3))
    a = sitting.open(Upload("a.png", first)).key
    painting = painted(sitting)
    b = sitting.open(Upload("b.png", second)).key
    assert files() == {a, b}
    c = sitting.open(Upload("c.png", third)).key
    assert sitting.open(Upload("the same under another name.png", third)).key == c
    assert files() == {a, c}
    sitting.back(painting.number)
    assert files() == {a}


def test_what_is_painted_keeps_its_picture_when_another_one_is_opened_meanwhile(sitting, monkeypatch):
    data, made = a_picture(16, 16), sitting.service.painted

    def slowly(*given, **named):
        sitting.open(Upload("b.png", a_picture(16, 16)))
        return made(*given, **named)

    sitting.open(Upload("a.png", data))
    monkeypatch.setattr(sitting.service, "painted", slowly)
    painting = painted(sitting)
    assert painting.content.name == "a.png" and painting.content.path.read_bytes() == data


def test_a_picture_that_made_room_in_memory_is_read_again(tmp_path):
    service = PaintService(Settings(data=tmp_path, kept_bytes=1_000_000))
    sitting, other = Sitting(service, "irises"), Sitting(service, "irises")
    sitting.open(Upload("a.png", a_picture(400, 500)))
    other.open(Upload("b.png", a_picture(400, 500)))
    assert sitting.kept().size == (400, 500)
    sitting.close()
    other.close()
    service.close()


def test_own_styles_are_encoded_once_and_bounded(sitting, monkeypatch):
    data = a_picture(40, 40, "jpg")
    first, second = sitting.add_style(Upload("mine", data)), sitting.add_style(Upload("other.jpg", data))
    assert first is second and first.upload.name == "mine.png" and first.source.startswith("own:")
    sitting.open(Upload("a.png", a_picture()))
    sitting.look = Look(((1.0, first.source), (1.0, "irises")), {"strength": 0.5})
    assert read_recipe(painted(sitting).path)["styles"][0][0]["path"] == "mine.png"
    with pytest.raises(InputError):
        sitting.add_style(Upload("letter.txt", b"Dear Sirs"))
    monkeypatch.setattr(module, "MOST_STYLES", 1)
    with pytest.raises(UsageError, match="at most 1"):
        sitting.add_style(Upload("third.png", a_picture(40, 40)))


def test_a_sitting_that_ends_leaves_no_file_and_stops_its_work(service):
    sitting = Sitting(service, "irises")
    sitting.open(Upload("a.png", a_picture()))
    folder = sitting.place("x").parent
    sitting.close()
    assert not folder.exists() and sitting.cancel.is_set() and sitting.cancel_film.is_set()


@pytest.mark.parametrize("terms", [(), ((0.0, "irises"),), ((-1.0, "irises"), (2.0, "great-wave")), ((float("nan"), "irises"),)])
def test_weights_that_no_blend_can_have(terms):
    with pytest.raises(UsageError, match="weight"):
        Look(terms)


@pytest.mark.parametrize("names", [("irises", "great-wave"), ("starry-night", "mona-lisa", "five-oxen")])
def test_a_blend_is_previewed_as_it_is_painted(names):
    terms = [(k + 1.0, Style.named(name)) for k, name in enumerate(names)]
    exact = sum((w * s for w, s in terms[1:]), start=terms[0][0] * terms[0][1]).blended()
    quick = Blend(tuple(terms)).blended(quick=True)
    apart = np.abs(terms[0][1].vector - terms[1][1].vector).mean()
    assert np.abs(quick.vector - exact.vector).mean() < 0.02 * apart
    painter, example = Stylizer(), Picture.open(STATIC / "example.jpg").resized(width=128, height=128)
    first, second, wanted, painting = (painter(example, s, quality="draft").pixels for s in (terms[0][1], terms[1][1], exact, quick))
    # 1 of 255 steps can't be seen; without the texture it is 13
    assert 255 * np.abs(painting - wanted).mean() < 1 < 20 < 255 * np.abs(first - second).mean()


def test_where_some_styles_have_no_texture_a_preview_has_that_of_the_others():
    wave, irises = Style.named("great-wave"), Style.named("irises")
    bare = replace(irises, texture=None)
    assert Blend(((1.0, bare), (1.0, replace(wave, texture=None)))).blended(quick=True).texture is None
    for terms in (((1.0, bare), (1.0, wave)), ((0.0, irises), (1.0, wave))):
        np.testing.assert_allclose(Blend(terms).blended(quick=True).texture, wave.texture, atol=1e-5)


# What comes from the browser ----------------------------------------------------------------------------------------------


def test_only_what_was_uploaded_is_read_and_it_is_gone_then(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    place = tmp_path / "uploads" / "abc" / "photo.png"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"pixels")
    secret = tmp_path / "secret.txt"
    secret.write_text("key")
    assert get_upload_folder() == str(tmp_path / "uploads")
    (tmp_path / "uploads" / "link").symlink_to(secret)
    for path in (secret, place.parent / ".." / ".." / "secret.txt", tmp_path / "uploads" / "link", place.parent, ""):
        with pytest.raises(InputError, match="did not arrive"):
            received({"path": str(path), "name": "x"})
    upload = received({"path": str(place), "name": "photo.png"})
    assert upload == Upload("photo.png", b"pixels") and not place.exists()
    with pytest.raises(InputError, match="did not arrive"):
        received({"path": str(place), "name": "photo.png"})


def test_masks_come_as_png_and_nothing_else():
    png = a_picture(4, 4)
    address = shown(Picture.open(png))
    assert decoded("", 1000) == b""
    assert decoded("data:image/png;base64," + base64.b64encode(png).decode(), 10_000) == png
    for bad in (address, "data:image/png;base64,%%%", "file:///etc/passwd", "data:image/png;base64," + "A" * 4000):
        with pytest.raises(InputError, match="mask"):
            decoded(bad, 1000)


def test_thumbnails_of_the_example_are_painted_once_and_unknown_pictures_have_none(service):
    desk = Desk(service)
    first = desk.thumbnails(["", ["irises", "great-wave"]])["painted"]
    assert set(first) == {"irises", "great-wave"} and first["irises"].startswith("data:image/jpeg;base64,")
    assert first["irises"] != first["great-wave"]
    assert desk.thumbnails(["", ["irises"]])["painted"]["irises"] is first["irises"]
    assert desk.thumbnails(["0" * 64, ["irises"]]) == {}
    assert desk.thumbnails(["", ["own:0123456789abcdef", "irises", "no-such-style"]]) == {"painted": {"irises": first["irises"]}}
    desk.close()


def test_a_visitor_of_a_server_that_began_anew_is_told_so(service):
    desk = Desk(service)
    for work in (lambda: desk.preview(None, 1, 0, 0, True, 1, "draft", "generator", 0, ORIGINAL), lambda: list(desk.paint(None))):
        with pytest.raises(gradio.Error, match="Reload the page"):
            work()
    desk.close()


CONTROLS = (1.0, 0.0, 0.0, True, 1.0, "draft", "generator", 0, ORIGINAL)
"""What the page sends of its controls, in their order."""
SKIPPED = gradio.skip()


@pytest.fixture
def desk(service):
    desk = Desk(service)
    yield desk
    desk.close()


def sent(name, data):
    folder = Path(get_upload_folder()) / "abc"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return {"path": str(folder / name), "name": name}


def test_a_wrong_file_is_told_and_the_open_picture_stays_as_it_is(desk, sitting, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    opened = list(desk.take_picture(sitting, sent("a.png", a_picture()), *CONTROLS))
    assert opened[-1][0].props["note"] == "Preview" and opened[0][0].props["before"]
    ((stage, *others),) = desk.take_picture(sitting, sent("letter.png", b"Dear Sirs"), *CONTROLS)
    assert "not a picture" in stage.props["error"] and "after" not in stage.props and others == [SKIPPED] * 4


@pytest.mark.parametrize("meanwhile", ["another picture", "another strength", "another format", "nothing"])
def test_a_painting_is_shown_only_beside_its_own_picture_and_settings(desk, sitting, monkeypatch, meanwhile):
    made, other = sitting.service.painted, a_picture(40, 90)

    def slowly(*given, preview, **named):
        if meanwhile == "another picture":
            sitting.open(Upload("b.png", other))
        elif meanwhile != "nothing":
            desk.say(sitting, *((0.5, *CONTROLS[1:]) if meanwhile == "another strength" else (*CONTROLS[:-1], "TIFF")))
        preview(np.full((24, 32, 3), 0.5, np.float32))
        return made(*given, **named)

    sitting.open(Upload("a.png", a_picture()))
    monkeypatch.setattr(sitting.service, "painted", slowly)
    *_, (stage, status, _, _, download, past) = seen = list(desk.paint(sitting, *CONTROLS))
    (painting,) = sitting.paintings
    assert painting.content.name == "a.png" and painting.look.settings["strength"] == 1.0
    assert past.props["items"][0]["id"] == painting.number
    shown = [yielded[0] for yielded in seen if yielded[0] != SKIPPED]
    if meanwhile == "nothing":
        assert [s.props["note"] for s in shown] == ["Not done yet", painting.note] and download.value and not status
    else:
        assert shown == [] and stage == download == SKIPPED
        assert "first one below" in status and past.props["current"] == 0


def test_what_went_wrong_is_forgotten_with_the_next_setting_but_not_how_far_a_painting_is(desk, sitting):
    *_, (_, status, *_) = desk.paint(sitting, *CONTROLS)
    assert "choose one first" in status
    sitting.open(Upload("a.png", a_picture()))
    assert desk.preview(sitting, *CONTROLS)[3] == "" == desk.say(sitting, *CONTROLS)[2]
    painting = desk.paint(sitting, *CONTROLS)
    next(painting)
    assert desk.preview(sitting, *CONTROLS)[3] == SKIPPED
    list(painting)
    assert desk.preview(sitting, *CONTROLS)[3] == ""


@pytest.mark.parametrize(("error", "told"), [(MemoryError(), "Out of memory"), (RuntimeError("nobody expected it"), "log says more")])
def test_whatever_goes_wrong_the_button_comes_back(desk, sitting, monkeypatch, caplog, error, told):
    def fails(*_given, **_named):
        raise error

    sitting.open(Upload("a.png", a_picture()))
    monkeypatch.setattr(sitting.service, "painted", fails)
    monkeypatch.setattr(sitting.service, "preview", fails)
    *_, (_, status, paint, stop, *_) = desk.paint(sitting, *CONTROLS)
    assert told in status and paint.visible and not stop.visible
    assert told in desk.preview(sitting, *CONTROLS)[0].props["error"]
    assert ("nobody expected it" in caplog.text) == isinstance(error, RuntimeError)


def test_a_film_that_can_not_be_read_is_called_by_its_name_and_the_one_of_before_is_put_away(desk, sitting, tmp_path):
    pytest.importorskip("av", reason="the film tab comes with the extra video")
    from scumble.serve.studio.film import _FilmDesk

    place = tmp_path / "upload" / "cut.mp4"
    place.parent.mkdir()
    place.write_bytes(b"Dear Sirs")
    (_, *begun), (status, *_) = _FilmDesk(desk).paint(sitting, str(place), "irises", 1.0, 0.0, 0.0, 0)
    _, _, empty, film, moving, download = begun
    assert empty.visible and not film.visible and not moving.visible and not download.visible
    assert "The film cut.mp4 can&#x27;t be read as a video" in status and str(tmp_path) not in status


@pytest.mark.parametrize(("most", "offered"), [(0, 2), (50, 3), (1000, 4)])
def test_only_qualities_that_the_service_takes_are_offered(most, offered):
    pytest.importorskip("torch", reason="refinement needs PyTorch")
    assert len(_quality(most).choices) == offered


def test_what_is_wrong_with_ones_own_styles_is_told_of_each(desk, sitting):
    value = {"files": [sent("letter.txt", b"Dear Sirs"), sent("empty.png", b"")]}
    told = desk.take_styles(sitting, value).props["error"]
    assert told.startswith("letter.txt: the file is not a picture") and ". empty.png: the picture is empty" in told and told.endswith(".")


def test_what_is_at_no_path_is_told_as_by_the_api(tmp_path):
    client = TestClient(create_app(Settings(data=tmp_path)), base_url="http://localhost")
    for method, path, status in (("GET", "/foo", 404), ("GET", "//v1/styles", 404), ("PUT", "/", 405), ("POST", "/docs", 405)):
        answer = client.request(method, f"http://localhost{path}")
        assert answer.status_code == status and set(answer.json()) == {"error", "id"}


def test_a_page_holds_no_connection_open_to_say_that_it_is_there(tmp_path):
    async def ask():
        sent = []

        async def receive():
            await asyncio.sleep(0 if not sent else 60)
            return {"type": "http.request", "body": b""}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/gradio_api/heartbeat/abc", "query_string": b"", "http_version": "1.1"}
        scope |= {"headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http"}
        await asyncio.wait_for(create_app(Settings(data=tmp_path))(scope, receive, send), 5)
        return sent[0]["status"], sent[-1].get("more_body", False)

    assert asyncio.run(ask()) == (200, False)


def test_who_is_not_heard_of_has_gone_until_heard_of_again(monkeypatch):
    beats, session = studio.Beats(), SimpleNamespace(is_closed=False)
    beats.page = SimpleNamespace(state_holder=SimpleNamespace(session_data={"a": session}))
    beats.hear("a")
    beats.sweep()
    assert not session.is_closed
    monkeypatch.setattr(studio, "SILENT", -1.0)
    beats.sweep()
    assert session.is_closed
    beats.hear("a")
    assert not session.is_closed


def test_what_is_left_of_an_upload_that_broke_off_goes(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    old, fresh = tmp_path / "tmpabc", tmp_path / "tmpdef"
    for path in (old, fresh):
        path.write_bytes(b"half a pic")
    os.utime(old, (0, 0))
    desk.sweep()
    assert not old.exists() and fresh.exists()


def test_an_overtaken_preview_is_not_the_latest(sitting):
    first = sitting.turn()
    assert sitting.is_latest(first)
    second = sitting.turn()
    assert sitting.is_latest(second) and not sitting.is_latest(first)


def test_transparent_pictures_are_shown_so():
    clear = Picture(np.zeros((4, 4, 3), np.float32), np.full((4, 4), 0.5, np.float32))
    assert shown(clear).startswith("data:image/webp") and shown(Picture(clear.pixels)).startswith("data:image/jpeg")


# Elsewhere ----------------------------------------------------------------------------------------------------------------


def test_the_command_and_the_program_of_a_masked_blend():
    shared = Shared(
        "my photo.jpg",
        "out.png",
        [(0.75, "irises"), (0.25, "my own.png")],
        {**defaults(), "strength": 0.8, "feather": 12, "invert_mask": True, "size": 900},
        masked=True,
    )
    assert command(shared) == (
        "scumble stylize 'my photo.jpg' --blend 'irises=0.75,my own.png=0.25' --mask mask.png"
        " --strength 0.8 --size 900 --feather 12 --invert-mask -o out.png"
    )
    assert python(shared) == (
        "import scumble\nfrom scumble.mask import Mask\n\n"
        'content = scumble.Picture.open("my photo.jpg")\n'
        'mask = Mask.open("mask.png", content.size, feather=12, invert=True)\n'
        'style = 0.75 * scumble.Style.named("irises") + 0.25 * scumble.Style.from_image("my own.png")\n'
        'scumble.stylize(content, style, strength=0.8, size=900, mask=mask).save("out.png")\n'
    )


@given(name=st.text(min_size=1, max_size=30), strength=st.floats(0, 2), own=st.text(min_size=1, max_size=10))
def test_whatever_files_are_called_it_stays_one_command_and_one_program(name, strength, own):
    shared = Shared(f"{name}.png", "out.png", [(1.0, f"{own}.jpg")], {"strength": strength})
    words = shlex.split(command(shared))
    assert words[:2] == ["scumble", "stylize"] and words[2].removeprefix("./") == f"{name}.png" and not words[2].startswith("-")
    assert words[4].removeprefix("./") == f"{own}.jpg" and words[-2:] == ["-o", "out.png"]
    last = ast.parse(python(shared)).body[-1].value
    assert last.func.value.args[0].value == f"{name}.png"


def test_every_style_of_the_library_can_be_said_without_a_file():
    assert all("." not in name for name in library.entries())
