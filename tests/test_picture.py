"""Picture: what goes in comes out, in every mode, format, depth, orientation and colour profile."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import pickle
import struct
import sys
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin, features

from scumble import _profiles
from scumble.errors import InputError, MissingExtraError, UsageError
from scumble.picture import SUFFIXES, Metadata, Picture, read_recipe

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"]
RECIPE = {"style": "Große Welle <&> \"'", "strength": 0.8, "seed": 7, "weights": {"eye": "ab12"}}
RNG = np.random.default_rng(0)


# What the tests are made of -------------------------------------------------------------------------------------------


def noise(height=23, width=17, channels=3, bits=8):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 2**bits, shape, dtype=np.uint8 if bits == 8 else np.uint16)


def smooth(height=24, width=32, channels=3):
    """Gradients: what lossy formats keep within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 // width + 20, y * 200 // height + 20, (x + y) * 200 // (width + height) + 20, np.full_like(x, 255)]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def file_of(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pil(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def s15(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(space=b"RGB ", tags=(), pcs=b"XYZ ", kind=b"mntr"):
    """A minimal ICC version 2 profile."""
    table, body, place = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind, space, pcs)
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(4 + 4 + 4 + 4 + 8 + 4) + s15(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(*values):
    return b"XYZ " + bytes(4) + s15(*values)


def gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


SRGB_CURVE = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def matrix_profile(red, green, blue, curve, *more):
    tags = [(b"rXYZ", xyz(*red)), (b"gXYZ", xyz(*green)), (b"bXYZ", xyz(*blue)), *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC"))]
    text = b"text" + bytes(4) + b"none\0"
    described = (b"desc", b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78))
    return icc(tags=[described, (b"cprt", text), (b"wtpt", xyz(0.9642, 1.0, 0.8249)), *tags, *more])


P3 = matrix_profile((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407), SRGB_CURVE)
ADOBE = matrix_profile((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), gamma(2.19921875))
SRGB = matrix_profile((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141), SRGB_CURVE)
GREY22 = icc(b"GRAY", [(b"kTRC", gamma(2.2)), (b"wtpt", xyz(0.9642, 1.0, 0.8249))])


def lut_profile(space=b"RGB ", channels=3, back=True):
    """A profile of look-up tables alone (lut8Type): XYZ/Lab as a plain function of the channels."""

    def lut(inputs, outputs, table):
        identity = bytes(range(256))
        head = b"mft1" + bytes(4) + struct.pack(">BBBB", inputs, outputs, 2, 0) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
        return head + identity * inputs + bytes(table) + identity * outputs

    corners = list(itertools.product((0, 1), repeat=channels))
    if space == b"CMYK":  # light falls with ink; a and b from the missing primaries
        forward = [
            v for c, m, y, k in corners for v in (int(255 * (1 - k) * (1 - (c + m + y) / 3)), 128 + 60 * (m - c), 128 + 60 * (y - m))
        ]
    else:
        forward = [v for r, g, b in corners for v in (int(255 * (r + g + b) / 3), 128 + 60 * (r - g), 128 + 60 * (g - b))]
    tags = [(b"A2B0", lut(channels, 3, forward))]
    if back:
        neutral = [v for light, _, _ in itertools.product((0, 1), repeat=3) for v in (255 * light,) * channels]
        tags.append((b"B2A0", lut(3, channels, neutral)))
    return icc(space, tags, pcs=b"Lab ", kind=b"prtr" if space == b"CMYK" else b"mntr")


def an_exif(orientation=6, order="MM"):
    """EXIF as a camera writes it: user tags, GPS, maker's note and a thumbnail in IFD1."""
    exif = Image.Exif()
    exif.endian = ">" if order == "MM" else "<"
    exif[0x010F], exif[0x013B], exif[0x0112] = "Maker", "Ann Artist", orientation
    exif[0x0100], exif[0x0101] = 4000, 3000
    exif.get_ifd(ExifTags.IFD.Exif).update({0x9286: b"ASCII\0\0\0my own comment", 0x927C: b"MAKER NOTE", 0xA002: 4000, 0xA003: 3000})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 30.0)})
    block = bytearray(exif.tobytes()[6:])
    endian = "<" if order == "II" else ">"
    block += bytes(len(block) % 2)
    directory, thumbnail = len(block), b"\xff\xd8OLD FACE\xff\xd9"
    first = struct.unpack_from(endian + "I", block, 4)[0]
    count = struct.unpack_from(endian + "H", block, first)[0]
    struct.pack_into(endian + "I", block, first + 2 + 12 * count, directory)
    block += struct.pack(endian + "H", 2)
    block += struct.pack(endian + "HHII", 0x0201, 4, 1, directory + 30) + struct.pack(endian + "HHII", 0x0202, 4, 1, len(thumbnail))
    return bytes(block + bytes(4) + thumbnail)


AN_XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6" dc:title="Mine"/>'
    b'</rdf:RDF></x:xmpmeta>   <?xpacket end="w"?>'
)


def differs(a, b):
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


# Modes ----------------------------------------------------------------------------------------------------------------

MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B", "I", "F"]


