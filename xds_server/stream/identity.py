"""Who a client is by its certificate or token, and what a client of that name may say it is.

A certificate speaks by its subject alternative names: a URI, as SPIFFE has it, or a DNS name. The table that the server
was started with binds names to grants. While it has no entry a convention holds: a certificate with the URI
`spiffe://beamlit/GRANT` has that grant. A token speaks by its ServiceAccount, whose grants are in the table alone. What
no grant covers is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
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


ACCOUNT = "system:serviceaccount:"
"""What the name of a ServiceAccount begins with, in Kubernetes' own words; its namespace and name follow."""
OWN_POD = "@pod"
"""In place of a node id: the name of the pod that a token is bound to."""

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
        if kind is None or not wants <= len(rest) <= most or not all(map(_PART.fullmatch, _bare(rest, wants))):
            raise ValueError(f"{text!r} is not {_FORMS}")
        namespace, node = [*rest[:wants], *[None] * (1 - wants)], [*rest[wants:], None]
        return cls(kind, namespace[0], node[0])

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind.value, self.namespace, self.node) if part)

    def of_pod(self, pod: str) -> ClientGrant | None:
        """Return the grant of who holds a token of this pod: with its name for `@pod`, None if there is none."""
        if self.node != OWN_POD:
            return self
        return replace(self, node=pod) if pod else None

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


def _bare(parts: list[str], wants: int) -> list[str]:
    """Leave out the node id if it is that of the pod: there is nothing to check of it."""
    return parts[:wants] if parts[wants:] == [OWN_POD] else parts


CONTROLLER = ClientGrant(GrantKind.CONTROLLER)


@dataclass(frozen=True, slots=True)
class ClientTable:
    """Which name of a certificate has which grants. Without entries the convention alone holds.

    `accounts` are those of ServiceAccounts, by their names: no certificate has them, whatever its names are.
    """

    entries: Mapping[str, frozenset[ClientGrant]] = field(default_factory=dict)
    accounts: Mapping[str, frozenset[ClientGrant]] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, ClientGrant]]) -> Self:
        """Build it from pairs of a name and a grant; a name may have several."""
        entries: dict[str, frozenset[ClientGrant]] = {}
        accounts: dict[str, frozenset[ClientGrant]] = {}
        for name, grant in pairs:
            table = accounts if name.startswith(ACCOUNT) else entries
            table[name] = table.get(name, frozenset()) | {grant}
        return cls(entries, accounts)

    def grants(self, names: Collection[str]) -> frozenset[ClientGrant]:
        """Return all that a client may be whose certificate has these names."""
        found: set[ClientGrant] = set()
        for name in names:
            found |= self.entries[name] if name in self.entries else self._by_convention(name)
        return frozenset(found)

    def grants_of_account(self, name: str, pod: str) -> frozenset[ClientGrant]:
        """Return all that a ServiceAccount may be by a token that is bound to this pod (empty: to none)."""
        found = (grant.of_pod(pod) for grant in self.accounts.get(name, frozenset()))
        return frozenset(one for one in found if one is not None)

    def _by_convention(self, name: str) -> frozenset[ClientGrant]:
        if self.entries or not name.startswith(TRUST_DOMAIN):
            return frozenset()
        try:
            grant = ClientGrant.parse(name.removeprefix(TRUST_DOMAIN))
        except ValueError:
            return frozenset()
        return frozenset() if grant.node == OWN_POD else frozenset((grant,))


def parse_binding(text: str) -> tuple[str, ClientGrant]:
    """Parse `NAME=GRANT`, such as `spiffe://cluster.local/ns/a/sa/envoy=gateway`. Raises ValueError."""
    name, separator, grant = text.rpartition("=")
    if not separator or not name or len(name) > _LONGEST_NAME or not name.isprintable() or " " in name:
        raise ValueError(f"{text!r} is not NAME=GRANT, such as spiffe://cluster.local/ns/beamlit/sa/envoy=gateway")
    bound = ClientGrant.parse(grant)
    if name.startswith(ACCOUNT):
        if not is_account(name):
            raise ValueError(f"{name!r} is not {ACCOUNT}NAMESPACE:NAME")
    elif bound.node == OWN_POD:
        raise ValueError(f"{text!r}: a certificate is bound to no pod, so {OWN_POD} is for {ACCOUNT}NAMESPACE:NAME")
    return name, bound


def is_account(name: str) -> bool:
    """Tell whether it is the whole name of a ServiceAccount, `system:serviceaccount:NAMESPACE:NAME`."""
    return _ACCOUNT.fullmatch(name) is not None


# Namespace and name as RFC 1123 has them, which Kubernetes asks for.
_ACCOUNT = re.compile(rf"{ACCOUNT}[a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?:[a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?")


_LONGEST_NAME = 2048
"""Of a name in a certificate, in characters, as SPIFFE bounds it."""


def certified_names(auth_context: Mapping[str, Collection[bytes]]) -> tuple[str, ...]:
    """Return the URIs and DNS names of a client's certificate, as gRPC tells them; none without a certificate."""
    said = [*auth_context.get("peer_uri", ()), *auth_context.get("peer_dns", ())]
    return tuple(one.decode(errors="replace") for one in said if 0 < len(one) <= _LONGEST_NAME)
