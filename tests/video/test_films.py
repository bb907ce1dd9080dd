"""Films: what comes in goes out again painted, and nothing else of it changes."""

import logging
from fractions import Fraction

import numpy as np
import pytest
from clips import H, N, W, av, cv2, hidden, make, picture, shown, sound_of
from PIL import Image

from scumble.video import open_clip
from scumble.video.writing import Encoding, available


class TestFilms:
    def test_frames_times_and_sound_stay(self, clip, tmp_path, paint):
        done = paint(clip, tmp_path / "out.mp4")
        assert (done.frames, done.size, done.interrupted) == (N, (W, H), False)
        before, after = shown(clip), shown(tmp_path / "out.mp4")
        assert [t for t, _ in after] == [t for t, _ in before]
        assert all(a.shape == b.shape for (_, a), (_, b) in zip(after, before, strict=True))
        assert np.abs(after[3][1].astype(int) - before[3][1]).mean() > 5, "it was painted"
        assert sound_of(tmp_path / "out.mp4") == sound_of(clip)
        assert hidden(tmp_path) == []

    def test_variable_frame_rate(self, tmp_path, paint):
        times = [Fraction(k * k, 100) + Fraction(k, 3000) for k in range(N)]
        source = make(tmp_path / "in.mp4", times=times, unit=Fraction(1, 30000), sound=None)
        paint(source, tmp_path / "out.mp4", segment=5, strength=0)
        assert [t for t, _ in shown(tmp_path / "out.mp4")] == [t for t, _ in shown(source)] == times

    def test_a_file_that_starts_late_starts_at_zero(self, tmp_path, paint):
        source = make(tmp_path / "in.mkv", offset=5, unit=Fraction(1, 1000), sound="flac")
        paint(source, tmp_path / "out.mkv", strength=0)
        assert [float(t) for t, _ in shown(tmp_path / "out.mkv")] == pytest.approx([k / 25 for k in range(N)], abs=0.0011)
        assert sound_of(tmp_path / "out.mkv")[0][0] == 0

    @pytest.mark.parametrize(
        ("sound", "layout", "suffix", "expected"),
        [
            ("aac", "mono", ".webm", ("opus", "mono")),
            ("aac", "mono", ".mkv", ("aac", "mono")),
            ("pcm_s16le", "stereo", ".mp4", ("aac", "stereo")),  # Matroska doesn't say which channels they are, and MP4 has to
            ("pcm_u8", "mono", ".mp4", ("aac", "mono")),
            ("flac", "mono", ".mov", ("aac", "mono")),
            ("libopus", "stereo", ".mov", ("aac", "stereo")),
            ("ac3", "5.1", ".webm", ("opus", "5.1")),  # whose decoder says 5.1(side), which Opus hasn't
        ],
    )
    def test_sound_is_copied_or_made_anew(self, sound, layout, suffix, expected, tmp_path, paint, caplog):
        source = make(tmp_path / "in.mkv", sound=sound, layout=layout, unit=Fraction(1, 1000))
        paint(source, tmp_path / f"out{suffix}", strength=0)
        with av.open(str(tmp_path / f"out{suffix}")) as made, av.open(str(source)) as given:
            context = made.streams.audio[0].codec_context
            seconds = [sum(f.samples for f in c.decode(audio=0)) / c.streams.audio[0].codec_context.sample_rate for c in (made, given)]
            assert (context.codec.canonical_name, context.layout.name) == expected
        assert seconds[0] == pytest.approx(seconds[1], abs=0.1)
        assert caplog.records == []

    def test_pictures_are_not_lost_for_a_sound_that_can_not_be_joined(self, tmp_path, paint, caplog, monkeypatch):
        monkeypatch.setattr("scumble.video.join._takes", lambda *_: True)
        source = make(tmp_path / "in.mkv", sound="pcm_s16le", layout="stereo", unit=Fraction(1, 1000))
        paint(source, tmp_path / "out.mp4", strength=0)
        assert len(shown(tmp_path / "out.mp4")) == N
        assert [r.getMessage() for r in caplog.records] == ["the sound can't be joined to the pictures and is left out (invalid argument)"]
        assert hidden(tmp_path) == []

    def test_sound_that_is_in_no_frame_is_left_out_and_said(self, tmp_path, paint, caplog):
        with av.open(str(tmp_path / "in.mkv"), "w") as out, av.open(str(make(tmp_path / "pictures.mkv", sound=None))) as pictures:
            stream = out.add_stream_from_template(pictures.streams.video[0], opaque=True)
            out.add_stream("pcm_s16le", rate=48_000)
            for packet in pictures.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
        paint(tmp_path / "in.mkv", tmp_path / "out.webm", strength=0)
        assert len(shown(tmp_path / "out.webm")) == N
        assert [r.getMessage() for r in caplog.records] == ["audio of the kind pcm_s16le has no place in this kind of file and is left out"]

    def test_two_packets_of_sound_at_a_time(self, tmp_path, paint, caplog):
        source = make(tmp_path / "in.mkv", sound="pcm_s16le", unit=Fraction(1, 1000), samples=8)  # Matroska counts milliseconds
        paint(source, tmp_path / "out.mov", strength=0)
        with av.open(str(tmp_path / "out.mov")) as container:
            assert sum(f.samples for f in container.decode(audio=0)) == round(N / 25 * 16_000)
        assert caplog.records == []

    @pytest.mark.parametrize(("suffix", "until"), [(".mp4", None), (".mkv", None), (".webm", None), (".mp4", 7)])
    def test_chapters_and_what_tracks_are_for_stay(self, suffix, until, tmp_path, paint):
        comment = av.stream.Disposition.comment
        with (
            av.open(str(make(tmp_path / "plain.mkv", offset=5, unit=Fraction(1, 1000)))) as given,
            av.open(str(tmp_path / "in.mkv"), "w") as out,
        ):
            streams = [out.add_stream_from_template(stream, opaque=True) for stream in given.streams]
            streams[1].disposition = comment.value
            titles = [("one", 5000, 5200), ("two", 5200, 5480)]
            out.set_chapters(
                [
                    {"id": k, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for k, (title, start, end) in enumerate(titles, 1)
                ]
            )
            for packet in given.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
        paint(tmp_path / "in.mkv", tmp_path / f"out{suffix}", strength=0, stop=iter(k + 1 == until for k in range(N)).__next__)
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            assert container.streams.audio[0].disposition & comment or suffix == ".webm"  # which has no place for it
            found = [(c["metadata"]["title"], *(float(c[k] * c["time_base"]) for k in ("start", "end"))) for c in container.chapters()]
        last = 0.48 if until is None else until / 25
        assert [title for title, _, _ in found] == ["one", "two"]
        assert [time for _, *times in found for time in times] == pytest.approx(
            [0, 0.2, 0.2, last], abs=0.05
        )  # sound begins a little before

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
    def test_the_rate_is_written(self, suffix, clip, tmp_path, paint):
        paint(clip, tmp_path / f"out{suffix}", strength=0)
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            assert container.streams.video[0].average_rate == 25

    def test_a_rate_that_is_but_the_codecs_clock_is_not_believed(self, clip, tmp_path):
        with av.open(str(clip)) as given, av.open(str(tmp_path / "in.mkv"), "w") as out:
            stream = out.add_stream_from_template(given.streams.video[0], opaque=True)
            for packet in given.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
        with av.open(str(tmp_path / "in.mkv")) as container:
            assert container.streams.video[0].average_rate == 12800
        assert open_clip(tmp_path / "in.mkv").clip.rate == 25

    def test_a_film_without_sound(self, tmp_path, paint):
        paint(make(tmp_path / "in.mp4", sound=None), tmp_path / "out.mp4", strength=0)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert [s.type for s in container.streams] == ["video"]

    def test_fields_are_taken_apart(self, tmp_path, paint):
        def woven(k, width, height):
            frame = picture(4 * k, width, height)
            frame[1::2] = picture(4 * k + 2, width, height)[1::2]  # the second field was seen half a frame later
            return frame

        def combs(frames):
            return [np.abs(np.diff(pixels[2:-2].mean(-1), 2, axis=0)).mean() for _, pixels in frames]

        source = make(tmp_path / "in.mp4", sound=None, picture=woven, options={"x264-params": "interlaced=1:tff=1"})
        paint(source, tmp_path / "out.mp4", strength=0)
        before, after = shown(source), shown(tmp_path / "out.mp4")
        assert [t for t, _ in after] == [t for t, _ in before]
        assert min(combs(before)) > 2 * max(combs(after))

    def test_frames_of_another_size_are_brought_to_that_of_the_first(self, tmp_path, paint, caplog):
        parts = [make(tmp_path / f"{size[0]}.ts", size=size, sound=None) for size in ((W, H), (96, 96))]
        (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
        frames = [frame.pixels for frame in open_clip(tmp_path / "in.ts")]
        assert "has frames of 96 x 96, from 0.4 s on; they are brought to the size of the first" in caplog.text
        wanted = np.asarray(Image.fromarray(picture(N - 1, 96, 96)).resize((W, H)), int)
        assert {pixels.shape for pixels in frames} == {(H, W, 3)} and np.abs(frames[-1] - wanted).mean() < 5
        done = paint(tmp_path / "in.ts", tmp_path / "out.mp4", strength=0)
        assert (done.frames, done.size) == (2 * N, (W, H))

    @pytest.mark.parametrize("angle", [90, 180, 270])
    def test_rotation_is_applied(self, angle, tmp_path, paint):
        source = make(tmp_path / "in.mp4", turn=lambda stream: stream.set_display_rotation(angle), sound=None)
        paint(source, tmp_path / "out.mp4", strength=0)
        upright = np.rot90(shown(source)[0][1], angle // 90)  # the tag counts counter-clockwise
        result = shown(tmp_path / "out.mp4")[0][1]
        assert result.shape == upright.shape
        assert np.abs(result.astype(int) - upright).mean() < 4  # another orientation: 30 and more

    def test_mirrored_and_turned(self, tmp_path, paint):
        # 16.16 fixed point; (x, y) is shown at (-y, -x): mirrored, then turned
        matrix = [0, -65536, 0, -65536, 0, 0, 0, 0, 1 << 30]
        source = make(tmp_path / "in.mp4", turn=lambda stream: stream.set_display_matrix(matrix), sound=None)
        paint(source, tmp_path / "out.mp4", strength=0)
        upright = np.rot90(shown(source)[0][1], 2).transpose(1, 0, 2)
        assert np.abs(shown(tmp_path / "out.mp4")[0][1].astype(int) - upright).mean() < 4  # another orientation: 30 and more

    @pytest.mark.parametrize(("matrix", "full"), [(1, 1), (1, 2), (6, 1), (6, 2), (2, 0)])
    def test_colors_keep_their_meaning(self, matrix, full, tmp_path, paint):
        source = make(tmp_path / "in.mp4", sound=None, frames=2, matrix=matrix if matrix != 2 else 6, colorspace=matrix, color_range=full)
        paint(source, tmp_path / "out.mp4", strength=0)
        with av.open(str(source)) as given, av.open(str(tmp_path / "out.mp4")) as made:
            a, b = next(given.decode(video=0)), next(made.decode(video=0))
        assert (int(b.colorspace), int(b.color_range)) == (int(a.colorspace), int(a.color_range)) == (matrix, full)
        # the numbers in the file are the same, so they mean the same; and they are what the picture was made of
        assert np.abs(a.to_ndarray().astype(int) - b.to_ndarray()).mean() < 1.5
        assert np.abs(next(iter(open_clip(source))).pixels.astype(int) - picture(0)).mean() < 2.5

    @pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("h264", ".mkv"), ("vp9", ".mp4"), ("av1", ".mp4"), ("vp9", ".webm")])
    def test_pixel_aspect_stays_or_it_is_said(self, codec, suffix, tmp_path, paint, caplog):
        if codec not in available():
            pytest.skip(f"this FFmpeg has no encoder for {codec}")
        source = make(tmp_path / "in.mp4", sound=None, frames=2, sample_aspect_ratio=Fraction(4, 3))
        paint(source, tmp_path / f"out{suffix}", strength=0, codec=codec)
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            if container.streams.video[0].sample_aspect_ratio == Fraction(4, 3):
                assert caplog.records == []
            else:
                assert suffix == ".webm"
                assert "can't say that its pixels are 4/3 as wide as high" in caplog.text

    @pytest.mark.parametrize("codec", ["h264", "h265", "vp9", "av1"])
    def test_codecs(self, codec, clip, tmp_path, paint):
        if codec not in available():
            pytest.skip(f"this FFmpeg has no encoder for {codec}")
        paint(clip, tmp_path / "out.mkv", codec=codec, strength=0, crf=12, segment=7)
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert container.streams.video[0].codec_context.codec.canonical_name == {"h265": "hevc"}.get(codec, codec)
        before, after = shown(clip), shown(tmp_path / "out.mkv")
        # Matroska counts milliseconds, and from where the sound begins: AAC does a little before 0
        assert [float(t - after[0][0]) for t, _ in after] == pytest.approx([float(t) for t, _ in before], abs=0.0011)
        assert max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(after, before, strict=True)) < 4

    def test_odd_sizes_stay_where_the_codec_has_them(self, tmp_path, paint):
        source = make(tmp_path / "in.webm", codec="libvpx-vp9", size=(W + 1, H + 1), sound="libopus", unit=Fraction(1, 1000))
        paint(source, tmp_path / "out.webm", strength=0)
        assert shown(tmp_path / "out.webm")[0][1].shape == (H + 1, W + 1, 3)

    def test_odd_sizes_are_padded_where_it_has_not_and_said(self, tmp_path, paint, caplog):
        source = make(tmp_path / "in.webm", codec="libvpx-vp9", size=(W + 1, H), sound=None, unit=Fraction(1, 1000))
        done = paint(source, tmp_path / "out.mp4", strength=0)
        before, after = shown(source)[0][1], shown(tmp_path / "out.mp4")[0][1]
        assert after.shape == (H, W + 2, 3)
        assert done.size == (W + 2, H)
        assert np.abs(after[:, : W + 1].astype(int) - before).mean() < 3
        found, frame = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()
        assert found
        assert frame.shape == (H, W + 2, 3), "other players see the same"
        sentence = "is 65 x 48, and h264 has even sizes only: the last column is repeated; vp9 and av1, as in a .webm, keep the size"
        assert [r.getMessage() for r in caplog.records] == [f"{tmp_path / 'out.mp4'} {sentence}"]

    def test_size(self, clip, tmp_path, paint):
        assert paint(clip, tmp_path / "out.mp4", size=32, strength=0).size == (32, 24)
        assert shown(tmp_path / "out.mp4")[0][1].shape == (24, 32, 3)

    def test_keeping_colors_and_strength(self, clip, tmp_path, paint):
        paint(clip, tmp_path / "grey.mp4", keep_color=1, strength=0.5)
        assert len(shown(tmp_path / "grey.mp4")) == N

    def test_progress_counts_to_the_end(self, clip, tmp_path, paint):
        told = []
        paint(clip, tmp_path / "out.mp4", strength=0, progress=lambda done, total: told.append((done, total)))
        assert told == [(k + 1, N) for k in range(N)]

    def test_same_input_same_bytes(self, clip, tmp_path, paint):
        for name in ("a.mp4", "b.mp4"):
            paint(clip, tmp_path / name, steady=0.5)
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


