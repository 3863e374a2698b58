"""Objects of Kubernetes itself, as far as they are read here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from controller.api.kubernetes.fronting import without_our_key
from controller.api.kubernetes.selectors import query_of
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.scalars import AnyPortNumberOrName, Flag, Port, WholeNumber
from controller.api.schema.values import ForeignValue

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


class KubernetesValue(ForeignValue):
    """A part of what Kubernetes defines in Go, where what is empty is absent (`omitempty`): `""` and 0, as null."""

    @model_validator(mode="before")
    @classmethod
    def _zero_is_absent(cls, given: Any) -> Any:
        """Leave out zero values where there is a default. What is required keeps them, and the words for them."""
        if not isinstance(given, Mapping) or not ("" in given.values() or 0 in given.values()):
            return given
        required = {field.alias for field in cls.model_fields.values() if field.is_required()}
        return {name: value for name, value in given.items() if name in required or not _is_zero(value)}


def _is_zero(value: object) -> bool:
    return value == "" or (value == 0 and not isinstance(value, bool))


class ObjectMeta(KubernetesValue):
    """Name, labels and annotations."""

    name: Annotated[str, Field(min_length=1)]
    namespace: str = "default"
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ServicePort(KubernetesValue):
    """One port of a Service. An absent `targetPort` is the port itself."""

    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: Port
    target_port: AnyPortNumberOrName | None = None
    node_port: Port | None = None


class ServiceSpec(KubernetesValue):
    """The ports of a Service, and which pods are behind it; without a selector its endpoints are written by others.

    One of type `ExternalName` has none: it is another name of a host. The selector is that of its owner, also while the
    Service is taken over.
    """

    ports: tuple[ServicePort, ...] = ()
    selector: Annotated[dict[str, str], AfterValidator(without_our_key)] = {}
    type: str = "ClusterIP"
    cluster_ip: Annotated[str, Field(alias="clusterIP")] = ""
    cluster_ips: Annotated[tuple[str, ...], Field(alias="clusterIPs")] = ()
    external_ips: Annotated[tuple[str, ...], Field(alias="externalIPs")] = ()
    external_name: str = ""

    @property
    def needs_ports(self) -> bool:
        """Whether there is no such Service without ports (`ValidateService` of the API server)."""
        return self.type != "ExternalName" and self.cluster_ip != "None"


class LoadBalancerIngress(KubernetesValue):
    """One way in through a load balancer: an address or a name."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(KubernetesValue):
    """The ways in through a load balancer."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(KubernetesValue):
    """What was made for a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(KubernetesValue):
    """A `v1` Service."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @model_validator(mode="after")
    def _has_ports(self) -> Self:
        """Refuse the beginning of a Service, as a file that was cut short has it."""
        if not self.spec.ports and self.spec.needs_ports:
            raise FieldFaultError(("spec", "ports"), "is required")
        return self


class EndpointConditions(KubernetesValue):
    """Whether an endpoint may be used. Absent `ready` means ready (API reference, EndpointConditions)."""

    ready: Flag | None = None
    serving: Flag | None = None
    terminating: Flag | None = None


class Endpoint(KubernetesValue):
    """One pod behind a Service. Only the first address is used, as the API reference asks for."""

    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    conditions: EndpointConditions = EndpointConditions()

    @property
    def ready(self) -> bool:
        """Whether new requests may go to it.

        That is what `ready` says, beside `terminating: true` as well: it is never so for a terminating endpoint, unless
        somebody asked for it (`publishNotReadyAddresses`; API reference, EndpointConditions). Where it says nothing, it
        is true, to kube-proxy as well.
        """
        return self.conditions.ready is not False

    @property
    def is_replica(self) -> bool:
        """Whether it counts as a replica, ready or not: unless it is on its way out."""
        return self.ready or not self.conditions.terminating

    @property
    def is_leaving(self) -> bool:
        """Whether it still answers while it terminates: the last choice (KEP-1669)."""
        if self.is_replica:
            return False
        return bool(self.conditions.serving)


class EndpointPort(KubernetesValue):
    """One port of all endpoints of a slice, named as the Service's port is."""

    name: str | None = None
    port: Port | None = None


