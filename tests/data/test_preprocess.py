import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from msa_flax import config, data
from msa_flax.data import phantom
from msa_flax.data import preprocess as pp
from msa_flax.data.preprocess import (
    EQUALIZERS,
    ImageError,
    decode,
    equalize_image,
    preprocess,
    read_image,
    resize_mask,
)


def picture(h=48, w=64):
    y, x = np.mgrid[:h, :w]
    smooth = 128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)
    return smooth.astype(np.uint8)  # smooth, so that JPEG keeps it


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


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
        (b"hello, world" * 9, "a.png", "not a PNG or JPEG image"),
        (encoded(picture(), "GIF"), "a.png", "not a PNG or JPEG image"),
        (encoded(picture(), "BMP"), "a.jpg", "not a PNG or JPEG image"),
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


def test_files_are_read_from_disk(tmp_path):
    path = tmp_path / "ä (1).png"
    path.write_bytes(encoded(picture()))
    assert np.array_equal(read_image(path), picture())


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        read_image(tmp_path / "none.png")
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    monkeypatch.setattr(pp, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="bytes, more than 100"):
        read_image(path)


def test_halving_averages_four_pixels():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    means = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    # Bilinear sampling at the centre of each block is its mean; half a grey value is rounding.
    assert np.abs(preprocess(image, size=32) - means).max() <= 0.5
    assert np.abs(image[::2, ::2] - means).max() > 50  # nearest-neighbour would be seen


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3)])
def test_every_accepted_shape_gives_the_same_square(shape):
    image = np.broadcast_to(picture()[..., None], (48, 64, 3))[..., : (*shape, 1)[2]]
    resized = preprocess(np.ascontiguousarray(image).reshape(shape), size=40)
    assert resized.dtype == np.uint8
    assert np.array_equal(resized, cv2.resize(picture(), (40, 40)))


def test_an_image_of_the_right_size_is_unchanged():
    image = picture(48, 48)
    assert np.array_equal(preprocess(image, size=48), image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((64, 64), np.uint16), "expected uint8 pixels, got uint16"),
        (np.zeros((64, 64)), "expected uint8 pixels, got float64"),
        (np.zeros(64, np.uint8), r"got \(64,\)"),
        (np.zeros((64, 64, 4), np.uint8), r"got \(64, 64, 4\)"),
        (np.zeros((0, 64), np.uint8), r"got \(0, 64\)"),
    ],
)
def test_arrays_that_are_not_images_are_refused(image, reason):
    with pytest.raises(ImageError, match=reason):
        preprocess(image, size=32)


def neck(h=70, w=90):
    """A bright, noisy disc in much air, as in a CT slice: the lowest value is the commonest."""
    y, x = np.mgrid[:h, :w]
    inside = (x - w / 2) ** 2 + (y - h / 2) ** 2 < (h / 3) ** 2
    values = np.random.default_rng(0).normal(110, 25, (h, w))
    return np.where(inside, np.clip(values, 1, 255), 0).astype(np.uint8)


def ranks(image):
    """How many pixels are as bright or darker, for every pixel: equalisation without histograms."""
    return np.searchsorted(np.sort(image.ravel()), image, side="right")


@pytest.mark.parametrize("image", [neck(), picture(), picture(33, 47)])
def test_histogram_equalisation_ranks_pixels_above_the_lowest_value(image):
    lowest = np.sum(image == image.min())
    expected = np.rint(255 * (ranks(image) - lowest) / (image.size - lowest))
    found = equalize_image(image, "histogram")
    # OpenCV multiplies in float32, which may round an exact half the other way.
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.02
    assert (found.min(), found.max()) == (0, 255)


def test_the_other_usual_formula_of_equalisation_would_be_seen():
    image = neck()
    naive = np.rint(255 * ranks(image) / image.size)  # air would become grey
    assert np.abs(equalize_image(image, "histogram") - naive).max() > 100


def test_images_that_differ_in_brightness_and_contrast_only_come_out_equal():
    image = picture() // 2
    assert np.array_equal(
        equalize_image(image, "histogram"), equalize_image(2 * image, "histogram")
    )
    assert np.array_equal(
        equalize_image(image, "histogram"), equalize_image(image + 90, "histogram")
    )


def test_equalising_keeps_the_order_of_grey_values_and_is_done_once():
    once = equalize_image(neck(), "histogram")
    mapping = {int(a): int(b) for a, b in zip(neck().ravel(), once.ravel(), strict=True)}
    mapped = [mapping[value] for value in sorted(mapping)]
    assert mapped == sorted(mapped)
    twice = equalize_image(once, "histogram")
    # Grey values that once were merged by rounding now share a rank: one grey value, and rounding.
    assert np.abs(twice.astype(int) - once).max() <= 2


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_of_one_value_is_equalised_without_error(value):
    image = np.full((40, 56), value, np.uint8)
    assert np.array_equal(equalize_image(image, "histogram"), image)
    assert len(np.unique(equalize_image(image, "clahe"))) == 1


