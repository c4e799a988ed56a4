"""The files of a portable model: what was changed, is missing or was added is noticed by name."""

import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest

from msa_flax.exporting import package
from msa_flax.exporting.package import PackageError

FILES = {"weights.npz": bytes(range(256)) * 4, "card.md": b"# Card\n"}


@pytest.fixture(params=["folder", "file"])
def written(request, tmp_path):
    zipped = request.param == "file"
    path = tmp_path / ("model.zip" if zipped else "model")
    assert package.write(path, package.sealed({"name": "x"}, FILES), zipped=zipped) is False
    return path


@pytest.fixture
def folder(tmp_path):
    package.write(tmp_path / "model", package.sealed({"name": "x"}, FILES), zipped=False)
    return tmp_path / "model"


def test_what_is_written_is_read(written):
    values, contents = package.read(written)
    assert contents == FILES
    assert values["name"] == "x"
    assert values["schema_version"] == 1
    assert set(values["files"]) == set(FILES)


def test_the_same_model_gives_the_same_bytes_and_is_left_alone(written):
    before = written.stat().st_mtime_ns
    contents = package.sealed({"name": "x"}, dict(reversed(FILES.items())))
    again = written.with_name("again")
    package.write(again, contents, zipped=written.is_file())
    if written.is_file():
        assert again.read_bytes() == written.read_bytes()
    assert package.write(written, contents, zipped=written.is_file()) is True
    assert written.stat().st_mtime_ns == before


def test_nothing_is_overwritten(written):
    other = package.sealed({"name": "y"}, FILES)
    for zipped in (True, False):
        with pytest.raises(PackageError, match="nothing was overwritten"):
            package.write(written, other, zipped=zipped)
    assert package.read(written)[0]["name"] == "x"


@pytest.mark.parametrize("name", ["model.json", *FILES])
def test_each_flipped_bit_of_a_file_is_noticed_by_its_name(folder, name):
    path, rng = folder / name, np.random.default_rng(0)
    whole = path.read_bytes()
    for bit in rng.choice(8 * len(whole), 20, replace=False):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(PackageError, match=f"{name}|schema_version"):
            package.read(folder)
    path.write_bytes(whole)
    package.read(folder)


def test_each_flipped_bit_of_one_file_is_noticed(tmp_path):
    path = tmp_path / "model.zip"
    package.write(path, package.sealed({"name": "x"}, {"a": b"b"}), zipped=True)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(PackageError):
            package.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "card.md").unlink(), "missing: card.md"),
        (lambda f: (f / "model.json").unlink(), "got no model.json"),
        (lambda f: (f / "more.txt").write_text("x"), "added: more.txt"),
        (lambda f: (f / "sub").mkdir(), "added: sub"),
        (lambda f: (f / ".hidden").write_text("x"), "added: .hidden"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "added: link"),
        (lambda f: os.mkfifo(f / "pipe"), "added: pipe"),
        (lambda f: (f / "card.md").write_text(""), "changed: card.md"),
        (lambda f: (f / "model.json").write_text("[" * 100_000), "changed: model.json"),
        (lambda f: (f / "model.json").write_text("[]"), "changed: model.json"),
    ],
)
def test_what_is_missing_or_added_is_named(folder, change, said):
    change(folder)
    with pytest.raises(PackageError, match=said) as raised:
        package.read(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_a_link_in_place_of_a_file_is_refused_even_with_the_same_bytes(folder, tmp_path):
    (folder / "card.md").rename(tmp_path / "card.md")
    (folder / "card.md").symlink_to(tmp_path / "card.md")
    with pytest.raises(PackageError, match=r"card\.md"):
        package.read(folder)


def test_a_newer_version_is_refused(folder):
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(values | {"schema_version": 2}))
    with pytest.raises(PackageError, match=r"schema_version 2.*install a newer msa_flax"):
        package.read(folder)


def zip_of(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
        archive.comment = b"0" * 64
    data = buffer.getvalue()[:-64]
    return data + hashlib.sha256(data).hexdigest().encode()


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", "a\\b", "C:x", ".hidden", "x" * 101])
def test_no_name_in_a_file_becomes_a_path(tmp_path, name):
    path = tmp_path / "in" / "model.zip"
    path.parent.mkdir()
    path.write_bytes(zip_of((name, b"x"), *package.sealed({}, FILES).items()))
    with pytest.raises(PackageError, match="added: "):
        package.read(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "model.zip"]


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MAX_BYTES", 10_000)
    (tmp_path / "bomb").write_bytes(zip_of(("model.json", b"0" * 20_000)))
    with pytest.raises(PackageError, match="at most 10000 bytes"):
        package.read(tmp_path / "bomb")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.npz").write_bytes(b"0" * 20_000)
    with pytest.raises(PackageError, match="at most 10000 bytes"):
        package.read(tmp_path / "model")


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04" + b"x" * 100])
def test_another_file_is_refused(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(PackageError, match="export --zip has written"):
        package.read(tmp_path / "x")
    with pytest.raises(PackageError, match="found none"):
        package.read(tmp_path / "none")
