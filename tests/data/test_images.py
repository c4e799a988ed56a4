"""Files become grey values, or are refused with a reason, before anything is decoded."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import chunk, encoded, picture
from PIL import Image

from msa_flax.data.headers import ImageError, read_header
from msa_flax.data.images import decode, read_bytes, read_image


def png_with_size(width, height, bits=8, colour=0):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


RGB = np.dstack([picture()] * 3)
OPAQUE = np.dstack([picture(), picture(), picture(), np.full((48, 64), 255, np.uint8)])
HOLE = OPAQUE.copy()
HOLE[5, 5, 3] = 254
TWO_FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - picture())]}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encoded(picture()), "a.png"),
        (encoded(RGB), "a.png"),
        (encoded(OPAQUE), "a.PNG"),
        (encoded(Image.fromarray(picture()).convert("LA")), "a.png"),
        (encoded(Image.fromarray(picture()).convert("P")), "a.png"),
    ],
    ids=["grey", "equal channels", "opaque alpha", "grey and alpha", "palette"],
)
def test_lossless_files_of_one_grey_picture_decode_to_its_values(data, name):
    assert np.array_equal(decode(data, name), picture())


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG"])
@pytest.mark.parametrize("image", [picture(), RGB], ids=["grey", "colour"])
def test_jpeg_files_decode_to_nearly_the_picture(image, name):
    decoded = decode(encoded(image, "JPEG", quality=95), name)
    # Quality 95 quantises the coefficients of this smooth picture to within 3 grey values.
    assert np.abs(decoded.astype(int) - picture()).max() <= 3


def test_every_grey_value_survives_equal_channels():
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    assert np.array_equal(decode(encoded(np.dstack([ramp] * 3)), "ramp.png"), ramp)


def test_colour_is_weighted_as_red_green_blue():
    solid = np.zeros((32, 96, 3), np.uint8)
    for channel in range(3):
        solid[:, 32 * channel : 32 * channel + 32, channel] = 255
    decoded = decode(encoded(solid), "solid.png")
    # ITU-R BT.601 weights times 255, rounded.
    assert decoded[0, [0, 32, 64]].tolist() == [76, 150, 29]


def test_one_bit_images_are_black_and_white():
    decoded = decode(encoded(Image.fromarray(picture()).convert("1")), "bw.png")
    assert set(np.unique(decoded)) == {0, 255}


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "a.jpg"), ("PNG", "a.png")])
def test_an_exif_rotated_file_is_read_as_a_viewer_shows_it(kind, name):
    turned = decode(encoded(picture(), kind, exif=exif(6)), name)  # 6: a quarter turn clockwise
    upright = decode(encoded(picture(), kind, exif=exif(1)), name)
    assert np.array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.png", "empty file"),
        (b"hello, world" * 9, "a.png", "not a PNG, JPEG or DICOM image"),
        (encoded(picture(), "GIF"), "a.png", "not a PNG, JPEG or DICOM image"),
        (encoded(picture(), "BMP"), "a.jpg", "not a PNG, JPEG or DICOM image"),
        (encoded(picture(), "JPEG"), "a.png", "wrong extension: a JPEG image named .png"),
        (encoded(picture()), "a.jpg", "wrong extension: a PNG image named .jpg"),
        (encoded(picture()), "a", "wrong extension: a PNG image named without one"),
        (encoded(picture().astype(np.uint16) * 200), "a.png", "16 bits a sample; export an 8-bit"),
        (encoded(HOLE), "a.png", "partly transparent"),
        (
            encoded(Image.fromarray(picture()).convert("P"), transparency=100),
            "a.png",
            "partly transparent",
        ),
        (encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG"), "a.jpg", "CMYK"),
        (encoded(picture(), **TWO_FRAMES), "a.png", "animated"),
        (encoded(picture(1, 1)), "a.png", "1 x 1 pixels, expected 32 or more a side"),
        (encoded(picture(31, 64)), "a.png", "64 x 31 pixels, expected 32 or more a side"),
        (encoded(picture(64, 31), "JPEG"), "a.jpg", "31 x 64 pixels, expected 32 or more a side"),
        (png_with_size(50_000, 50_000), "a.png", "more than 64 megapixels"),
        (png_with_size(64, 64), "a.png", "OpenCV cannot decode it"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "a.png", "no PNG header"),
        (b"\xff\xd8\xff\xe0\0\2" + b"\xff\xd9", "a.jpg", "no JPEG frame header"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(data, name, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, name)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 80


def test_a_jpeg_header_of_the_largest_size_is_refused_before_decoding(monkeypatch):
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("pixels were decoded"))
    with pytest.raises(ImageError, match="65535 x 65535 pixels, more than 64 megapixels"):
        decode(bytes(data), "a.jpg")


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("JPEG", "a.jpg")])
def test_a_file_cut_off_anywhere_is_refused(kind, name):
    whole = encoded(picture(), kind)
    assert decode(whole, name).shape == (48, 64)
    for length in {*range(0, len(whole), 37), len(whole) - 1, len(whole) - 2, len(whole) - 12}:
        with pytest.raises(ImageError):
            decode(whole[:length], name)


def test_a_jpeg_padded_with_zeros_is_whole():
    whole = encoded(picture(), "JPEG")
    assert np.array_equal(decode(whole + bytes(64), "a.jpg"), decode(whole, "a.jpg"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_png_with_any_flipped_bit_is_refused(position, bit):
    data = bytearray(encoded(picture()))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(ImageError):
        decode(bytes(data), "a.png")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b""]), st.binary(max_size=200))
def test_no_bytes_cause_anything_but_an_image_error(start, rest):
    for name in ("a.png", "a.jpg"):
        with pytest.raises(ImageError):
            decode(start + rest + b"\xff\xd9", name)


def test_a_huge_text_chunk_does_not_change_the_picture():
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))
    plain = encoded(picture())
    assert np.array_equal(decode(plain[:33] + text + plain[33:], "a.png"), picture())


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [
        *(("L", "PNG", 1), ("1", "PNG", 1), ("P", "PNG", 1), ("LA", "PNG", 2)),
        *(("RGB", "PNG", 3), ("RGBA", "PNG", 4), ("L", "JPEG", 1), ("RGB", "JPEG", 3)),
    ],
)
def test_a_header_tells_how_many_samples_a_pixel_is_stored_with(mode, kind, channels):
    data = encoded(Image.fromarray(RGB).convert(mode), kind)
    header = read_header(data, f"a.{kind.lower()}")
    assert (header.width, header.height, header.channels) == (64, 48, channels)


def test_a_header_counts_what_is_neither_pixels_nor_needed_for_them():
    def metadata(data):
        return read_header(data, "a.png" if data.startswith(b"\x89PNG") else "a.jpg").metadata

    plain, palette = encoded(picture()), Image.fromarray(picture()).convert("P")
    assert metadata(plain) == metadata(encoded(palette, transparency=100)) == 0
    text, time = chunk(b"tEXt", b"Author\0me"), chunk(b"tIME", bytes(7))
    assert metadata(plain[:33] + text + time + plain[33:]) == 9 + 7
    assert metadata(plain[:-12] + text + plain[-12:]) == 9  # after the pixels too

    photo, tags = encoded(picture(), "JPEG"), exif(6).tobytes()
    assert metadata(photo) == 16  # JFIF's segment, which every JPEG has
    assert metadata(encoded(picture(), "JPEG", comment=b"me")) == 16 + 2 + 2
    assert metadata(encoded(picture(), "JPEG", exif=exif(6))) == 16 + 2 + len(tags)
    assert metadata(photo[:2] + b"\xff\xfe\0\5abc" + photo[2:]) == 16 + 5


def test_files_are_read_from_disk(tmp_path):
    path = tmp_path / "ä (1).png"
    path.write_bytes(encoded(picture()))
    assert np.array_equal(read_image(path), picture())
    assert read_bytes(path) == encoded(picture())


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    monkeypatch.setattr("msa_flax.data.images.MAX_BYTES", 100)
    for read in (read_image, read_bytes):
        with pytest.raises(ImageError, match="cannot be read: No such file"):
            read(tmp_path / "none.png")
        with pytest.raises(ImageError, match="bytes, more than 100"):
            read(path)
    path.write_bytes(bytes(100))
    assert read_bytes(path) == bytes(100)
    monkeypatch.undo()
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        read_bytes(tmp_path)
