"""The certificate that a server shows, and the authorities of its clients, read from files that change.

What cert-manager, the kubelet or `beamlit certs` renew is used for the next connection; those that are open stay. While
the files do not belong together, as in the middle of a change, what was used before goes on.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from xds_server.stream.callers import Callers
from xds_server.stream.identity import ClientTable

log = logging.getLogger(__name__)

_LARGEST = 1 << 20
"""Of one file, in bytes: a bundle of every public authority has a quarter of it."""

Marks = tuple[tuple[int, int, int], ...]


class TlsFileError(Exception):
    """The files of a certificate cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Where the certificate chain and the key of a server are, and the authorities of its clients (PEM)."""

    certificate: Path
    key: Path
    client_ca: Path

    def marks(self) -> Marks:
        """Return what differs once a file was written or replaced, also behind a symbolic link. Raises OSError."""
        states = [path.stat() for path in (self.certificate, self.key, self.client_ca)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in states)

    def read(self) -> TlsMaterial:
        """Read the files. Raises TlsFileError for what cannot be read, is no PEM, or does not belong together."""
        try:
            before = self.marks()
            certificate, key, client_ca = (_content(path) for path in (self.certificate, self.key, self.client_ca))
            context = self._context()
            if self.marks() != before:
                raise TlsFileError("the files of the certificate are being changed")
        except ssl.SSLError as error:
            raise TlsFileError(
                f"{self.certificate}, {self.key} and {self.client_ca} are no certificate, its key and authorities: "
                f"{error.reason or error}"
            ) from error
        except OSError as error:
            raise TlsFileError(f"{error.filename}: {error.strerror or error}") from error
        return TlsMaterial(certificate, key, client_ca, context, before)

    def _context(self) -> ssl.SSLContext:
        """Build what Python's own servers take: it checks on the way that the files belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed connection would be checked against the authorities of before.
        context.num_tickets = 0
        # A key with a passphrase is refused, instead of a question on the terminal.
        context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        context.load_verify_locations(self.client_ca)
        return context


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What was in the files at one moment; it belongs together.

    `context` is the same for a server of Python's own. `marks` are those of the files.
    """

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    client_ca: bytes = field(repr=False)
    context: ssl.SSLContext = field(repr=False, compare=False)
    marks: Marks = field(repr=False)

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        """Return it as gRPC takes it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise TlsFileError(f"{path}: has more than {_LARGEST} bytes")
    return content


class FollowedFiles:
    """The newest material of some files. `newest` is asked at each new connection: it costs three looks at a file."""

    def __init__(self, files: ServerFiles) -> None:
        """Read the files for the first time. Raises TlsFileError."""
        self._files = files
        self.material = files.read()
        self._looked_at: object = self.material.marks

    def newest(self) -> TlsMaterial | None:
        """Return what is new since it was asked last; None if nothing is, or if what is there cannot be used."""
        try:
            marks = self._files.marks()
        except OSError as error:
            self._tell(error.filename, f"{error.filename}: {error.strerror or error}")
            return None
        if marks == self._looked_at:
            return None
        try:
            self.material = self._files.read()
        except TlsFileError as error:
            self._tell(marks, str(error))
            return None
        self._looked_at = self.material.marks
        log.info("certificate renewed", extra={"file": self._files.certificate})
        return self.material

    def _tell(self, state: object, because: str) -> None:
        """Say once for each state of the files why they are not used."""
        if state != self._looked_at:
            log.error("certificate not renewed: what was used before goes on", extra={"because": because})
        self._looked_at = state


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server with TLS needs: its files, and who its clients are.

    `token_address` is where clients come that show a token instead of a certificate; empty: none do.
    """

    files: ServerFiles
    callers: Callers = field(default_factory=lambda: Callers(ClientTable()))
    token_address: str = ""

    def credentials(self, *, certificates: bool = True) -> grpc.ServerCredentials:
        """Return what gRPC asks at each new connection; with `certificates`, clients without one are refused.

        Without, none is asked for: gRPC for Python cannot ask for one and do without. Raises TlsFileError.
        """
        followed = FollowedFiles(self.files)

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            # Called in a thread of gRPC's, by one at a time: it holds the lock of its port meanwhile.
            material = followed.newest()
            return material.for_grpc() if material else None

        return grpc.dynamic_ssl_server_credentials(followed.material.for_grpc(), renewed, certificates)

    def context(self) -> ssl.SSLContext:
        """Return the same for a server of Python's own, which does without certificates where tokens are taken.

        Raises TlsFileError.
        """
        followed = FollowedFiles(self.files)
        first = followed.material.context

        def renewed(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            followed.newest()
            connection.context = self._asking(followed.material.context)

        self._asking(first).sni_callback = renewed
        return first

    def _asking(self, context: ssl.SSLContext) -> ssl.SSLContext:
        if self.token_address:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context
