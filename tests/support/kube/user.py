"""The hand of a user who changes objects, by plain requests: kubectl would be too slow for many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from controller.api.registry import KINDS
from tests.support.kube.cluster import Cluster


class UserHand:
    """Applies and removes objects whose namespace they name themselves, as the administrator."""

    def __init__(self, cluster: Cluster, manager: str = "user") -> None:
        self._cluster = cluster
        self._manager = manager

    async def apply(self, *objects: Mapping[str, Any], status: bool = False) -> None:
        """Apply objects as they are now to be, or only their status."""
        await asyncio.to_thread(self._apply, objects, "/status" if status else "")

    def apply_now(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects where nothing else goes on."""
        self._apply(objects, "")

    async def remove(self, *objects: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self._remove, objects)

    def _apply(self, objects: tuple[Mapping[str, Any], ...], subresource: str) -> None:
        query = {"fieldManager": self._manager, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        with self._cluster.client() as client:
            for raw in objects:
                answer = client.patch(
                    path_of(raw) + subresource, params=query, headers=headers, content=json.dumps(raw).encode()
                )
                assert answer.is_success, answer.text

    def _remove(self, objects: tuple[Mapping[str, Any], ...]) -> None:
        with self._cluster.client() as client:
            for raw in objects:
                client.delete(path_of(raw)).raise_for_status()


def path_of(raw: Mapping[str, Any]) -> str:
    metadata = raw["metadata"]
    return KINDS[raw["kind"]].path(metadata["namespace"], metadata["name"])