class EndpointSlice(KubernetesValue):
    """A `discovery.k8s.io/v1` EndpointSlice. What says no `endpoints`, not even null, is only the beginning of one."""

    metadata: ObjectMeta
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...]
    ports: tuple[EndpointPort, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_none_of_them(cls, given: Any) -> Any:
        return (
            {**given, "endpoints": ()} if isinstance(given, Mapping) and given.get("endpoints", ()) is None else given
        )

    @model_validator(mode="after")
    def _holds_addresses_of_its_type(self) -> Self:
        if self.address_type == "FQDN":
            return self
        version = 4 if self.address_type == "IPv4" else 6
        for index, endpoint in enumerate(self.endpoints):
            for place, address in enumerate(endpoint.addresses):
                if _version(address) != version:
                    raise FieldFaultError(
                        ("endpoints", index, "addresses", place),
                        f"must be an {self.address_type} address, is {address!r}",
                    )
        return self


def _version(address: str) -> int | None:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return None


class Secret(KubernetesValue):
    """A `v1` Secret. Its values never leave this object in anything that can be printed."""

    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[str, SecretStr] = {}
    string_data: dict[str, SecretStr] = {}


class GrantFrom(KubernetesValue):
    """Who may refer: the objects of one kind in one namespace. An empty group is that of core."""

    group: str = ""
    kind: str
    namespace: str


class GrantTo(KubernetesValue):
    """What may be referred to: the object of this name, or, without a name, all of a kind."""

    group: str = ""
    kind: str
    name: str = ""


class ReferenceGrantSpec(KubernetesValue):
    """Every one of `from_` may refer to every one of `to`."""

    from_: Annotated[tuple[GrantFrom, ...], Field(alias="from")]
    to: tuple[GrantTo, ...]


class ReferenceGrant(KubernetesValue):
    """Consent of a namespace to references from others (`gateway.networking.k8s.io`, the same in v1 and v1beta1)."""

    metadata: ObjectMeta
    spec: ReferenceGrantSpec


class PodExpression(KubernetesValue):
    """One expression of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class PodSelector(KubernetesValue):
    """Which pods are meant, by their labels: all of it must hold."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[PodExpression, ...] = ()

    def as_query(self) -> str:
        """Write it as a query of the API server has it; empty for one that would take every object."""
        return query_of(self.match_labels, ((one.key, one.operator, one.values) for one in self.match_expressions))


class HttpHeader(KubernetesValue):
    """A header of a probe's request."""

    name: str
    value: str = ""


class HttpGetAction(KubernetesValue):
    """The HTTP request of a readiness probe; without a `host` it goes to the pod itself."""

    host: str = ""
    path: str = "/"
    port: AnyPortNumberOrName
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class GrpcAction(KubernetesValue):
    """The call of the gRPC health service (`grpc.health.v1.Health/Check`) of a readiness probe."""

    port: Port
    service: str = ""


class ReadinessProbe(KubernetesValue):
    """How the kubelet asks a container whether it is ready.

    The numbers are in seconds, and in failures in a row. Each has the default of the API reference (`Probe v1`), which
    also holds for zero. Other ways to ask, `exec` and `tcpSocket`, are the kubelet's alone.
    """

    http_get: HttpGetAction | None = None
    grpc: GrpcAction | None = None
    period_seconds: Annotated[WholeNumber, Field(ge=0)] = 10
    timeout_seconds: Annotated[WholeNumber, Field(ge=0)] = 1
    failure_threshold: Annotated[WholeNumber, Field(ge=0)] = 3


class ContainerPort(KubernetesValue):
    """One port a container listens on."""

    name: str = ""
    container_port: Port


class Container(KubernetesValue):
    """One container of a pod."""

    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    readiness_probe: ReadinessProbe | None = None


class PodSpec(KubernetesValue):
    """What a pod runs."""

    containers: tuple[Container, ...]


class PodTemplate(KubernetesValue):
    """The pods of a workload."""

    spec: PodSpec


class WorkloadSpec(KubernetesValue):
    """The spec of anything with a pod template."""

    template: PodTemplate
    selector: PodSelector = PodSelector()


class WorkloadStatus(KubernetesValue):
    """How far a workload is: of its pods, so many are `updated_replicas`, made from the template that it has now."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0


class Workload(KubernetesValue):
    """A Deployment or StatefulSet: what `modelSourceRef` names. Written in a file, it usually has no status."""

    metadata: ObjectMeta
    spec: WorkloadSpec
    status: WorkloadStatus | None = None

    @property
    def is_rolling_out(self) -> bool:
        """Whether pods of another template may be there, as `kubectl rollout status` has it."""
        if self.status is None:
            return False
        seen = self.status.observed_generation >= self.metadata.generation
        return not seen or self.status.updated_replicas < self.status.replicas
