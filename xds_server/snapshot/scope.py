"""Scopes: which clients see the same snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self


class Role(Enum):
    """What a proxy is for: all traffic that comes to the gateway, or what one workload sends."""

    GATEWAY = "gateway"
    SIDECAR = "sidecar"


class UnknownScopeError(ValueError):
    """There is no such scope; the message says what is wrong with the role or the namespace."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The clients of one role, for a sidecar also of one namespace: what is published for a scope, all of it see.

    The gateway serves every namespace, so it has none.
    """

    role: Role
    namespace: str | None = None

    def __str__(self) -> str:
        return f"{self.role.value} of namespace {self.namespace!r}" if self.namespace else self.role.value

    @classmethod
    def of(cls, role: str, namespace: str) -> Self:
        """Return the scope of a client that says this of itself. Raises UnknownScopeError.

        One that says no role is a gateway. Whoever says one that is not known is shown nothing rather than everything.
        """
        try:
            known = Role(role or Role.GATEWAY.value)
        except ValueError:
            roles = ", ".join(one.value for one in Role)
            raise UnknownScopeError(f"unknown role {role!r} in the node's metadata; there are: {roles}") from None
        if known is Role.GATEWAY:
            return cls(known)
        if not namespace:
            raise UnknownScopeError(f"a {known.value} must say its namespace in the node's metadata")
        return cls(known, namespace)


GATEWAY = Scope(Role.GATEWAY)
