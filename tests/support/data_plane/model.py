"""What a test asks of its model, the model it gets, and an answer of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, RemoteAuth, RemoteTls
from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.rate_limit import RouteRateLimit
from controller.api.contract.route import Header, HttpCheck, LocalBackend, Remote, ReplicaCheck, Route, RouteKey, Shares
from controller.api.destinations import ANYWHERE, Destinations
from controller.api.kubernetes.endpoints import Replica
from controller.api.timing import GatewayTiming
from tests.support.data_plane.mutation import Change, nothing
from tests.support.network import BACKEND_PORT
from xds_server.resources import names
from xds_server.resources.access_log import AccessLog
from xds_server.resources.secret import CertificatePair

SHARED_PORT = 8080
"""Where the Envoys of these tests listen for all models that have hosts."""


@dataclass(frozen=True)
class Wanted:
    """What a test asks of its model. `change` edits its resources; `remote` False is `enabled: false`."""

    away: int = 0
    """Percent that goes to the remote."""
    remote: bool = True
    other_remotes: tuple[tuple[str, int], ...] = ()
    """Remote backends besides, all of them at the one of the backends: their names, and what each gets of `away`."""
    replicas: tuple[Replica, ...] | None = None
    """None for all that the backends have."""
    check: ReplicaCheck | None = None
    remote_check: HttpCheck | None = None
    host: str = ""
    """Where the remote is; empty for the one of the backends."""
    port: int = BACKEND_PORT
    """Of the remote."""
    installation: str = ""
    """By which the front knows its own requests; empty for a front that does not."""
    authority: str = ""
    """The Host that the remote is sent; empty for one that no other model has."""
    path_prefix: str = "/ws/models/m"
    headers_to_add: tuple[tuple[str, str], ...] = ()
    tls: RemoteTls | None = None
    first_byte_timeout: timedelta | None = None
    limit: int | None = None
    """Requests in flight for each replica; shared by so many `envoys`."""
    envoys: int = 1
    checks_shared_by: int = 1
    connect_timeout: timedelta | None = None
    answer_timeout: timedelta | None = None
    """Of the remote; `retries` are its own too."""
    retries: int | None = None
    through_gateway: bool = False
    """Whether the remote is another model, for which requests come to the gateway again."""
    auth: RemoteAuth | None = None
    """Its secrets are named; Envoy gets those of `secrets`."""
    secrets: tuple[tuple[CredentialSource, SecretStr], ...] = ()
    authorities: Path = Path("/no/such/file")
    """What the system of Envoy trusts."""
    hosts: tuple[str, ...] = ()
    """By which it is called on the port that all models share, which is `SHARED_PORT` if there are any."""
    access_log: AccessLog = AccessLog.OFF
    connections: int | None = None
    """How many clients of it may have at each Envoy."""
    rate_limits: tuple[RouteRateLimit, ...] = ()
    """How often its clients may ask."""
    entrance: EntranceTls | None = None
    """TLS with clients; Envoy gets the certificates of `pairs`, by their names, and `client_authorities`."""
    pairs: tuple[tuple[str, CertificatePair], ...] = ()
    client_authorities: SecretStr | None = None
    jwt: tuple[JwtProvider, ...] = ()
    """Whose tokens its clients have to show."""
    timing: GatewayTiming | None = None
    """None for that of the plane; not for a model with `hosts`, which shares a listener with others."""
    destinations: Destinations = ANYWHERE
    """Where remote backends and token endpoints may be."""
    change: Change = nothing


@dataclass(frozen=True)
class Model:
    """One model on the plane."""

    key: RouteKey
    url: str
    wanted: Wanted

    @property
    def local_cluster(self) -> str:
        return names.local_cluster(self.key)

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    @property
    def host(self) -> str:
        """What clients write into Host."""
        return self.url.removeprefix("http://").strip("/")

    @property
    def authority(self) -> str:
        return self.wanted.authority or f"{self.key.name}.remote.test"


@dataclass
class Reply:
    """One answer. `upstream` is what the backend that answered says it was asked."""

    status: int
    route: str
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float
    probe: str

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


def route_of(model: Model, wanted: Wanted, remote_host: str) -> Route:
    """Build the route that the controller would write into the status of this model."""
    remote = Remote(
        host=wanted.host or remote_host,
        port=wanted.port,
        authority=wanted.authority or model.authority,
        path_prefix=wanted.path_prefix,
        health_check=wanted.remote_check,
        headers_to_add=tuple(Header(name=name, value=value) for name, value in wanted.headers_to_add),
        tls=wanted.tls,
        auth=wanted.auth,
        connect_timeout=wanted.connect_timeout,
        answer_timeout=wanted.answer_timeout,
        retries=wanted.retries,
        through_gateway=wanted.through_gateway or None,
    )
    others = dict(wanted.other_remotes)
    return Route(
        port=model.port,
        shares=Shares.of({remote.name: wanted.away - sum(others.values()), **others}),
        local=LocalBackend(
            namespace="ns",
            service=model.key.name,
            health_check=wanted.check,
            first_byte_timeout=wanted.first_byte_timeout,
            max_requests_per_replica=wanted.limit,
        ),
        remotes=(
            *([remote] if wanted.remote else []),
            *(remote.model_copy(update={"name": name, "host": remote_host}) for name in others),
        ),
        hosts=wanted.hosts,
        rate_limits=wanted.rate_limits,
        tls=wanted.entrance,
        jwt=wanted.jwt,
    )
