import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from scumble import library
from scumble.errors import InputError, UsageError
from scumble.picture import Picture
from scumble.recipe import restore
from scumble.serve.service import OPTIONS, BusyError, ForgottenError, PaintService, StoppedError, Upload, defaults
from scumble.serve.settings import Settings
from scumble.style import Style

WAVE = [[(1.0, "great-wave")]]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = PaintService(Settings(data=tmp_path_factory.mktemp("data")))
    yield made
    made.close()


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[0:90, 0:120].astype(np.float32)
    return Picture.from_array(np.stack([x / 120, y / 90, np.sin(x / 9) ** 2 * 0.8], -1))


def test_the_defaults_are_the_librarys():
    assert set(defaults()) == set(OPTIONS)
    assert defaults()["strength"] == 1.0
    assert defaults()["method"] == "generator"
    assert defaults()["feather"] == 0.0
    assert defaults()["invert_mask"] is False


def test_the_nets_threads_do_not_spin(service):
    assert not service.painter.engine.alone
    options = service.painter.engine._net("eye").get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_it_paints_what_the_stylizer_paints(service, picture):
    settings = {"strength": 0.7, "keep_color": 0.4}
    painted = service.paint(picture, WAVE, settings)
    assert np.array_equal(painted.pixels, service.painter(picture, "great-wave", **settings).pixels)


def test_a_style_is_encoded_once_for_all_who_ask(service, brushwork):
    before, found = service.styles_encoded, []
    threads = [threading.Thread(target=lambda i=i: found.append(service.style(Upload(f"{i}.png", brushwork)))) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(style is found[0] for style in found)
    assert service.style(brushwork) is found[0]
    assert service.styles_encoded == before + 1


def test_a_text_is_never_a_path(service, tmp_path, brushwork):
    (tmp_path / "secret.png").write_bytes(brushwork)
    for text in (str(tmp_path / "secret.png"), "../secret.png", "/etc/passwd"):
        with pytest.raises(UsageError, match="unknown style"):
            service.style(text)


@pytest.mark.parametrize(
    "settings", [{}, {"quality": "draft"}, {"strength": 0.6}, {"strength": 1.5}, {"keep_color": 0.7}, {"method": "adain"}, {"strength": 0}]
)
def test_a_preview_is_the_painting_itself_where_it_is_painted_at_full_size(service, picture, settings):
    # to 2 of 255 steps: nothing differs but the order of sums
    key = service.keep(picture)
    preview = service.preview(key, WAVE, settings)
    painted = service.paint(service.content(key), WAVE, settings)
    assert np.abs(preview.pixels - painted.pixels).max() < 2 / 255


def test_a_preview_of_a_large_picture_resembles_the_reduced_result(service):
    y, x = np.mgrid[0:900, 0:1500].astype(np.float32)
    large = Picture.from_array(np.stack([x / 1500, y / 900, np.sin(x / 90) * np.sin(y / 70) * 0.4 + 0.5], -1))
    key = service.keep(large.encode("jpeg"))
    preview = service.preview(key, WAVE)
    assert preview.size == (614, 1024)
    full = service.paint(service.content(key), WAVE).resized(width=1024, height=614)
    assert np.abs(preview.pixels.mean((0, 1)) - full.pixels.mean((0, 1))).max() < 0.05
    coarse = [p.resized(width=32, height=20).pixels for p in (preview, full, service.small(key))]
    # what is painted lies far nearer to the result than to the content
    assert np.abs(coarse[0] - coarse[1]).mean() < 0.5 * np.abs(coarse[2] - coarse[1]).mean()


def test_masks_in_a_preview_leave_what_is_black(service, picture, half):
    key = service.keep(picture)
    mask = Picture.open(half)
    preview = service.preview(key, WAVE, masks=[mask])
    assert np.array_equal(preview.pixels[:, 62:], service.small(key).pixels[:, 62:])
    assert np.abs(preview.pixels[:, :58] - service.small(key).pixels[:, :58]).mean() > 0.02


def test_a_slider_is_repainted_from_what_is_kept(service, picture):
    key = service.keep(picture)
    service.preview(key, WAVE, {"strength": 0.5})
    calls = []
    eye = service.painter.engine.eye
    service.painter.engine.eye = lambda pixels: calls.append(1) or eye(pixels)
    try:
        service.preview(key, WAVE, {"strength": 0.6})
    finally:
        del service.painter.engine.eye
    assert not calls, "neither style nor content is encoded again"


def test_pictures_that_are_kept_make_room_for_others(picture, tmp_path):
    small = PaintService(Settings(data=tmp_path, kept_bytes=1_000_000))
    try:
        first = small.keep(picture)
        assert small.content(first).size == picture.size
        for shade in range(8):
            last = small.keep(Picture.from_array(np.full((200, 200, 3), shade / 8, np.float32)))
        assert small.small(last).size == (200, 200)
        with pytest.raises(ForgottenError, match="hand it in again"):
            small.preview(first, WAVE)
    finally:
        small.close()


def test_the_library_is_painted_small_on_the_picture(service, picture):
    names = ["great-wave", "starry-night", "irises"]
    shown = dict(service.previews(picture, names, side=60))
    assert list(shown) == names
    assert {p.size for p in shown.values()} == {(45, 60)}
    assert np.abs(shown["great-wave"].pixels - shown["starry-night"].pixels).mean() > 0.02
    with pytest.raises(UsageError, match="unknown style 'nobody'"):
        list(service.previews(picture, ["nobody"]))


def test_a_broken_style_of_ones_own_takes_no_other_with_it_and_a_new_one_is_seen(service, picture, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SCUMBLE_STYLES", str(tmp_path))
    (tmp_path / "broken.style").write_bytes(b"Dear Sirs")
    (tmp_path / "._mine.style").write_bytes(b"what macOS leaves beside files on other disks")
    rng = np.random.default_rng(0)
    thumbnails = []
    for power in (1, 4):
        Style.from_image(Picture.from_array(rng.random((48, 48, 3)) ** power)).save(tmp_path / "mine.style", overwrite=True)
        found = dict(service.previews(picture, ["irises", "broken", "mine"]))
        assert list(found) == ["irises", "mine"]
        thumbnails.append(found["mine"].pixels)
    assert "broken.style is not a style file" in caplog.text
    assert np.abs(thumbnails[0] - thumbnails[1]).max() > 0.05
    assert "._mine" not in library.entries()


def test_closing_the_previews_ends_them(service, picture):
    previews = service.previews(picture, side=60)
    next(previews)
    previews.close()
    deadline = time.monotonic() + 10
    while service.slots.taken and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.slots.taken == 0


def test_when_all_workers_are_busy_it_says_so(picture, tmp_path):
    narrow = PaintService(Settings(data=tmp_path, workers=1, queue=0))
    go = threading.Event()
    try:
        running = narrow.submit(go.wait)
        with pytest.raises(BusyError, match="try again in"):
            narrow.paint(picture, WAVE)
        go.set()
        running.result(5)
    finally:
        go.set()
        narrow.close()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strength": 3.5}, "strength must be between 0 and 2; got 3.5"),
        ({"strength": float("nan")}, "strength must be between 0 and 2"),
        ({"style_scale": 9}, "style-scale must be between 0.25 and 4; got 9"),
        ({"keep_color": -1}, "keep-color must be between 0 and 1; got -1"),
        ({"method": "wtc"}, "did you mean 'wct'"),
        ({"quality": "bset"}, "did you mean 'best'"),
        ({"steps": 1001}, "steps must be between 0 and 1000; got 1001"),
        ({"quality": "best"}, "quality 'best' takes 75 steps, and this service takes 50 at most; choose a lower one"),
        ({"steps": -1}, "steps must be between 0"),
        ({"size": 0}, "size must be between 1"),
        ({"feather": 3}, "need a mask"),
        ({"encoder": "vgg19"}, "the encoder 'vgg19' is not offered here; there is eye"),
        ({"encoder": "vgg19:relu4_1", "quality": "best"}, "not offered here"),
        ({"encoder": "https://example.org/vgg19.pth"}, "the encoder 'https' is not offered here"),
        ({"encoder": "../../vgg19.pth"}, "not offered here"),
        ({"device": "cuda"}, "unknown setting 'device'"),
    ],
)
def test_settings_are_checked_by_the_library_before_anything_is_painted(service, settings, sentence, monkeypatch):
    if "takes 50" in sentence:
        monkeypatch.setattr(service, "settings", replace(service.settings, max_steps=50))
    with pytest.raises(UsageError, match=sentence):
        service.check(WAVE, settings)


