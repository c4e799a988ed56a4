"""Sending DICOM objects: by C-STORE (PS3.4, B) and by STOW-RS (PS3.18, 10.5).

One object is sent at a time, and nothing is tried twice here. What fails is either the archive's,
which is away and may be back later, or the object's, which it does not take.
"""

import dataclasses
import logging
import re
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import uid
from pynetdicom import AE, build_context

from msa_flax.files import UserError

CONNECT, ANSWER = 10.0, 60.0  # seconds that are waited for a connection, and for an answer
_PEER = re.compile(r"([!-?A-[\]-~]{1,16})@(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})")
_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?(?:/[!$-;=A-~]*)?")
_KINDS = (uid.Comprehensive3DSRStorage, uid.SecondaryCaptureImageStorage)
_REFUSALS = (400, 409, 413, 415, 422)  # HTTP states that are about what was sent

for _name in ("pynetdicom", "dicomweb_client", "urllib3", "retrying"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)  # they name what they send


class SendingError(UserError):
    """A destination cannot be understood."""


class AwayError(UserError):
    """The archive cannot be reached, or can take nothing at the moment."""


class RefusedError(UserError):
    """The archive does not take an object."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How connections are secured.

    Attributes:
        ca: file with the certificates that are trusted; None: those of the system.
        certificate: file with our own, for archives that ask for one.
        key: file with its private key; None: it is in the file of the certificate.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Returns the TLS settings of C-STORE: TLS 1.2 or newer, the host's name is checked.

        Raises:
            SendingError: a file cannot be used.
        """
        if self.key and not self.certificate:
            raise SendingError("--tls_key: expected --tls_cert beside it, got nothing")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # of which ssl.SSLError is one
            raise SendingError(
                "--tls_ca, --tls_cert, --tls_key: expected certificates and a key as PEM files, "
                f"got {error.strerror or error}"
            ) from error
        return context


class Peer:
    """A DICOM node that takes objects by C-STORE."""

    def __init__(self, name: str, *, calling: str, tls: ssl.SSLContext | None) -> None:
        """Understands a name; nothing is connected yet.

        Args:
            name: AE@HOST:PORT.
            calling: our own AE title.
            tls: how the connection is secured (PS3.15, B.12); None: not at all.

        Raises:
            SendingError: it is none.
        """
        found = _PEER.fullmatch(name)
        if not found or not 0 < int(found[3]) < 2**16:
            raise SendingError(
                f"--send: expected AE@HOST:PORT, such as PACS@10.0.0.5:104, got {name!r}"
            )
        self.name, host = name, found[2].strip("[]")
        self._peer: dict[str, Any] = {"addr": host, "port": int(found[3]), "ae_title": found[1]}
        self._peer["tls_args"] = (tls, host) if tls else None
        ae = self._entity = AE(calling)
        ae.requested_contexts = [build_context(x, uid.ExplicitVRLittleEndian) for x in _KINDS]
        ae.connection_timeout = CONNECT
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ANSWER

    def send(self, objects: Iterable[Path], took: Callable[[Path], None]) -> None:
        """Sends objects one by one, over one association.

        Args:
            objects: files.
            took: is called for each one that has arrived.

        Raises:
            AwayError: the archive is away.
            RefusedError: it does not take one of them; those after it were not sent.
        """
        try:
            link: Any = self._entity.associate(**self._peer)
        except OSError as error:
            raise AwayError("nobody knows the host") from error
        if not link.is_established:
            raise AwayError("no association: check host, port, AE titles and TLS of both sides")
        try:
            for path in objects:
                self._store(link, path)
                took(path)
        finally:
            link.release()  # if the archive has not

    def _store(self, link: Any, path: Path) -> None:
        ds = pydicom.dcmread(path)
        try:
            status = link.send_c_store(ds).get("Status")
        except ValueError as error:  # no presentation context was agreed upon
            raise RefusedError("it takes no objects of this SOP class") from error
        except RuntimeError:  # there is no association any more
            status = None
        if status is None:
            raise AwayError("it has ended the association, or not answered")
        if status >> 8 == 0xA7:  # PS3.4, B.2.3: out of resources
            raise AwayError(f"it is out of resources (status {status:04X})")
        if status and status >> 12 != 0xB:  # warnings: it is stored
            raise RefusedError(f"it does not take an object (status {status:04X})")


class Web:
    """A DICOMweb server that takes objects by STOW-RS."""

    def __init__(self, name: str, *, security: Security) -> None:
        """Understands a URL; nothing is connected yet.

        User names and passwords are taken from ``~/.netrc``; no proxy is used.

        Args:
            name: http://HOST[:PORT]/PATH, or https.
            security: of the connection.

        Raises:
            SendingError: it is none.
        """
        found = _URL.fullmatch(name)
        if not found or not 0 < int(found[1] or 80) < 2**16:
            raise SendingError(
                "--stow: expected a URL such as https://HOST/dicom-web; user and password, which "
                "others on this machine could read here, belong into ~/.netrc"
            )
        session = requests.Session()
        session.max_redirects = 0  # patients' data goes where it was sent, nowhere else
        session.trust_env = False  # as variables for proxies and certificates may have it
        session.auth = requests.utils.get_netrc_auth(name)
        session.verify = str(security.ca) if security.ca else True
        if security.certificate:
            session.cert = str(security.certificate), str(security.key or security.certificate)
        self.name = name
        self._client = DICOMwebClient(name.rstrip("/"), session=session, timeout=(CONNECT, ANSWER))
        self._client.set_http_retry_params(retry=False)

    def send(self, objects: Iterable[Path], took: Callable[[Path], None]) -> None:
        """Sends objects, each by a request of its own; see :meth:`Peer.send`."""
        for path in objects:
            self._store(path)
            took(path)

    def _store(self, path: Path) -> None:
        ds = pydicom.dcmread(path)
        try:
            answer = self._client.store_instances([ds])
        except requests.HTTPError as error:
            status = getattr(error.response, "status_code", 0)
            kind = RefusedError if status in _REFUSALS else AwayError
            raise kind(f"it answers with HTTP status {status}") from error
        except (requests.RequestException, ValueError, KeyError, SyntaxError) as error:
            raise AwayError(f"no usable answer ({type(error).__name__})") from error
        if failed := answer.get("FailedSOPSequence"):
            reason = int(failed[0].get("FailureReason") or 0)
            raise RefusedError(f"it does not take an object (failure reason {reason:04X})")


Destination = Peer | Web


def destinations(
    peers: Iterable[str], urls: Iterable[str], *, calling: str, tls: bool, security: Security
) -> list[Destination]:
    """Returns where results go: to these, and nowhere else.

    Args:
        peers: AE@HOST:PORT of each.
        urls: of DICOMweb servers.
        calling: our own AE title.
        tls: whether C-STORE goes over TLS; STOW-RS does where the URL says https.
        security: of all connections.

    Raises:
        SendingError: one of them cannot be understood.
    """
    if not re.fullmatch(r"[!-[\]-~]([ -[\]-~]{0,14}[!-[\]-~])?", calling):
        raise SendingError(
            f"--calling_ae: expected an AE title of at most 16 characters, got {calling!r}"
        )
    context = security.context()  # refuses what cannot be used
    mine: Any = {"calling": calling, "tls": context if tls else None}
    return [*(Peer(one, **mine) for one in peers), *(Web(one, security=security) for one in urls)]
