"""UIDs, dates and patients of DICOM results."""

import dataclasses
import datetime
import importlib.util

import numpy as np
import pytest
from dicom_files import ct_slice
from dicom_results import ABOUT, DEVICE, source_of
from msa_flax.archive.objects import ArchiveError, plain, uid_of

from msa_flax.archive import objects


def header(**more):
    return ct_slice(np.zeros((8, 8), np.uint8), **{**ABOUT, **more})


def test_a_uid_follows_from_images_model_settings_and_role():
    source = source_of(header())
    uid = uid_of("report", source, DEVICE)
    assert uid == uid_of("report", source_of(header(patient="another")), DEVICE)
    assert len(uid) <= 64  # PS3.5, 9.1
    turned = dataclasses.replace(source, instances=source.instances[::-1])
    assert uid == uid_of("report", turned, DEVICE)
    others = [
        uid_of("preview 1", source, DEVICE),
        uid_of("report", source_of(header(), 4), DEVICE),
        uid_of("report", dataclasses.replace(source, series_uid="1.2"), DEVICE),
        uid_of("report", source, dataclasses.replace(DEVICE, fingerprint="cd" * 32)),
        uid_of("report", source, dataclasses.replace(DEVICE, settings="others")),
    ]
    assert len({uid, *others}) == 6


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, ("20200102", "101112")),
        ({"ContentDate": "20210304", "ContentTime": "0102"}, ("20210304", "0102")),
        ({"ContentDate": "", "SeriesDate": "20210304"}, ("20210304", "000000")),
        ({"AcquisitionDate": "20210304", "AcquisitionTime": "010203.5"}, ("20210304", "010203.5")),
        ({"StudyTime": ""}, ("20200102", "000000")),
        ({"StudyDate": ""}, ("19000101", "000000")),
    ],
)
def test_dates_are_those_of_the_images(elements, expected):
    assert source_of(header(**elements)).date_and_time == expected


def test_a_model_has_one_uid_whatever_it_is_applied_to():
    assert DEVICE.uid == dataclasses.replace(DEVICE, settings="others").uid
    assert DEVICE.uid != dataclasses.replace(DEVICE, fingerprint="cd" * 32).uid


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Brüche", "Bruche"), ("a\\b\nc", "a/b c"), ("骨折 1", "?? 1"), ("plain", "plain")],
)
def test_own_text_has_characters_that_every_character_set_has(text, expected):
    assert plain(text) == expected


def test_without_highdicom_one_sentence_says_what_to_install(monkeypatch):
    objects.check_installed()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArchiveError, match=r'pip install "msa_flax\[dicom\]"$'):
        objects.check_installed()


def test_nothing_in_an_object_is_of_today():
    from msa_flax.archive.report import report_nothing

    data = report_nothing(source_of(header()), DEVICE, ["why"])[1]
    assert datetime.datetime.now().strftime("%Y%m%d").encode() not in data
