"""One distinct remote backend, as it is checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from pydantic import SecretStr

from controller.api.contract.credentials import OAuth
from controller.api.contract.route import Remote, RouteKey
from controller.api.resources.backend import RemoteBackend
from controller.api.timing import REAL, CheckTiming
from xds_server.resources.remote_backend import backend_name, check_timeout
from xds_server.resources.secret import Values

_DEFAULT_PORT = {"http": 80, "https": 443}


class Place(NamedTuple):
    """Where to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Trust:
    """Who must be there: a server whose certificate is for `server_name` and leads to one of `authorities`.

    Without `authorities` those of the system count. `shown` is our own certificate with its private key. All in PEM.
    """

    server_name: str
    authorities: SecretStr | None = None
    shown: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """How a token is asked for (RFC 6749, section 4.4); `form` has the client secret in it."""

    place: Place
    over_tls: bool
    authority: str
    target: str
    form: SecretStr


@dataclass(frozen=True, slots=True)
class Backend:
    """What is checked: connect to `place`, see that it is whom we trust, get a token, ask for `path`.

    `name` is that of the cluster in Envoy. Without `path` nothing is asked for.
    """

    name: str
    place: Place
    authority: str
    trust: Trust | None = None
    token: TokenRequest | None = None
    path: str = ""
    interval: timedelta = timedelta(seconds=REAL.checks.least_interval)
    patience: timedelta = timedelta(seconds=REAL.checks.longest)
    """How long Envoy gives it to be connected to, and to answer."""


def backend_for(model: RouteKey, remote: Remote, values: Values, timing: CheckTiming = REAL.checks) -> Backend:
    """Build the backend of a model; `values` has the value of each credential that `remote` names."""
    check, oauth = remote.health_check, remote.auth.oauth if remote.auth else None
    least = timedelta(seconds=timing.least_interval)
    return Backend(
        name=backend_name(model, remote),
        place=Place(remote.host, remote.port),
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
    return frozenset(host for url in urls if (host := urlsplit(url).hostname))


def _trust(remote: Remote, values: Values) -> Trust | None:
    if remote.tls is None:
        return None
    shown = remote.tls.client_certificate
    pair = (values[shown.certificate], values[shown.private_key]) if shown else ()
    return Trust(
        server_name=remote.tls.server_name,
        authorities=values[remote.tls.ca] if remote.tls.ca else None,
        shown=SecretStr("".join(one.get_secret_value() for one in pair)) if pair else None,
    )


def _token_request(oauth: OAuth, client_secret: SecretStr) -> TokenRequest:
    url = urlsplit(oauth.token_url)
    form = {
        "grant_type": "client_credentials",
        "client_id": oauth.client_id,
        "client_secret": client_secret.get_secret_value(),
        **({"scope": " ".join(oauth.scopes)} if oauth.scopes else {}),
    }
    return TokenRequest(
        place=Place(url.hostname or "", url.port or _DEFAULT_PORT[url.scheme]),
        over_tls=url.scheme == "https",
        authority=url.netloc,
        target=f"{url.path or '/'}{f'?{url.query}' if url.query else ''}",
        form=SecretStr(urlencode(form)),
    )
