"""Stored values: every transfer syntax, two independent decoders, and what is not as it is said."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from public_dicom import dataset, public, saved
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from msa_flax.config import DataConfig
from msa_flax.data import dicom_pixels
from msa_flax.data.dicom import DicomError, decode, hounsfield, read_header

SYNTAXES = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
# name: the command between which the names of the two files are put
WRITERS = {
    "implicit": ["dcmconv", "+ti"],
    "big endian": ["dcmconv", "+tb"],
    "deflated": ["dcmconv", "+td"],
    "RLE of dcmtk": ["dcmcrle"],
    "JPEG-LS of dcmtk": ["dcmcjpls", "+el"],
    "JPEG lossless of dcmtk": ["dcmcjpeg", "+el"],
    "JPEG lossless SV1 of dcmtk": ["dcmcjpeg", "+e1"],
    "RLE of GDCM": ["gdcmconv", "--rle"],
    "JPEG lossless of GDCM": ["gdcmconv", "--jpeg"],
    "JPEG-LS of GDCM": ["gdcmconv", "--jpegls"],
    "JPEG 2000 of GDCM": ["gdcmconv", "--j2k"],
}


def converted(command, source, target):
    """The path of the file that a command line tool writes; the test skips where there is none."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: dcmtk, libgdcm-tools)")
    subprocess.run([*command, source, target], check=True, capture_output=True)
    return target


def compressed(syntax, **elements):
    ds = dataset(**elements)
    ds.compress(SYNTAXES[syntax], encoding_plugin="pylibjpeg" if syntax != "JPEG-LS" else "")
    return ds


def units_of(data, tmp_path):
    (tmp_path / "a.dcm").write_bytes(data)
    return hounsfield(read_header(tmp_path / "a.dcm")[0])


def refusal(data):
    with pytest.raises(DicomError) as error:
        decode(data, DataConfig())
    return str(error.value)


@pytest.mark.parametrize("name", ["693_UNCR.dcm", "CT_small.dcm"])
@pytest.mark.parametrize("syntax", WRITERS)
def test_lossless_files_of_other_programs_have_the_values_of_their_original(syntax, name, tmp_path):
    path = converted(WRITERS[syntax], public(name), tmp_path / "a.dcm")
    (one,), (original,) = read_header(path), read_header(public(name))
    assert np.array_equal(hounsfield(one), hounsfield(original))
    assert one.transfer_syntax != original.transfer_syntax


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_lossless_files_of_pydicom_have_the_values_of_their_original(syntax, tmp_path):
    (original,) = read_header(public("CT_small.dcm"))
    assert np.array_equal(units_of(saved(compressed(syntax)), tmp_path), hounsfield(original))


@pytest.mark.parametrize("kind", [["dcmcjpeg", "+ee"], ["dcmcjpeg", "+eb"]], ids=["12", "8 bits"])
def test_lossy_jpeg_differs_by_little(kind, tmp_path):
    if kind[1] == "+ee":
        pytest.importorskip("libjpeg", reason="pylibjpeg-libjpeg is not installed")
    path = converted(kind, public("bad_sequence.dcm"), tmp_path / "a.dcm")
    (one,), (original,) = read_header(path), read_header(public("bad_sequence.dcm"))
    difference = np.abs(hounsfield(one) - hounsfield(original))
    # Quality 90 of a range of 2,254 HU: 8 bits have steps of 9 HU, and the noise is smoothed.
    assert difference.mean() < 20


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("bad_sequence.dcm", ["dcmdjpeg"]),
        ("bad_sequence.dcm", ["gdcmconv", "--raw"]),
        ("693_J2KR.dcm", ["gdcmconv", "--raw"]),
        ("693_J2KI.dcm", ["gdcmconv", "--raw"]),
        ("explicit_VR-UN.dcm", ["gdcmconv", "--raw"]),
    ],
)
def test_independent_decoders_agree(name, command, tmp_path):
    path = converted(command, public(name), tmp_path / "a.dcm")
    ds, (one,) = pydicom.dcmread(path), read_header(public(name))
    values = np.frombuffer(ds.PixelData, "<i2" if ds.PixelRepresentation else "<u2")
    units = values.reshape(ds.Rows, ds.Columns) * one.slope + one.intercept
    ours = hounsfield(one)
    padded = np.zeros(ours.shape, bool)
    if one.padding:
        padded = units == one.padding[0] * one.slope + one.intercept
    # The irreversible wavelet is computed in floating point, by two libraries: one step apart.
    assert np.abs(ours - units)[~padded].max() <= (name == "693_J2KI.dcm")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_compressed_pixels_of_another_size_are_refused(syntax):
    for rows, columns in ((64, 128), (128, 64), (256, 128), (127, 128), (128, 129)):
        ds = compressed(syntax)
        ds.Rows, ds.Columns = rows, columns
        assert refusal(saved(ds))
    ds.Rows, ds.Columns = 64, 256  # as many pixels; an RLE stream does not say of which size it is
    if syntax != "RLE":
        assert "pixels of 128 x 128, 16 bits; its header says 256 x 64" in refusal(saved(ds))


