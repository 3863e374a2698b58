"""From a folder of Kubernetes objects to what comes of them, through the code that serves in earnest.

The store is in memory, the clock stands still, and one Envoy acknowledges everything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from controller.api.registry import VALIDATION
from controller.api.resources.configuration import Configuration
from controller.api.schema.values import parse
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.store.objects import ObjectRef, StoredObject
from tests.support.proxies import AllProgrammed
from tests.support.resources import decoded
from tests.support.store import MemoryStore, settled
from xds_server.resources.settings import EnvoySettings
from xds_server.routes.credentials import MODEL, OwnSecrets
from xds_server.routes.delivery import Delivery
from xds_server.snapshot.snapshot import CLUSTER, EMPTY, ENDPOINT, LISTENER, ROUTE, SECRET, ResourceKey, Snapshot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FILES = {"clusters": CLUSTER, "endpoints": ENDPOINT, "listeners": LISTENER, "routes": ROUTE, "secrets": SECRET}
# What few cases have; the file is there when it would not be empty.
RARE = frozenset({"secrets"})


class LastSnapshot:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = EMPTY

    def publish(self, snapshot: Snapshot, changed: frozenset[ResourceKey]) -> None:
        self.snapshot = snapshot


@dataclass(frozen=True)
class Result:
    """The status of every model, and the snapshot that an Envoy gets."""

    statuses: dict[str, Any]
    snapshot: Snapshot

    def files(self) -> dict[str, str]:
        """Render the files that a case expects, by name."""
        resources = {
            name: {one.key.name: decoded(one) for one in self.snapshot.by_type[type_url].values()}
            for name, type_url in FILES.items()
        }
        return {
            f"{name}.yaml": yaml.safe_dump(content, sort_keys=True, width=120)
            for name, content in {"status": self.statuses, **resources}.items()
            if content or name not in RARE
        }


async def result_of(case: Path) -> Result:
    """Run one case: `given.yaml`, and `config.yaml` if there is one."""
    objects = [
        _stored(raw, index) for index, raw in enumerate(yaml.safe_load_all((case / "given.yaml").read_text()), start=1)
    ]
    config = case / "config.yaml"
    configuration = parse(Configuration, yaml.safe_load(config.read_text())) if config.exists() else Configuration()
    store, published = MemoryStore(objects), LastSnapshot()
    controller = Controller(
        store,
        Dependencies(
            proxies=AllProgrammed(),
            clock=lambda: NOW,
            on_decision=lambda model, decision: None,
            default_remote=configuration.default_remote_backend,
        ),
    )
    running = [
        asyncio.create_task(controller.run()),
        asyncio.create_task(
            Delivery(store, published, EnvoySettings(), OwnSecrets(configuration.default_remote_backend)).run()
        ),
    ]
    await settled()
    for task in running:
        assert not task.done(), task.result()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    models = [one.ref for one in objects if one.ref.kind == MODEL]
    return Result({f"{ref.namespace}/{ref.name}": dict(store[ref].status) for ref in models}, published.snapshot)


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
