"""A kubelet as metrics-server sees it: what containers use, as text at /metrics/resource. No container runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.exposed import LOOPBACK, exposed
from tests.support.network import unused_port

NODE = "node-1"
MEBIBYTE = 1024**2


@dataclass(slots=True)
class _Container:
    """What one uses: millicores and bytes. Its counter of CPU time grows as it is looked at."""

    started_ms: int
    counted_ms: int
    millicores: float = 0
    memory: int = MEBIBYTE
    microseconds: int = 1_000_000
    """CPU time until `counted_ms`. metrics-server takes 0 for a container that is not there yet."""

    def count(self, now_ms: int) -> None:
        self.microseconds += round(self.millicores * (now_ms - self.counted_ms))
        self.counted_ms = now_ms


@dataclass(slots=True)
class Kubelet:
    """One that runs: tests say what containers use, metrics-server asks."""

    port: int
    _containers: dict[tuple[str, str, str], _Container] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Kubelet]:
        kubelet = cls(unused_port())
        with exposed(kubelet.port, "/metrics/resource", kubelet.text):
            yield kubelet

    def uses(
        self, namespace: str, pod: str, container: str = "main", *, millicores: float = 0, memory: int = MEBIBYTE
    ) -> None:
        """Let a container use so much from now on. Memory is in bytes, and more than none."""
        now = _now_ms()
        with self._lock:
            found = self._containers.setdefault((namespace, pod, container), _Container(now, now))
            found.count(now)
            found.millicores, found.memory = millicores, memory

    def forget(self, namespace: str, pod: str | None = None) -> None:
        """Say no more of a pod, or of a whole namespace."""
        with self._lock:
            gone = [key for key in self._containers if key[0] == namespace and pod in (None, key[1])]
            for key in gone:
                del self._containers[key]

    def text(self) -> str:
        """What all containers have used until now, as a kubelet says it."""
        now = _now_ms()
        with self._lock:
            lines = [line for key, one in self._containers.items() for line in _lines(key, one, now)]
        of_the_node = (f"node_cpu_usage_seconds_total {now / 1000} {now}", f"node_memory_working_set_bytes 1 {now}")
        return "\n".join((*of_the_node, *lines, ""))

    @property
    def node(self) -> dict[str, Any]:
        """The Node that it is, with the port at which it answers."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE},
            "status": {
                "addresses": [{"type": "InternalIP", "address": LOOPBACK}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }


def _lines(key: tuple[str, str, str], container: _Container, now_ms: int) -> Iterator[str]:
    container.count(now_ms)
    namespace, pod, name = key
    labels = f'{{container="{name}",namespace="{namespace}",pod="{pod}"}}'
    seconds, microseconds = divmod(container.microseconds, 1_000_000)
    # Long enough ago: it takes a container younger than its interval for one that was born with the counter at 0.
    yield f"container_start_time_seconds{labels} {container.started_ms / 1000 - 3600}"
    yield f"container_cpu_usage_seconds_total{labels} {seconds}.{microseconds:06} {now_ms}"
    yield f"container_memory_working_set_bytes{labels} {container.memory} {now_ms}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