class TestX264:
    @pytest.fixture(autouse=True)
    def it_is_here(self, monkeypatch):
        monkeypatch.setattr("scumble.video.writing.available", lambda: {"h264": "libx264"})

    @pytest.mark.parametrize(
        ("features", "told"),
        [
            ({"baseline": ["X86_V2"], "found": ["X86_V3", "X86_V4", "AVX512_ICL"]}, {"x264-params": "asm=avx2,fma3,bmi2"}),
            ({"baseline": ["SSE"], "found": ["AVX2", "AVX512F", "AVX512_SKX"]}, {"x264-params": "asm=avx2,fma3,bmi2"}),
            ({"baseline": ["X86_V2"], "found": ["X86_V3"], "not found": ["X86_V4"]}, {}),
            ({"baseline": ["NEON"], "found": ["ASIMDHP"]}, {}),
            ({}, {}),
        ],
    )
    def test_goes_without_avx512_and_with_no_more_than_the_processor_has(self, monkeypatch, features, told):
        monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": features})
        options = Encoding.choose(".mp4", "h264", None).options
        assert {key: value for key, value in options.items() if key == "x264-params"} == told

    def test_an_old_numpy_that_only_prints_its_features_is_no_hindrance(self, monkeypatch):
        monkeypatch.setattr(np, "show_config", lambda: None)
        assert "x264-params" not in Encoding.choose(".mp4", "h264", None).options


def test_logging_is_quiet_for_plain_films(clip, tmp_path, paint, caplog):
    with caplog.at_level(logging.WARNING):
        paint(clip, tmp_path / "out.mp4", strength=0)
    assert caplog.records == []
