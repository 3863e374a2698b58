"""What the server tells about its clients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from xds_server.snapshot.snapshot import ResourceKey
from xds_server.stream.protocol.messages import Overdue, Rejection

Protocol = Literal["delta", "sotw"]


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client stream. `stream` is its number on this server; times of rejections are seconds since the epoch.

    `is_debug` clients (node.id empty or `debug/...`) read and carry no traffic: they never count for `Programmed`.
    `initialised` tells whether it ACKed a first answer to everything it asked for with a wildcard.
    """

    stream: int
    protocol: Protocol
    peer: str
    node_id: str
    cluster: str
    user_agent: str
    user_agent_version: str
    connected_at: datetime
    is_debug: bool
    authorised: bool
    initialised: bool
    rejections: tuple[Rejection, ...] = ()
    overdue: tuple[Overdue, ...] = ()


@dataclass(frozen=True, slots=True)
class Holding:
    """How far one client is with some resources: `missing` are those it has not ACKed in the version asked about."""

    client: ClientState
    missing: frozenset[ResourceKey]

    @property
    def complete(self) -> bool:
        """Whether it ACKed all of them."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """A client came, went, or its state changed for `keys` (none for connected and disconnected: all are concerned)."""

    kind: Literal["connected", "disconnected", "acknowledged", "rejected", "overdue"]
    stream: int
    node_id: str
    is_debug: bool
    keys: frozenset[ResourceKey] = frozenset()


def carrying(clients: Iterable[ClientState]) -> frozenset[str]:
    """Name the Envoys that carry traffic; one whose last stream is not yet known to be over is one all the same."""
    return frozenset(one.node_id for one in clients if not one.is_debug)


def is_debug(node_id: str) -> bool:
    """Whether a client of this node id is a reader only."""
    return not node_id or node_id.startswith("debug/")
