"""Which port of a Service a ModelDeployment means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from controller.api.contract.route import HttpCheck, LocalBackend, Remote, Route
from controller.api.kubernetes.endpoints import EndpointGuard, Replica, admit_all, replicas_of
from controller.api.kubernetes.objects import EndpointSlice, Service, ServicePort, Workload
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.model import Behavior, ModelDeployment
from controller.api.resources.references import PortReference
from controller.observe.remotes import RemoteNotUsableError, asked_hosts, remote_route
from controller.store.objects import ObjectRef


class PortNotFoundError(Exception):
    """No port, or more than one, fits the reference; the message names the choices."""


def referred_port(reference: PortReference, service: Service) -> ServicePort:
    """Find the TCP port that `serviceRef` names.

    `targetPort` is compared with the Service's `port` first (what it meant from the beginning), then with its
    `targetPort`, then with its name. It may be left out if there is only one port.
    """
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
    wanted = reference.target_port
    if wanted is None:
        fitting = ports
    else:
        fitting = [port for port in ports if str(port.port) == str(wanted)]
        fitting = fitting or [port for port in ports if str(port.target_port or port.port) == str(wanted)]
        fitting = fitting or [port for port in ports if port.name and port.name == wanted]
    if len(fitting) == 1:
        return fitting[0]
    choices = ", ".join(f"{port.port} ({port.name})" if port.name else str(port.port) for port in ports) or "none"
    asked = "serviceRef.targetPort is not set" if wanted is None else f"serviceRef.targetPort is {wanted}"
    problem = "no TCP port fits" if not fitting else "more than one port fits"
    raise PortNotFoundError(f"{asked}, and {problem}; the Service's TCP ports: {choices}")


# What a request line can carry; a probe with anything else is the kubelet's alone.
_PATH = re.compile(r"[!-~]*")


class Lookups(Protocol):
    """How to find the objects that a model refers to."""

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service."""

    def workload(self, ref: ObjectRef) -> Workload | None:
        """Find a Deployment or StatefulSet."""

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """List the EndpointSlices of a Service."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something that the object refers to cannot be used: a reason in CamelCase and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Front:
    """What a model fronts: the port Envoy listens on, and the replicas behind it.

    `service_port` is the port's number in the Service, where that is known. `refused` are sentences on endpoints that
    nothing may be sent to.
    """

    port: int
    local: LocalBackend
    replicas: tuple[Replica, ...]
    service_port: int | None = None
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the references of one model lead to.

    `front` is None when the Service or its port cannot be found. `remote` is None when nothing may leave. `faults` say
    why, in the order found.
    """

    front: Front | None
    remote: Remote | None
    faults: tuple[Fault, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """What is said of endpoints that nothing may be sent to."""
        return self.front.refused if self.front else ()


def service_ref(model: ModelDeployment) -> ObjectRef | None:
    """Name the Service that a model fronts."""
    ref = model.spec.service_ref
    return ObjectRef("Service", ref.namespace or model.metadata.namespace, ref.name) if ref else None


def workload_ref(model: ModelDeployment) -> ObjectRef:
    """Name the workload whose pods run the model."""
    ref = model.spec.model_source_ref
    return ObjectRef(ref.kind, ref.namespace or model.metadata.namespace, ref.name)


def resolve(
    model: ModelDeployment,
    lookups: Lookups,
    default_remote: RemoteBackend | None,
    guard: EndpointGuard = admit_all,
) -> Resolved:
    """Follow every reference of a model. What is missing becomes a fault; the rest is there all the same."""
    faults: list[Fault] = []
    try:
        remote = remote_route(model, default_remote)
        if remote:
            _refuse_hosts(model, guard)
        if remote is None and model.spec.offloading_config is not None:
            faults.append(
                Fault(
                    "NoRemoteBackend", "spec.offloadingConfig.remoteBackend is not set, and there is no default to use"
                )
            )
    except RemoteNotUsableError as error:
        remote = None
        faults.append(Fault("RemoteNotUsable", f"spec.offloadingConfig.{error}"))
    if remote and (policy := _policy_that_cannot_be_asked(model)):
        remote = None
        faults.append(policy)
    front = _front(model, lookups, guard)
    if isinstance(front, Fault):
        return Resolved(None, remote, (front, *faults))
    return Resolved(front, remote, tuple(faults))


def _refuse_hosts(model: ModelDeployment, guard: EndpointGuard) -> None:
    """Let nobody who may write a ModelDeployment send requests where only the gateway can send any."""
    for field, host in asked_hosts(model):
        if reason := guard.refused_host(host):
            raise RemoteNotUsableError(f"{field}: {host} is {reason}; nothing may be sent there")


def _policy_that_cannot_be_asked(model: ModelDeployment) -> Fault | None:
    """Fail closed: whoever attached a policy of this cluster wants it to be asked, and nobody does yet."""
    for index, policy in enumerate(model.spec.policies):
        if policy.ref_type == "localPolicy":
            return Fault(
                "PolicyNotEnforced",
                f"spec.policies[{index}]: local policies are not enforced yet; while one is named, nothing leaves",
            )
    return None


def kept_front(route: Route, lookups: Lookups, guard: EndpointGuard = admit_all) -> Front:
    """Return the front that a model has by its present route, with the replicas of now."""
    return _fronting(route.port, route.local, lookups, guard)


def claimed_port(model: ModelDeployment, lookups: Lookups) -> tuple[ObjectRef, ServicePort] | None:
    """Find the Service and the port that a model asks for; None while its reference leads nowhere."""
    reference, ref = model.spec.service_ref, service_ref(model)
    service = lookups.service(ref.namespace, ref.name) if ref else None
    if reference is None or ref is None or service is None:
        return None
    try:
        return ref, referred_port(reference, service)
    except PortNotFoundError:
        return None


def _front(model: ModelDeployment, lookups: Lookups, guard: EndpointGuard) -> Front | Fault:
    reference, ref = model.spec.service_ref, service_ref(model)
    if reference is None or ref is None:
        return Fault("NoService", "spec.serviceRef is not set: there is no Service to front")
    service = lookups.service(ref.namespace, ref.name)
    if service is None:
        elsewhere = ref.namespace != model.metadata.namespace
        # The option `namespaces` may leave it out.
        unseen = ", or its namespace is not watched" if elsewhere else ""
        return Fault("ServiceNotFound", f"spec.serviceRef: {ref} does not exist{unseen}")
    try:
        port = referred_port(reference, service)
    except PortNotFoundError as error:
        return Fault("PortNotFound", f"spec.{error}")
    behavior = model.spec.offloading_config.behavior if model.spec.offloading_config else Behavior()
    local = LocalBackend(
        namespace=ref.namespace,
        service=ref.name,
        port_name=port.name,
        health_check=_readiness_check(lookups.workload(workload_ref(model)), port.target_port or port.port),
        custom_endpoints=None if service.spec.selector else True,
        first_byte_timeout=behavior.first_byte_timeout,
        max_requests_per_replica=behavior.max_requests_per_replica,
    )
    return replace(_fronting(port.node_port or port.port, local, lookups, guard), service_port=port.port)


def _fronting(port: int, local: LocalBackend, lookups: Lookups, guard: EndpointGuard) -> Front:
    admitted = guard(lookups.slices(local.namespace, local.service), custom=bool(local.custom_endpoints))
    return Front(port, local, replicas_of(admitted.slices, local.port_name), refused=admitted.refused)


def _readiness_check(workload: Workload | None, serving: int | str) -> HttpCheck | None:
    """Let Envoy ask what the kubelet asks: the HTTP readiness probe of the container that serves, on that very port.

    It must not depend on the replicas there are: a change of a cluster costs a warming, one of endpoints does not.
    """
    if workload is None:
        return None
    for container in workload.spec.template.spec.containers:
        numbers = {port.name: port.container_port for port in container.ports if port.name}
        probe = container.readiness_probe.http_get if container.readiness_probe else None
        if probe is None or probe.scheme != "HTTP" or not _PATH.fullmatch(probe.path):
            continue
        if numbers.get(str(probe.port), probe.port) == numbers.get(str(serving), serving):
            return HttpCheck(path=f"/{probe.path.removeprefix('/')}", interval=timedelta(seconds=1))
    return None
