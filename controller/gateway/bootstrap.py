"""The configuration that an Envoy starts with."""

from __future__ import annotations

import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import yaml

_TEMPLATE = "bootstrap.yaml"
_HOST_PORT = re.compile(r"(\[(?P<bracketed>[^\[\]\s]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and a port; an IPv6 host stands in brackets where both are written together."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Parse `127.0.0.1:18000`, `[::1]:18000` or `name:18000`; raise ValueError with what is wrong."""
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:18000")
        return cls(match["bracketed"] or match["host"], int(match["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Provision:
    """What an Envoy may use. `all_statistics` has it count everything that it can: about 0.2 MB more for each model."""

    all_statistics: bool = False


def bootstrap_for(
    node_id: str,
    token: str,
    xds: HostPort,
    admin: HostPort | Path | None,
    provision: Provision = Provision(),
) -> str:
    """Render the bootstrap of one Envoy as YAML. It holds the token: keep it from other users.

    So does what Envoy shows at its admin address (`/config_dump`): a socket file that only this user may open, an
    address that everybody on the host can reach, or none.
    """
    bootstrap = yaml.safe_load(_template().read_text())
    bootstrap["node"]["id"] = node_id
    bootstrap["node"]["metadata"]["beamlit_token"] = token
    match admin:
        case HostPort(host, port):
            bootstrap["admin"] = {"address": {"socket_address": {"address": host, "port_value": port}}}
        case Path():
            bootstrap["admin"] = {"address": {"pipe": {"path": str(admin), "mode": 0o600}}}
    assignment = bootstrap["static_resources"]["clusters"][0]["load_assignment"]
    endpoint = assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": xds.host, "port_value": xds.port}
    if provision.all_statistics:
        del bootstrap["stats_config"], bootstrap["deferred_stat_options"]
    rendered: str = yaml.safe_dump(bootstrap, sort_keys=False)
    return rendered


def _template() -> Path:
    """Find the template: beside the packages in a checkout, among the installed data otherwise."""
    checkout = Path(__file__).parents[2] / "envoy" / _TEMPLATE
    return checkout if checkout.exists() else Path(sysconfig.get_path("data")) / "share" / "beamlit" / _TEMPLATE
