"""Who a client is by its certificate, and what a client of that name may say it is.

A certificate speaks by its subject alternative names: a URI, as SPIFFE has it, or a DNS name. The table that the server
was started with binds names to grants. While it has no entry a convention holds: a certificate with the URI
`spiffe://beamlit/GRANT` has that grant. What no grant covers is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from xds_server.snapshot.scope import Role
from xds_server.stream.wire import Node

TRUST_DOMAIN = "spiffe://beamlit/"
"""What the URI of a certificate begins with that names its grant itself."""


class GrantKind(Enum):
    """What a client is for."""

    GATEWAY = "gateway"
    SIDECAR = "sidecar"
    READER = "reader"
    CONTROLLER = "controller"


_FORMS = "gateway[/NODE], sidecar/NAMESPACE[/NODE], reader or controller"
_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NAMESPACES = {GrantKind.SIDECAR: 1}
_NODES = {GrantKind.GATEWAY, GrantKind.SIDECAR}


@dataclass(frozen=True, slots=True)
class ClientGrant:
    """What the holder of a certificate may say it is.

    * `gateway[/NODE]`: an Envoy of the gateway, of any node id or of this one.
    * `sidecar/NAMESPACE[/NODE]`: a sidecar of that namespace, of any node id or of this one.
    * `reader`: somebody who looks at what is served, but for secrets, and counts for nothing.
    * `controller`: who reads the reports; nothing of xDS.
    """

    kind: GrantKind
    namespace: str | None = None
    node: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `gateway/envoy-1`. Raises ValueError, which says what there is."""
        first, *rest = text.split("/")
        kind = next((one for one in GrantKind if one.value == first), None)
        wants = _NAMESPACES.get(kind, 0) if kind else 0
        most = wants + (kind in _NODES)
        if kind is None or not wants <= len(rest) <= most or not all(map(_PART.fullmatch, rest)):
            raise ValueError(f"{text!r} is not {_FORMS}")
        namespace, node = [*rest[:wants], *[None] * (1 - wants)], [*rest[wants:], None]
        return cls(kind, namespace[0], node[0])

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind.value, self.namespace, self.node) if part)

    @property
    def is_of_xds(self) -> bool:
        """Whether its holder may call any method of this server at all."""
        return self.kind is not GrantKind.CONTROLLER

    def lets_join(self, node: Node) -> bool:
        """Whether its holder may be this node, and see the secrets of that. A reader's node id names nobody."""
        if self.node is not None and not node.is_debug and node.id != self.node:
            return False
        match self.kind, node.scope.role:
            case GrantKind.GATEWAY, Role.GATEWAY:
                return True
            case GrantKind.SIDECAR, Role.SIDECAR:
                return node.scope.namespace == self.namespace
        return False


CONTROLLER = ClientGrant(GrantKind.CONTROLLER)


@dataclass(frozen=True, slots=True)
class ClientTable:
    """Which name of a certificate has which grants. Without entries the convention alone holds."""

    entries: Mapping[str, frozenset[ClientGrant]] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, ClientGrant]]) -> Self:
        """Build it from pairs of a name and a grant; a name may have several."""
        entries: dict[str, frozenset[ClientGrant]] = {}
        for name, grant in pairs:
            entries[name] = entries.get(name, frozenset()) | {grant}
        return cls(entries)

    def grants(self, names: Collection[str]) -> frozenset[ClientGrant]:
        """Return all that a client may be whose certificate has these names."""
        found: set[ClientGrant] = set()
        for name in names:
            found |= self.entries[name] if name in self.entries else self._by_convention(name)
        return frozenset(found)

    def _by_convention(self, name: str) -> frozenset[ClientGrant]:
        if self.entries or not name.startswith(TRUST_DOMAIN):
            return frozenset()
        try:
            return frozenset((ClientGrant.parse(name.removeprefix(TRUST_DOMAIN)),))
        except ValueError:
            return frozenset()


def parse_binding(text: str) -> tuple[str, ClientGrant]:
    """Parse `NAME=GRANT`, such as `spiffe://cluster.local/ns/a/sa/envoy=gateway`. Raises ValueError."""
    name, separator, grant = text.rpartition("=")
    if not separator or not name or len(name) > _LONGEST_NAME or not name.isprintable() or " " in name:
        raise ValueError(f"{text!r} is not NAME=GRANT, such as spiffe://cluster.local/ns/beamlit/sa/envoy=gateway")
    return name, ClientGrant.parse(grant)


_LONGEST_NAME = 2048
"""Of a name in a certificate, in characters, as SPIFFE bounds it."""


def certified_names(auth_context: Mapping[str, Collection[bytes]]) -> tuple[str, ...]:
    """Return the URIs and DNS names of a client's certificate, as gRPC tells them; none without a certificate."""
    said = [*auth_context.get("peer_uri", ()), *auth_context.get("peer_dns", ())]
    return tuple(one.decode(errors="replace") for one in said if 0 < len(one) <= _LONGEST_NAME)
