"""One real Envoy and its admin interface, from any bootstrap or from the one that `beamlit bootstrap` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from controller.gateway.bootstrap import HostPort, Provision, XdsAddress, bootstrap_for
from controller.gateway.process import envoy_binary
from tests.support.http import plain_http
from tests.support.processes import Child, ProcessEndedError, file_name
from tests.support.waiting import until

ANY_PORT = HostPort("127.0.0.1", 0)
"""Where the admin interface of an Envoy is that chooses the port itself, and says which."""

Bootstrap = dict[str, Any]


def as_it_is(_: Bootstrap) -> None:
    """Leave the bootstrap alone."""


def heap_in(folder: Path) -> int:
    """How many bytes of heap an Envoy may use by the only bootstrap in a folder, as its overload manager counts."""
    (bootstrap,) = folder.rglob("bootstrap.yaml")
    return _heap(bootstrap.read_text())


def heap_for(memory: int) -> int:
    """How many of so many bytes of memory are heap."""
    return _heap(bootstrap_for("", "", ANY_PORT, None, Provision(memory)))


def _heap(bootstrap: str) -> int:
    monitors = yaml.load(bootstrap, yaml.CSafeLoader)["overload_manager"]["resource_monitors"]
    (heap,) = (one["typed_config"] for one in monitors if one["name"] == "envoy.resource_monitors.fixed_heap")
    return int(heap["max_heap_size_bytes"])


class Envoy:
    """A running Envoy. `flags` go to its command line; without `cpus` it runs on those of this process.

    Raises NoEnvoyError when there is none to start.
    """

    def __init__(
        self,
        name: str,
        bootstrap: str | Bootstrap,
        folder: Path,
        *,
        workers: int = 2,
        flags: Sequence[str] = (),
        cpus: frozenset[int] = frozenset(),
    ) -> None:
        self.node_id = name
        config, self._admin_address = (folder / f"{file_name(name)}.{ending}" for ending in ("yaml", "admin"))
        config.touch(mode=0o600)  # There may be keys in it.
        config.write_text(bootstrap if isinstance(bootstrap, str) else yaml.dump(bootstrap, Dumper=yaml.CSafeDumper))
        self._admin_address.unlink(missing_ok=True)
        every = ["--admin-address-path", self._admin_address, "--disable-hot-restart", "--concurrency", workers]
        command = [envoy_binary(), "--config-path", config, *every, "--log-level", "warning", *flags]
        self.process = Child(command, folder / f"{file_name(name)}.log", cpus=cpus)
        self._admin: httpx.AsyncClient | None = None

    @classmethod
    def joining(
        cls,
        node_id: str,
        token: str,
        xds: XdsAddress,
        folder: Path,
        change: Callable[[Bootstrap], None] = as_it_is,
        *,
        workers: int = 2,
        flags: Sequence[str] = (),
        provision: Provision | None = None,
    ) -> Envoy:
        """Start one that joins an xDS server. `change` edits its bootstrap before."""
        bootstrap = yaml.load(bootstrap_for(node_id, token, xds, ANY_PORT, provision or Provision()), yaml.CSafeLoader)
        change(bootstrap)
        # What it logs is looked for: sooner than within the second that the product gives it.
        flags = ("--file-flush-interval-msec", "20", *flags)
        return cls(node_id, bootstrap, folder, workers=workers, flags=flags)

    async def started(self) -> None:
        """Wait for its admin interface. Raises ProcessEndedError."""

        async def knows_its_address() -> bool:
            self.process.check()
            return self._admin_address.exists() and ":" in self._admin_address.read_text()

        await until(knows_its_address, "envoy says where its admin interface is")
        self._admin = plain_http(base_url=f"http://{self._admin_address.read_text().strip()}", timeout=60)

    async def stop(self) -> None:
        """End it. Raises ProcessEndedError if it had ended already, and nobody killed it: no test overlooks a crash."""
        if self._admin is not None:
            await self._admin.aclose()
        crashed = self.process.ended_by_itself
        self.process.kill()
        if crashed:
            raise ProcessEndedError(f"envoy ended on its own; its last words:\n{self.process.last_words()}")

    async def stats(self, pattern: str = "") -> Mapping[str, int]:
        """Counters and gauges whose names match a regular expression, those never touched included."""
        text = (await self._get("/stats", filter=pattern)).text
        pairs = (line.rpartition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.lstrip("-").isdigit()}

    async def stat(self, name: str) -> int:
        """One counter or gauge; 0 while Envoy does not have it."""
        return (await self.stats(f"^{name}$".replace(".", "\\."))).get(name, 0)

    async def hosts(self, cluster: str) -> Mapping[str, Mapping[str, Any]]:
        """The health of the endpoints of a cluster by address; an empty mapping is a healthy one."""
        clusters = (await self._get("/clusters", format="json", filter=f"^{cluster}$")).json()
        return {
            _address_of(host["address"]): {key: value for key, value in host["health_status"].items() if value is True}
            for one in clusters.get("cluster_statuses", ())
            for host in one.get("host_statuses", ())
            if one["name"] == cluster
        }

    async def has_begun(self) -> bool:
        """Tell whether it accepts connections: its first configuration is whole, routes and secrets included.

        Before that its listeners count as active, and nobody listens: workers start last (initialization,
        https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/operations/init).
        """
        return await self.stat("listener_manager.workers_started") == 1

    async def config(self, resource: str) -> list[dict[str, Any]]:
        """A part of its configuration, such as `dynamic_active_secrets`."""
        dump = (await self._get("/config_dump", resource=resource)).json()
        configs: list[dict[str, Any]] = dump.get("configs", [])
        return configs

    async def dump(self) -> str:
        """Its whole configuration, endpoints included, as it tells it to whoever may ask."""
        return (await self._get("/config_dump", include_eds="")).text

    async def all_stats(self) -> str:
        """Every name and value of its statistics."""
        return (await self._get("/stats")).text

    async def listeners(self) -> list[str]:
        """The listeners that it serves, each with its address."""
        return (await self._get("/listeners")).text.splitlines()

    async def memory(self) -> int:
        """How many bytes it has allocated."""
        return int((await self._get("/memory")).json()["allocated"])

    async def _get(self, path: str, **query: str) -> httpx.Response:
        assert self._admin is not None, "not started"
        return await self._admin.get(path, params=query)


def _address_of(address: Mapping[str, Any]) -> str:
    if "socket_address" in address:
        return str(address["socket_address"]["address"])
    return str(address.get("envoy_internal_address", {}).get("server_listener_name", address))
