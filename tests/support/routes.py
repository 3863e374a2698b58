"""Routes, said in a few words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from controller.api.endpoints import Replica
from controller.api.route import Header, HttpCheck, LocalBackend, ModelRoute, RemoteRoute, Split
from xds_server.resources.names import ModelKey

A = ModelKey("default", "a")
B = ModelKey("default", "b")


def a_remote(host: str = "remote.example", **more: Any) -> RemoteRoute:
    headers = tuple(Header(name=name, value=value) for name, value in more.pop("headers", {}).items())
    return RemoteRoute(**{"host": host, "port": 80, "authority": host, "headers_to_add": headers, **more})


def a_route(
    remote: RemoteRoute | None = None, *, away: int = 0, port: int = 80, check: str | None = None
) -> ModelRoute:
    health_check = HttpCheck(path=check, interval=timedelta(seconds=1)) if check else None
    local = LocalBackend(namespace="default", service="a", health_check=health_check)
    return ModelRoute(port=port, split=Split.away(away), local=local, remote=remote)


def ready(*addresses: str, port: int = 8080) -> tuple[Replica, ...]:
    return tuple(Replica(address, port, True) for address in addresses)
