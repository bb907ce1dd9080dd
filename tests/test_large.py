"""Pictures painted by rows: the same colours, metadata and result as of pictures that are held whole; interrupted runs go on."""

import io
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageCms

from scumble import large, tiling
from scumble.cli import run
from scumble.cli.jobs import Job, by_rows
from scumble.errors import InputError, UsageError
from scumble.large.painting import PROCESS
from scumble.large.reading import Source
from scumble.mask import Mask
from scumble.picture import Picture, read_recipe
from scumble.stylizer import Stylizer, defaults, working_scale
from scumble.tiling import Window, partition
from test_tiling import scene

pyvips = pytest.importorskip("pyvips", reason='needs pyvips: pip install "scumble[big]"')


@pytest.fixture(scope="module")
def painter():
    return Stylizer("cpu", threads=2)


def photo(folder, name="in.png", height=500, width=620, **save):
    path = folder / name
    Image.fromarray((scene(height, width) * 255).astype(np.uint8)).save(path, **save)
    return path


@lru_cache  # Little CMS writes the time into it
def adobe_like():
    """A profile with other primaries than sRGB's: Pillow's own of a matrix kind, its red moved."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(icc[128:132], "big")
    for at in range(132, 132 + 12 * count, 12):
        if icc[at : at + 4] == b"rXYZ":
            start = int.from_bytes(icc[at + 4 : at + 8], "big")
            icc[start + 8 : start + 12] = round(0.6097 * 65536).to_bytes(4, "big")
    return bytes(icc)


def variants(folder):
    rgb = (scene(90, 130) * 255).astype(np.uint8)
    alpha = np.where(np.arange(130) < 40, 0, np.arange(130) + 100).clip(0, 255).astype(np.uint8) * np.ones((90, 1), np.uint8)
    deep = (scene(90, 130) * 65535).astype(np.uint16)
    made = {}

    def save(name, image, **more):
        image.save(folder / name, **more)
        made[name] = folder / name

    save("plain.png", Image.fromarray(rgb))
    save("plain.jpg", Image.fromarray(rgb), quality=95)
    save("grey.png", Image.fromarray(rgb[..., 0]))
    save("bilevel.png", Image.fromarray(rgb[..., 0] > 120))
    save("palette.png", Image.fromarray(rgb).quantize(40))
    save("alpha.png", Image.fromarray(np.dstack([rgb, alpha])))
    save("grey-alpha.png", Image.fromarray(np.dstack([rgb[..., 0], alpha])))
    save("profile.tif", Image.fromarray(rgb), icc_profile=adobe_like(), compression="tiff_deflate")
    save("cmyk.jpg", Image.fromarray(rgb).convert("CMYK"), quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a hill"
    save("sideways.jpg", Image.fromarray(rgb), exif=exif, quality=95)
    save("broken-profile.png", Image.fromarray(rgb), icc_profile=b"no profile at all" * 20)
    deep_picture = Picture.from_array(deep)
    made["deep.png"] = deep_picture.save(folder / "deep.png")
    made["deep.tif"] = deep_picture.save(folder / "deep.tif")
    return made


def test_rows_show_what_the_whole_shows(tmp_path):
    pytest.importorskip("imagecodecs")
    for name, path in variants(tmp_path).items():
        whole = Picture.open(path)
        source = Source(path)
        assert (source.height, source.width) == whole.size, name
        assert source.metadata.bits == whole.metadata.bits, name
        rows = source.rows()
        got = np.zeros_like(whole.pixels)
        alpha = np.zeros(whole.size, np.float32)
        for w in partition(*whole.size, 48):
            part = rows.picture(w)
            got[w.slices] = part.pixels
            if part.alpha is not None:
                alpha[w.slices] = part.alpha
        visible = np.ones(whole.size, bool) if whole.alpha is None else whole.alpha > 0
        # libvips and Pillow may round a JPEG's colours differently
        assert np.abs(got - whole.pixels)[visible].max() <= (3 / 255 if name.endswith("jpg") else 1e-4), name
        if whole.alpha is not None:
            np.testing.assert_allclose(alpha, whole.alpha, atol=1e-5)
        assert rows.picture(Window(0, 1, 0, 1)).metadata.icc_profile == whole.metadata.icc_profile, name


def test_reduced_is_the_whole_made_smaller(tmp_path):
    path = photo(tmp_path, height=400, width=700)
    reduced = Source(path).reduced(100, 175)
    assert np.abs(reduced.pixels - Picture.open(path).resized(width=175, height=100).pixels).max() < 3 / 255


def brush(painter, detail, memory):
    return painter.brush(**{**defaults(), "style_scale": 3.0, "detail": detail, "memory": memory})


@pytest.mark.parametrize("detail", ["content", "painted"])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_a_file_painted_by_rows_is_the_picture_painted_whole(tmp_path, painter, detail, suffix):
    path = photo(tmp_path, height=1000, width=1100)
    settings = {"style_scale": 3.0, "detail": detail}
    outcome = large.paint(path, ["great-wave"], tmp_path / f"out{suffix}", painter=painter, memory=530_000_000, **settings)
    assert outcome.plan.tiles > 1 or detail == "content"
    whole = painter(Picture.open(path), "great-wave", **settings)
    out = Picture.open(tmp_path / f"out{suffix}")
    assert out.size == whole.size
    assert np.abs(out.pixels - whole.pixels).mean() < 3 / 255  # the two reduce the content by different programs
    # from the same reduced content, it is the very same picture
    source = Source(path)
    factor = working_scale(source.height, source.width, 3.0)
    small = source.reduced(round(source.height * factor), round(source.width * factor)).pixels
    way = brush(painter, detail, 530_000_000 - PROCESS)
    layer = painter.layer(small, painter.seen("great-wave", way, source.height, source.width), way, lambda _: None)
    same = tiling.paint(layer, Picture.open(path).pixels, 4096)
    assert np.abs(out.pixels - same).max() <= (1.01 / 255 if suffix != ".jpg" else 20 / 255)  # JPEG takes the rest
    assert len(list(tmp_path.iterdir())) == 2  # nothing is left beside


def test_settings_reach_the_tiles(tmp_path, painter):
    path = photo(tmp_path, height=300, width=400)
    picture = Picture.open(path)
    mask = np.zeros((30, 40), np.float32)
    mask[:, 20:] = 1
    whole = painter(picture, "great-wave", style_scale=3, keep_color=0.5, strength=0.6, mask=Mask.from_array(mask, (300, 400)))
    large.paint(
        path, ["great-wave"], tmp_path / "out.png", painter=painter, masks=[Picture.from_array(mask)], style_scale=3, keep_color=0.5,
        strength=0.6, detail="content",
    )  # fmt: skip
    out = Picture.open(tmp_path / "out.png")
    assert np.abs(out.pixels - whole.pixels).mean() < 1.5 / 255
    assert np.abs(out.pixels - picture.pixels)[:, :180].max() <= 1 / 255
    large.paint(path, ["great-wave"], tmp_path / "nothing.png", painter=painter, style_scale=3, strength=0)
    assert np.abs(Picture.open(tmp_path / "nothing.png").pixels - picture.pixels).max() <= 1 / 255
    work = photo(tmp_path, name="work.png", height=90, width=40)
    whole = painter(picture, work, style_scale=3, style_fit="stretch")
    large.paint(path, [work], tmp_path / "stretched.png", painter=painter, style_scale=3, style_fit="stretch", detail="content")
    assert np.abs(Picture.open(tmp_path / "stretched.png").pixels - whole.pixels).mean() < 1.5 / 255
    large.paint(path, ["great-wave"], tmp_path / "half.png", painter=painter, style_scale=4, size=300)
    assert Picture.open(tmp_path / "half.png").size == (225, 300)


def test_what_the_file_said_is_kept(tmp_path, painter):
    pytest.importorskip("imagecodecs")
    exif = Image.Exif()
    exif[0x010E] = "a hill"
    rgba = np.dstack([(scene(260, 300) * 255).astype(np.uint8), np.tile(np.linspace(0, 255, 300).astype(np.uint8), (260, 1))])
    Image.fromarray(rgba).save(tmp_path / "in.png", icc_profile=adobe_like(), exif=exif, dpi=(300, 300))
    for suffix in (".png", ".tif", ".jpg"):
        out = tmp_path / f"out{suffix}"
        recipe = {"verb": "stylize", "settings": {"a": "ü<&"}}
        large.paint(tmp_path / "in.png", ["irises"], out, painter=painter, style_scale=4, recipe=recipe)
        there = Picture.open(out)
        assert there.metadata.icc_profile == adobe_like()
        assert (there.alpha is not None) == (suffix != ".jpg")
        assert read_recipe(out) == {"verb": "stylize", "settings": {"a": "ü<&"}}
        assert suffix == ".tif" or b"a hill" in there.metadata.exif
        assert there.metadata.dpi == pytest.approx((300, 300), abs=0.5)
    deep = (scene(260, 300) * 65535).astype(np.uint16)
    Picture.from_array(deep).save(tmp_path / "deep.png")
    for suffix in (".png", ".tif"):
        large.paint(tmp_path / "deep.png", ["irises"], tmp_path / f"deeper{suffix}", painter=painter, style_scale=4, strength=0)
        out = Picture.open(tmp_path / f"deeper{suffix}")
        assert out.metadata.bits == 16
        assert np.abs(out.pixels - deep / 65535).max() < 2e-5


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_no_resolution_is_made_up(tmp_path, painter, suffix):
    out = tmp_path / f"out{suffix}"
    for kind in ("png", "tif", "jpg"):
        assert Source(photo(tmp_path, f"says-nothing.{kind}", 50, 60)).metadata.dpi is None
        assert Source(photo(tmp_path, f"says-72.{kind}", 50, 60, dpi=(72, 72))).metadata.dpi == pytest.approx((72, 72), abs=0.1)
    large.paint(photo(tmp_path), ["irises"], out, painter=painter, style_scale=4, strength=0)
    there = Picture.open(out)
    assert there.metadata.dpi is None and there.metadata.exif is None
    with Image.open(out) as image:
        image.load()  # checks what a PNG's chunks sum up to
        assert "dpi" not in image.info
    exif = Image.Exif()
    exif[0x010E] = "a hill"
    Image.fromarray((scene(260, 300) * 255).astype(np.uint8)).save(tmp_path / "described.png", exif=exif)
    large.paint(tmp_path / "described.png", ["irises"], out, painter=painter, style_scale=4, strength=0, overwrite=True)
    with Image.open(out) as image:
        assert suffix == ".tif" or image.getexif()[0x010E] == "a hill"
        assert image.getexif().get(0x011A, 72) == pytest.approx(72)  # by EXIF that is what unknown is


def test_a_tiff_is_tiled_and_pyramidal(tmp_path, painter):
    large.paint(photo(tmp_path), ["irises"], tmp_path / "out.tif", painter=painter, style_scale=4)
    head = (tmp_path / "out.tif").read_bytes()[:4]
    assert head in (b"II+\0", b"MM\0+")  # BigTIFF
    image = pyvips.Image.new_from_file(str(tmp_path / "out.tif"))
    assert image.get("n-pages") >= 2
    assert pyvips.Image.new_from_file(str(tmp_path / "out.tif"), page=1).width == image.width // 2


class Stop(BaseException):
    """As sudden as a killed process."""


def killed_after(tiles, path, target, **settings):
    def stop(done, total):
        if done == tiles:
            raise Stop

    with pytest.raises(Stop):
        large.paint(path, ["irises"], target, tiles=stop, **settings)


@pytest.mark.parametrize(("method", "memory"), [("generator", 430_000_000), ("adain", 1_000_000_000)])
def test_an_interrupted_run_goes_on_with_the_tiles_that_are_missing(tmp_path, painter, method, memory):
    path = photo(tmp_path, height=140, width=6600)
    settings = {"painter": painter, "style_scale": 4.0, "method": method, "memory": memory, "recipe": {"style": "a"}, "detail": "painted"}
    large.paint(path, ["irises"], tmp_path / "whole.png", **settings)
    killed_after(2, path, tmp_path / "out.png", **settings)
    assert not (tmp_path / "out.png").exists()
    seen = []
    outcome = large.paint(path, ["irises"], tmp_path / "out.png", resume=True, tiles=lambda done, total: seen.append(done), **settings)
    assert outcome.resumed == 2
    assert seen == list(range(2, outcome.plan.tiles + 1))
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "out.png", "whole.png"]


def test_going_on_with_something_else_is_refused(tmp_path, painter):
    path = photo(tmp_path, height=300, width=900)

    settings = {"painter": painter, "style_scale": 4.0, "memory": 430_000_000}
    killed_after(1, path, tmp_path / "out.png", recipe={"style": "a"}, **settings)
    with pytest.raises(UsageError, match=r"was begun otherwise \(style\)"):
        large.paint(path, ["irises"], tmp_path / "out.png", resume=True, recipe={"style": "b"}, **settings)
    folder = tmp_path / ".out.png.parts"
    with pytest.raises(UsageError, match=r"was begun otherwise \(style\)"):
        large.paint(path, ["irises"], tmp_path / "out.png", resume=True, **settings)
    for name in ("done", "canvas"):  # what a machine may leave whose power failed
        (folder / name).write_bytes(b"")
        with pytest.raises(InputError, match="begin again"):
            large.paint(path, ["irises"], tmp_path / "out.png", resume=True, recipe={"style": "a"}, **settings)
    large.paint(path, ["irises"], tmp_path / "out.png", recipe={"style": "b"}, **settings)
    assert not folder.exists()


def test_without_a_recipe_too_only_the_same_is_gone_on_with(tmp_path, painter):
    path, other = photo(tmp_path, height=300, width=900), photo(tmp_path, "other.png", height=310, width=880)
    mask = Picture.from_array(np.tile(np.linspace(0, 1, 900), (300, 1)))
    settings = {"painter": painter, "style_scale": 4.0, "memory": 430_000_000}
    killed_after(1, path, tmp_path / "out.png", **settings)
    for source, style, more, what in (
        (other, "irises", {}, "content"),
        (path, "great-wave", {}, "styles"),
        (path, "irises", {"strength": 0.5}, "settings"),
        (path, "irises", {"masks": [mask]}, "masks"),
    ):
        with pytest.raises(UsageError, match=rf"was begun otherwise \({what}\)"):
            large.paint(source, [style], tmp_path / "out.png", resume=True, **settings, **more)
    more = {"strength": 1, "grain": np.float32(1), "memory": 440_000_000}
    assert large.paint(path, ["irises"], tmp_path / "out.png", resume=True, **{**settings, **more}).resumed == 1


def test_a_file_is_written_where_the_c_library_has_no_name(tmp_path, painter, monkeypatch):
    def cdll(name):
        return "/" in name  # as ctypes has it on Windows

    monkeypatch.setattr("scumble.large.writing.ctypes.CDLL", cdll)
    large.paint(photo(tmp_path, height=300, width=900), ["irises"], tmp_path / "out.png", painter=painter, style_scale=4.0)
    assert Picture.open(tmp_path / "out.png").size == (300, 900)


def test_a_run_that_is_refused_costs_nothing(tmp_path, painter):
    path = photo(tmp_path, height=300, width=900)

    settings = {"painter": painter, "style_scale": 4.0, "memory": 430_000_000}
    killed_after(1, path, tmp_path / "out.png", **settings)
    parts = {p.name: p.read_bytes() for p in (tmp_path / ".out.png.parts").iterdir()}
    path.rename(tmp_path / "elsewhere.png")
    with pytest.raises(InputError):
        large.paint(path, ["irises"], tmp_path / "out.png", **settings)
    (tmp_path / "elsewhere.png").rename(path)
    for more in ({"memory": 1_000_000}, {"style_scale": 0.25}, {"detail": "nice"}):
        with pytest.raises(UsageError):
            large.paint(path, ["irises"], tmp_path / "out.png", **{**settings, **more})
    with pytest.raises(InputError):
        large.paint(path, [tmp_path / "no-such-style.jpg"], tmp_path / "out.png", **settings)
    assert {p.name: p.read_bytes() for p in (tmp_path / ".out.png.parts").iterdir()} == parts
    assert large.paint(path, ["irises"], tmp_path / "out.png", resume=True, **settings).resumed == 1


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path, painter):
    path = photo(tmp_path)
    cases = [
        ({"source": tmp_path / "no.png"}, InputError, "no file"),
        ({"target": tmp_path / "out.webp"}, UsageError, ".tif, .png or .jpg"),
        ({"target": path}, InputError, "exists already"),
        ({"target": tmp_path / "no" / "out.png"}, InputError, "no folder"),
        ({"max_pixels": 1000}, InputError, "raise max-pixels"),
        ({"size": 10.5}, UsageError, "size must be a whole number"),
        ({"memory": 1000_000}, UsageError, "--memory"),
        ({"style_scale": 0.25}, UsageError, "style-scale"),
        ({"detail": "nice"}, UsageError, "unknown detail"),
        ({"statistics": "exactly"}, UsageError, "did you mean 'exact'"),
        ({"memory": "1GB"}, UsageError, "memory must be a number"),
        ({"memory": float("nan")}, UsageError, "memory must be between"),
        ({"masks": ["sky.png"]}, UsageError, "mask must be a Picture"),
        ({"feather": "x"}, UsageError, "feather must be a number"),
        ({"source": None}, UsageError, "read from a path"),
        ({"target": 3}, UsageError, "written to one"),
        ({"recipe": {"x": float("nan")}}, UsageError, "what JSON can"),
        ({"recipe": {"x": np.float32(1)}}, UsageError, "what JSON can"),
    ]
    for more, kind, words in cases:
        call = {"source": path, "target": tmp_path / "out.png", "style_scale": 4.0, **more}
        with pytest.raises(kind, match=words):
            large.paint(call.pop("source"), ["irises"], call.pop("target"), painter=painter, **call)
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize(("method", "least"), [("generator", 182), ("wct", 733)])
def test_the_least_budget_that_is_told_is_one_that_is_accepted(tmp_path, capsys, method, least):
    path = photo(tmp_path, "in.jpg", height=1260, width=2000)
    settings = ["--style", "irises", "--quality", "draft", "--method", method, "-o", str(tmp_path / "out.png")]
    for given in (100, least - 1):
        assert run(["stylize", str(path), *settings, "--memory", f"{given}MB"]) == 2
        told = capsys.readouterr().err
        assert f"takes {least} MB" in told and f"; got {given} MB: raise it with --memory" in told
    # from there on it is held whole, as tiles that fit
    job = Job(str(path), str(tmp_path / "out.png"))
    assert by_rows(job, {**defaults(), "size": None, "max_pixels": 10**9, "memory": least * 1_000_000}) is None
    assert tiling.least_memory(method) <= least * 1_000_000


def test_one_style_needs_no_list(tmp_path, painter):
    path = photo(tmp_path)
    for name, styles in (("a.png", "irises"), ("b.png", ["irises"])):
        large.paint(path, styles, tmp_path / name, painter=painter, style_scale=4, quality="draft")
    assert np.array_equal(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.png"))


@pytest.mark.parametrize("name", ["in.jpg", "in.png", "in.tif"])
def test_a_truncated_file_is_told_and_leaves_nothing(tmp_path, painter, name):
    path = photo(tmp_path, name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="whole copy"):
        large.paint(path, ["irises"], tmp_path / "out.png", painter=painter, style_scale=4)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_several_pages_is_told_and_reduced_sizes_are_none(tmp_path, caplog, big):
    pages = [Image.fromarray(np.full((40, 50, 3), shade, np.uint8)) for shade in (10, 90, 200)]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:], big_tiff=big)
    sentence = f"{tmp_path / 'in.tif'} holds 3 pages, and the first alone is taken; save the others as files of their own"
    for read in (Picture.open, Source):
        caplog.clear()
        read(tmp_path / "in.tif")
        assert [r.getMessage() for r in caplog.records] == [sentence]
    pyvips.Image.black(600, 700, bands=3).tiffsave(str(tmp_path / "pyramid.tif"), tile=True, pyramid=True, bigtiff=big)
    assert pyvips.Image.new_from_file(str(tmp_path / "pyramid.tif")).get("n-pages") > 1
    caplog.clear()
    for read in (Picture.open, Source):
        read(tmp_path / "pyramid.tif")
    assert caplog.records == []


def test_a_float_tiff_is_told(tmp_path, painter):
    Image.fromarray(scene(60, 80)[..., 0]).save(tmp_path / "in.tif")
    with pytest.raises(InputError, match="8 or 16 bits"):
        large.paint(tmp_path / "in.tif", ["irises"], tmp_path / "out.png", painter=painter, style_scale=4)


def test_exact_statistics_by_rows(tmp_path, painter):
    path = photo(tmp_path, height=200, width=420)
    plans = []
    out = tmp_path / "out.png"
    large.paint(
        path, ["irises"], out, painter=painter, style_scale=4, detail="painted", statistics="exact",
        planned=lambda *plan: plans.append(plan), memory=480_000_000,
    )  # fmt: skip
    whole = painter(Picture.open(path), "irises", style_scale=4, detail="painted", statistics="exact")
    assert np.abs(Picture.open(out).pixels - whole.pixels).mean() < 1.5 / 255
    assert plans[0][1:] == (200, 420)
    assert plans[0][0].estimate <= plans[0][0].budget == 480_000_000


def test_png_bytes_are_the_same_each_time(tmp_path, painter):
    path = photo(tmp_path)
    for name in ("a.png", "b.png"):
        large.paint(path, ["irises"], tmp_path / name, painter=painter, style_scale=4)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).size == (620, 500)
