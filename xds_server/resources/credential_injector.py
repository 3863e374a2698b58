"""The credential of a remote backend: the filter that adds it to each request, and where a token for it comes from.

The secret itself comes by SDS (see `secret`): an API key in a header of its own, or the client secret of OAuth 2, with
which Envoy asks for a token.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

from envoy_data_plane.envoy.config.core.v3 import HttpUri
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.http.injected_credentials.oauth2.v3 import OAuth2, OAuth2ClientCredentials

from controller.api.contract.credentials import HeaderCredential, OAuth, RemoteAuth
from controller.api.schema.hosts import DEFAULT_PORT, authority_of, resolved_of
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.resources.encoding import extension, packed
from xds_server.resources.secret import over_sds


def credential_injector(auth: RemoteAuth, secret: str, timing: GatewayTiming) -> HttpFilter:
    """Build the upstream filter that adds the credential, made from the secret `secret`, or refuses the request.

    It replaces what the request has in the header. A request for which there is no credential (yet) never leaves: the
    filter answers it with 401 itself, which the internal listener in front of the backend turns into a 503 (trap 11).
    """
    credential = (
        extension("envoy.http.injected_credentials.oauth2", _token(auth.oauth, secret, timing))
        if auth.oauth
        else extension("envoy.http.injected_credentials.generic", _fixed(auth.api_key, secret))
    )
    return HttpFilter(
        name="envoy.filters.http.credential_injector",
        typed_config=packed(CredentialInjector(overwrite=True, credential=credential)),
    )


def token_cluster(oauth: OAuth) -> str:
    """Name the cluster of a token endpoint: the same for all whose tokens come from the same host and port."""
    return names.token_cluster(names.digest(" ".join(map(str, token_place(oauth)))))


def token_place(oauth: OAuth) -> tuple[str, str, int]:
    """Return scheme, host and port of the token endpoint."""
    url = urlsplit(oauth.token_url)
    return url.scheme, resolved_of(url.hostname or ""), url.port or DEFAULT_PORT[url.scheme]


def _token(oauth: OAuth, secret: str, timing: GatewayTiming) -> OAuth2:
    answer = timedelta(seconds=timing.token_answer)
    return OAuth2(
        token_endpoint=HttpUri(uri=_token_uri(oauth), cluster=token_cluster(oauth), timeout=answer),
        scopes=list(oauth.scopes),
        client_credentials=OAuth2ClientCredentials(client_id=oauth.client_id, client_secret=over_sds(secret)),
        token_fetch_retry_interval=timedelta(seconds=timing.token_retry),
    )


def _fixed(api_key: HeaderCredential | None, secret: str) -> Generic:
    assert api_key  # one of the two kinds
    return Generic(credential=over_sds(secret), header=api_key.header)


def _token_uri(oauth: OAuth) -> str:
    """Write the URL of the token endpoint so that Envoy sends the Host that it should."""
    scheme, host, port = token_place(oauth)
    return urlunsplit(urlsplit(oauth.token_url)._replace(netloc=authority_of(host, port, scheme)))