def image_of_mode(mode, colour):
    """An image of any mode that shows ``colour`` (or its grey), and what a picture of it must be."""
    rgb = Image.fromarray(colour)
    grey = np.asarray(rgb.convert("L"))
    if mode == "LAB":
        lab = ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
        return lab, colour
    if mode.startswith("I;16"):
        deep = grey.astype(np.uint16) * 257
        return Image.fromarray(deep) if mode == "I;16" else Image.frombytes(mode, rgb.size, deep.astype(">u2").tobytes()), grey
    if mode in ("I", "F"):
        values = grey.astype(np.int32) * 257 if mode == "I" else grey.astype(np.float32) / 255
        return Image.fromarray(values), grey
    if mode == "1":
        black_or_white = rgb.convert("L").point(lambda v: 255 * (v > 127)).convert("1")
        return black_or_white, np.asarray(black_or_white.convert("L"))
    if mode in ("P", "PA"):
        palette = rgb.quantize(32)
        return (palette if mode == "P" else palette.convert("PA")), np.asarray(palette.convert("RGB"))
    if mode in ("La", "RGBa"):
        return rgb.convert(mode[:-1] + "A").convert(mode), grey if mode == "La" else colour
    if mode == "CMYK":
        return rgb.convert("CMYK"), colour
    return rgb.convert(mode), grey if mode in ("L", "LA") else colour


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_every_pillow_mode_becomes_srgb(mode, size):
    image, wanted = image_of_mode(mode, smooth(*size))
    assert image.mode == mode
    picture = Picture.from_pil(image)
    assert picture.pixels.dtype == np.float32 and picture.pixels.shape == (*size, 3)
    if wanted.ndim == 2:
        wanted = np.repeat(wanted[..., None], 3, axis=2)
    lossy = {"YCbCr": 3, "LAB": 24, "HSV": 8}  # what those modes themselves lose in 8 bits
    assert differs(picture.to_array()[..., :3], wanted) <= lossy.get(mode, 0)
    assert (picture.alpha is not None) == (mode in ("LA", "La", "PA", "RGBA", "RGBa"))
    assert picture.metadata.bits == (16 if mode in ("I;16", "I;16B", "I", "F") else 8)


def test_the_white_of_modes_without_one_is_the_smallest_customary_one():
    grey = smooth(4, 5)[..., 0]
    for values in (grey.astype(np.int32), grey.astype(np.int32) * 257, grey.astype(np.float32), grey / np.float32(255)):
        assert differs(Picture.from_pil(Image.fromarray(values)).to_array()[..., 0], grey) <= 1
    huge = Picture.from_pil(Image.fromarray(np.array([[0, 2**31 - 1]], np.int32)))
    assert huge.pixels[0, :, 0].tolist() == [0, 1]
    with pytest.raises(InputError, match="no numbers"):
        Picture.from_pil(Image.fromarray(np.array([[np.nan, 1]], np.float32)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_every_mode_from_a_tiff_turned_or_not(mode, compression):
    if mode == "YCbCr" and compression is None and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 cannot read an uncompressed YCbCr TIFF")
    image, _ = image_of_mode(mode, smooth(12, 20))
    exif = Image.Exif()
    for exif[0x0112] in (1, 6):
        picture = Picture.open(file_of(image, "TIFF", compression=compression, exif=exif))
        wanted = Picture.from_pil(image).to_array()
        lossy = 1 if mode == "YCbCr" else 0  # libtiff and Pillow round differently
        assert differs(picture.to_array(), np.rot90(wanted, -1) if exif[0x0112] == 6 else wanted) <= lossy
        assert picture.metadata.exif is None  # nothing but the orientation was in it


def test_transparency_of_palettes_keys_and_premultiplied_colours():
    palette = Image.fromarray(noise(6, 6)).quantize(8)
    for transparency in (3, bytes([255, 0, 128] + [255] * 5)):
        opened = Picture.open(file_of(palette, "PNG", transparency=transparency))
        opacity = (
            np.array([0 if i == transparency else 255 for i in range(8)]) if transparency == 3 else np.frombuffer(transparency, np.uint8)
        )
        assert differs(opened.to_array()[..., 3], opacity[np.asarray(palette)]) == 0
    grey = Picture.open(file_of(Image.fromarray(np.array([[7, 8]], np.uint8)), "PNG", transparency=7))
    assert grey.alpha.tolist() == [[0, 1]] and grey.metadata.grey
    colour = Picture.open(file_of(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)), "PNG", transparency=(1, 2, 3)))
    assert colour.alpha.tolist() == [[0, 1]]
    premultiplied = Image.frombytes("RGBa", (1, 1), bytes([64, 32, 0, 128]))
    assert differs(Picture.from_pil(premultiplied).to_array(), [[[128, 64, 0, 128]]]) <= 1


def test_deep_grey_with_a_transparent_key():
    png = file_of(Image.fromarray(np.array([[7, 60000]], np.uint16)), "PNG")
    chunk = b"tRNS" + struct.pack(">H", 7)
    keyed = png[:33] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
    assert Picture.open(keyed).alpha.tolist() == [[0, 1]]


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4000, 1), (1, 300), (23, 17)])
def test_output_size_is_input_size(format, height, width):
    for channels in (3,) if format == "HEIF" and height == 4000 else (1, 3, 4):  # x265 is slow with such shapes
        picture = Picture.from_array(noise(height, width, channels))
        again = Picture.open(picture.encode(format, quality=50))
        assert again.size == (height, width)
        assert again.metadata.format == format


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)))
    ),
    st.sampled_from(["PNG", "TIFF"]),
)
def test_lossless_formats_return_every_bit(array, format):
    picture = Picture.from_array(array)
    again = Picture.open(picture.encode(format))
    assert again.metadata.bits == 8 * array.itemsize
    assert (again.alpha is not None) == (array.shape[2] in (2, 4))
    white = np.iinfo(array.dtype).max
    if again.alpha is not None:
        assert np.array_equal(np.rint(again.alpha * white), array[..., -1])
    seen = slice(None) if again.alpha is None else again.alpha > 0  # what is hidden has been filled
    wanted = array[..., :1] if array.shape[2] < 3 else array[..., :3]
    assert np.array_equal(np.rint(again.pixels * white)[seen], np.broadcast_to(wanted, again.pixels.shape)[seen])
    assert np.array_equal(again.pixels, picture.pixels)