def test_a_check_lets_good_settings_pass(service, brushwork):
    service.check(WAVE, {"strength": 2, "size": 4000, "quality": "best", "steps": 3})
    service.check([[(1.0, brushwork)]], {"feather": 2}, masks=1)
    with pytest.raises(UsageError, match="one style, or one for each mask"):
        service.check(WAVE * 2, {})
    with pytest.raises(InputError):
        service.check([[(1.0, b"no picture")]], {})


def test_a_result_may_not_be_larger_than_allowed(service, picture):
    with pytest.raises(UsageError, match="size 100000 makes 7,500,000,000 pixels of this picture; 50,000,000 are allowed"):
        service.paint(picture, WAVE, {"size": 100_000})


def test_a_refinement_sees_the_style_that_was_uploaded(service, picture, brushwork):
    pytest.importorskip("torch", reason="needs the extra torch")
    small, settings = picture.resized(width=48, height=36), {"steps": 2}
    by_upload, by_style = (service.paint(small, [[(1.0, s)]], settings).pixels for s in (brushwork, service.style(brushwork)))
    assert np.array_equal(by_upload, service.painter(small, Picture.open(brushwork), **settings).pixels)
    assert not np.array_equal(by_upload, by_style)


def test_a_style_is_stretched_to_each_pictures_shape(service, picture, brushwork):
    small, settings = picture.resized(width=48, height=20), {"style_fit": "stretch"}
    expected = service.painter(small, Picture.open(brushwork), **settings).pixels
    assert np.array_equal(service.paint(small, [[(1.0, brushwork)]], settings).pixels, expected)
    assert not np.array_equal(service.paint(small, [[(1.0, brushwork)]]).pixels, expected)
    for terms in (WAVE[0], [(0.5, brushwork), (0.5, brushwork)]):
        with pytest.raises(UsageError, match="style-fit 'stretch' needs one picture for a style"):
            service.check([terms], settings)


