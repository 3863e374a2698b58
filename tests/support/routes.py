"""Routes, said in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from controller.api.contract.credentials import (
    ClientCertificate,
    CredentialSource,
    HeaderCredential,
    OAuth,
    RemoteAuth,
    RemoteTls,
)
from controller.api.contract.route import Header, LocalBackend, Remote, ReplicaCheck, Route, RouteKey, Shares, Split
from controller.api.kubernetes.endpoints import Replica

A = RouteKey.of_model("default", "a")
B = RouteKey.of_model("default", "b")


def a_remote(host: str = "remote.example", **more: Any) -> Remote:
    headers = tuple(Header(name=name, value=value) for name, value in more.pop("headers", {}).items())
    return Remote(**{"host": host, "port": 80, "authority": host, "headers_to_add": headers, **more})


def a_route(remote: Remote | None = None, *, away: int = 0, port: int = 80, check: str | None = None) -> Route:
    health_check = ReplicaCheck(path=check, interval=timedelta(seconds=1)) if check else None
    local = LocalBackend(namespace="default", service="a", health_check=health_check)
    return Route.between(port=port, split=Split.away(away), local=local, remote=remote)


def a_route_with(*remotes: Remote, shares: Mapping[str, int] | None = None, port: int = 80, **local: Any) -> Route:
    """A route with any number of remote backends, and the share of each by its name; `local` are fields of its own."""
    backend = LocalBackend(namespace="default", service="a", **local)
    return Route(port=port, shares=Shares.of(shares or {}), local=backend, remotes=remotes)


def ready(*addresses: str, port: int = 8080) -> tuple[Replica, ...]:
    return tuple(Replica(address, port, True) for address in addresses)


def over_tls(*, ca: str = "", certificate: str = "", server_name: str = "remote.example") -> RemoteTls:
    """TLS with the authorities and the client certificate of the Secrets of these names."""
    of = CredentialSource.of_secret
    return RemoteTls(
        server_name=server_name,
        ca=of(ca, "ca.crt") if ca else None,
        client_certificate=(
            ClientCertificate(certificate=of(certificate, "tls.crt"), private_key=of(certificate, "tls.key"))
            if certificate
            else None
        ),
    )


def with_key(secret: str = "s", header: str = "x-key") -> RemoteAuth:
    """A credential in a header, from the Secret of this name."""
    return RemoteAuth(api_key=HeaderCredential(header=header, value=CredentialSource.of_secret(secret, "apiKey")))


def with_token(source: CredentialSource | None = None, url: str = "https://auth.example/token") -> RemoteAuth:
    """OAuth2 client credentials; the client secret is that of the Secret "s" unless something else is its source."""
    source = source or CredentialSource.of_secret("s", "clientSecret")
    return RemoteAuth(oauth=OAuth(client_id="me", client_secret=source, token_url=url))