def test_clahe_with_one_tile_and_no_limit_ranks_all_pixels(monkeypatch):
    monkeypatch.setattr(pp, "TILES", (1, 1))
    monkeypatch.setattr(pp, "CLIP_LIMIT", 0.0)  # OpenCV: none
    image = neck()
    expected = np.rint(255 * ranks(image) / image.size)
    assert np.abs(equalize_image(image, "clahe") - expected).max() <= 1  # float32, as above


def test_clahe_is_local_and_its_limit_and_tiles_are_the_stated_ones():
    assert (pp.CLIP_LIMIT, pp.TILES) == (2.0, (8, 8))
    left, right = picture(64, 128) // 8, 128 + picture(64, 128) // 8  # of little contrast
    image = np.hstack([left, right])
    found = equalize_image(image, "clahe")
    assert np.array_equal(found, cv2.createCLAHE(2.0, (8, 8)).apply(image))
    for part in (np.s_[:, :112], np.s_[:, 144:]):  # away from the seam
        assert found[part].std() > 1.2 * image[part].std()
    assert not np.array_equal(found, equalize_image(image, "histogram"))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 47), (64, 64)])
@pytest.mark.parametrize("equalize", sorted(EQUALIZERS))
def test_an_image_of_any_size_keeps_it_and_its_pixels_are_left_alone(shape, equalize):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    assert equalize_image(image, equalize).shape == shape
    assert preprocess(image, size=40, equalize=equalize).shape == (40, 40)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("equalize", ["histogram", "clahe"])
@pytest.mark.parametrize("shape", [(70, 90), (70, 90, 1), (70, 90, 3)])
def test_grey_values_are_equalised_first_and_then_resized(equalize, shape):
    image = np.broadcast_to(neck()[..., None], (70, 90, 3))[..., : (*shape, 1)[2]]
    image = np.ascontiguousarray(image).reshape(shape)
    expected = cv2.resize(equalize_image(neck(), equalize), (40, 40))
    found = preprocess(image, size=40, equalize=equalize)
    assert np.array_equal(found, expected)
    other_way_round = equalize_image(cv2.resize(neck(), (40, 40)), equalize)
    assert not np.array_equal(found, other_way_round)


def test_no_equalisation_is_the_default_and_changes_nothing():
    assert np.array_equal(preprocess(neck(), size=40), cv2.resize(neck(), (40, 40)))
    assert np.array_equal(preprocess(neck(), size=40), preprocess(neck(), size=40, equalize="none"))


def test_an_unknown_equalisation_is_refused_and_the_configuration_offers_what_there_is():
    with pytest.raises(
        ImageError, match="equalize: expected one of none, histogram, clahe; got 'x"
    ):
        preprocess(neck(), size=40, equalize="x")
    for equalize in EQUALIZERS:
        config.Config(data=config.DataConfig(root="somewhere", equalize=equalize)).validate()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    for i, part in enumerate(("train", "val")):
        for k, name in enumerate(("normal", "fracture")):
            path = tmp_path / "set" / part / name
            path.mkdir(parents=True)
            cv2.imwrite(str(path / "a.png"), neck(60 + 4 * i, 70 + 4 * k))
    return tmp_path / "set"


def test_every_door_to_a_folder_equalises_and_one_prepared_copy_serves_all(folder, tmp_path):
    found = {}
    for equalize in [*EQUALIZERS, "none"]:  # again, after the others
        options = config.DataConfig(root=str(folder), image_size=32, equalize=equalize)
        examples = data.load(options)
        expected = [
            preprocess(read_image(folder / name), size=32, equalize=equalize)
            for name in examples.example_id
        ]
        assert np.array_equal(examples.images, expected)
        assert np.array_equal(data.load_external(folder, options).images, expected)
        found[equalize] = examples.fingerprint
    assert len(set(found.values())) == 3
    copies = [path for path in (tmp_path / "cache/datasets/folder").iterdir() if path.is_dir()]
    assert len(copies) == 1  # it holds the pixels of the files


def test_the_phantom_is_equalised_and_its_masks_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path))
    plain, equalised = (
        data.load(
            config.DataConfig(
                source="phantom", phantom_patients=10, image_size=32, equalize=equalize
            )
        )
        for equalize in ("none", "histogram")
    )
    drawn = phantom.draw_slice(0, 0, 3).image
    row = equalised.example_id.tolist().index("phantom/P0000/03")
    expected = preprocess(drawn, size=32, equalize="histogram")
    assert np.array_equal(equalised.images[row], expected)
    assert not np.array_equal(plain.images[row], expected)
    assert np.array_equal(plain.masks, equalised.masks)


def test_a_line_one_pixel_wide_survives_shrinking():
    mask = np.zeros((512, 512), np.uint8)
    mask[:, 301] = 1
    small = resize_mask(mask, size=16)
    assert small.dtype == np.uint8
    assert np.array_equal(small.sum(axis=0), 16 * (np.arange(16) == 301 // 32))
    nearest = cv2.resize(mask, (16, 16), interpolation=cv2.INTER_NEAREST)
    assert nearest.sum() == 0  # what the rule is there to prevent


def test_a_mask_is_not_thickened_by_enlarging():
    mask = np.eye(32, dtype=np.uint8) * 255
    source = np.arange(80) * 32 // 80
    assert np.array_equal(resize_mask(mask, size=80), np.eye(32)[np.ix_(source, source)])
