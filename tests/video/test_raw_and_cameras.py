"""Numbered pictures, raw frames, cameras."""

import io
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from clips import H, W, av, picture, shown
from PIL import Image

from scumble import Picture
from scumble.cli import run
from scumble.errors import InputError, UsageError
from scumble.video import Camera, Raw
from scumble.video.frames import parse_rate, parse_raw


class TestNumberedRawAndCamera:
    def test_numbers_metadata_and_depth_stay(self, tmp_path, paint):
        (tmp_path / "in").mkdir()
        (tmp_path / "out").mkdir()
        for k in range(7, 10):
            Picture.from_array(np.uint16(picture(k)) * 257).save(tmp_path / "in" / f"f{k:04}.png")
        (tmp_path / "in" / "f0011.png").write_text("after the first gap")
        paint(tmp_path / "in" / "f%04d.png", tmp_path / "out" / "p%04d.png", strength=0)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["p0007.png", "p0008.png", "p0009.png"]
        result = Picture.open(tmp_path / "out" / "p0008.png")
        assert result.metadata.bits == 16
        np.testing.assert_allclose(result.pixels, picture(8) / 255, atol=1e-4)

    def test_into_a_film_with_a_rate(self, tmp_path, paint):
        for k in range(3):
            Image.fromarray(picture(k)).save(tmp_path / f"{k}.png")
        paint(tmp_path / "%d.png", tmp_path / "out.mp4", strength=0, rate=Fraction(10))
        assert [t for t, _ in shown(tmp_path / "out.mp4")] == [0, Fraction(1, 10), Fraction(2, 10)]
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].codec_context.colorspace == 1

    @pytest.mark.parametrize("target", ["10.png", "%d.png", "../in/%d.png", "%02d.png", "link/%d.png"])
    def test_pictures_are_not_painted_over_themselves(self, target, tmp_path, paint):
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "link").symlink_to(folder)
        for k in range(9, 11):
            Image.fromarray(picture(k)).save(folder / f"{k}.png")
        before = {p.name: p.read_bytes() for p in folder.glob("*.png")}
        with pytest.raises(UsageError, match="can't be painted over itself; choose another name"):
            paint(folder / "%d.png", folder / target, overwrite=True, strength=0)
        assert {p.name: p.read_bytes() for p in folder.glob("*.png")} == before

    def test_sizes_must_be_equal(self, tmp_path, paint):
        for k, size in enumerate([(W, H), (W, H - 2)]):
            Image.fromarray(picture(k, *size)).save(tmp_path / f"{k}.png")
        with pytest.raises(InputError, match=r"1\.png is 64 x 46, the first one 64 x 48; all must be of one size"):
            paint(tmp_path / "%d.png", tmp_path / "out.mp4", strength=0)
        assert not (tmp_path / "out.mp4").exists()

    def test_raw_in_and_out(self, paint):
        given = np.stack([picture(k) for k in range(3)])
        out = io.BytesIO()
        paint(Raw(io.BytesIO(given.tobytes()), W, H, Fraction(25)), out, strength=0)
        np.testing.assert_array_equal(np.frombuffer(out.getvalue(), np.uint8).reshape(given.shape), given)

    @pytest.mark.parametrize(
        ("size", "sentence"), [(W * H * 3 + 5, "ended within frame 2, after 5 of 9216 bytes; is --raw right\\?"), (0, "holds no frames")]
    )
    def test_raw_that_ends_early(self, size, sentence, tmp_path, paint):
        with pytest.raises(InputError, match=sentence):
            paint(Raw(io.BytesIO(bytes(size)), W, H, Fraction(25)), tmp_path / "out.mp4", strength=0)
        assert list(tmp_path.iterdir()) == []

    def test_a_pipe_can_not_be_resumed(self, tmp_path, paint):
        with pytest.raises(UsageError, match="can't be had again"):
            paint(Raw(io.BytesIO(), W, H, Fraction(25)), tmp_path / "out.mp4", resume=True)

    class Capture:
        """What OpenCV's VideoCapture is like."""

        def __init__(self, frames, opened=True):
            self.left, self.opened, self.released = list(frames), opened, False

        def isOpened(self):  # noqa: N802
            return self.opened

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def get(self, _which):
            return 30.0

        def release(self):
            self.released = True

    def test_camera(self, tmp_path, paint):
        capture = self.Capture(picture(k)[:, :, ::-1] for k in range(4))
        ticks = iter([10.0, 10.0, 10.05, 10.051, 10.2])
        camera = Camera(0, open_capture=lambda _: capture, clock=lambda: next(ticks))
        paint(camera, tmp_path / "out.mp4", strength=0)
        frames = shown(tmp_path / "out.mp4")
        assert [float(t) for t, _ in frames] == [0.0, 0.05, 0.051]  # the first look is for the size
        assert np.abs(frames[0][1].astype(int) - picture(1)).mean() < 5
        assert capture.released

    @pytest.mark.parametrize(("orientation", "turns"), [(None, 0), (1, 0), (3, 2), (6, 3), (8, 1)])
    def test_frames_with_exif_as_cameras_write_them(self, orientation, turns, tmp_path, paint):
        exif = Image.Exif()
        exif[0x010F] = "a camera"
        if orientation is not None:
            exif[0x0112] = orientation
        with av.open(str(tmp_path / "in.avi"), "w") as out:
            stream = out.add_stream("mjpeg", rate=25, width=W, height=H, pix_fmt="yuvj420p")
            for k in range(2):
                jpeg = io.BytesIO()
                Image.fromarray(picture(k)).save(jpeg, "JPEG", exif=exif, quality=95)
                packet = av.Packet(jpeg.getvalue())
                packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), k, k
                out.mux(packet)
        paint(tmp_path / "in.avi", tmp_path / "out.mp4", strength=0)
        frames = shown(tmp_path / "out.mp4")
        assert len(frames) == 2
        upright = np.rot90(picture(0), turns)
        assert frames[0][1].shape == upright.shape
        assert np.abs(frames[0][1].astype(int) - upright).mean() < 5

    def test_no_camera(self):
        with pytest.raises(InputError, match=r"camera 3 can't be opened; is it there, and free\?"):
            Camera(3, open_capture=lambda _: self.Capture([], opened=False))

    def test_no_camera_and_no_lines_of_opencv(self):
        asked = "from scumble.video import Camera; Camera(97)"
        environment = {name: value for name, value in os.environ.items() if name != "OPENCV_LOG_LEVEL"}
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False, env=environment)
        assert done.stderr.splitlines()[-1].endswith("camera 97 can't be opened; is it there, and free?")
        assert done.stderr.startswith("Traceback")

    @pytest.mark.parametrize(
        ("source", "told"),
        [
            (["film.mp4"], "film.mp4 keeps its own frame times"),
            (["a.gif"], "a.gif keeps its own frame times"),
            (["--camera", "97"], "a camera keeps its own frame times"),
            (["-", "--raw", "64x48@25"], "--raw says it of raw frames"),
        ],
    )
    def test_a_rate_is_for_numbered_pictures(self, source, told, tmp_path, capsys):
        assert run(["video", *source, "-s", "great-wave", "-o", str(tmp_path / "out.mp4"), "--fps", "12"]) == 2
        assert capsys.readouterr().err == f"error: --fps is for numbered pictures, as in frames/%05d.png; leave it out: {told}\n"

    def test_the_rate_of_numbered_pictures_and_one_frame_is_one(self, tmp_path, capsys):
        Image.fromarray(picture(0)).save(tmp_path / "1.png")
        given = ["video", str(tmp_path / "%d.png"), "-s", "great-wave", "-o", str(tmp_path / "out.mp4"), "--fps", "12", "--strength", "0"]
        assert run(given) == 0
        assert "out.mp4  1 frame  64 x 48" in capsys.readouterr().out

    def test_parsing(self):
        assert parse_raw("640x480@30000/1001") == (640, 480, Fraction(30000, 1001))
        assert parse_rate("29.97") == Fraction(2997, 100)
        for text in ("640x480", "x@25", "0x5@25", "640x480@fast", "-1x5@2"):
            with pytest.raises(UsageError, match=r"raw frames are described as WIDTHxHEIGHT@FPS|a frame rate is a number"):
                parse_raw(text)
