"""Which ports of the gateway are kept for the clients of a namespace, because a Service there leads to them. Pure.

Slices lag behind statuses: a model has left its port, or is gone, while its Service still leads to it. Whoever had the
port by then would be called by the clients of the model before (docs/adr/0060).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from controller.store.objects import ObjectRef

NO_PORTS: frozenset[int] = frozenset()

HolderOf = Callable[[int], ObjectRef | None]
"""Says which model holds a port."""


class KeptPorts:
    """The ports that Services lead to, and for which namespaces they are kept: those of the Services."""

    def __init__(self, holder_of: HolderOf) -> None:
        self._holder_of = holder_of
        self._ports: dict[ObjectRef, frozenset[int]] = {}
        self._services: dict[int, Counter[str]] = {}
        # How many ports are kept for each namespace that none of its models holds.
        self._besides: Counter[str] = Counter()

    def keep(self, service: ObjectRef, ports: frozenset[int], may: Callable[[str, int], bool]) -> frozenset[int]:
        """Keep the ports that a Service leads to, and no others for it; return those that it gave up.

        `may` says whether a port more is kept for a namespace: it has a quota.
        """
        namespace, before = service.namespace, self._ports.pop(service, NO_PORTS)
        for port in before - ports:
            self._drop(port, namespace)
        kept = before & ports
        for port in sorted(ports - before):
            if self.keeps(port, namespace) or may(namespace, port):
                self._add(port, namespace)
                kept |= {port}
        if kept:
            self._ports[service] = kept
        return before - ports

    def keeps(self, port: int, namespace: str) -> bool:
        """Tell whether a port is kept for a namespace."""
        return namespace in self._services.get(port, ())

    def other_than(self, namespace: str, port: int) -> str | None:
        """Name a namespace that a port is kept for, other than this one; None if there is none."""
        return min((one for one in self._services.get(port, ()) if one != namespace), default=None)

    def besides(self, namespace: str, but: int | None = None) -> int:
        """Count the ports kept for a namespace that none of its models holds; `but` is one that does not count."""
        is_one = but is not None and self.keeps(but, namespace) and not self._is_held(but, namespace)
        return self._besides[namespace] - is_one

    def held(self, port: int, namespace: str) -> None:
        """Take in that a model of a namespace holds a port from now on."""
        if self.keeps(port, namespace):
            self._count(namespace, -1)

    def released(self, port: int, namespace: str) -> None:
        """Take in that a model of a namespace holds a port no longer."""
        if self.keeps(port, namespace):
            self._count(namespace, 1)

    def _is_held(self, port: int, namespace: str) -> bool:
        holder = self._holder_of(port)
        return holder is not None and holder.namespace == namespace

    def _count(self, namespace: str, more: int) -> None:
        self._besides[namespace] += more
        if not self._besides[namespace]:
            del self._besides[namespace]

    def _add(self, port: int, namespace: str) -> None:
        if not self.keeps(port, namespace) and not self._is_held(port, namespace):
            self._count(namespace, 1)
        self._services.setdefault(port, Counter())[namespace] += 1

    def _drop(self, port: int, namespace: str) -> None:
        services = self._services[port]
        services[namespace] -= 1
        if services[namespace]:
            return
        del services[namespace]
        if not services:
            del self._services[port]
        if not self._is_held(port, namespace):
            self._count(namespace, -1)
