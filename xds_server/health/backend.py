"""What is checked: one distinct remote backend, its address, certificates, token endpoint and health check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from pydantic import SecretStr

from controller.api.contract.credentials import OAuth
from controller.api.contract.route import Remote, RouteKey
from controller.api.destinations import Destinations
from controller.api.resources.backend import RemoteBackend
from controller.api.schema.hosts import DEFAULT_PORT, authority_of, name_of, resolved_of
from controller.api.timing import REAL, CheckTiming
from xds_server.resources.backend_names import check_name
from xds_server.resources.remote_backend import check_timeout
from xds_server.resources.secret import Values

# Says why nothing may be sent to an address that a host leads to: both are its arguments. None if something may.
Refusal = Callable[[str, str], str | None]


class Address(NamedTuple):
    """Where to connect to: a name as it is resolved, or an IP address, and a port. Written with the usual name."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """What the host is called wherever it is not resolved."""
        return name_of(self.host)

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Trust:
    """How the server is verified: its certificate must be for `server_name` and lead to one of `authorities`.

    Without `authorities` those of the system count. `client_certificate` is our own, with its private key. All in PEM.
    """

    server_name: str
    authorities: SecretStr | None = None
    client_certificate: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The request for a token (RFC 6749, section 4.4); `form` has the client secret in it."""

    address: Address
    over_tls: bool
    authority: str
    target: str
    form: SecretStr


@dataclass(frozen=True, slots=True)
class Backend:
    """What is checked: connect to `address`, verify the server, get a token, ask for `path`.

    `name` is the same for all who use it, of whichever namespace. Without `path` nothing is asked for.
    """

    name: str
    address: Address
    authority: str
    trust: Trust | None = None
    token: TokenRequest | None = None
    path: str = ""
    interval: timedelta = timedelta(seconds=REAL.checks.least_interval)
    patience: timedelta = timedelta(seconds=REAL.checks.longest)
    """How long Envoy gives it to be connected to, and to answer."""


def backend_for(key: RouteKey, remote: Remote, values: Values, timing: CheckTiming = REAL.checks) -> Backend:
    """Build the backend of a route; `values` has the value of each credential that `remote` names."""
    check, oauth = remote.health_check, remote.auth.oauth if remote.auth else None
    least = timedelta(seconds=timing.least_interval)
    return Backend(
        name=check_name(key, remote),
        address=Address(remote.host, remote.port),
        authority=remote.authority,
        trust=_trust(remote, values),
        token=_token_request(oauth, values[oauth.client_secret]) if oauth else None,
        path=check.path if check else "",
        interval=max(check.interval if check else least, least),
        patience=check_timeout(remote, timing.connect, timing.longest),
    )


def own_hosts(default: RemoteBackend | None) -> frozenset[str]:
    """Name the hosts that our own configuration has requests sent to: nobody needs to be guarded against it."""
    if default is None:
        return frozenset()
    oauth = default.auth_config.oauth_config if default.auth_config else None
    urls = (f"//{default.host}", oauth.token_url if oauth else "")
    return frozenset(resolved_of(host) for url in urls if (host := urlsplit(url).hostname))


def refusal(destinations: Destinations) -> Refusal:
    """Say why nothing may be sent to an address that a host leads to; a name that is allowed may lead anywhere."""
    return lambda host, address: None if destinations.allow.has_name(host) else destinations.refused_address(address)


def _trust(remote: Remote, values: Values) -> Trust | None:
    if remote.tls is None:
        return None
    own = remote.tls.client_certificate
    pair = (values[own.certificate], values[own.private_key]) if own else ()
    return Trust(
        server_name=remote.tls.server_name,
        authorities=values[remote.tls.ca] if remote.tls.ca else None,
        client_certificate=SecretStr("".join(one.get_secret_value() for one in pair)) if pair else None,
    )


def _token_request(oauth: OAuth, client_secret: SecretStr) -> TokenRequest:
    url = urlsplit(oauth.token_url)
    address = Address(url.hostname or "", url.port or DEFAULT_PORT[url.scheme])
    form = {
        "grant_type": "client_credentials",
        "client_id": oauth.client_id,
        "client_secret": client_secret.get_secret_value(),
        **({"scope": " ".join(oauth.scopes)} if oauth.scopes else {}),
    }
    return TokenRequest(
        address=address,
        over_tls=url.scheme == "https",
        authority=authority_of(*address, url.scheme),
        target=f"{url.path or '/'}{f'?{url.query}' if url.query else ''}",
        form=SecretStr(urlencode(form)),
    )
