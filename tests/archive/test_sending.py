"""Sending to archives that run in threads."""

import json
import ssl
import subprocess

import numpy as np
import pytest
from archives import peer, web
from dicom_files import ct_slice
from dicom_results import ABOUT, origin_of
from pydicom.uid import SecondaryCaptureImageStorage

from msa_flax.archive.report import report_nothing
from msa_flax.archive.sending import AwayError, RefusedError, Security, SendingError, destinations

# pynetdicom leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    for series in ("1", "2"):
        ds = ct_slice(np.zeros((8, 8), np.uint8), series=series, **ABOUT)
        name, data = report_nothing(origin_of(ds), ["why"])
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


def one(name, **more):
    given = {"calling": "MSA_FLAX", "tls": False, "security": Security()} | more
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


def failing(name, objects, error, **more):
    """What is said of an error, and what was taken before it."""
    took = []
    with pytest.raises(error) as raised:
        one(name, **more).send(objects, took.append)
    return str(raised.value), took


def test_a_peer_that_is_away_or_refuses_us_is_away(objects):
    with peer(callers=["SOMEBODY"]) as (name, offered):
        assert failing(name, objects, AwayError)[0].startswith("no association: check")
        other = name.replace("PACS", "OTHER")
        assert failing(other, objects, AwayError)[0].startswith("no association: check")
        assert offered == []
    assert failing(name, objects, AwayError)[0].startswith("no association: check")
    assert failing("PACS@host.invalid:104", objects, AwayError)[0] == "nobody knows the host"


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [(0xA700, AwayError, "out of resources"), (0xC000, RefusedError, "status C000")],
)
def test_what_a_peer_answers(objects, status, error, said):
    answers = [0, status]
    with peer(status=lambda uid: answers.pop(0)) as (name, _):
        message, took = failing(name, objects, error)
    assert said in message
    assert took == objects[:1]


def test_a_warning_is_no_refusal(objects):
    with peer(status=lambda uid: 0xB000) as (name, offered):
        one(name).send(objects, lambda path: None)
        assert len(offered) == 2


def test_a_peer_that_takes_no_reports_refuses_them(objects):
    with peer(kinds=[SecondaryCaptureImageStorage]) as (name, _):
        said, _ = failing(name, objects, RefusedError)
    assert said == "it takes no objects of this SOP class"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((503, b""), AwayError, "HTTP status 503"),
        ((401, b""), AwayError, "HTTP status 401"),
        ((409, b""), RefusedError, "HTTP status 409"),
        ((200, b"<html>"), AwayError, "no usable answer"),
        (
            (200, b"<html>", {"Content-Type": "application/xml"}),
            AwayError,
            "no usable answer",
        ),
        ((307, b"", {"Location": "/elsewhere"}), AwayError, "no usable answer (TooManyRedirects)"),
    ],
)
def test_what_a_web_server_answers(objects, answer, error, said):
    with web(lambda body: answer) as (url, posted):
        assert said in failing(url, objects, error)[0]
        assert [path for path, _ in posted] == ["/dicom-web/studies"]  # it is not followed


def test_a_web_server_that_is_away(objects):
    with web() as (url, _):
        pass
    assert failing(url, objects, AwayError)[0].endswith("(ConnectionError)")


def test_a_web_server_that_does_not_store_an_object_refuses_it(objects):
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [49442]}}]}}
    with web(lambda body: (202, json.dumps(failed).encode())) as (url, _):
        assert failing(url, objects, RefusedError)[0].endswith("(failure reason C122)")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of localhost with its key, made by openssl."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(path), "-out", str(path.with_name("own.pem"))]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_name("own.pem").read_bytes())
    return path


def test_both_go_over_tls_with_certificates_of_both_sides(objects, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/none")

    def server():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
        context.load_cert_chain(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    known = Security(ca=certificate, certificate=certificate)
    with peer(ssl_context=server()) as (name, offered), web(ssl_context=server()) as (url, posted):
        for where, got in ((name, offered), (url, posted)):
            one(where, tls=True, security=known).send(objects, lambda path: None)
            assert len(got) == 2
            failing(where, objects, AwayError, tls=True)  # who is that?
            assert len(got) == 2


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("PACS@host", {}, "--send: expected AE@HOST:PORT"),
        ("PACS@host:65536", {}, "--send: expected AE@HOST:PORT"),
        ("A\\B@host:104", {}, "--send: expected AE@HOST:PORT"),
        ("http://", {}, "--stow: expected a URL"),
        ("http://host:port", {}, "--stow: expected a URL"),
        ("http://host/?a=b", {}, "--stow: expected a URL"),
        ("http://host/a b", {}, "--stow: expected a URL"),
        ("http://host:70000", {}, "--stow: expected a URL"),
        ("http://me:secret@host", {}, "belong into ~/.netrc"),
        ("PACS@host:104", {"calling": "longer than sixteen"}, "--calling_ae"),
        ("PACS@host:104", {"security": Security(ca="/none")}, "--tls_ca"),
        ("PACS@host:104", {"security": Security(key="/none")}, "expected --tls_cert beside it"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence(name, more, said):
    with pytest.raises(SendingError, match=said) as raised:
        one(name, **more)
    assert "secret" not in str(raised.value)