@pytest.mark.parametrize("format", FORMATS)
def test_formats_keep_colours_and_alpha_as_well_as_they_can(format):
    array = smooth(48, 64, 4)
    array[:, :20, 3] = 0
    opaque, cut = Picture.from_array(array[..., :3]), Picture.from_array(array)
    again = Picture.open(opaque.encode(format))
    assert again.alpha is None
    assert differs(again.to_array(), array[..., :3]) <= {"GIF": 24, "JPEG": 6, "WEBP": 12, "AVIF": 8, "HEIF": 8}.get(format, 0)
    again = Picture.open(cut.encode(format))
    if format in ("JPEG", "BMP"):
        assert again.alpha is None and again.to_array()[:, :16].min() >= 245  # over white
    else:
        assert differs(np.rint(again.alpha * 255), array[..., 3]) <= (4 if format in ("AVIF", "HEIF") else 0)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_picture_gives_the_same_bytes(format):
    picture = Picture.open(file_of(Image.fromarray(noise(channels=4)), "PNG", icc_profile=P3, exif=b"Exif\0\0" + an_exif()))
    assert picture.encode(format, recipe=RECIPE) == picture.encode(format, recipe=RECIPE)


def test_grey_stays_grey_until_it_is_painted():
    for channels in (1, 2):
        grey = Picture.open(Picture.from_array(noise(channels=channels)).encode("PNG"))
        assert pil(grey.encode("PNG")).mode == pil(grey.encode("TIFF")).mode == ("L" if channels == 1 else "LA")
        assert pil(grey.encode("JPEG")).mode == "L"
        painted = grey.with_pixels(grey.pixels * np.array([1, 0.5, 0.2], np.float32))
        assert pil(painted.encode("PNG")).mode == ("RGB" if channels == 1 else "RGBA")
        assert pil(painted.encode("JPEG")).mode == "RGB"


def test_quality_and_subsampling():
    picture = Picture.from_array(noise(64, 64))
    for format in ("JPEG", "WEBP", "AVIF", "HEIF"):
        assert len(picture.encode(format, quality=20)) < len(picture.encode(format, quality=90))
    assert pil(picture.encode("JPEG", quality=90)).layer[0][1:3] == (1, 1)
    assert pil(picture.encode("JPEG", quality=89)).layer[0][1:3] == (2, 2)


def test_first_frame_of_an_animation(caplog):
    first, second = Image.fromarray(smooth()).quantize(16), Image.new("RGB", (32, 24), "red")
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        data = file_of(
            first.convert("RGB"), format, save_all=True, append_images=[second], **({"lossless": True} if format == "WEBP" else {})
        )
        caplog.clear()
        assert differs(Picture.open(data).to_array(), first.convert("RGB")) <= (24 if format == "GIF" else 0)
        assert ("scumble video" in caplog.text) == (format != "TIFF")
    caplog.clear()
    Picture.open(file_of(first.convert("RGB"), "PNG"))
    assert not caplog.text


@pytest.mark.parametrize("head", [b"\0\0\0\x18ftypisom\0\0\0\0isommp42", b"\x1a\x45\xdf\xa3\x01\0\0\0", b"RIFF\0\0\0\0AVI LIST"])
def test_a_film_is_told_where_to_go(head):
    with pytest.raises(InputError, match=r"is a film; for films: scumble video$"):
        Picture.open(head + bytes(100))


@pytest.mark.parametrize("brand", [b"crx ", b"M4A "])  # a raw photograph, sound
def test_what_else_comes_in_a_films_box_is_no_film(brand):
    with pytest.raises(InputError, match="is not a picture that can be read; allowed: JPEG"):
        Picture.open(b"\0\0\0\x10ftyp" + brand + bytes(100))


def test_formats_are_told_by_content_and_named_by_suffix(tmp_path):
    path = tmp_path / "really a png.jpg"
    path.write_bytes(file_of(Image.fromarray(noise()), "PNG"))
    assert Picture.open(path).metadata.format == "PNG"
    for suffix in SUFFIXES:
        target = Picture.from_array(noise()).save(tmp_path / f"ünï cödé 画 {suffix}{suffix.upper()}")
        assert Picture.open(str(target)).size == (23, 17)
    with target.open("rb") as stream:
        assert Picture.open(stream).size == (23, 17)
    assert Picture.open(io.BytesIO(path.read_bytes())).metadata.format == "PNG"
    assert Picture.open(memoryview(path.read_bytes())).size == (23, 17)


# 16 bits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_read_by_other_libraries(channels, format):
    imagecodecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
    # as paintings are, not pixel by pixel
    array = np.asfortranarray(noise(channels=channels, bits=16))
    data = Picture.from_array(array).encode(format)
    other = imagecodecs.png_decode(data) if format == "PNG" else tifffile.imread(io.BytesIO(data))
    seen = array > -1 if channels % 2 else np.broadcast_to(array[..., -1:] > 0, array.shape)
    assert other.dtype == np.uint16 and np.array_equal(other[seen], array[seen])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_tiffs_of_other_programs(planar, order, channels):
    tifffile = pytest.importorskip("tifffile")
    array, buffer = noise(channels=channels, bits=16), io.BytesIO()
    stored = np.moveaxis(array, 2, 0) if planar == "separate" else array
    kind = {"photometric": "rgb" if channels > 2 else "minisblack", "extrasamples": ["unassalpha"] if channels % 2 == 0 else None}
    orientation = [(274, 3, 1, 6, True)]
    tifffile.imwrite(buffer, stored, planarconfig=planar, byteorder=order, compression="zlib", metadata=None, extratags=orientation, **kind)
    picture = Picture.open(buffer.getvalue())
    whole = np.rint(np.dstack([picture.pixels, picture.alpha] if channels % 2 == 0 else [picture.pixels]) * 65535)
    if channels == 2:
        whole = whole[..., [0, 3]]
    assert picture.metadata.bits == 16 and np.array_equal(whole, np.rot90(array, -1))


