"""Following what an object refers to: a Service and a port of it, its replicas, a workload, remote backends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.api.contract.route import LocalBackend, Remote, Route
from controller.api.kubernetes.endpoints import EndpointGuard, Replica, admit_all, is_ours, replicas_of, taken
from controller.api.kubernetes.objects import Service, ServicePort, Workload
from controller.api.registry import DEPLOYMENT, STATEFUL_SET
from controller.api.resources.backend import RemoteBackend
from controller.intent.consent import View, not_permitted
from controller.intent.intent import Intent
from controller.intent.remotes import RemoteNotUsableError, hosts_asked_for, remotes_of
from controller.observe.chains import told
from controller.observe.own_place import OwnPlace
from controller.observe.readiness import credential_in_probe, readiness_check
from controller.observe.uncounted import left_out, of_another_kind, uncounted, without_slices
from controller.store.objects import ObjectRef


class PortNotFoundError(Exception):
    """No port, or more than one, fits the reference; the message names the choices."""


def port_of(wanted: int | str | None, service: Service) -> ServicePort:
    """Find the TCP port that `serviceRef` names.

    What its `targetPort` says (`wanted`) is compared with the Service's `port` first (what it meant from the
    beginning), then with its `targetPort`, then with its name. It may be left out if there is only one port.
    Raises PortNotFoundError.
    """
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
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


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something that the object refers to cannot be used: a reason in CamelCase and a sentence.

    One `of_remote` keeps requests from the remote backend.
    """

    reason: str
    message: str
    of_remote: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """What a model fronts: the port Envoy listens on, and the replicas behind it.

    `service_port` is the port's number in the Service, where that is known. `refused` are sentences on endpoints that
    nothing may be sent to, `uncounted` on what is there and is no replica. `hosts` are the names by which clients call
    it on the port that all models share.
    """

    port: int
    local: LocalBackend
    replicas: tuple[Replica, ...]
    service_port: int | None = None
    refused: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the references of one object lead to.

    `front` is None when the Service or its port cannot be found. Without `remotes` nothing may leave. `faults` say why,
    in the order found.
    """

    front: Front | None
    remotes: tuple[Remote, ...]
    faults: tuple[Fault, ...]


def resolve(
    intent: Intent,
    view: View,
    default_remote: RemoteBackend | None,
    guard: EndpointGuard = admit_all,
    own: OwnPlace = OwnPlace(),  # noqa: B008 - frozen
) -> Resolved:
    """Follow every reference of an object. What is missing becomes a fault; the rest is there all the same.

    What the `view` does not show is not there for this object. A remote backend at the gateway's `own` place is not
    used, nor one from where requests come back by way of other models.
    """
    faults: list[Fault] = []
    remotes: tuple[Remote, ...] = ()
    try:
        remotes = remotes_of(intent, default_remote)
        if remotes:
            _refuse_hosts(intent, guard)
        elif intent.offloads:
            words = "spec.offloadingConfig.remoteBackend is not set, and there is no default to use"
            faults.append(Fault("NoRemoteBackend", words, of_remote=True))
    except RemoteNotUsableError as error:
        remotes = ()
        faults.append(Fault("RemoteNotUsable", f"spec.offloadingConfig.{error}", of_remote=True))
    if remotes and intent.local_policy is not None:
        # Fail closed: whoever attached a policy of this cluster wants it to be asked, and nobody does yet.
        remotes = ()
        words = "local policies are not enforced yet; while one is named, nothing leaves"
        faults.append(Fault("PolicyNotEnforced", f"spec.policies[{intent.local_policy}]: {words}", of_remote=True))
    front = _front(intent, view, guard)
    served = None if isinstance(front, Fault) else front.port
    if loop := next((one for one in remotes if own.leads_here(one, served)), None):
        remotes = ()
        words = f"{loop.host}, port {loop.port}, is this gateway itself: what is sent there comes back"
        faults.append(Fault("LoopDetected", f"{_field(intent)}: {words}", of_remote=True))
    elif remotes and own.cycle:
        words = f"{remotes[0].host}, port {remotes[0].port}, leads back to this object ({told(own.cycle)})"
        words = f"{words}: this one is the youngest of them, and does without its remote backend"
        remotes = ()
        faults.append(Fault("LoopDetected", f"{_field(intent)}: {words}", of_remote=True))
    elif own.is_chained:
        remotes = tuple(one.model_copy(update={"through_gateway": True}) for one in remotes)
    if isinstance(front, Fault):
        return Resolved(None, remotes, (front, *faults))
    return Resolved(front, remotes, tuple(faults))


def _field(intent: Intent) -> str:
    return "spec.offloadingConfig.remoteBackend.host" if intent.backends else "defaultRemoteBackend.host"


def _refuse_hosts(intent: Intent, guard: EndpointGuard) -> None:
    """Let nobody who may write an object send requests where only the gateway can send any."""
    for field, host in hosts_asked_for(intent):
        if reason := guard.destinations.refused_host(host):
            raise RemoteNotUsableError(f"{field}: {host} is {reason}; nothing may be sent there")


def front_of_route(route: Route, view: View, guard: EndpointGuard = admit_all) -> Front:
    """Return the front that an object has by its present route, with the replicas of now."""
    return with_replicas(route.port, route.local, view, guard)


def target_port(intent: Intent, view: View) -> tuple[ObjectRef, ServicePort] | None:
    """Find the Service and the port that an object asks for; None while its reference leads nowhere."""
    target = intent.target
    service = view.service(target.service.namespace, target.service.name) if target else None
    if target is None or service is None or view.is_at_gateway(target.service):
        return None
    try:
        return target.service, port_of(target.port, service)
    except PortNotFoundError:
        return None


def port_asked_for(intent: Intent, port: ServicePort) -> int:
    """Return the port that an object asks to be served on: the one that it fixes, or that of its Service."""
    return intent.serving_port or port.node_port or port.port


_WORKLOADS = (DEPLOYMENT.kind, STATEFUL_SET.kind)


def missing_workload(intent: Intent, view: View) -> str:
    """Say that nothing is what `modelSourceRef` names, so that no readiness probe is known; empty where that is well.

    So it is of a workload of another namespace that may not be referred to: what it is is not read.

    Who writes endpoints by hand, to a Service without a selector, needs no workload.
    """
    ref, target, words = intent.workload, intent.target, "the readiness probe of the replicas is not known"
    if ref.kind not in _WORKLOADS:
        written = f"is {ref.kind!r}" if ref.kind else "is not set"
        return f"spec.modelSourceRef.kind: must be {' or '.join(_WORKLOADS)}, {written}: {words}"
    if not view.permits(ref):
        return f"spec.modelSourceRef: {not_permitted(ref, view.namespace)}"
    service = view.service(target.service.namespace, target.service.name) if target else None
    if service is None or not service.spec.selector:
        return ""
    if view.workload(ref):
        elsewhere = f"spec.modelSourceRef: {ref}, its Service and the object are not in one namespace"
        return "" if _is_in_one_namespace(intent) else f"{elsewhere}: its readiness probe is not asked"
    unwatched = ", or its namespace is not watched" if ref.namespace != intent.ref.namespace else ""
    return f"spec.modelSourceRef: {ref} does not exist{unwatched}: {words}"


def unasked_probe(intent: Intent, view: View) -> str:
    """Say that the readiness probe may hold a credential, so that replicas are connected to; empty if it does not."""
    target = target_port(intent, view)
    workload = _believed_workload(intent, view)
    if target is None or workload is None:
        return ""
    _, port = target
    held = credential_in_probe(workload, port.target_port or port.port)
    probe = f"spec.modelSourceRef: {held} of the readiness probe of {intent.workload} may hold a credential"
    return f"{probe}: Envoys connect to the replicas, and do not ask them" if held else ""


def _believed_workload(intent: Intent, view: View) -> Workload | None:
    """Find the workload whose probe is asked: only if object, Service and workload are in one namespace.

    Otherwise who writes an object could have what another namespace wrote into a probe sent to servers of its own, or
    have Envoy ask servers of another namespace for a path of its own.
    """
    return view.workload(intent.workload) if _is_in_one_namespace(intent) else None


def _is_in_one_namespace(intent: Intent) -> bool:
    target = intent.target
    return target is not None and target.service.namespace == intent.workload.namespace == intent.ref.namespace


def _front(intent: Intent, view: View, guard: EndpointGuard) -> Front | Fault:
    target = intent.target
    if target is None:
        return Fault("NoService", "spec.serviceRef is not set: there is no Service to front")
    ref = target.service
    if not view.permits(ref):
        # The word of the Gateway API for it.
        return Fault("RefNotPermitted", f"spec.serviceRef: {not_permitted(ref, view.namespace)}")
    service = view.service(ref.namespace, ref.name)
    if service is None:
        # The option `namespaces` may leave it out.
        unwatched = ", or its namespace is not watched" if ref.namespace != intent.ref.namespace else ""
        return Fault("ServiceNotFound", f"spec.serviceRef: {ref} does not exist{unwatched}")
    if view.is_at_gateway(ref):
        # Not whose it is: who may refer to a Service need not be one who may read it.
        made = "it was made for a model, by its spec.gatewayService. Name the Service of the pods"
        return Fault("LoopDetected", f"spec.serviceRef: {ref} leads to the gateway itself: {made}")
    try:
        port = port_of(target.port, service)
    except PortNotFoundError as error:
        other = of_another_kind(service)
        return Fault("PortNotFound", f"spec.{error}; {other}" if other else f"spec.{error}")
    local = LocalBackend(
        namespace=ref.namespace,
        service=ref.name,
        port_name=port.name,
        health_check=readiness_check(_believed_workload(intent, view), port.target_port or port.port),
        custom_endpoints=None if service.spec.selector else True,
        first_byte_timeout=intent.first_byte_timeout,
        max_requests_per_replica=intent.terms.behavior.max_requests_per_replica,
    )
    return replace(with_replicas(port_asked_for(intent, port), local, view, guard), service_port=port.port)


def with_replicas(port: int, local: LocalBackend, view: View, guard: EndpointGuard) -> Front:
    """Return what is fronted by these, with the replicas of now."""
    found = tuple(one for one in view.slices_behind(local) if not is_ours(one))
    admitted = guard(found, custom=bool(local.custom_endpoints))
    others = uncounted(admitted.slices, local.port_name)
    if not found and (service := view.service(local.namespace, local.service)):
        others = without_slices(service)
    all_replicas = replicas_of(admitted.slices, local.port_name)
    replicas = taken(all_replicas)
    beyond = left_out(len(all_replicas), len(replicas))
    return Front(port, local, replicas, refused=admitted.refused, uncounted=(*beyond, *others))
