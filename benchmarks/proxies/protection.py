"""What a protected remote backend and a protected entrance need, made anew for a run: certificates, Secrets, keys."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme
from pydantic import SecretStr

from benchmarks.proxies.configs import AUTHORITY
from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth, RemoteTls
from controller.api.contract.entrance import ClientValidation, EntranceTls
from tests.support.entrance import TokenIssuer, pem_of
from xds_server.resources.secret import Values

_KEY, _CLIENT, _AUTHORITIES = (
    CredentialSource.of_secret("remote", key) for key in ("apiKey", "clientSecret", "ca.crt")
)

_CHAIN, _CHAIN_KEY = (CredentialSource.of_secret("front", key) for key in ("tls.crt", "tls.key"))
_CLIENTS = CredentialSource.of_secret("clients", "ca.crt")

FRONT = EntranceTls(certificates=(_CHAIN.name,))
CHECKED = EntranceTls(certificates=(_CHAIN.name,), client_validation=ClientValidation(authorities=(_CLIENTS.name,)))
ISSUER = TokenIssuer()

TLS = RemoteTls(server_name=AUTHORITY, ca=_AUTHORITIES)
API_KEY = RemoteAuth(api_key=HeaderCredential(header="x-api-key", value=_KEY))


def oauth(token_url: str) -> RemoteAuth:
    """Ask for a token there."""
    return RemoteAuth(oauth=OAuth(client_id="benchmark", client_secret=_CLIENT, token_url=token_url))


@dataclass(frozen=True, slots=True)
class Protection:
    """What the upstream shows, a file with its certificate and key, and what the product is told by Secrets.

    `client` is such a file of the clients of the product.
    """

    certificate: Path
    secrets: Values
    client: Path

    @classmethod
    def made_in(cls, folder: Path) -> Self:
        """Make an authority and a certificate of it for the remote backend."""
        authority, certificate, client = trustme.CA(), folder / "remote.pem", folder / "client.pem"
        for file, name in ((certificate, AUTHORITY), (client, "client.test")):
            file.touch(mode=0o600)
            authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(file))
        trusted = SecretStr(authority.cert_pem.bytes().decode())
        chain, key = map(SecretStr, pem_of(authority.issue_cert(AUTHORITY)))
        secrets = {_AUTHORITIES: trusted, _KEY: SecretStr("key"), _CLIENT: SecretStr("client")}
        return cls(certificate, {**secrets, _CHAIN: chain, _CHAIN_KEY: key, _CLIENTS: trusted}, client)

    def context(self) -> ssl.SSLContext:
        """Build what clients of the product speak TLS with. Whose its certificate is does not matter here."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.client)
        return context
