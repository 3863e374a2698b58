"""Taking one setting out of what the xDS server builds, to see the trouble that it keeps away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.message import Message

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource

Resources = tuple[Resource, ...]
Change = Callable[[Resources], Resources]

_MESSAGES: dict[str, type[Message]] = {
    CLUSTER: Cluster,
    ENDPOINT: ClusterLoadAssignment,
    LISTENER: Listener,
    ROUTE: RouteConfiguration,
}


def nothing(resources: Resources) -> Resources:
    """Leave everything as it is."""
    return resources


def clusters(edit: Callable[[Cluster], object]) -> Change:
    """Edit every cluster."""
    return partial(_edited, {CLUSTER: edit})


def assignments(edit: Callable[[ClusterLoadAssignment], object]) -> Change:
    """Edit the endpoints of every cluster."""
    return partial(_edited, {ENDPOINT: edit})


def managers(edit: Callable[[HttpConnectionManager], object]) -> Change:
    """Edit the HTTP connection manager of every listener."""
    return partial(_edited, {LISTENER: partial(_edit_managers, edit)})


def limits(edit: Callable[[Listener | Cluster], object]) -> Change:
    """Edit every listener and every cluster."""
    return partial(_edited, {LISTENER: edit, CLUSTER: edit})


def routes(edit: Callable[[Route], object]) -> Change:
    """Edit every route that leads somewhere, those that stand in a listener included."""
    return _routes(edit, "route")


def answers(edit: Callable[[Route], object]) -> Change:
    """Edit every route that answers by itself."""
    return _routes(edit, "direct_response")


def _routes(edit: Callable[[Route], object], action: str) -> Change:
    def of_host(host: VirtualHost) -> None:
        for route in host.routes:
            if route.HasField(action):
                edit(route)

    return virtual_hosts(of_host)


def virtual_hosts(edit: Callable[[VirtualHost], object]) -> Change:
    """Edit what all routes of a configuration have in common, also of one that stands in a listener."""

    def of_configuration(configuration: RouteConfiguration) -> None:
        for host in configuration.virtual_hosts:
            edit(host)

    def of_manager(manager: HttpConnectionManager) -> None:
        if manager.HasField("route_config"):
            of_configuration(manager.route_config)

    return partial(_edited, {ROUTE: of_configuration, LISTENER: partial(_edit_managers, of_manager)})


def both(first: Change, second: Change) -> Change:
    return lambda resources: second(first(resources))


def _edit_managers(edit: Callable[[HttpConnectionManager], object], listener: Listener) -> None:
    for chain in listener.filter_chains:
        for one in chain.filters:
            manager = HttpConnectionManager()
            assert one.typed_config.Unpack(manager)
            edit(manager)
            one.typed_config.value = manager.SerializeToString(deterministic=True)


def _edited(edits: dict[str, Callable[..., object]], resources: Iterable[Resource]) -> Resources:
    """Apply the edits; fail if they change nothing, which is so when the setting is not there to be taken out."""
    touched, result = 0, []
    for resource in resources:
        edit = edits.get(resource.key.type_url)
        if edit is None:
            result.append(resource)
            continue
        message = _MESSAGES[resource.key.type_url].FromString(resource.body)
        before = type(message).FromString(resource.body)
        edit(message)
        if message == before:
            result.append(resource)
            continue
        touched += 1
        body = message.SerializeToString(deterministic=True)
        result.append(Resource.of(*resource.key, body, resource.requires))
    assert touched, "there was nothing to change: the setting is gone"
    return tuple(result)
