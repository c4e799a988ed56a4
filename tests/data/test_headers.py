"""What a file says about itself decides before a pixel is decoded."""

import numpy as np
import pytest
from image_files import encoded, picture

from msa_flax.data.headers import ImageError, palette_as_grey, read_header
from msa_flax.data.images import decode


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused():
    data = encoded(np.dstack([picture()] * 3), "JPEG", progressive=True)
    assert read_header(data, "a.jpg").channels == 3
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans:
        with pytest.raises(ImageError, match="not all scans"):
            read_header(data[:at] + b"\xff\xd9", "a.jpg")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG"])
def test_a_dicom_file_by_the_name_of_another_image_is_refused(name):
    with pytest.raises(ImageError, match=r"wrong extension: a DICOM image named \.(png|jpe?g)"):
        decode(bytes(128) + b"DICM" + bytes(20), name)


@pytest.mark.parametrize("rest", [b"", b"<?php", bytes(100)])
def test_bytes_after_the_end_are_metadata(rest):
    for kind, name in (("PNG", "a.png"), ("JPEG", "a.jpg")):
        data = encoded(picture(), kind)
        more = read_header(data + rest, name).metadata - read_header(data, name).metadata
        assert more == len(rest)


def test_a_palette_becomes_the_numbers_of_its_colours():
    from PIL import Image

    image = Image.fromarray(picture()).convert("P")
    grey = decode(palette_as_grey(encoded(image)), "a.png")
    assert np.array_equal(grey, np.asarray(image))
