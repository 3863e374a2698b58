"""What a protected remote backend needs, made anew for a run: an authority, its certificate and the Secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme
from pydantic import SecretStr

from benchmarks.proxies.configs import AUTHORITY
from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth, RemoteTls
from xds_server.resources.secret import Values

_KEY, _CLIENT, _AUTHORITIES = (
    CredentialSource.of_secret("remote", key) for key in ("apiKey", "clientSecret", "ca.crt")
)

TLS = RemoteTls(server_name=AUTHORITY, ca=_AUTHORITIES)
API_KEY = RemoteAuth(api_key=HeaderCredential(header="x-api-key", value=_KEY))


def oauth(token_url: str) -> RemoteAuth:
    """Ask for a token there."""
    return RemoteAuth(oauth=OAuth(client_id="benchmark", client_secret=_CLIENT, token_url=token_url))


@dataclass(frozen=True, slots=True)
class Protection:
    """What the upstream shows, a file with its certificate and key, and what the product is told by Secrets."""

    certificate: Path
    secrets: Values

    @classmethod
    def made_in(cls, folder: Path) -> Self:
        """Make an authority and a certificate of it for the remote backend."""
        authority, certificate = trustme.CA(), folder / "remote.pem"
        certificate.touch(mode=0o600)
        authority.issue_cert(AUTHORITY).private_key_and_cert_chain_pem.write_to_path(str(certificate))
        trusted = SecretStr(authority.cert_pem.bytes().decode())
        return cls(certificate, {_AUTHORITIES: trusted, _KEY: SecretStr("key"), _CLIENT: SecretStr("client")})