def test_16_bit_tiffs_with_premultiplied_alpha_or_inverted_greys():
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.array([[[20000, 10000, 0, 40000]]], np.uint16), photometric="rgb", extrasamples=["assocalpha"])
    picture = Picture.open(buffer.getvalue())
    assert np.allclose(picture.pixels, [0.5, 0.25, 0]) and np.isclose(picture.alpha[0, 0], 40000 / 65535)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.array([[0, 65535]], np.uint16), photometric="miniswhite")
    assert Picture.open(buffer.getvalue()).pixels[0, :, 0].tolist() == [1, 0]


def test_16_bit_png_with_a_transparent_key():
    imagecodecs = pytest.importorskip("imagecodecs")
    png = imagecodecs.png_encode(np.array([[[1, 2, 3], [60000, 5, 6]]], np.uint16))
    chunk = b"tRNS" + struct.pack(">3H", 1, 2, 3)
    keyed = png[:33] + struct.pack(">I", 6) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
    picture = Picture.open(keyed)
    assert picture.alpha.tolist() == [[0, 1]] and picture.metadata.bits == 16


def test_bits_follow_the_source_or_the_wish():
    deep, flat = Picture.from_array(noise(bits=16)), Picture.from_array(noise())
    assert Picture.open(deep.encode("PNG", bits=8)).metadata.bits == 8
    assert Picture.open(flat.encode("TIFF", bits=16)).metadata.bits == 16
    assert Picture.open(deep.encode("JPEG")).metadata.bits == 8
    assert Picture.open(Picture.open(deep.encode("TIFF")).encode("PNG")).metadata.bits == 16
    with pytest.raises(UsageError, match="JPEG holds 8 bits per channel; for 16 save as PNG or TIFF"):
        flat.encode("JPEG", bits=16)
    with pytest.raises(UsageError, match="bits must be 8 or 16; got 12"):
        flat.encode("PNG", bits=12)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_without_the_extra_16_bits_are_read_as_8_and_not_written(format, monkeypatch, caplog):
    array = noise(bits=16)
    data = Picture.from_array(array).encode(format)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with caplog.at_level(logging.WARNING):
        picture = Picture.open(data)
    assert "scumble[deep]" in caplog.text and picture.metadata.bits == 8
    assert differs(picture.to_array(), array >> 8) <= 1
    with pytest.raises(MissingExtraError, match=r"scumble\[deep\]"):
        picture.encode(format, bits=16)
    caplog.clear()
    deep_grey = Picture.from_array(noise(channels=1, bits=16))
    assert Picture.open(deep_grey.encode(format)).metadata.bits == 8 and "scumble[deep]" in caplog.text
    native = Picture.open(file_of(Image.fromarray(noise(channels=1, bits=16)), format))
    assert native.metadata.bits == 16  # Pillow reads grey in full


