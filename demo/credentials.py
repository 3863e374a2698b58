"""How the two sides of the remote leg know each other: a certificate one way, a client secret the other.

Everything is made anew for each run and kept in one folder, from which the servers read it.
"""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme

SERVER_NAME = "models.example.com"
"""Whom the certificate of the remote backend is for."""
CLIENT_ID = "beamlit-demo"
_CERTIFICATE, _AUTHORITY, _CLIENT_SECRET, _SIGNING_KEY = "server.pem", "authority.pem", "client-secret", "signing-key"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What has been made; `client_secret` and `signing_key` are not to be shown."""

    folder: Path
    authority: str
    """The certificate of the authority that signed the server's, in PEM."""
    client_secret: str
    """By which the token endpoint knows the product."""
    signing_key: str
    """By which the remote backend knows a token of the token endpoint."""

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Make them all, in a folder that is made too."""
        folder.mkdir(mode=0o700)
        authority = trustme.CA(organization_name="beamlit-controller demo")
        authority.issue_cert(SERVER_NAME).private_key_and_cert_chain_pem.write_to_path(str(folder / _CERTIFICATE))
        authority.cert_pem.write_to_path(str(folder / _AUTHORITY))
        for name in (_CLIENT_SECRET, _SIGNING_KEY):
            (folder / name).write_text(secrets.token_urlsafe(32))
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what another process made."""
        return cls(folder, *((folder / name).read_text() for name in (_AUTHORITY, _CLIENT_SECRET, _SIGNING_KEY)))

    def for_server(self) -> ssl.SSLContext:
        """Return what the remote backend shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / _CERTIFICATE)
        return context

    def for_client(self) -> ssl.SSLContext:
        """Return what whoever asks the remote backend trusts."""
        return ssl.create_default_context(cadata=self.authority)
