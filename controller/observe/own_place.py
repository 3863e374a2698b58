"""Where the gateway itself is: a remote backend that is there would send each request around.

What can be told without asking anybody is told here, and such a backend is not used. A name that leads to the gateway
by a way that nobody here knows (a load balancer of another name, a node's address) is found out by the first request
(docs/adr/0026).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from controller.api.contract.route import Remote
from controller.api.kubernetes.objects import Service
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """Where clients reach the gateway: at `addresses` of its host, or by its Service (namespace, name).

    At an address of the host there are other servers too, so there a port has to be a model's, or one of `ports`, which
    are the gateway's own.
    """

    addresses: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    service: tuple[str, str] | None = None

    def has(self, host: str) -> bool:
        """Tell whether a host is one of the addresses."""
        name = usual_form(host)
        # RFC 6761, section 6.3: whatever ends so is this host.
        return name in self.addresses or (name.endswith(".localhost") and "localhost" in self.addresses)


# What reaches a server of this very host that listens on a loopback address, or on all of a family; connecting to no
# address at all (0.0.0.0, ::) gets there. One on `::` listens on those of both families.
_IPV4, _IPV6 = frozenset(("127.0.0.1", "0.0.0.0", "localhost")), frozenset(("::1", "::", "localhost"))
_LISTENING = {"127.0.0.1": _IPV4, "0.0.0.0": _IPV4, "::1": _IPV6, "::": _IPV4 | _IPV6}


def this_host(address: str, port: int | None = None) -> GatewayPlace:
    """Say where clients reach a gateway that listens on an address of this host; on `port` for all models."""
    listening = usual_form(address)
    addresses = _LISTENING.get(listening, frozenset((listening,)))
    return GatewayPlace(addresses, frozenset() if port is None else frozenset((port,)))


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """Where the gateway is at this moment: its place, the Service there if it is known, and the ports of its models.

    For the model that asks, `is_chained` says that its remote backend is another model here, and `cycle` names those by
    which what is sent there comes back to it (see `chains`).
    """

    place: GatewayPlace = field(default_factory=GatewayPlace)
    service: Service | None = None
    ports: frozenset[int] = frozenset()
    cycle: tuple[ObjectRef, ...] = ()
    is_chained: bool = False

    def leads_here(self, remote: Remote, front: int | None) -> bool:
        """Tell whether a remote backend is the gateway; `front` is the port of the model that asks."""
        if self.place.has(remote.host):
            return remote.port == front or remote.port in self.ports | self.place.ports
        host = usual_form(remote.host)
        if self.service and host in addresses_and_balancers(self.service):
            return True
        # The Envoys are in the namespace of their Service.
        return self.place.service is not None and host in names_of_service(*self.place.service, nearby=True)


def addresses_and_balancers(service: Service) -> Iterator[str]:
    """List the addresses of a Service, and the names of its load balancers, in their usual form."""
    spec = service.spec
    yield from map(usual_form, (spec.cluster_ip, *spec.cluster_ips, *spec.external_ips))
    for one in service.status.load_balancer.ingress:
        yield from (usual_form(name) for name in (one.ip, one.hostname) if name)


def names_of_service(namespace: str, name: str, *, nearby: bool) -> tuple[str, ...]:
    """List the DNS names of a Service (Kubernetes, "DNS for Services and Pods"), `nearby` from its own namespace.

    In another domain than `cluster.local` it may be the Service of another cluster, which is a good remote backend.
    """
    whole = f"{name}.{namespace}"
    return (*([name] if nearby else []), whole, f"{whole}.svc", f"{whole}.svc.cluster.local")


def usual_form(host: str) -> str:
    """Write a name or an address as everybody writes it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").lower()
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class ServedPorts:
    """The ports on which models are served, as their statuses say, and who has a remote backend at one of them."""

    def __init__(self) -> None:
        self._ports: dict[ObjectRef, int] = {}
        self._asked: dict[ObjectRef, frozenset[int]] = {}

    def served(self, ports: Iterable[int]) -> frozenset[int]:
        """Find those of some ports that serve a model."""
        wanted = frozenset(ports)
        return wanted.intersection(self._ports.values()) if wanted else wanted

    def record(self, model: ObjectRef, port: int | None) -> frozenset[ObjectRef]:
        """Take in the port that a model's status says; return who has a remote backend there, or where it was."""
        before = self._ports.pop(model, None)
        if port is not None:
            self._ports[model] = port
        changed = {before, port} - {None} if before != port else set()
        return frozenset(other for other, asked in self._asked.items() if asked & changed)

    def asks(self, model: ObjectRef, ports: Iterable[int]) -> None:
        """Record at which ports of the gateway a model has a remote backend."""
        asked = frozenset(ports)
        self._asked.pop(model, None)
        if asked:
            self._asked[model] = asked
