"""What stands behind a Service and is not counted among its replicas, in sentences with the names that were compared.

A model without replicas is served by its remote backend, and that is paid for. So whoever wrote endpoints that do not
count shall read why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.api.kubernetes.endpoints import MOST
from controller.api.kubernetes.objects import SERVICE_NAME, EndpointSlice, Service

# The rest of a long list is a number.
_MOST = 5


def uncounted(slices: Iterable[EndpointSlice], port_name: str) -> tuple[str, ...]:
    """Say which slices hold no replica of the port called `port_name` (empty for an unnamed one), and why.

    Slices count by their label, not by their name; by the name of their port, not by its number (API reference,
    EndpointPort); and by their addresses. Of a dual-stack Service, the IPv6 slices are those of pods that were counted.
    """
    found = sorted(slices, key=lambda one: one.metadata.name)
    sentences = [words for one in found if one.endpoints for words in _of_slice(one, port_name)]
    more = len(sentences) - _MOST
    return (*sentences[:_MOST], f"and {more} more slices") if more > 0 else tuple(sentences)


def left_out(found: int, taken: int) -> tuple[str, ...]:
    """Say how many replicas of a Service there are beyond those that are taken."""
    if found == taken:
        return ()
    return (
        f"{found - taken} of {found} endpoints: of those that are ready the first {MOST} by their addresses are taken, "
        "and as many of those that are not",
    )


def without_slices(service: Service) -> tuple[str, ...]:
    """Say why a Service without any EndpointSlice may have none."""
    name = service.metadata.name
    if other := of_another_kind(service):
        return (f"Service {service.metadata.namespace}/{name}: {other}",)
    none = f'no EndpointSlice has the label {SERVICE_NAME}: "{name}"'
    if service.spec.selector:
        return (none,)
    # `endpointslicemirroring-controller`: it leaves these out.
    skipped = 'unless they have the label endpointslice.kubernetes.io/skip-mirror: "true"'
    return (f"{none}. Endpoints count by the slices into which a cluster mirrors them, {skipped}",)


def of_another_kind(service: Service) -> str:
    """Say that a Service names a host and has no replicas; empty of any other."""
    if service.spec.type != "ExternalName":
        return ""
    host = service.spec.external_name or "a host"
    return f"it is of type ExternalName, which has no endpoints; {host} can be the host of a remote backend"


def _of_slice(one: EndpointSlice, port_name: str) -> Iterator[str]:
    name = f"EndpointSlice {one.metadata.namespace}/{one.metadata.name} (endpoints: {len(one.endpoints)})"
    if one.address_type == "FQDN":
        yield f"{name} has addressType FQDN, names such as {one.endpoints[0].addresses[0]}; only IP addresses count"
        return
    names = [port.name or "" for port in one.ports]
    if port_name not in names:
        listed = ", ".join(map(_quoted, names[:_MOST])) or "none"
        yield f"{name} has other ports than {_quoted(port_name)}, as the Service calls it: {listed}"
    elif not any(port.port for port in one.ports if (port.name or "") == port_name):
        yield f"{name} gives its port {_quoted(port_name)} no number"


def _quoted(name: str) -> str:
    return f'"{name}"'
