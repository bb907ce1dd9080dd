"""Recipes: what they hold, how what they name is found again, and that replaying gives the same bytes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scumble import Style, Stylizer, __version__, library, recipe, weights
from scumble.cli import run
from scumble.errors import InputError, UsageError
from scumble.picture import Picture, read_recipe

A_STYLE, ANOTHER = list(library.entries())[:2]
ALWAYS = ("eye.onnx", "finish_products.onnx", "finish_filter.onnx", "finish_raise.onnx")
USED = (*ALWAYS, "generator.onnx", "modulator.onnx")
"""Weight files that take part in a painting."""

SETTINGS = {
    "strength": 1.0, "method": "generator", "style_scale": None, "style_fit": "own", "keep_color": 0.0, "keep_light": 0.0,
    "grain": 1.0, "quality": "draft",
    "steps": None, "encoder": "eye", "size": None, "feather": 0.0, "invert_mask": False, "detail": None, "statistics": "thumbnail",
    "memory": None, "device": "cpu", "threads": 1, "max_pixels": 10**6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    y, x = np.mgrid[0:40, 0:64]
    pixels = np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / "style.png")
    Image.fromarray(np.uint8((x < 32) * 255)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCUMBLE_STYLES", str(tmp_path / "own"))
    return tmp_path


def request(style="style.png", masks=(), **settings):
    return recipe.Request((((1.0, style),),), masks, SETTINGS | settings)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("great-wave=0.7,starry-night=0.3", ((0.7, "great-wave"), (0.3, "starry-night"))),
        ("a=1", ((1.0, "a"),)),
        ("my, own=work.jpg=.5,b=2", ((0.5, "my, own=work.jpg"), (2.0, "b"))),
        ("a=-1,b=2", ((-1.0, "a"), (2.0, "b"))),
        ("a=1e-1,b=2E0", ((0.1, "a"), (2.0, "b"))),
        ("a=b,c.jpg=1,irises.jpg=2", ((1.0, "a=b,c.jpg"), (2.0, "irises.jpg"))),
    ],
)
def test_blends_are_read(text, terms):
    assert recipe.parse_blend(text) == terms


@pytest.mark.parametrize("text", ["", "a", "a,b", "a=", "a=x", "=1", "a=1,b"])
def test_blends_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError, match="a blend is written NAME=WEIGHT,NAME=WEIGHT"):
        recipe.parse_blend(text)


@pytest.mark.parametrize("weight", ["nan", "inf", "half", "50%", ""])
def test_a_blends_weights_are_numbers(weight):
    with pytest.raises(UsageError, match=f"^the weight of irises must be a number, as in irises=0.7; got '{weight}'$"):
        recipe.parse_blend(f"irises={weight},great-wave=2")


def test_a_recipe_holds_all_that_decides_the_bytes(folder):
    assert run(["stylize", "photo.jpg", "-s", "style.png", "--mask", "mask.png", "--feather", "2", "-q", "-o", "out.png"]) == 0
    held = read_recipe("out.png")
    assert held["scumble"] == __version__
    assert held["verb"] == "stylize"
    assert held["content"] == {"path": "photo.jpg", "sha256": weights.sha256(folder / "photo.jpg")}
    assert held["styles"] == [[{"weight": 1.0, "path": "style.png", "sha256": weights.sha256(folder / "style.png")}]]
    assert held["masks"] == [{"path": "mask.png", "sha256": weights.sha256(folder / "mask.png")}]
    assert set(held["settings"]) == set(SETTINGS)
    assert held["settings"]["feather"] == 2
    assert held["weights"] == {n: weights.sha256(weights.FOLDER / n) for n in USED}
    assert set(held["versions"]) == {"numpy", "onnxruntime", "PIL", "processors"}
    assert len(json.dumps(held)) < 4096, "it has to fit beside EXIF in a JPEG"


def test_paths_do_not_tell_where_home_is(folder):
    (folder / "deep" / "er").mkdir(parents=True)
    held = recipe.write_recipe(request(), "photo.jpg", "0", folder / "deep" / "er" / "out.png")
    assert held["content"]["path"] == "../../photo.jpg"
    assert held["styles"][0][0]["path"] == "../../style.png"
    assert str(folder) not in json.dumps(held)


def test_nor_where_it_is_painted_elsewhere(folder, monkeypatch):
    home = folder / "homes" / "alice"
    (home / "pictures").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    shutil.copy(folder / "photo.jpg", home / "pictures")
    written = {
        place: recipe.write_recipe(request(), str(home / "pictures" / "photo.jpg"), "", folder / place)["content"]["path"]
        for place in ("out.jpg", "homes/bob/out.jpg", "homes/alice/out.jpg", "homes/alice/painted/out.jpg")
    }
    assert list(written.values()) == ["photo.jpg", "photo.jpg", "pictures/photo.jpg", "../pictures/photo.jpg"]
    assert recipe.write_recipe(request(), "/elsewhere/x/photo.jpg", "", folder / "out.jpg")["content"]["path"] == "photo.jpg"


@pytest.mark.parametrize("setting", [{"quality": "fine"}, {"style_fit": "stretch"}])
def test_what_needs_the_pixels_of_a_style_gets_its_picture(setting):
    styles, painter = (((1.0, "style.png"),), ((0.5, "style.png"), (0.5, A_STYLE))), Stylizer(threads=1)
    assert all(isinstance(s, Style) for s in recipe.Request(styles, (), SETTINGS).open_styles(painter))
    seen, blended = recipe.Request(styles, (), SETTINGS | setting).open_styles(painter)
    assert seen == "style.png" and isinstance(blended, Style)


def test_weights_are_those_that_take_part():
    assert recipe.weights_used(request(), named=False) == list(USED)
    fused = recipe.weights_used(request(method="wct"), named=True)
    assert fused == [*ALWAYS, *(f"decoder{k}.onnx" for k in range(1, 6)), "library.safetensors"]
    assert "eye.safetensors" in recipe.weights_used(request(quality="fine"), named=False)
    assert "eye.safetensors" not in recipe.weights_used(request(quality="fine", encoder="vgg19"), named=False)


@pytest.mark.parametrize(
    ("settings", "refines"),
    [
        ({}, False),
        ({"quality": "fine"}, True),
        ({"steps": 3}, True),
        ({"steps": 0, "quality": "best"}, False),
        ({"steps": 3, "strength": 0}, False),
    ],
)
def test_when_pixels_are_optimised(settings, refines):
    assert request(**settings).refines is refines


def test_a_folder_is_what_its_pictures_are(folder):
    works = folder / "works"
    works.mkdir()
    shutil.copy("style.png", works / "a.png")
    before = recipe.file_sha256(works)
    (works / "notes.txt").write_text("not a work")
    assert recipe.file_sha256(works) == before
    shutil.copy("mask.png", works / "b.png")
    assert recipe.file_sha256(works) != before


@pytest.mark.parametrize(
    "arguments",
    [
        ["-s", "style.png", "-o", "out.jpg"],
        ["-s", A_STYLE, "-o", "out.png", "--strength", "0.7", "--keep-color", "0.5"],
        ["-s", "style.png", "-o", "out.png", "--style-fit", "stretch"],
        ["--blend", f"{A_STYLE}=0.6,style.png=0.4", "-o", "out.tif", "--method", "ot"],
        [
            "-s",
            "style.png",
            "-s",
            ANOTHER,
            "--mask",
            "mask.png",
            "--mask",
            "photo.jpg",
            "--invert-mask",
            "--feather",
            "3",
            "-o",
            "out.webp",
        ],
        ["-s", "works", "-o", "out.png", "--size", "50", "--method", "wct"],
        ["-s", "own", "-o", "out.gif"],
    ],
    ids=["picture", "name", "stretched", "blend", "masks", "folder", "own"],
)
def test_replaying_gives_the_same_bytes(arguments, folder):
    (folder / "works").mkdir()
    shutil.copy("style.png", "works/a.png")
    assert run(["styles", "add", "own", "style.png"]) == 0
    assert run(["stylize", "photo.jpg", *arguments, "-q"]) == 0
    out = folder / arguments[arguments.index("-o") + 1]
    assert run(["replay", out.name, "-q"]) == 0
    again = folder / f"out-replayed{out.suffix}"
    assert again.read_bytes() == out.read_bytes()
    assert run(["replay", out.name, "-q"]) == 1, "what is there is not overwritten"
    assert run(["replay", out.name, "-q", "--overwrite"]) == 0


def test_replaying_a_refinement_gives_the_same_bytes(folder):
    pytest.importorskip("torch")
    assert run(["stylize", "photo.jpg", "-s", "style.png", "-o", "out.png", "--steps", "3", "--threads", "1", "-q"]) == 0
    assert "torch" in read_recipe("out.png")["versions"]
    assert run(["replay", "out.png", "-q"]) == 0
    assert (folder / "out-replayed.png").read_bytes() == (folder / "out.png").read_bytes()


@pytest.fixture
def painted(folder):
    assert run(["stylize", "photo.jpg", "-s", "style.png", "-o", "out.png", "-q"]) == 0
    return folder / "out.png"


def failure(painted, capsys, *more):
    capsys.readouterr()
    assert run(["replay", painted.name, *more]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert not painted.with_name("out-replayed.png").exists()
    return err


def test_where_to_is_looked_at_before_anything_is_painted(painted, capsys, monkeypatch):
    monkeypatch.setattr(Stylizer, "painted", lambda *_given, **_named: pytest.fail("it was painted"))
    for output, code, told in (("again.xyz", 2, "cannot save as 'again.xyz'"), ("no/again.png", 1, "there is no folder no")):
        assert run(["replay", "out.png", "-o", output]) == code
        assert told in capsys.readouterr().err


def test_a_content_that_moved_can_be_pointed_to(painted, folder, capsys):
    (folder / "photo.jpg").rename(folder / "moved.jpg")
    assert failure(painted, capsys) == "error: the content photo.jpg is not there; say where it is with --content FILE\n"
    assert (
        failure(painted, capsys, "--content", "no.jpg") == "error: the content no.jpg is not there; say where it is with --content FILE\n"
    )
    assert "style.png is not what was painted from" in failure(painted, capsys, "--content", "style.png")
    assert run(["replay", "out.png", "--content", "moved.jpg"]) == 0
    assert (folder / "out-replayed.png").read_bytes() == painted.read_bytes()


def test_a_content_that_changed_is_not_used(painted, folder, capsys):
    Picture.open("style.png").save("photo.jpg", overwrite=True)
    assert failure(painted, capsys).startswith(
        f"error: the content {folder / 'photo.jpg'} is not what was painted from (its SHA-256 differs)"
    )


def test_a_style_that_is_gone_is_looked_for_beside_the_picture(folder, capsys):
    (folder / "elsewhere").mkdir()
    (folder / "style.png").rename(folder / "elsewhere" / "style.png")
    assert run(["stylize", "photo.jpg", "-s", "elsewhere/style.png", "-o", "out.png", "-q"]) == 0
    (folder / "elsewhere").rename(folder / "gone")
    assert failure(folder / "out.png", capsys) == "error: the style elsewhere/style.png is not there; put a copy beside out.png\n"
    shutil.copy("gone/style.png", "style.png")
    assert run(["replay", "out.png", "-q"]) == 0


def test_a_folder_can_be_moved_as_a_whole(painted, folder):
    (folder / "new").mkdir()
    for name in ("photo.jpg", "style.png", "out.png"):
        (folder / name).rename(folder / "new" / name)
    assert run(["replay", "new/out.png", "-q"]) == 0


def test_other_weights_are_named(painted, capsys, monkeypatch, tmp_path_factory):
    other = tmp_path_factory.mktemp("weights")
    for name in read_recipe(painted)["weights"]:
        shutil.copy(weights.FOLDER / name, other / name)
    with (other / "generator.onnx").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setattr(weights, "FOLDER", other)
    said = failure(painted, capsys)
    assert said == f"error: out.png was painted by Scumble {__version__} with another generator.onnx than this Scumble {__version__} has\n"


def tampered(folder, **changes):
    """A picture with the recipe of out.png, changed."""
    held = read_recipe("out.png")
    Picture.open("out.png").save("changed.png", recipe=held | changes)
    return held


def test_what_changed_is_named_when_the_bits_differ(painted, folder, capsys):
    held = read_recipe("out.png")
    tampered(folder, versions=held["versions"] | {"numpy": "0.9"})
    assert run(["replay", "changed.png", "-q"]) == 0, "an old version is no fault as long as the bits are the same"
    (folder / "changed-replayed.png").unlink()
    tampered_pixels = Picture.from_array(np.zeros((40, 64, 3), np.float32))
    tampered_pixels.save("changed.png", recipe=held | {"versions": held["versions"] | {"numpy": "0.9"}}, overwrite=True)
    assert run(["replay", "changed.png", "-q"]) == 1
    assert capsys.readouterr().err == f"error: changed-replayed.png is not bit for bit changed.png: numpy 0.9 is now {np.__version__}\n"
    tampered_pixels.save("changed.png", recipe=held, overwrite=True)
    assert run(["replay", "changed.png", "-q", "--overwrite"]) == 1
    assert "or the picture was changed after it was painted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recipe": 99, "scumble": "9.9"}, "changed.png was made by Scumble 9.9 in a way that 0.1.0 does not know"),
        ({"verb": "sculpt"}, "in a way that"),
        ({"styles": 3}, "the recipe in changed.png is damaged"),
        ({"settings": None}, "the recipe in changed.png is damaged"),
        ({"content": {}}, "the recipe in changed.png is damaged"),
        ({"settings": {"glitter": 1}}, "changed.png was painted with a setting that Scumble .* does not know: glitter"),
        ({"interrupted": 7}, "changed.png is where a refinement was interrupted"),
    ],
)
def test_a_recipe_that_can_not_be_followed(painted, folder, changes, sentence):
    tampered(folder, **changes)
    with pytest.raises(InputError, match=sentence):
        recipe.restore(read_recipe("changed.png"), Path("changed.png"))
