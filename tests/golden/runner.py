"""From a folder of Kubernetes objects to what comes of them, through the code that serves in earnest.

The store is in memory, the clock stands still, and one Envoy acknowledges everything. That the running server publishes
what is translated here is shown in `test_published`.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from controller.api.destinations import ANYWHERE
from controller.api.kubernetes.endpoints import TrustAll
from controller.api.registry import VALIDATION
from controller.api.resources.configuration import Configuration
from controller.api.schema.values import parse
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.store.objects import ObjectRef, StoredObject
from tests.support.proxies import AllProgrammed
from tests.support.resources import decoded
from tests.support.store import MemoryStore, settled
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.credentials import ServerSecrets
from xds_server.routes.index import ROUTE_KINDS
from xds_server.routes.translation import ServingOptions
from xds_server.snapshot.scope import Role
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, Snapshot
from xds_server.translate import translate

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FILES = {
    "clusters": CLUSTER,
    "endpoints": ENDPOINT,
    "listeners": LISTENER,
    "routes": ROUTE,
    "scoped-routes": SCOPED_ROUTE,
    "secrets": SECRET,
}
# What few cases have; the file is there when it would not be empty.
RARE = frozenset({"scoped-routes", "secrets"})


@dataclass(frozen=True)
class Result:
    """The objects of a store once a controller has decided on them, and the snapshot that an Envoy gets."""

    objects: tuple[StoredObject, ...]
    options: ServingOptions

    @property
    def statuses(self) -> dict[str, Any]:
        """The status of every object that may have a route."""
        routed = (one for one in self.objects if one.ref.kind in ROUTE_KINDS)
        return {f"{one.ref.namespace}/{one.ref.name}": dict(one.status) for one in routed}

    @functools.cached_property
    def snapshot(self) -> Snapshot:
        """What an Envoy gets."""
        return translate(self.objects, self.options).gateway

    def files(self) -> dict[str, Any]:
        """Return what is in the files that a case expects, by name."""
        resources = {
            name: {one.key.name: decoded(one) for one in self.snapshot.by_type[type_url].values()}
            for name, type_url in FILES.items()
        }
        return {
            f"{name}.yaml": content
            for name, content in {"status": self.statuses, **resources}.items()
            if content or name not in RARE
        }


async def result_of(case: Path) -> Result:
    """Run one case: `given.yaml`, and `config.yaml` and `envoys.yaml` (as `EnvoySettings`) if they are there."""
    objects = [
        _stored(raw, index)
        for index, raw in enumerate(yaml.load_all((case / "given.yaml").read_text(), yaml.CSafeLoader), start=1)
    ]
    config = case / "config.yaml"
    configuration = parse(Configuration, yaml.safe_load(config.read_text())) if config.exists() else Configuration()
    destinations = configuration.destinations(ANYWHERE)
    store = MemoryStore(objects)
    controller = Controller(
        store,
        Dependencies(
            proxies=AllProgrammed(),
            clock=lambda: NOW,
            default_remote=configuration.default_remote_backend,
            guard=TrustAll(destinations),
        ),
    )
    running = asyncio.create_task(controller.run())
    await settled()
    assert not running.done(), running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    secrets = ServerSecrets(configuration.default_remote_backend)
    more = case / "envoys.yaml"
    settings = yaml.safe_load(more.read_text()) if more.exists() else {}
    envoys = EnvoySettings(installation="beamlit-golden", destinations=destinations, **settings)
    return Result(tuple(store[one.ref] for one in objects), ServingOptions({Role.GATEWAY: envoys}, secrets))


def _stored(raw: dict[str, Any], index: int) -> StoredObject:
    """Add what a server adds; an object of a case must be one that a server would take."""
    faults = VALIDATION[raw["apiVersion"], raw["kind"]](raw)
    assert not faults, "; ".join(map(str, faults))
    metadata = {
        "namespace": "default",
        "uid": f"00000000-0000-0000-0000-{index:012}",
        "generation": 1,
        "resourceVersion": str(index),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **raw["metadata"],
    }
    return StoredObject(ObjectRef(raw["kind"], metadata["namespace"], metadata["name"]), {**raw, "metadata": metadata})