# Orientation and metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_is_applied_and_reset(orientation, format):
    upright = smooth(16, 24)
    stored = {  # how a camera stores a scene that is to be shown by each orientation
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: np.swapaxes(upright, 0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format not in ("PNG", "TIFF") else {}
    image = Image.fromarray(np.ascontiguousarray(stored))
    if format == "HEIF":
        buffer = io.BytesIO()
        pytest.importorskip("pillow_heif").from_pillow(image).save(buffer, exif=exif.tobytes(), quality=95, chroma=444)
        data = buffer.getvalue()
    else:
        data = file_of(image, format, exif=exif, **options)
    picture = Picture.open(data)
    assert picture.size == (16, 24)
    assert differs(picture.to_array(), upright) <= (0 if format in ("PNG", "TIFF") else 12)
    again = Picture.open(picture.encode(format))
    assert again.size == (16, 24)
    assert pil(picture.encode("JPEG")).getexif().get(0x0112, 1) == 1


def test_orientation_of_deep_png():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = Picture.from_array(array := noise(bits=16)).encode("PNG")
    block = exif.tobytes()[6:]
    chunk = b"eXIf" + block
    turned = data[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert np.array_equal(np.rint(Picture.open(turned).pixels * 65535), np.rot90(array, -1))


METADATA_FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"]


@pytest.mark.parametrize("order", ["MM", "II"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("format", METADATA_FORMATS)
def test_metadata_survive_every_format_that_holds_them(format, bits, order):
    if bits == 16 and format not in ("PNG", "TIFF"):
        pytest.skip("8 bits only")
    source = file_of(Image.fromarray(noise(6, 4)), "JPEG", exif=b"Exif\0\0" + an_exif(6, order), xmp=AN_XMP, icc_profile=P3, dpi=(300, 300))
    picture = Picture.open(source)
    assert picture.size == (4, 6)
    data = picture.encode(format, recipe=RECIPE, bits=bits if bits == 16 else None)
    for _ in range(2):  # and once more through a picture that Scumble wrote
        if format == "HEIF":
            image = pytest.importorskip("pillow_heif").HeifImageFile(io.BytesIO(data), "")
            image.load()
        else:
            image = pil(data)
        exif = image.getexif()
        assert exif.get(0x0112, 1) == 1 and exif[0x010F] == "Maker" and exif[0x013B] == "Ann Artist"
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert details[0x9286] == b"ASCII\0\0\0my own comment" and details[0x927C] == b"MAKER NOTE"
        assert (details[0xA002], details[0xA003]) == (6, 4)
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (48.0, 8.0, 30.0)
        assert not exif.get_ifd(ExifTags.IFD.IFD1) and b"OLD FACE" not in data
        assert (image.info["icc_profile"] if format != "TIFF" else image.tag_v2[34675]) == P3
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or image.tag_v2[700]
        xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
        assert b'dc:title="Mine"' in xmp and b'tiff:Orientation="1"' in xmp
        if format in ("JPEG", "PNG", "TIFF"):
            assert np.allclose(image.info["dpi"], 300, atol=0.01)
        assert read_recipe(data) == RECIPE
        again = Picture.open(data)
        assert again.size == (4, 6) and again.metadata.xmp.replace(b'"1"', b'"6"') == AN_XMP
        data = again.encode(format, recipe=RECIPE)
    assert again.metadata.bits == bits


def test_xmp_orientation_as_element_and_without_exif():
    xmp = AN_XMP.replace(b' tiff:Orientation="6"', b"").replace(
        b"/></rdf:RDF>", b"><tiff:Orientation>6</tiff:Orientation></rdf:Description></rdf:RDF>"
    )
    picture = Picture.open(file_of(Image.fromarray(noise(6, 4)), "JPEG", xmp=xmp))
    assert picture.size == (4, 6) and b"<tiff:Orientation>1<" in picture.metadata.xmp
    assert Picture.open(picture.encode("JPEG")).size == (4, 6)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = xmp
    array = noise(6, 4)
    turned = Picture.open(file_of(Image.fromarray(array), "TIFF", tiffinfo=tags))
    assert differs(turned.to_array(), np.rot90(array, -1)) == 0 and b"<tiff:Orientation>1<" in turned.metadata.xmp
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(6, 4, bits=16), photometric="rgb", metadata=None, extratags=[(700, 1, len(xmp), xmp, True)])
    assert Picture.open(buffer.getvalue()).size == (4, 6)


def test_tiff_tags_of_another_program_become_exif_elsewhere():
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + an_exif(1))
    del exif[0x0100], exif[0x0101]  # or Pillow takes them for the size to write
    picture = Picture.open(file_of(Image.fromarray(noise()), "TIFF", exif=exif, dpi=(72, 96), icc_profile=ADOBE))
    assert picture.metadata.dpi == (72, 96) and picture.metadata.icc_profile == ADOBE
    kept = pil(picture.encode("JPEG")).getexif()
    assert kept[0x010F] == "Maker" and kept.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N" and 273 not in kept
    assert kept.get_ifd(ExifTags.IFD.Exif)[0x927C] == b"MAKER NOTE"


def test_bigtiff():
    tifffile = pytest.importorskip("tifffile")
    for bits in (8, 16):
        array, buffer = noise(bits=bits), io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="rgb", bigtiff=True, description="of a boat", metadata=None)
        picture = Picture.open(buffer.getvalue())
        assert np.array_equal(np.rint(picture.pixels * (2**bits - 1)), array)
        assert pil(picture.encode("JPEG")).getexif()[270] == "of a boat"


def test_exif_as_old_imagemagick_wrote_it():
    text = PngImagePlugin.PngInfo()
    block = b"Exif\0\0" + an_exif(6)
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    picture = Picture.open(file_of(Image.fromarray(noise(6, 4)), "PNG", pnginfo=text))
    assert picture.size == (4, 6) and pil(picture.encode("PNG")).getexif()[0x010F] == "Maker"


def test_a_text_that_is_no_exif_is_left_out(caplog):
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n       4\nno hexadecimal\n")
    assert Picture.open(file_of(Image.fromarray(noise(6, 4)), "PNG", pnginfo=text)).size == (6, 4)
    assert "damaged EXIF is left out" in caplog.text


def test_resolution_of_a_bmp_and_nonsense_resolutions():
    picture = Picture.open(file_of(Image.fromarray(noise()), "BMP", dpi=(300, 150)))
    assert np.allclose(pil(picture.encode("BMP")).info["dpi"], (300, 150), atol=0.02)
    for dpi in ((0, 0), (float("nan"), 72), (1e9, 72), (72,)):
        metadata = Picture.from_pil(_with_info(dpi=dpi)).metadata
        assert metadata.dpi is None


def _with_info(**info):
    image = Image.fromarray(noise())
    image.info.update(info)
    return image


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_in_metadata_gets_past_our_own_errors(data):
    which = data.draw(st.sampled_from(["exif", "xmp", "icc_profile"]))
    block = bytearray(
        {"exif": b"Exif\0\0" + an_exif(6), "xmp": AN_XMP, "icc_profile": data.draw(st.sampled_from([P3, ADOBE, GREY22]))}[which]
    )
    for _ in range(data.draw(st.integers(1, 5))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    for format in ("JPEG", "PNG"):
        picture = Picture.open(file_of(Image.fromarray(noise(6, 4)), format, **{which: bytes(block)}))
        for target in ("TIFF", "JPEG", "PNG"):
            assert Picture.open(picture.encode(target)).size == picture.size


@pytest.mark.parametrize("order", ["MM", "II"])
def test_an_orientation_of_a_wrong_type_is_none(order):
    block = bytearray(an_exif(6, order))
    place = block.index(b"\x01\x12" if order == "MM" else b"\x12\x01")
    block[place + 2 : place + 4] = bytes(2)
    picture = Picture.open(file_of(Image.fromarray(noise(6, 4)), "JPEG", exif=b"Exif\0\0" + bytes(block)))
    assert picture.size == (6, 4)
    assert Picture.open(picture.encode("JPEG")).size == (6, 4)


def test_damaged_exif_and_too_long_metadata_are_left_out_with_a_warning(caplog):
    picture = Picture.open(file_of(Image.fromarray(noise()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\0\0"))
    assert picture.metadata.exif is None and "damaged EXIF" in caplog.text
    exif = Image.Exif()
    exif[270] = "x" * 70_000
    long = Picture.open(file_of(Image.fromarray(noise()), "PNG", exif=exif))
    assert pil(long.encode("PNG")).getexif()[270] == "x" * 70_000
    assert not pil(long.encode("JPEG")).getexif() and "too long for JPEG" in caplog.text
    wordy = AN_XMP.replace(b"Mine", b"x" * 65_000)
    data = Picture(noise().astype(np.float32) / 255, metadata=Metadata(xmp=wordy)).encode("JPEG", recipe=RECIPE)
    assert pil(data).info["xmp"] == wordy and "cannot hold the recipe" in caplog.text
    wordy = AN_XMP.replace(b"Mine", b"x" * 66_000)
    data = Picture(noise().astype(np.float32) / 255, metadata=Metadata(xmp=wordy)).encode("JPEG", recipe=RECIPE)
    assert read_recipe(data) == RECIPE and "cannot hold the XMP packet" in caplog.text


# Recipes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_recipe_is_read_back(suffix, tmp_path):
    path = Picture.from_array(noise()).save(tmp_path / f"out{suffix}", recipe=RECIPE)
    assert read_recipe(path) == RECIPE
    assert read_recipe(path.read_bytes()) == RECIPE
    plain = Picture.open(path).save(tmp_path / f"plain{suffix}")  # how the source was painted says nothing about this one
    with pytest.raises(InputError, match="holds no recipe; only pictures that Scumble painted do"):
        read_recipe(plain)


def test_recipe_as_another_program_rewrites_xmp():
    data = Picture.from_array(noise()).encode("WEBP", recipe={"seed": 1, "style": "a&b"})
    xmp = pil(data).info["xmp"]
    text = xmp.split(b"<scumble:recipe>")[1].split(b"<")[0]
    attribute = xmp.replace(b"<scumble:recipe>" + text + b"</scumble:recipe>", b"").replace(
        b' rdf:about=""', b" scumble:recipe='" + text + b"'", 1
    )
    rewritten = file_of(Image.fromarray(noise()), "WEBP", xmp=attribute)
    assert read_recipe(rewritten) == {"seed": 1, "style": "a&b"}
    with pytest.raises(InputError):
        read_recipe(Picture.open(rewritten).encode("WEBP"))


def test_a_bmp_with_a_recipe_is_still_a_bmp():
    array = noise()
    data = Picture.from_array(array).encode("BMP", recipe=RECIPE)
    assert struct.unpack_from("<I", data, 2)[0] == len(data)
    assert differs(pil(data).convert("RGB"), array) == 0


def test_recipes_must_be_json():
    for recipe in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(UsageError, match="a recipe must hold JSON values only"):
            Picture.from_array(noise()).encode("PNG", recipe=recipe)


# Colour ---------------------------------------------------------------------------------------------------------------


def lattice():
    levels = np.array([0, 1, 16, 64, 128, 200, 254, 255], np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(16, 32, 3)


@pytest.mark.parametrize("profile", [P3, ADOBE, SRGB], ids=["P3", "Adobe", "sRGB"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_profiles_round_trip_when_nothing_is_painted(profile, format):
    array = lattice()
    picture = Picture.open(file_of(Image.fromarray(array), "PNG", icc_profile=profile))
    data = picture.encode(format)
    assert pil(data).info["icc_profile"] == profile
    assert differs(pil(data), array) <= 1
    same = picture.with_pixels(picture.pixels.copy())
    assert differs(pil(same.encode(format)), array) <= 1
    deep = Picture.open(picture.encode(format, bits=16))
    assert differs(pil(deep.encode(format, bits=8)), array) <= 1


@pytest.mark.parametrize("profile", [P3, ADOBE], ids=["P3", "Adobe"])
def test_conversion_agrees_with_little_cms_inside_srgb(profile):
    array = lattice()
    image = Image.fromarray(array)
    own = ImageCms.getOpenProfile(io.BytesIO(profile))
    theirs = np.asarray(ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), renderingIntent=1))
    ours = Picture.open(file_of(image, "PNG", icc_profile=profile)).to_array()
    assert differs(ours, theirs) <= 2
    wide = Picture(array.astype(np.float32) / 255, metadata=Metadata(icc_profile=profile))
    back = np.asarray(ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), own, renderingIntent=1))
    assert differs(pil(wide.encode("PNG")), back) <= 3  # Little CMS computes 8 bits with 14-bit fractions, too few for gamma 2.2 near black


def test_a_colour_outside_srgb_returns_where_it_is_not_painted_and_fades_where_it_is():
    array = np.zeros((1, 4, 3), np.uint8)
    array[..., 0] = 255  # Display P3's red
    picture = Picture.open(file_of(Image.fromarray(array), "PNG", icc_profile=P3))
    assert np.allclose(picture.pixels, [1, 0, 0])
    pixels = picture.pixels.copy()
    pixels[0, 1] += np.array([0, 8 / 255, 0], np.float32)
    pixels[0, 2] += np.array([0, 20 / 255, 0], np.float32)
    pixels[0, 3] = [0.2, 0.4, 0.6]
    saved = np.asarray(pil(picture.with_pixels(pixels).encode("PNG"))).astype(int)[0]
    assert saved[0].tolist() == [255, 0, 0]
    srgb_red = np.asarray(pil(Picture(pixels[:, 2:3].copy(), metadata=Metadata(icc_profile=P3)).encode("PNG")))[0, 0]
    assert saved[2].tolist() == srgb_red.tolist() and saved[2, 0] < saved[1, 0] < 255
    assert differs(Picture.open(picture.with_pixels(pixels).encode("PNG")).to_array()[0, 3], [51, 102, 153]) <= 1


def test_grey_ramp_keeps_its_neutrality_through_every_profile():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for profile in (P3, ADOBE, SRGB):
        picture = Picture.open(file_of(Image.fromarray(ramp), "PNG", icc_profile=profile))
        assert np.ptp(picture.pixels, axis=2).max() < 1e-5 and picture.excess is None
        assert np.all(np.diff(picture.pixels[0, :, 0]) > 0)


def test_grey_profiles():
    ramp = np.arange(256, dtype=np.uint8)[None]
    picture = Picture.open(file_of(Image.fromarray(ramp), "PNG", icc_profile=GREY22))
    linear = (ramp[0] / 255) ** 2.2
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.allclose(picture.pixels[0, :, 0], wanted, atol=2e-4)
    saved = pil(picture.encode("PNG"))
    assert saved.mode == "L" and saved.info["icc_profile"] == GREY22 and differs(saved, ramp) == 0
    painted = pil(picture.with_pixels(picture.pixels * np.array([1, 0.9, 0.8], np.float32)).encode("PNG"))
    assert painted.mode == "RGB" and "icc_profile" not in painted.info
    under_rgb = Picture.open(file_of(Image.fromarray(ramp), "JPEG", quality=100, icc_profile=ADOBE))
    saved = pil(under_rgb.encode("PNG"))
    assert saved.mode == "L" and saved.info["icc_profile"] == ADOBE


@pytest.mark.parametrize("kind", range(5))
def test_parametric_curves_follow_the_standard(kind):
    g, a, b, c, d, e, f = 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0
    values = {0: (2.2,), 1: (2.2, 1.0, 0.0), 2: (2.2, 0.9, 0.0, 0.1), 3: (g, a, b, c, d), 4: (g, a, b, c, d, e, f)}[kind]
    body = b"para" + bytes(4) + struct.pack(">HH", kind, 0) + s15(*values)
    x = np.linspace(0, 1, 65536)
    wanted = {0: x**2.2, 1: x**2.2, 2: (0.9 * x) ** 2.2 + 0.1}.get(kind, np.where(x >= d, (a * x + b) ** g, c * x))
    assert np.allclose(_profiles._curve(body), np.clip(wanted, 0, 1), atol=1e-4)


def test_cmyk_with_and_without_profile_becomes_rgb():
    inks = noise(channels=4)
    plain = Picture.open(file_of(Image.frombytes("CMYK", (17, 23), inks.tobytes()), "TIFF"))
    naive = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    assert differs(plain.to_array(), np.rint(naive)) <= 1
    profile = lut_profile(b"CMYK", 4)
    for format in ("TIFF", "JPEG"):
        image = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
        image.paste((0, 0, 0, 0), (0, 0, 4, 8))
        picture = Picture.open(file_of(image, format, icc_profile=profile))
        assert picture.pixels[:, :4].min() > 0.9 and picture.pixels[:, 4:].max() < 0.1
        saved = pil(picture.encode("JPEG"))
        assert saved.mode == "RGB" and "icc_profile" not in saved.info


def test_look_up_table_profiles_go_through_little_cms(caplog):
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], 3, axis=2)
    profile = lut_profile()
    picture = Picture.open(file_of(Image.fromarray(ramp), "PNG", icc_profile=profile))
    saved = pil(picture.encode("PNG"))
    assert saved.info["icc_profile"] == profile and differs(saved, ramp) <= 3
    one_way = Picture.open(file_of(Image.fromarray(ramp), "PNG", icc_profile=lut_profile(back=False)))
    assert differs(one_way.to_array(), picture.to_array()) == 0
    saved = pil(one_way.encode("PNG"))
    assert "icc_profile" not in saved.info and differs(saved, picture.to_array()) == 0


@pytest.mark.parametrize(
    "profile",
    [
        b"nonsense",
        P3[:200],
        P3.replace(b"acsp", b"acsq"),
        GREY22,
        lut_profile(b"CMYK", 4),
        lut_profile()[:300],
        icc(),
        ADOBE.replace(b"curv", b"curz"),
    ],
    ids=["text", "cut off", "no signature", "for grey", "for CMYK", "cut table", "no tags", "unknown curve"],
)
def test_broken_profiles_are_ignored_with_a_warning(profile, caplog):
    array = noise()
    picture = Picture.open(file_of(Image.fromarray(array), "PNG", icc_profile=profile))
    assert "the colour profile is ignored" in caplog.text
    assert differs(picture.to_array(), array) == 0
    assert "icc_profile" not in pil(picture.encode("PNG")).info


def test_resizing_and_formats_without_profiles_keep_the_right_colours():
    array = np.broadcast_to(np.array([255, 40, 30], np.uint8), (32, 32, 3)).copy()
    picture = Picture.open(file_of(Image.fromarray(array), "PNG", icc_profile=P3))
    small = picture.resized(width=9, height=7)
    assert small.size == (7, 9) and differs(pil(small.encode("PNG")), array[:7, :9]) <= 1
    assert differs(pil(picture.encode("BMP")), picture.to_array()) == 0


# Alpha ----------------------------------------------------------------------------------------------------------------


def test_hidden_colours_come_from_the_nearest_visible_ones():
    array = np.zeros((20, 40, 4), np.uint8)
    array[:, :3] = (200, 10, 10, 255)
    array[:, -3:] = (10, 10, 200, 128)
    picture = Picture.from_array(array)
    seen = picture.to_array()
    assert np.array_equal(seen[..., 3], array[..., 3])
    assert np.all(seen[:, :8, :3] == (200, 10, 10)) and np.all(seen[:, -8:, :3] == (10, 10, 200))
    assert seen[..., :3].max(axis=2).min() >= 100  # no black anywhere
    hidden = Picture.from_array(np.zeros((5, 5, 4), np.uint8))
    assert hidden.pixels.max() == 0 and hidden.alpha.max() == 0


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 33), st.integers(1, 33), st.just(4)), elements=st.sampled_from([0, 90, 255])))
def test_filling_keeps_what_is_visible_and_stays_between_its_colours(array):
    picture = Picture.from_array(array)
    seen = array[..., 3] > 0
    assert np.array_equal(picture.to_array()[seen], array[seen])
    if seen.any():
        low, high = array[seen][:, :3].min(axis=0) / 255, array[seen][:, :3].max(axis=0) / 255
        assert np.all(picture.pixels >= low - 1e-6) and np.all(picture.pixels <= high + 1e-6)


