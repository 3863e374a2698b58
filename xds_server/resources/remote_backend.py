"""Remote backends: the cluster of each, with its TLS, and the clusters of the token endpoints that they ask.

Routes share a backend: all of a remote but what each route adds to a request of its own.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HealthCheck,
    HealthCheckTlsOptions,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    ClusterLoadAssignmentPolicy,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import Percent

from controller.api.contract.credentials import OAuth
from controller.api.contract.route import HttpCheck, Remote, RouteKey
from controller.api.schema.hosts import address_of, name_of
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.resources.backend_names import OF_THE_ROUTE, backend_name
from xds_server.resources.checks import TLS_VERSIONS, health_check
from xds_server.resources.clusters import (
    CLUSTER_DEFAULTS,
    OVERPROVISIONING_FACTOR,
    PICK_OF_TWO,
    same_protocol_as_client,
    side_metadata,
    socket_address,
)
from xds_server.resources.credential_injector import credential_injector, token_cluster, token_place
from xds_server.resources.encoding import packed, resource
from xds_server.resources.guard import Guard
from xds_server.resources.loops import LOOP_METRICS
from xds_server.resources.secret import SecretNames, over_sds, secret_names
from xds_server.snapshot.snapshot import Resource

# RFC 6724, rule 1: of a name with addresses of both families, which of them can be reached is not known here.
_BOTH_FAMILIES = ClusterDnsLookupFamily.ALL

# What of a client's headers stays inside could leave in its trailers, which no route touches. Those of HTTP/1.1 are
# dropped on all ways; gRPC has none in a request.
_ALL = HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(safe_regex=RegexMatcher(regex=".*")))
_NO_TRAILERS = Mutations(request_trailers_mutations=[HeaderMutation(remove_on_match=_ALL)])
_TRAILER_FILTER = HttpFilter(
    name="envoy.filters.http.header_mutation", typed_config=packed(HeaderMutationFilter(mutations=_NO_TRAILERS))
)


def hosts_of(remote: Remote) -> tuple[str, ...]:
    """Name the hosts that an Envoy connects to for a remote backend: its own, and that of its token endpoint."""
    oauth = remote.auth.oauth if remote.auth else None
    return (remote.host, token_place(oauth)[1]) if oauth else (remote.host,)


def check_timeout(remote: Remote, connect: float, longest: float) -> timedelta:
    """Return how long a check may take to connect, TLS included, and to get its answer: as long as a connection may.

    A replica is near and has half a second. A backend that is far away needs that for TLS alone.
    """
    return min(remote.connect_timeout or timedelta(seconds=connect), timedelta(seconds=longest))


class RemoteBackends:
    """Builds the clusters of remote backends and token endpoints for one scope.

    `system_authorities` is the file where the system of the Envoys keeps the authorities that it trusts. The `guard`
    keeps them from addresses that are refused. The last
    `remembered` backends are remembered, which many routes may share; that which was used least recently goes first.
    """

    def __init__(self, system_authorities: str, timing: GatewayTiming, guard: Guard, remembered: int) -> None:
        self._system_authorities = system_authorities
        self._timing = timing
        self._guard = guard
        self._shared = lru_cache(remembered)(self._backend)

    def clusters(self, key: RouteKey, remote: Remote) -> tuple[Resource, ...]:
        """Build the cluster of a remote backend as this route uses it, and that of its token endpoint if it has one.

        With them comes what guards them, if anything does.
        """
        common = remote.model_copy(update=OF_THE_ROUTE)
        backends = self._shared(backend_name(key, remote), common, secret_names(key, remote))
        oauth = remote.auth.oauth if remote.auth else None
        guarding = self._guard.resources if any(map(self._guard.guards, hosts_of(remote))) else ()
        return (*backends, *(self._token_endpoint(oauth) if oauth else ()), *guarding)

    def _backend(self, name: str, remote: Remote, secrets: SecretNames) -> tuple[Resource, ...]:
        """Build the cluster of a remote backend: found by DNS, one connection pool for all routes that use it.

        Where it is guarded, and is verified, what verifies it in checks comes with it.

        Each address of its name, of either family, is a host of its own, and is checked: one that cannot be reached
        gets nothing. Envoy's happy eyeballs are for a cluster of one host, which has no place for what follows.

        With TLS a host is healthy only if its certificate is as it should be, so a check that merely connects tells
        that.

        Envoy does not retry what it could send to nobody ("no healthy upstream"). So behind the remote backend stands
        an address that refuses at once, and a refused request is sent again: to the replicas. Outliers are not ejected
        here, since the address that refuses would be the first of them.
        """
        there = LbEndpoint(
            endpoint=Endpoint(
                address=socket_address(remote.host, remote.port),
                hostname=remote.authority,
                health_check_config=EndpointHealthCheckConfig(hostname=remote.authority),
            ),
            metadata=side_metadata(remote.name),
        )
        nowhere = LbEndpoint(
            endpoint=Endpoint(
                address=socket_address("127.0.0.1", 1),
                health_check_config=EndpointHealthCheckConfig(disable_active_health_check=True),
            )
        )
        tls = (
            _tls(remote.tls.server_name, self._system_authorities, secrets.authorities, secrets.certificate)
            if remote.tls
            else None
        )
        check, guarded = _check(remote, self._timing), self._guard.guards(remote.host)
        digest = name.removeprefix(names.backend_cluster(""))
        through = self._guard.cluster(digest, tls, secrets.keys) if guarded and tls else None
        cluster = Cluster(
            name=name,
            type=ClusterDiscoveryType.STRICT_DNS,
            dns_lookup_family=_BOTH_FAMILIES,
            load_assignment=ClusterLoadAssignment(
                cluster_name=name,
                endpoints=[
                    LocalityLbEndpoints(priority=priority, lb_endpoints=[endpoint])
                    for priority, endpoint in enumerate((there, nowhere))
                ],
                policy=ClusterLoadAssignmentPolicy(overprovisioning_factor=OVERPROVISIONING_FACTOR),
            ),
            connect_timeout=remote.connect_timeout or timedelta(seconds=self._timing.connect_far),
            health_checks=[self._guard.check(check, through) if guarded else check],
            transport_socket_matches=self._guard.sockets() if guarded else [],
            # It may lead back here (see `loops`).
            lrs_report_endpoint_metrics=list(LOOP_METRICS),
            transport_socket=tls,
            typed_extension_protocol_options=same_protocol_as_client(
                *(
                    [credential_injector(remote.auth, secrets.credential, self._timing)]
                    if remote.auth and secrets.credential
                    else []
                ),
                _TRAILER_FILTER,
                unused=self._timing.unused_far,
            ),
        )
        backend = resource(name, cluster, secrets.keys, common=PICK_OF_TWO)
        return (through, backend) if through else (backend,)

    def _token_endpoint(self, oauth: OAuth) -> tuple[Resource, ...]:
        """Build the cluster of a token endpoint, shared by all whose tokens come from the same host and port."""
        scheme, host, port = token_place(oauth)
        name = token_cluster(oauth)
        tls = _tls(name_of(host), self._system_authorities) if scheme == "https" else None
        endpoint = LbEndpoint(endpoint=Endpoint(address=socket_address(host, port)))
        cluster = Cluster(
            name=name,
            # One host with all its addresses, which are tried as RFC 8305 says (Envoy, "Happy Eyeballs").
            type=ClusterDiscoveryType.LOGICAL_DNS,
            dns_lookup_family=_BOTH_FAMILIES,
            load_assignment=ClusterLoadAssignment(
                cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
            ),
            connect_timeout=timedelta(seconds=self._timing.connect_far),
            transport_socket=tls,
        )
        if not self._guard.guards(host):
            return (resource(name, cluster, common=CLUSTER_DEFAULTS),)
        # Each address is one host, which is asked once it was checked, and never for want of another one.
        check = replace(
            health_check(
                HttpCheck(path="", interval=timedelta(seconds=self._timing.check_token_endpoint_every)),
                timedelta(seconds=self._timing.check_again_within),
            ),
            timeout=timedelta(seconds=self._timing.connect_far),
        )
        through = self._guard.cluster(name, tls) if tls else None
        cluster = replace(
            cluster,
            type=ClusterDiscoveryType.STRICT_DNS,
            health_checks=[self._guard.check(check, through)],
            transport_socket_matches=self._guard.sockets(),
            ignore_health_on_host_removal=True,
            common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0)),
        )
        endpoint_cluster = resource(name, cluster, common=CLUSTER_DEFAULTS)
        return (through, endpoint_cluster) if through else (endpoint_cluster,)


def _check(remote: Remote, timing: GatewayTiming) -> HealthCheck:
    usual = HttpCheck(path="", interval=timedelta(seconds=timing.check_far_every))
    check = replace(
        health_check(remote.health_check or usual, timedelta(seconds=timing.check_again_within)),
        timeout=check_timeout(remote, timing.connect_far, timing.longest_check),
    )
    # What is spoken to check it; a server that may choose could choose HTTP/2.
    return replace(check, tls_options=HealthCheckTlsOptions(alpn_protocols=["http/1.1"])) if remote.tls else check


def _tls(
    server_name: str, system_authorities: str, authorities: str | None = None, certificate: str | None = None
) -> TransportSocket:
    """Build the transport socket that speaks TLS with whoever proves to be `server_name`; it always verifies.

    The certificate leads to one of the secret `authorities`, or else to one in the file `system_authorities` of the
    host of Envoy. `certificate` is the secret with our own, if there is one.
    """
    is_this_server = CertificateValidationContext(match_typed_subject_alt_names=[_subject(server_name)])
    own_authorities = authorities and CommonTlsContextCombinedCertificateValidationContext(
        default_validation_context=is_this_server, validation_context_sds_secret_config=over_sds(authorities)
    )
    of_the_system = CertificateValidationContext(
        match_typed_subject_alt_names=[_subject(server_name)], trusted_ca=DataSource(filename=system_authorities)
    )
    context = UpstreamTlsContext(
        # RFC 6066, section 3: an address is not sent.
        sni="" if address_of(server_name) else server_name,
        common_tls_context=CommonTlsContext(
            tls_params=TLS_VERSIONS,
            combined_validation_context=own_authorities or None,
            validation_context=None if own_authorities else of_the_system,
            tls_certificate_sds_secret_configs=[over_sds(certificate)] if certificate else [],
        ),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _subject(server_name: str) -> SubjectAltNameMatcher:
    # Envoy compares texts.
    address = address_of(server_name)
    kind = SubjectAltNameMatcherSanType.IP_ADDRESS if address else SubjectAltNameMatcherSanType.DNS
    return SubjectAltNameMatcher(san_type=kind, matcher=StringMatcher(exact=address or server_name))
