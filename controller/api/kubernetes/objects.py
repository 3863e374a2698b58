"""Objects of Kubernetes itself, as far as they are read here."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from controller.api.schema.errors import FieldFaultError
from controller.api.schema.scalars import AnyPortNumberOrName, Flag, Port
from controller.api.schema.values import ForeignValue

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


class ObjectMeta(ForeignValue):
    """Name, labels and annotations."""

    name: Annotated[str, Field(min_length=1)]
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ServicePort(ForeignValue):
    """One port of a Service. An absent `targetPort` is the port itself."""

    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: Port
    target_port: AnyPortNumberOrName | None = None
    node_port: Port | None = None


class ServiceSpec(ForeignValue):
    """The ports of a Service, and which pods are behind it; without a selector its endpoints are written by others."""

    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}


class Service(ForeignValue):
    """A `v1` Service."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(ForeignValue):
    """Whether an endpoint may be used. Absent `ready` means ready (API reference, EndpointConditions)."""

    ready: Flag | None = None
    serving: Flag | None = None
    terminating: Flag | None = None


class Endpoint(ForeignValue):
    """One pod behind a Service. Only the first address is used, as the API reference asks for."""

    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    conditions: EndpointConditions = EndpointConditions()

    @property
    def ready(self) -> bool:
        """Whether new requests may go to it: ready, and not terminating."""
        return self.conditions.ready is not False and not self.conditions.terminating

    @property
    def is_replica(self) -> bool:
        """Whether it counts as a replica, ready or not: unless it is terminating."""
        return not self.conditions.terminating


class EndpointPort(ForeignValue):
    """One port of all endpoints of a slice, named as the Service's port is."""

    name: str | None = None
    port: Port | None = None


class EndpointSlice(ForeignValue):
    """A `discovery.k8s.io/v1` EndpointSlice."""

    metadata: ObjectMeta
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

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


class Secret(ForeignValue):
    """A `v1` Secret. Its values never leave this object in anything that can be printed."""

    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[str, SecretStr] = {}
    string_data: dict[str, SecretStr] = {}


class HttpGetAction(ForeignValue):
    """The HTTP request of a readiness probe."""

    path: str = "/"
    port: AnyPortNumberOrName
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"


class ReadinessProbe(ForeignValue):
    """How the kubelet asks a container whether it is ready."""

    http_get: HttpGetAction | None = None


class ContainerPort(ForeignValue):
    """One port a container listens on."""

    name: str = ""
    container_port: Port


class Container(ForeignValue):
    """One container of a pod."""

    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    readiness_probe: ReadinessProbe | None = None


class PodSpec(ForeignValue):
    """What a pod runs."""

    containers: tuple[Container, ...] = ()


class PodTemplate(ForeignValue):
    """The pods of a workload."""

    spec: PodSpec = PodSpec()


class WorkloadSpec(ForeignValue):
    """The spec of anything with a pod template."""

    template: PodTemplate = PodTemplate()


class Workload(ForeignValue):
    """A Deployment or StatefulSet: what `modelSourceRef` names."""

    metadata: ObjectMeta
    spec: WorkloadSpec = WorkloadSpec()