@pytest.mark.slow
def test_filling_is_quick_enough_for_12_megapixels():
    array = np.full((1500, 2000, 4), 255, np.uint8)  # a quarter of them
    array[250:1250, 250:1750, 3] = 0
    start = time.process_time()
    Picture.from_array(array)
    assert time.process_time() - start < 5


# The class itself -----------------------------------------------------------------------------------------------------


def test_arrays_of_every_kind():
    grey = noise(channels=1)
    for array in (grey, grey[..., None], grey / 255.0, (grey / 255).astype(np.float16), grey.astype(np.uint16) * 257):
        assert differs(Picture.from_array(array).to_array()[..., 1], grey) <= (1 if array.dtype == np.float16 else 0)
    foreign = Picture.from_array((grey.astype(np.uint16) * 257).astype(">u2"))  # of the other byte order, as from files
    assert differs(foreign.to_array()[..., 1], grey) == 0 and foreign.metadata.bits == 16
    assert Picture.from_array(grey > 100).to_array()[..., 0].tolist() == ((grey > 100) * 255).tolist()
    assert Picture.from_array(noise(channels=2)).alpha is not None and Picture.from_array(noise(channels=4)).to_array().shape == (23, 17, 4)
    assert Picture.from_array([[0.0, 1.0]]).size == (1, 2)
    for wrong in (np.array([[np.nan]]), np.array([[1.5]]), np.array([[-0.1]])):
        with pytest.raises(UsageError, match="must be between 0 and 1"):
            Picture.from_array(wrong)
    with pytest.raises(UsageError, match="must be uint8, uint16, bool or float; got int64"):
        Picture.from_array(np.zeros((2, 2), np.int64))
    for shape in ((0, 5, 3), (5,), (5, 5, 5), (2, 2, 2, 3)):
        with pytest.raises(UsageError, match="an array must be H x W"):
            Picture.from_array(np.zeros(shape, np.uint8))


