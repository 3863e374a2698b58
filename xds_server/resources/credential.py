"""How a remote backend gets the credential that it knows us by: Envoy adds it to each request on its way out."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterDnsLookupFamily
from envoy_data_plane.envoy.config.core.v3 import HttpUri
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.http.injected_credentials.oauth2.v3 import OAuth2, OAuth2ClientCredentials

from controller.api.contract.credentials import HeaderCredential, OAuth, RemoteAuth
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.resources.packing import extension, packed, resource
from xds_server.resources.tls import over_sds, upstream_tls
from xds_server.resources.upstream import EVERY, socket_address
from xds_server.snapshot.snapshot import Resource

_DEFAULT_PORT = {"http": 80, "https": 443}


def injector(auth: RemoteAuth, secret: str, timing: GatewayTiming) -> HttpFilter:
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


def token_cluster(oauth: OAuth, system_authorities: str, timing: GatewayTiming) -> Resource:
    """Build the cluster of a token endpoint, shared by the backends whose tokens come from the same host and port."""
    scheme, host, port = _endpoint(oauth)
    name = _cluster_name(oauth)
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=Endpoint(address=socket_address(host, port)))])
            ],
        ),
        connect_timeout=timedelta(seconds=timing.connect_far),
        transport_socket=upstream_tls(host, system_authorities) if scheme == "https" else None,
    )
    return resource(name, cluster, common=EVERY)


def _token(oauth: OAuth, secret: str, timing: GatewayTiming) -> OAuth2:
    answer = timedelta(seconds=timing.token_answer)
    return OAuth2(
        token_endpoint=HttpUri(uri=oauth.token_url, cluster=_cluster_name(oauth), timeout=answer),
        scopes=list(oauth.scopes),
        client_credentials=OAuth2ClientCredentials(client_id=oauth.client_id, client_secret=over_sds(secret)),
        token_fetch_retry_interval=timedelta(seconds=timing.token_retry),
    )


def _fixed(api_key: HeaderCredential | None, secret: str) -> Generic:
    assert api_key  # one of the two kinds
    return Generic(credential=over_sds(secret), header=api_key.header)


def _cluster_name(oauth: OAuth) -> str:
    distinct = " ".join(map(str, _endpoint(oauth)))
    return names.token_cluster(hashlib.blake2b(distinct.encode(), digest_size=16).hexdigest())


def _endpoint(oauth: OAuth) -> tuple[str, str, int]:
    url = urlsplit(oauth.token_url)
    return url.scheme, url.hostname or "", url.port or _DEFAULT_PORT[url.scheme]