@pytest.mark.parametrize("settings", [{"detail": "painted"}, {"statistics": "exact"}])
def test_a_picture_in_tiles_that_is_cancelled_ends_after_a_tile(settings, service, monkeypatch):
    from scumble.tiling import least_memory

    small = replace(service.settings, memory=int(1.05 * least_memory("generator")))
    large = Picture.from_array(np.random.default_rng(5).random((2400, 300, 3)).astype(np.float32))
    engine, cancel, tiles = service.painter.engine, threading.Event(), []
    paint, unfinished = engine.paint, engine.unfinished

    def note(net, *given, **more):
        tiles.append(net)
        cancel.set()
        return net(*given, **more)

    monkeypatch.setattr(service, "settings", small)
    monkeypatch.setattr(engine, "paint", partial(note, paint))
    monkeypatch.setattr(engine, "unfinished", partial(note, unfinished))
    with pytest.raises(StoppedError, match="cancelled"):
        service.painted(large, WAVE, {"quality": "draft", **settings}, cancel=cancel)
    assert len(tiles) <= 2, "a tile of a painting asks for its cells"


def test_a_refinement_that_is_cancelled_gives_its_best_so_far(service, picture):
    pytest.importorskip("torch", reason="needs the extra torch")
    cancel, seen = threading.Event(), []

    def progress(done, total, loss):
        seen.append(done)
        if done == 2:
            cancel.set()

    small = picture.resized(width=48, height=36)
    painted = service.paint(small, WAVE, {"steps": 200}, progress=progress, cancel=cancel)
    assert seen == [0, 1, 2]
    assert painted.size == small.size
    with pytest.raises(StoppedError):
        service.paint(small, WAVE, cancel=cancel)


def test_another_encoder_is_offered_where_the_operator_has_put_its_weights(picture, brushwork, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    from scumble.nets import vgg
    from scumble.weights import sha256

    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path))
    monkeypatch.setenv("SCUMBLE_OFFLINE", "1")
    with pytest.raises(InputError, match="the weights of vgg16 are not in"):
        PaintService(Settings(data=tmp_path, encoders=("vgg16",)))
    weights = tmp_path / "vgg16-test.pth"
    torch.save(vgg.Vgg("vgg16").state_dict(), weights)
    monkeypatch.setitem(vgg.SOURCES, "vgg16", ("https://example.org/vgg16-test.pth", sha256(weights)))
    offering = PaintService(Settings(data=tmp_path, encoders=("vgg16",)))
    try:
        settings = {"encoder": "vgg16", "steps": 1}
        small, style = picture.resized(width=48, height=36), [[(1.0, brushwork)]]
        offering.check(style, settings)
        assert offering.paint(small, style, settings).size == (36, 48)
        assert offering.recipe(Upload("a.png", b""), [[(1.0, Upload("b.png", brushwork))]], settings)["settings"]["encoder"] == "vgg16"
        offering.check(WAVE, {"encoder": "vgg16"})  # a draft looks at nothing
        for terms in (WAVE, [[(0.5, brushwork), (0.5, "irises")]]):
            with pytest.raises(UsageError, match="needs one picture for a style"):
                offering.check(terms, settings)
        for encoder, sentence in (("vgg16:relu9_9", "unknown vgg16 layer"), ("vgg19", "there is eye and vgg16")):
            with pytest.raises(UsageError, match=sentence):
                offering.check(style, settings | {"encoder": encoder})
    finally:
        offering.close()


def test_a_recipe_finds_its_files_beside_the_picture(service, photo, brushwork, half, tmp_path):
    files = {"photo.jpg": photo, "mine.png": brushwork, "half.png": half}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    content, style, mask = (Upload(f"C:\\fakepath/../{name}", data) for name, data in files.items())
    recipe = service.recipe(content, [[(0.3, "irises"), (0.7, style)]], {"strength": 0.5}, [mask])
    request, found = restore(recipe, tmp_path / "painted.png")
    assert found == tmp_path / "photo.jpg"
    assert request.styles == (((0.3, "irises"), (0.7, str(tmp_path / "mine.png"))),)
    assert request.masks == (str(tmp_path / "half.png"),)
    assert request.settings["strength"] == 0.5


def test_what_waits_is_told_that_the_service_closes(picture, tmp_path):
    closing = PaintService(Settings(data=tmp_path, workers=1))
    go, raised = threading.Event(), []
    closing.submit(go.wait)

    def ask():
        try:
            closing.paint(picture, WAVE)
        except StoppedError as error:
            raised.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    while closing.slots.taken < 2:
        time.sleep(0.01)
    threading.Timer(0.1, go.set).start()
    closing.close()
    asking.join(10)
    assert raised == ["the service is closing"]