def test_a_picture_is_frozen_and_read_only():
    picture = Picture.from_array(noise(channels=4))
    with pytest.raises(AttributeError):
        picture.pixels = picture.pixels  # type: ignore[misc]
    for array in (picture.pixels, picture.alpha):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
    assert repr(picture) == "Picture(17 x 23, alpha, 8 bits)"
    assert (picture.height, picture.width, picture.size) == (23, 17, (23, 17))


def test_nobody_else_can_write_to_a_picture():
    pixels, alpha = np.full((4, 5, 3), 0.25, np.float32), np.full((4, 5), 0.5, np.float32)
    shown = pixels[:]
    shown.flags.writeable = False  # read only by itself, while pixels is not
    pictures = [Picture(pixels, alpha), Picture(shown, alpha)]
    pixels[:], alpha[:] = np.nan, np.nan
    pictures += [pickle.loads(pickle.dumps(pictures[0])), copy.deepcopy(pictures[0]), copy.copy(pictures[0])]
    for picture in pictures:
        assert (picture.pixels == 0.25).all() and (picture.alpha == 0.5).all()
        for array in (picture.pixels, picture.alpha):
            with pytest.raises(ValueError, match=r"WRITEABLE"):
                array.flags.writeable = True
    assert pickle.loads(pickle.dumps(Picture.from_array(noise()))).alpha is None


