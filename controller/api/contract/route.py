"""`Route` (`status.route`): the contract between the controller and the xDS server.

The effective route of one object, after defaults, substitution, policies and the decision. It holds no secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from controller.api.contract.credentials import RemoteAuth, RemoteTls
from controller.api.contract.entrance import MAX_PROVIDERS, EntranceTls, JwtProvider
from controller.api.contract.rate_limit import MAX_RATE_LIMITS, RouteRateLimit
from controller.api.schema.errors import FieldFaultError, field_error
from controller.api.schema.http import HeaderLine, HeaderName
from controller.api.schema.scalars import Interval, Percent, Port, Shape
from controller.api.schema.values import ForeignValue


class RouteKind(StrEnum):
    """The kinds of objects that have a route, and the word by which names on the wire begin (`word`)."""

    MODEL = "ModelDeployment"
    TOOL = "ToolDeployment"

    @property
    def word(self) -> str:
        """The kind in one short word, such as `model`."""
        return self.name.lower()


class RouteKey(NamedTuple):
    """Whose route it is: kind, namespace and name of the object. Written as `model/NAMESPACE/NAME`."""

    kind: RouteKind
    namespace: str
    name: str

    @classmethod
    def of_model(cls, namespace: str, name: str) -> Self:
        """Name the route of a ModelDeployment."""
        return cls(RouteKind.MODEL, namespace, name)

    def __str__(self) -> str:
        return f"{self.kind.word}/{self.namespace}/{self.name}"


class Split(ForeignValue):
    """The share of traffic that goes where, in percent; the two always make a hundred."""

    local: Percent
    remote: Percent

    @model_validator(mode="after")
    def _makes_a_hundred(self) -> Self:
        if self.local + self.remote != 100:
            raise ValueError(f"local and remote must make 100, make {self.local + self.remote}")
        return self

    @classmethod
    def away(cls, remote: int) -> Self:
        """Build the split that sends `remote` percent to the remote backend."""
        return cls(local=100 - remote, remote=remote)

    def __str__(self) -> str:
        return f"{self.local}/{self.remote}"


REMOTE = "remote"
"""The name of a remote backend that is the only one."""

# Names on the wire are made of it, and tell it from what else an object has there (xds_server/resources/names.py).
RemoteName = Annotated[
    str,
    Field(max_length=63),
    Shape(
        r"(?!.*-first$)remote(-[a-z0-9]+)*",
        "remote, or remote- and lower case letters and digits, not ending in -first",
    ),
]


# The name of a Service in its namespace, both of which are labels of DNS, and a port. Longer names of the Service are
# made of it (xds_server/resources/hosts.py).
_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
SERVICE_HOST = Shape(
    rf"{_LABEL}\.{_LABEL}(:[1-9][0-9]{{0,4}})?", "SERVICE.NAMESPACE or SERVICE.NAMESPACE:PORT, in lower case"
)
ServiceHost = Annotated[str, SERVICE_HOST]


AtLeastOne = Annotated[int, Field(ge=1)]


class RemoteShare(ForeignValue):
    """The share of the traffic that one remote backend gets, in percent."""

    name: RemoteName
    percent: Percent


class Shares(ForeignValue):
    """The share of the traffic that the replicas get, and that of each remote backend which gets any.

    All of them together always make a hundred.
    """

    local: Percent
    remotes: tuple[RemoteShare, ...] = ()

    @model_validator(mode="after")
    def _make_a_hundred(self) -> Self:
        total = self.local + sum(one.percent for one in self.remotes)
        if total != 100:
            raise ValueError(f"must make 100 together, make {total}")
        if len({one.name for one in self.remotes}) < len(self.remotes):
            raise ValueError("must name each remote backend once")
        return self

    @classmethod
    def of(cls, remotes: Mapping[str, int]) -> Self:
        """Build the shares that give each of these remote backends so many percent, and the rest to the replicas."""
        shares = tuple(RemoteShare(name=name, percent=percent) for name, percent in remotes.items() if percent)
        return cls(local=100 - sum(remotes.values()), remotes=shares)

    @property
    def split(self) -> Split:
        """What stays and what leaves, whoever gets it."""
        return Split.away(100 - self.local)


class HttpCheck(ForeignValue):
    """An active HTTP health check of a remote backend."""

    path: str
    interval: Interval


class Header(ForeignValue):
    """A header to add to each request."""

    name: HeaderName
    value: HeaderLine


class ReplicaCheck(ForeignValue):
    """How Envoy checks a replica: as the readiness probe of its container has it, and never more strictly.

    It asks for `path` over HTTP, over TLS with `tls`, with these `headers`; `host` is the Host to send, by default the
    address that is asked. With `grpcService`, which may be empty, it asks the gRPC health service for it. With neither
    it connects, no more. It asks at `port`, by default where requests go, every `interval`, which is the kubelet's, and
    waits for `timeout`. After `failures` in a row the replica is not used.

    A version that knows `path` and `interval` alone connects where there is no path.
    """

    path: str = ""
    interval: Interval = timedelta(seconds=1)
    timeout: Interval = timedelta(seconds=1)
    failures: AtLeastOne = 3
    port: Port | None = None
    host: HeaderLine = ""
    headers: tuple[Header, ...] = ()
    tls: Literal[True] | None = None
    grpc_service: HeaderLine | None = None


class LocalBackend(ForeignValue):
    """The replicas: the endpoints of one port of a Service.

    `fronted` is the Service that clients call, where it is another one: it is taken over, and `service` is its shadow,
    which has its pods.

    `portName` is the name that the Service and its EndpointSlices give the port, empty for an unnamed one. Without a
    `healthCheck` a replica is checked by connecting to it. `customEndpoints` is there when the Service has no selector,
    so that its slices are written by hand on purpose. A request whose answer has not begun within `firstByteTimeout` is
    sent to the remote backend as well. With `maxRequestsPerReplica`, what is more than so many requests in flight for
    each replica goes to the remote backend instead.
    """

    namespace: str
    service: str
    fronted: str | None = None
    port_name: str = ""
    health_check: ReplicaCheck | None = None
    custom_endpoints: Literal[True] | None = None
    first_byte_timeout: Interval | None = None
    max_requests_per_replica: AtLeastOne | None = None

    @property
    def clients_service(self) -> str:
        """The Service as clients know it, whichever one has its pods."""
        return self.fronted or self.service


class Remote(ForeignValue):
    """A remote backend as this object uses it: connect to `host` and `port`, send `authority` as the Host.

    `name` tells it from the object's other ones. Without `tls` it is spoken to in the clear; without `auth` it gets no
    credential. It has `connectTimeout` for a connection and `answerTimeout` for a whole answer, and is asked `retries`
    more times before a replica is. One `throughGateway` is another object of the same installation: requests for it may
    come to the gateway once more, and are no loop.
    """

    name: RemoteName = REMOTE
    host: str
    port: Port
    authority: str
    path_prefix: str = ""
    headers_to_add: tuple[Header, ...] = ()
    health_check: HttpCheck | None = None
    tls: RemoteTls | None = None
    auth: RemoteAuth | None = None
    connect_timeout: Interval | None = None
    answer_timeout: Interval | None = None
    retries: Annotated[int, Field(ge=0, le=10)] | None = None
    through_gateway: Literal[True] | None = None

    @property
    def digest(self) -> str:
        """A short hash of all of it: equal ones have equal digests, in every process."""
        return _digest(self)

    @model_serializer(mode="wrap")
    def _without_the_usual_name(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if self.name == REMOTE:
            written.pop("name", None)
        return written


class Route(ForeignValue):
    """Where the requests for one object go.

    `port` is the port Envoy listens on. `hosts` are the names by which clients call it on the port that all models
    share; no other route has them. `remotes` are in the order in which they are tried. Without any nothing may
    leave: the replicas get everything, without failover. A request of a client has to be within all `rateLimits`.
    With `tls` clients have to speak it; with `jwt` they have to show a token of one of these as well.

    With one remote backend it is written as `split` and `remote`, which every version reads.
    """

    port: Port
    shares: Shares
    local: LocalBackend
    remotes: tuple[Remote, ...] = ()
    hosts: tuple[ServiceHost, ...] = ()
    rate_limits: Annotated[tuple[RouteRateLimit, ...], Field(max_length=MAX_RATE_LIMITS)] = ()
    tls: EntranceTls | None = None
    jwt: Annotated[tuple[JwtProvider, ...], Field(max_length=MAX_PROVIDERS)] = ()

    @classmethod
    def between(cls, *, port: int, split: Split, local: LocalBackend, remote: Remote | None = None) -> Self:
        """Build the route between replicas and one remote backend, or without one."""
        shares = Shares.of({remote.name if remote else REMOTE: split.remote})
        return cls(port=port, shares=shares, local=local, remotes=(remote,) if remote else ())

    @property
    def digest(self) -> str:
        """A short hash of all of it: equal routes have equal digests, in every process."""
        return _digest(self)

    @property
    def split(self) -> Split:
        """What stays and what leaves, whoever gets it."""
        return self.shares.split

    @property
    def remote(self) -> Remote | None:
        """The remote backend that is tried first, if there is any."""
        return self.remotes[0] if self.remotes else None

    def with_shares(self, shares: Shares) -> Self:
        """Return this route with other shares."""
        return self.model_copy(update={"shares": shares})

    def without_remotes(self) -> Self:
        """Return this route with nothing that leaves."""
        return self.model_copy(update={"shares": Shares(local=100), "remotes": ()})

    def percent_of(self, remote: Remote) -> int:
        """Return the share of one of the remote backends, in percent."""
        return next((one.percent for one in self.shares.remotes if one.name == remote.name), 0)

    @model_validator(mode="before")
    @classmethod
    def _read_the_form_of_one_remote(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "split" not in given:
            return given
        split, remote = _read_split(given["split"]), given.get("remote")
        if remote is None and split.remote:
            raise FieldFaultError(("split", "remote"), "must be 0 without a remote")
        rest = {name: value for name, value in given.items() if name not in ("split", "remote")}
        return {**rest, "shares": Shares.of({REMOTE: split.remote}), "remotes": (remote,) if remote is not None else ()}

    @model_validator(mode="after")
    def _shows_no_token_to_others(self) -> Self:
        if self.jwt and self.tls is None:
            raise FieldFaultError(("jwt",), "needs tls")
        if len({one.name for one in self.jwt}) < len(self.jwt):
            raise FieldFaultError(("jwt",), "must each have a name of their own")
        return self

    @model_validator(mode="after")
    def _sends_nothing_to_nowhere(self) -> Self:
        names = [one.name for one in self.remotes]
        if len(set(names)) < len(names):
            raise FieldFaultError(("remotes",), "must each have a name of their own")
        for one in self.shares.remotes:
            if one.name not in names:
                raise FieldFaultError(("shares", "remotes"), f"must be 0 for {one.name}, which is none of the remotes")
        return self

    @model_serializer(mode="wrap")
    def _write_the_form_of_one_remote(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name in ("hosts", "rateLimits", "rate_limits", "tls", "jwt"):
            if name in written and not written[name]:
                del written[name]
        if [one.name for one in self.remotes] not in ([], [REMOTE]):
            return written
        del written["shares"]
        (remote,) = written.pop("remotes") or (None,)
        split = {"local": self.split.local, "remote": self.split.remote}
        return {"port": written.pop("port"), "split": split, **written, **({"remote": remote} if remote else {})}


def _read_split(given: Any) -> Split:
    try:
        return Split.model_validate(given)
    except ValidationError as error:
        fault = field_error(Split, error.errors()[0])
        raise FieldFaultError(("split", *fault.path), fault.message) from None


def _digest(value: ForeignValue) -> str:
    return hashlib.blake2b(value.model_dump_json(by_alias=True, exclude_none=True).encode(), digest_size=8).hexdigest()