@pytest.mark.parametrize("bot", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_two_compressed_frames_are_not_one(syntax, bot):
    ds = compressed(syntax)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame, frame], has_bot=bot)
    assert refusal(saved(ds)) == "2 frames, its header says 1"


@pytest.mark.parametrize("syntax", ["JPEG-LS", "JPEG 2000"])
def test_a_frame_in_several_fragments_is_one(syntax, tmp_path):
    ds = compressed(syntax)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame], fragments_per_frame=4, has_bot=False)
    (original,) = read_header(public("CT_small.dcm"))
    assert np.array_equal(units_of(saved(ds), tmp_path), hounsfield(original))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_compressed_pixels_that_are_cut_off_are_refused(syntax):
    data = saved(compressed(syntax))
    for share in (0.99, 0.9, 0.7):
        assert refusal(data[: int(share * len(data))])
    ds = compressed(syntax)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) // 2]], has_bot=False)
    reason = "truncated: the compressed pixels have no end"
    assert refusal(saved(ds)) == reason or syntax == "RLE"


def test_a_decoder_that_is_not_installed_is_named(tmp_path, monkeypatch):
    path = converted(["dcmcjpeg", "+ee"], public("bad_sequence.dcm"), tmp_path / "a.dcm")
    decoder = type(pydicom.pixels.get_decoder("1.2.840.10008.1.2.4.51"))
    monkeypatch.setattr(decoder, "available_plugins", ("gdcm",))
    reason = refusal(path.read_bytes())
    assert reason.startswith(
        "JPEG Extended (Process 2 and 4) needs a decoder that is not installed"
    )
    assert "pylibjpeg-libjpeg" in reason or "libjpeg" in sys.modules


def test_a_panic_of_a_decoder_is_one_sentence_and_prints_nothing(capfd):
    ds = compressed("RLE")
    ds.Rows = 64
    assert refusal(saved(ds)).startswith("damaged or not supported: ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("length", [0, 2, 16384, 32766, 32770, 65536])
def test_uncompressed_pixels_of_another_length_are_refused(length):
    ds = dataset()
    ds.PixelData = (ds.PixelData * 2)[:length]
    assert refusal(saved(ds)).startswith(f"{length} bytes of pixels, expected 32768")


@pytest.mark.parametrize("kept", [1, 100, 32_000])
def test_a_file_that_ends_inside_its_pixels_is_refused(kept):
    data = saved(dataset(DataSetTrailingPadding=...))
    start = len(data) - 32_768
    assert refusal(data[: start + kept]).startswith(f"{kept} bytes of pixels, expected 32768")
    assert refusal(data[: start - 12]).startswith("no pixels")


@pytest.mark.parametrize("syntax", ["plain", *SYNTAXES])
def test_values_that_need_more_bits_than_are_stored_are_refused(syntax):
    ds = dataset() if syntax == "plain" else compressed(syntax)
    ds.BitsStored, ds.HighBit = 10, 9  # the values go up to 2191
    assert refusal(saved(ds)) == "pixels use more than the 10 bits that its header says"


@pytest.mark.parametrize("extended", [True, False])
def test_unused_bits_may_be_zero_or_repeat_the_sign(extended, tmp_path):
    values = np.random.default_rng(0).integers(-2048, 2048, (128, 128))
    words = values if extended else values & 0xFFF
    ds = dataset(BitsStored=12, HighBit=11, PixelPaddingValue=...)
    ds.PixelData = words.astype("<i2").tobytes()
    assert np.array_equal(units_of(saved(ds), tmp_path), values - 1024)


@pytest.mark.parametrize("odd", [False, True])
def test_pixels_of_8_bits_are_read(odd, tmp_path):
    shape = (127, 127) if odd else (128, 128)  # an odd number of bytes is filled up with one
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ds = dataset(BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    ds.Rows, ds.Columns = shape
    ds.PixelPaddingValue = 0
    ds["PixelPaddingValue"].VR = "US"
    ds.PixelData = values.tobytes() + b"\0" * odd
    units = units_of(saved(ds), tmp_path)
    assert np.array_equal(units[values > 0], values[values > 0] - 1024.0)


def test_a_file_without_meta_information_is_read(tmp_path):
    ds, file = dataset(), io.BytesIO()
    pydicom.dcmwrite(file, ds, implicit_vr=True, little_endian=True, force_encoding=True)
    whole = file.getvalue()
    bare = whole[whole.index(b"\x08\0\x05\0") :]
    (original,) = read_header(public("CT_small.dcm"))
    assert np.array_equal(units_of(bare, tmp_path), hounsfield(original))


def test_a_deflated_file_is_inflated_no_further_than_the_limit(tmp_path, monkeypatch):
    ds, file = dataset(), io.BytesIO()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(file)
    (original,) = read_header(public("CT_small.dcm"))
    assert np.array_equal(units_of(file.getvalue(), tmp_path), hounsfield(original))
    monkeypatch.setattr(dicom_pixels, "INFLATED", 10_000)  # below the pixels, above the header
    with pytest.raises(DicomError, match="more than 10,000 bytes when it is inflated"):
        read_header(tmp_path / "a.dcm")
    assert "inflated" in refusal(file.getvalue())