def test_pictures_of_pixels_that_are_read_only_share_them():
    picture = Picture.from_array(noise(channels=4))
    for other in (Picture(picture.pixels, picture.alpha), picture.with_pixels(picture.pixels), copy.copy(picture)):
        assert np.shares_memory(other.alpha, picture.alpha)
    assert np.shares_memory(Picture(picture.pixels[:3]).pixels, picture.pixels)


def test_what_is_made_here_is_not_copied_to_be_read_only():
    array = noise(500, 400)
    picture = Picture.from_array(array)

    def most(work):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / picture.pixels.nbytes

    assert most(lambda: Picture.from_array(array)) < 1.5
    assert most(lambda: picture.with_pixels(picture.pixels)) < 1.5


def test_painting_keeps_alpha_and_metadata_and_checks_size_and_numbers():
    picture = Picture.open(file_of(Image.fromarray(noise(channels=4)), "PNG", icc_profile=P3))
    painted = picture.with_pixels(np.full((23, 17, 3), 1.5))
    assert painted.alpha is picture.alpha or np.array_equal(painted.alpha, picture.alpha)
    assert painted.metadata is picture.metadata and painted.pixels.max() == 1
    with pytest.raises(UsageError, match=r"pixels must be 23 x 17 x 3 like the picture; got shape \(17, 23, 3\)"):
        picture.with_pixels(np.zeros((17, 23, 3)))
    with pytest.raises(UsageError, match="pixels must be between 0 and 1; got nan"):
        picture.with_pixels(np.full((23, 17, 3), np.nan))
    for pixels, alpha in (
        (np.zeros((2, 2, 3)), None),
        (np.zeros((2, 2), np.float32), None),
        (picture.pixels, np.zeros((2, 2), np.float32)),
    ):
        with pytest.raises(UsageError):
            Picture(pixels, alpha)


def test_resizing_is_antialiased():
    checker = Picture.from_array((np.indices((64, 64)).sum(axis=0) % 2).astype(bool))
    assert np.allclose(checker.resized(width=8, height=8).pixels, 0.5, atol=0.02)
    assert checker.resized(width=1, height=4000).size == (4000, 1)
    with pytest.raises(UsageError, match="at least 1 x 1 pixels; got 0 x 5"):
        checker.resized(width=0, height=5)
    cut = Picture.from_array(noise(8, 8, 4)).resized(width=5, height=3)
    assert cut.alpha.shape == (3, 5)


def test_to_pil_and_back():
    for channels, mode in ((3, "RGB"), (4, "RGBA")):
        array = noise(channels=channels) | 1
        image = Picture.from_array(array).to_pil()
        assert image.mode == mode and differs(image, array) == 0
        assert differs(Picture.from_pil(image).to_array(), array) == 0


def test_pillows_own_limit_neither_stops_nor_warns_nor_changes(monkeypatch):
    animated = file_of(Image.fromarray(noise()), "WEBP", save_all=True, append_images=[Image.new("RGB", (17, 23))])
    stripped = file_of(Image.fromarray(noise()), "TIFF", compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (*(Picture.from_array(noise()).encode(format) for format in FORMATS), animated, stripped):
            assert Picture.open(data).size == (23, 17)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_avif_and_heic_are_there():
    assert features.check("avif")
    pytest.importorskip("pillow_heif")
