"""What Picture says when it can't: one clear sentence each; and what it leaves on the disk when it fails: nothing."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from scumble.errors import InputError, MissingExtraError, ScumbleError, UsageError
from scumble.picture import DEFAULT_MAX_PIXELS, SUFFIXES, Picture, read_recipe, read_size

ALLOWED = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC"
PICTURE = Picture.from_array(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
FILES = {format: PICTURE.encode(format) for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")}


def sentence(error):
    """One line that reads as one sentence."""
    text = str(error.value)
    assert text and "\n" not in text and "Traceback" not in text and len(text) < 400
    return text


def png_header(width, height, depth=8, colour=2):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


# Reading --------------------------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError) as error:
        Picture.open(tmp_path / "no such.png")
    assert sentence(error) == f"there is no file {tmp_path / 'no such.png'}; check the path"


def test_a_folder(tmp_path):
    with pytest.raises(InputError) as error:
        Picture.open(tmp_path)
    assert sentence(error) == f"{tmp_path} is a folder; give a picture file"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(FILES["PNG"])

    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError) as error:
        Picture.open(path)
    assert sentence(error) == f"{path} may not be read; change its permissions"


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(InputError) as error:
        Picture.open(path)
    assert sentence(error) == f"{path} is empty (0 bytes); give a picture: {ALLOWED}"


@pytest.mark.parametrize("text", [b"hello, I am a letter", b"\xff", b"GIF", "größe".encode(), b"<svg/>", b"\0" * 100, b"II*"])
def test_text_named_jpg(text, tmp_path):
    path = tmp_path / "letter.jpg"
    path.write_bytes(text)
    with pytest.raises(InputError) as error:
        Picture.open(path)
    assert sentence(error) == f"{path} is not a picture that can be read; allowed: {ALLOWED}"
    with pytest.raises(InputError) as error:
        Picture.open(text)
    assert sentence(error) == f"the picture is not a picture that can be read; allowed: {ALLOWED}"


@pytest.mark.parametrize("format", sorted(FILES))
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file(format, part):
    data = FILES[format]
    with pytest.raises(InputError) as error:
        Picture.open(data[: max(40, int(len(data) * part))])
    title = {"WEBP": "WebP"}.get(format, format)
    assert sentence(error) == f"the picture is a damaged or incomplete {title} file; get a whole copy of it"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(set(FILES) - {"AVIF"})), st.data())
def test_no_damage_gets_past_our_own_errors(format, data):
    damaged = bytearray(FILES[format])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 400)))] = data.draw(st.integers(0, 255))
    for reader in (Picture.open, read_recipe):
        try:
            reader(bytes(damaged))
        except ScumbleError as error:
            assert "\n" not in str(error)


def test_pictures_without_pixels():
    with pytest.raises(InputError) as error:
        Picture.open(png_header(0, 5))
    assert sentence(error) == "the picture is 0 x 5 pixels; a picture needs at least 1 x 1"


def test_decompression_bombs_are_refused_by_the_header(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(png_header(30_000, 30_000))
    with pytest.raises(InputError) as error:
        Picture.open(path)
    assert (
        sentence(error) == f"{path} is 30000 x 30000 = 900,000,000 pixels; the limit is 200,000,000: raise max-pixels, or make it smaller"
    )
    assert DEFAULT_MAX_PIXELS == 200_000_000


@pytest.mark.parametrize("format", sorted(FILES))
def test_the_limit_holds_for_every_format_before_decoding(format, monkeypatch):
    def decoded(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(InputError) as error:
        Picture.open(FILES[format], max_pixels=1199)
    assert sentence(error) == "the picture is 30 x 40 = 1,200 pixels; the limit is 1,199: raise max-pixels, or make it smaller"


@pytest.mark.parametrize("wrong", ["many", None])
def test_a_limit_is_a_number(wrong):
    with pytest.raises(UsageError, match=f"^max-pixels must be a number between 1 and 1e.18; got {wrong!r}$"):
        Picture.open(FILES["PNG"], max_pixels=wrong)


@pytest.mark.parametrize("wrong", [None, "photo.jpg"])
def test_from_pil_takes_images_of_pillow(wrong):
    with pytest.raises(UsageError, match=f"^from_pil takes a Pillow image; .* got {wrong!r}$"):
        Picture.from_pil(wrong)


def test_images_of_pillow_that_cannot_be_read():
    truncated = Image.open(io.BytesIO(FILES["JPEG"][: len(FILES["JPEG"]) // 2]))
    closed = Image.new("RGB", (3, 3))
    closed.close()
    for image, told in ((truncated, "image file is truncated"), (closed, "operation on closed image"), (Image.Image(), "AssertionError")):
        with pytest.raises(InputError, match=rf"^the Pillow image cannot be read \({told}.*\); open it again, from a whole file$"):
            Picture.from_pil(image)


WHITE = np.ones((2, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (lambda: PICTURE.resized(width=3.5, height=4), "width must be a whole number; got 3.5"),
        (lambda: PICTURE.resized(width="a", height=3), "width must be a whole number; got 'a'"),
        (lambda: PICTURE.resized(width=3, height=float("nan")), "height must be a whole number; got nan"),
        (lambda: PICTURE.encode(None), f"a picture format must be one of {', '.join(SUFFIXES)}; got None"),
        (lambda: PICTURE.save(None), "a picture is saved under a path; got None"),
        (lambda: PICTURE.with_pixels("x"), "an array must be made of numbers in rows of equal length; got str"),
        (lambda: Picture.from_array([[1.0], [1.0, 0.5]]), "an array must be made of numbers in rows of equal length; got list"),
        (lambda: Picture("x"), "pixels must be an array (Picture.open reads files, from_pil takes Pillow's images); got 'x'"),
        (lambda: Picture(WHITE, 1.0), "alpha must be an array or None; got 1.0"),
        (lambda: Picture(WHITE, None, "x"), "metadata must be a Metadata; got 'x'"),
    ],
)
def test_what_is_of_a_wrong_kind(attempt, told):
    with pytest.raises(UsageError) as error:
        attempt()
    assert sentence(error) == told


@pytest.mark.parametrize("reader", [Picture.open, read_size, read_recipe])
def test_an_empty_path_is_no_folder(reader):
    with pytest.raises(InputError, match=r"^an empty path was given; give that of a picture file$"):
        reader("")


def test_the_limit_is_inclusive_and_can_be_raised():
    assert Picture.open(FILES["PNG"], max_pixels=1200).size == (40, 30)


@pytest.mark.parametrize("lossless", [False, True])
def test_the_size_of_every_kind_of_webp(lossless):
    for mode in ("RGB", "RGBA"):
        buffer = io.BytesIO()
        PICTURE.to_pil().convert(mode).save(buffer, "WEBP", lossless=lossless)
        with pytest.raises(InputError, match="is 30 x 40 = "):
            Picture.open(buffer.getvalue(), max_pixels=1199)


def test_a_tiff_of_an_unknown_kind():
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 4, 3), np.float64), photometric="rgb")
    with pytest.raises(InputError) as error:
        Picture.open(buffer.getvalue())
    assert (
        sentence(error) == "the picture is a TIFF of a kind that cannot be read (64+64+64 bits per pixel); save it with 8 bits per channel"
    )


def test_heic_without_the_extra(monkeypatch):
    pytest.importorskip("pillow_heif")
    heic = PICTURE.encode("HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for attempt in (lambda: Picture.open(heic), lambda: PICTURE.encode("heic"), lambda: read_recipe(heic)):
        with pytest.raises(MissingExtraError) as error:
            attempt()
        assert sentence(error) == 'HEIC pictures need pillow-heif: pip install "scumble[heif]"'


def test_sources_of_the_wrong_kind(tmp_path):
    for source in (None, 5, np.zeros((2, 2))):
        with pytest.raises(UsageError, match="a picture must be a path, bytes or a binary file object; got"):
            Picture.open(source)
    with pytest.raises(UsageError, match="a file object must be opened in binary mode"):
        Picture.open(io.StringIO("x"))
    closed = io.BytesIO(FILES["PNG"])
    closed.close()
    with pytest.raises(InputError, match="the picture cannot be read"):
        Picture.open(closed)
    with pytest.raises(InputError, match="cannot be read"):
        Picture.open("null\0character.png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be read"):
        Picture.open(tmp_path / "file" / "x.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_a_pipe_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(FILES["PNG"],))
    writer.start()
    assert Picture.open(tmp_path / "pipe").size == (40, 30)
    writer.join()


def test_no_memory_is_said_in_one_sentence(monkeypatch):
    def exhausted(self):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(InputError) as error:
        Picture.open(FILES["PNG"])
    assert sentence(error) == "the picture does not fit into memory; free some or give a smaller picture"


# Writing --------------------------------------------------------------------------------------------------------------


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.svg", "jpg"])
def test_an_unknown_suffix(name, tmp_path):
    with pytest.raises(UsageError) as error:
        PICTURE.save(tmp_path / name)
    assert sentence(error) == f"cannot save as {str(tmp_path / name)!r}; the suffix must be one of {', '.join(SUFFIXES)}"
    with pytest.raises(UsageError, match=r"unknown picture format 'xyz'; allowed: \.jpg, "):
        PICTURE.encode("xyz")


def test_a_missing_parent_folder(tmp_path):
    with pytest.raises(InputError) as error:
        PICTURE.save(tmp_path / "no" / "such" / "out.png")
    assert sentence(error) == f"cannot write {tmp_path / 'no/such/out.png'}: there is no folder {tmp_path / 'no/such'}; make it first"


def test_a_folder_as_target(tmp_path):
    (tmp_path / "out.png").mkdir()
    with pytest.raises(InputError) as error:
        PICTURE.save(tmp_path / "out.png", overwrite=True)
    assert sentence(error) == f"cannot write {tmp_path / 'out.png'}: it is a folder; give a file name"


def test_an_existing_target_is_kept_unless_overwriting(tmp_path):
    path = tmp_path / "out.png"
    path.write_text("mine")
    with pytest.raises(InputError) as error:
        PICTURE.save(path)
    assert sentence(error) == f"{path} exists already; allow overwriting (--overwrite) or choose another name"
    assert path.read_text() == "mine"
    path.chmod(0o640)
    assert PICTURE.save(path, overwrite=True) == path
    assert Picture.open(path).size == (40, 30) and path.stat().st_mode & 0o777 == 0o640
    assert contents(tmp_path) == ["out.png"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    assert PICTURE.save(tmp_path / "out.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_overwriting_a_link_writes_to_what_it_points_to(tmp_path):
    (tmp_path / "real.png").write_text("old")
    (tmp_path / "link.png").symlink_to("real.png")
    with pytest.raises(InputError, match="exists already"):
        PICTURE.save(tmp_path / "link.png")
    PICTURE.save(tmp_path / "link.png", overwrite=True)
    assert (tmp_path / "link.png").is_symlink() and Picture.open(tmp_path / "real.png").size == (40, 30)


@pytest.mark.parametrize("links", [True, False])
def test_a_target_that_appears_meanwhile_is_not_lost(links, tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    fsync = os.fsync

    def meanwhile(descriptor):
        if not path.exists():
            path.write_text("somebody else's")
        fsync(descriptor)

    def no_links(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fsync", meanwhile)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(InputError, match="exists already"):
        PICTURE.save(path)
    assert path.read_text() == "somebody else's" and contents(tmp_path) == ["out.png"]


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert Picture.open(PICTURE.save(tmp_path / "out.png")).size == (40, 30)
    assert contents(tmp_path) == ["out.png"]

    def broken(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(InputError, match="cannot write"):
        PICTURE.save(tmp_path / "other.png")
    assert contents(tmp_path) == ["out.png"]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk full", "interrupted"])
def test_a_failed_write_leaves_nothing_behind(failure, overwrite, tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    if overwrite:
        path.write_text("old")

    def fail(descriptor):
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError if isinstance(failure, OSError) else KeyboardInterrupt) as error:
        PICTURE.save(path, overwrite=overwrite)
    if isinstance(failure, OSError):
        assert sentence(error).startswith(f"cannot write {path} (no space left on device); free space, ")
    assert contents(tmp_path) == (["out.png"] if overwrite else [])
    assert not overwrite or path.read_text() == "old"


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match=r"cannot write .*out\.png \(permission denied\); free space, change permissions"):
        PICTURE.save(tmp_path / "out.png")
    monkeypatch.undo()
    with pytest.raises(InputError, match="cannot write"):
        PICTURE.save(tmp_path / ("x" * 300 + ".png"))
    assert contents(tmp_path) == []


def test_a_failing_encoder_touches_no_file(tmp_path, monkeypatch):
    def broken(self, *args, **kwargs):
        raise OSError("encoder error -2")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(InputError) as error:
        PICTURE.save(tmp_path / "out.jpg")
    assert sentence(error) == "a picture of 30 x 40 pixels cannot be written as JPEG (encoder error -2); try PNG"
    assert contents(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from scumble.picture import Picture
where, target, overwrite = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
kill = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
if where == "write":
    write = Path.open
    class Half:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *args): self.file.close()
        def write(self, data): self.file.write(data[: len(data) // 2]); self.file.flush(); kill()
    Path.open = lambda self, mode="r": Half(write(self, mode)) if "x" in mode else write(self, mode)
elif where == "fsync":
    os.fsync = kill
else:
    os.link = kill
    Path.replace = kill
Picture.from_array(np.zeros((40, 30, 3), np.uint8)).save(target, overwrite=overwrite)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
@pytest.mark.parametrize(("where", "overwrite"), [("write", True), ("fsync", False), ("rename", True), ("rename", False)])
def test_a_killed_process_never_breaks_the_target(where, overwrite, tmp_path):
    target = tmp_path / "out.png"
    if overwrite:
        target.write_bytes(FILES["PNG"])
    source = Path(__file__).parents[1] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", KILLED, where, str(target), str(overwrite)], env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    left = contents(tmp_path)
    hidden = [name for name in left if name != "out.png"]
    assert len(hidden) == 1 and hidden[0].startswith(".scumble-") and hidden[0].endswith(".part")
    assert ("out.png" in left) == overwrite
    if overwrite:
        assert target.read_bytes() == FILES["PNG"]


def test_settings_outside_their_range():
    for quality in (0, 101, float("nan")):
        with pytest.raises(UsageError, match="quality must be between 1 and 100; got"):
            PICTURE.encode("JPEG", quality=quality)


def test_pictures_too_long_for_a_format(tmp_path):
    long = Picture.from_array(np.zeros((1, 16_384), np.uint8))
    with pytest.raises(UsageError) as error:
        long.save(tmp_path / "out.webp")
    assert sentence(error) == "WebP holds at most 16383 pixels a side; got 16384 x 1: save as PNG or TIFF"
    assert contents(tmp_path) == []


def test_importing_opens_no_optional_library():
    source = Path(__file__).parents[1] / "src"
    code = "import sys, scumble.picture; print([m for m in ('tifffile', 'imagecodecs', 'pillow_heif', 'torch') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
