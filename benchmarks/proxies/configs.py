"""The configurations that are files here: the upstream, the static Envoy, the one written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from controller.api.contract.route import RouteKey
from tests.support.network import Network

_HERE = Path(__file__).parent

MODEL = RouteKey.of_model("default", "chat")
FRONT_PORT = 8080
UPSTREAM_PORT = 8000
TLS_PORT = 8443
"""Of the remote backend, which answers there as it does on UPSTREAM_PORT."""
AUTHORITY = "models.example"
PATH_PREFIX = "/workspace/models/chat"
ADDED = ("x-added", "added")
"""What the remote backend is sent: its name, a path prefix and one header. The files say the same."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The addresses of three replicas and a remote backend, all on UPSTREAM_PORT."""

    replicas: tuple[str, str, str]
    remote: str

    @classmethod
    def in_network(cls, network: Network) -> Upstreams:
        """Choose addresses above those of the Envoys that send there."""
        return cls((network.host(101), network.host(102), network.host(103)), network.host(110))

    @property
    def names(self) -> dict[str, str]:
        """Name each as the files do."""
        return {**{f"replica_{n}": host for n, host in enumerate(self.replicas, 1)}, "remote": self.remote}


def upstream(upstreams: Upstreams, certificate: Path) -> str:
    """Write the Envoy that all others send to; the file has the certificate and key of its remote backend."""
    return _filled("upstream.yaml", certificate=str(certificate), **upstreams.names)


def static(front: str, upstreams: Upstreams, local: int) -> str:
    """Write the Envoy that listens on `front` and sends `local` percent to the replicas, with nothing around it."""
    return _filled("static.yaml", front=front, to_local=str(local), to_remote=str(100 - local), **upstreams.names)


def by_hand(front: str, upstreams: Upstreams, local: int) -> str:
    """Write the Envoy that does by a file of its own what the product does."""
    config = yaml.safe_load(_filled("by_hand.yaml", front=front, **upstreams.names))
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (model,) = manager["route_config"]["virtual_hosts"]
    model["routes"] = _split(model["routes"], local)
    return yaml.safe_dump(config, sort_keys=False)


def _split(routes: list[dict[str, Any]], local: int) -> list[dict[str, Any]]:
    """Set the fraction of the first route, the others are for what leaves. What nothing would take is left out."""
    to_local, *to_remote = routes
    if local == 0:
        return to_remote
    if local == 100:
        return [{**to_local, "match": {"prefix": "/"}}]
    fraction = {"default_value": {"numerator": local, "denominator": "HUNDRED"}}
    return [{**to_local, "match": {**to_local["match"], "runtime_fraction": fraction}}, *to_remote]


def _filled(name: str, **values: str) -> str:
    return Template((_HERE / name).read_text()).substitute(values)
