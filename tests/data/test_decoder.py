"""Data that OpenCV's libraries repair with a line on standard error are refused instead."""

import os
import struct
import sys
import threading
import zlib

import cv2
import numpy as np
import pytest
from image_files import chunk, encoded, picture

from msa_flax.data.decoder import damage_refused, imdecode
from msa_flax.data.headers import ImageError, read_header
from msa_flax.data.images import decode

COLOUR = np.dstack([picture(96, 96), picture(96, 96).T, 255 - picture(96, 96)])
KINDS = {
    "plain": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
}


def png(raw, *, width=64, height=48, bits=8, colour=0, before=b""):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in raw)
    chunks = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def refused(data, name, capfd):
    with pytest.raises(ImageError) as caught:
        decode(data, name)
    assert capfd.readouterr().err == ""
    return str(caught.value)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_healthy_jpeg_keeps_its_pixels_whatever_follows_its_end(options, capfd):
    data = encoded(COLOUR, "JPEG", quality=90, **options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for rest in (b"", bytes(100), b"<?php", data):
        found = decode(data + rest, "a.jpg")
        assert np.array_equal(found, cv2.cvtColor(plain, cv2.COLOR_BGR2GRAY))
        assert read_header(data + rest, "a.jpg").metadata - read_header(
            data, "a.jpg"
        ).metadata == len(rest)
    assert found.shape == expected.shape
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_cut_jpeg_is_refused_though_an_end_marker_follows(options, capfd):
    data = encoded(COLOUR, "JPEG", quality=90, **options)
    start = data.index(b"\xff\xda") + 20
    for length in range(start, len(data) - 8, (len(data) - start) // 40):
        for rest in (b"\xff\xd9", bytes(len(data) - length - 2) + b"\xff\xd9"):
            reason = refused(data[:length] + rest, "a.jpg", capfd)
            assert reason.startswith(("damaged: ", "truncated"))


def test_a_large_header_over_little_data_is_refused(capfd):
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 2000, 2000)
    assert "premature end" in refused(bytes(data), "a.jpg", capfd)
    rows = picture(96, 64)
    assert "Too much image data" in refused(png(rows, height=48), "a.png", capfd)
    assert "cannot decode" in refused(png(rows, height=480), "a.png", capfd)


def test_a_colour_beyond_the_palette_is_damage(capfd):
    indices = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    whole, short = (chunk(b"PLTE", bytes(range(3 * n))) for n in (64, 4))
    assert decode(png(indices, colour=3, before=whole), "a.png").shape == (48, 64)
    assert "palette" in refused(png(indices, colour=3, before=short), "a.png", capfd)


@pytest.mark.parametrize("used", [False, True], ids=["opaque", "transparent"])
@pytest.mark.parametrize("kind", ["grey", "colour", "palette", "four bits"])
def test_transparency_is_one_thing_in_all_its_forms(kind, used, capfd):
    grey = np.tile(np.arange(64, dtype=np.uint8), (48, 1))  # 0..63
    value = 5 if used else 99
    data = {
        "grey": png(grey, before=chunk(b"tRNS", struct.pack(">H", value))),
        "colour": png(
            np.repeat(grey, 3, 1), colour=2, before=chunk(b"tRNS", struct.pack(">3H", *[value] * 3))
        ),
        "palette": png(
            grey,
            colour=3,
            before=chunk(b"PLTE", bytes(range(192)) * 4)
            + chunk(b"tRNS", bytes([255] * value + [7])),
        ),
        "four bits": png(
            np.full((48, 32), 0x11 if used else 0x22, np.uint8),
            bits=4,
            before=chunk(b"tRNS", struct.pack(">H", 1)),
        ),
    }[kind]
    if used:
        assert "partly transparent" in refused(data, "a.png", capfd)
    else:
        assert decode(data, "a.png").shape == (48, 64)


@pytest.mark.parametrize("bits", [0, 3, 7])
def test_numbers_of_bits_that_do_not_exist_are_damage(bits, capfd):
    data = png(picture(), bits=bits, colour=3, before=chunk(b"PLTE", bytes(9)))
    assert "bits a sample" in refused(data, "a.png", capfd)


def test_many_threads_each_hear_of_their_own_file_and_other_words_pass(capfd):
    good = encoded(COLOUR, "JPEG")
    bad = good[: len(good) // 2] + b"\xff\xd9"
    outcomes, stop = [], threading.Event()

    def talk():
        while not stop.is_set():
            os.write(2, b"word\n")

    def read(data, damaged):
        for _ in range(40):
            try:
                imdecode(data, cv2.IMREAD_COLOR)
                outcomes.append(not damaged)
            except ImageError:
                outcomes.append(damaged)

    talker = threading.Thread(target=talk)
    readers = [threading.Thread(target=read, args=case) for case in [(good, False), (bad, True)]]
    talker.start()
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    talker.join()
    assert len(outcomes) == 80
    assert all(outcomes)
    assert set(capfd.readouterr().err.split()) == {"word"}


def while_another_talks():
    with damage_refused():
        os.write(2, b"word\n" * 50_000)


def with_many_warnings():
    data = png(picture(), before=chunk(b"tIME", b"") * 5000)
    assert np.array_equal(decode(data, "a.png"), picture())


@pytest.mark.parametrize("kept", ["in memory", "on the disk"])
@pytest.mark.parametrize("said", [while_another_talks, with_many_warnings])
def test_more_may_be_said_than_a_pipe_has_room_for(said, kept, capfd, monkeypatch):
    if kept == "on the disk":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    ended = threading.Event()
    threading.Thread(target=lambda: [said(), ended.set()], daemon=True).start()
    assert ended.wait(60)  # without room it would wait for ever
    assert set(capfd.readouterr().err.split()) <= {"word"}


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors of POSIX")
def test_a_closed_standard_error_does_not_hide_damage(capfd):
    data = encoded(COLOUR, "JPEG")
    kept = os.dup(2)
    os.close(2)
    try:
        with pytest.raises(ImageError, match="premature"):
            imdecode(data[: len(data) // 2] + b"\xff\xd9", cv2.IMREAD_COLOR)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
