"""`ModelRoute` (`status.route`): the contract between the controller and the xDS server.

The effective route of one model, after defaults, substitution, policies and the decision. It holds no secret.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import model_validator

from controller.api.contract.credentials import RemoteAuth, RemoteTls
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.http import HeaderLine, HeaderName
from controller.api.schema.scalars import Duration, Percent, Port
from controller.api.schema.values import ForeignValue


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


class HttpCheck(ForeignValue):
    """An active HTTP health check."""

    path: str
    interval: Duration


class LocalBackend(ForeignValue):
    """The replicas: the endpoints of one port of a Service.

    `portName` is the name that the Service and its EndpointSlices give the port, empty for an unnamed one. Without a
    `healthCheck` a replica is checked by connecting to it. `customEndpoints` is there when the Service has no selector,
    so that its slices are written by hand on purpose. A request whose answer has not begun within `firstByteTimeout` is
    sent to the remote backend as well. With `maxRequestsPerReplica`, what is more than so many requests in flight for
    each replica goes to the remote backend instead.
    """

    namespace: str
    service: str
    port_name: str = ""
    health_check: HttpCheck | None = None
    custom_endpoints: Literal[True] | None = None
    first_byte_timeout: Duration | None = None
    max_requests_per_replica: int | None = None


class Header(ForeignValue):
    """A header to add to each request."""

    name: HeaderName
    value: HeaderLine


class RemoteRoute(ForeignValue):
    """The remote backend as this model uses it: connect to `host` and `port`, send `authority` as the Host.

    Without `tls` it is spoken to in the clear; without `auth` it gets no credential. It has `connectTimeout` for a
    connection and `answerTimeout` for a whole answer, and is asked `retries` more times before a replica is.
    """

    host: str
    port: Port
    authority: str
    path_prefix: str = ""
    headers_to_add: tuple[Header, ...] = ()
    health_check: HttpCheck | None = None
    tls: RemoteTls | None = None
    auth: RemoteAuth | None = None
    connect_timeout: Duration | None = None
    answer_timeout: Duration | None = None
    retries: int | None = None


class ModelRoute(ForeignValue):
    """Where the requests for one model go.

    `port` is the port Envoy listens on. Without `remote` nothing may leave: the split is 100/0, without failover.
    """

    port: Port
    split: Split
    local: LocalBackend
    remote: RemoteRoute | None = None

    @property
    def digest(self) -> str:
        """A short hash of all of it: equal routes have equal digests, in every process."""
        return hashlib.blake2b(
            self.model_dump_json(by_alias=True, exclude_none=True).encode(), digest_size=8
        ).hexdigest()

    @model_validator(mode="after")
    def _sends_nothing_to_nowhere(self) -> Self:
        if self.remote is None and self.split.remote:
            raise FieldFaultError(("split", "remote"), "must be 0 without a remote")
        return self
