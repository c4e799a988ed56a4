"""Sending to archives that run in threads."""

import numpy as np
import pytest
from archives import peer, web
from dicom_files import ct_slice
from dicom_results import ABOUT, origin_of

from msa_flax.archive.report import report_nothing
from msa_flax.archive.sending import Security, destinations


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    for series in ("1", "2"):
        ds = ct_slice(np.zeros((8, 8), np.uint8), series=series, **ABOUT)
        name, data = report_nothing(origin_of(ds), ["why"])
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


def one(name, **more):
    given = {"calling": "MSA_FLAX", "security": Security()} | more
    peers, urls = ([], [name]) if "//" in name else ([name], [])
    (found,) = destinations(peers, urls, **given)
    return found


def test_c_store(objects):
    took = []
    with peer(callers=["MSA_FLAX"]) as (name, offered):
        one(name).send(objects, took.append)
        assert offered == [path.stem for path in objects]
        assert took == objects


def test_stow_rs(objects):
    took = []
    with web() as (url, posted):
        one(url).send(objects, took.append)
        assert [path for path, _ in posted] == ["/dicom-web/studies"] * 2
        assert all(
            path.stem.encode() in body for path, (_, body) in zip(objects, posted, strict=True)
        )
        assert took == objects
