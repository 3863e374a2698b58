"""Where a publisher publishes to, in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import EMPTY, SHORT, ResourceKey, Snapshot


class LastSnapshot:
    """A sink that has the last snapshot of each scope, and by type and name what each publication changed."""

    def __init__(self) -> None:
        self.snapshots: dict[Scope, Snapshot] = {}
        self.publications: list[tuple[Scope, set[tuple[str, str]]]] = []
        self._published = asyncio.Event()

    def publish(self, snapshot: Snapshot, changed: frozenset[ResourceKey], scope: Scope = GATEWAY) -> None:
        self.snapshots[scope] = snapshot
        self.publications.append((scope, {(SHORT[key.type_url], key.name) for key in changed}))
        self._published.set()

    @property
    def snapshot(self) -> Snapshot:
        """The last one of the gateway."""
        return self.snapshots.get(GATEWAY, EMPTY)

    @property
    def changes(self) -> list[set[tuple[str, str]]]:
        """What each publication changed, in whichever scope."""
        return [changed for _, changed in self.publications]

    @property
    def names(self) -> set[tuple[str, str]]:
        """What is in it, by type and name."""
        return {(SHORT[type_url], name) for type_url, of_type in self.snapshot.by_type.items() for name in of_type}

    @property
    def bodies(self) -> Mapping[ResourceKey, bytes]:
        """What is in it, as it is sent."""
        return {one.key: one.body for of_type in self.snapshot.by_type.values() for one in of_type.values()}

    async def wait_for_next(self) -> None:
        """Wait for what is published after this."""
        self._published.clear()
        await self._published.wait()
