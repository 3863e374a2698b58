"""Which models are sent to which remote backend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from controller.api.route import ModelRoute
from xds_server.resources.names import ModelKey, is_backend
from xds_server.resources.route import is_direct
from xds_server.snapshot.snapshot import ResourceKey
from xds_server.snapshot.types import CLUSTER


class Backends:
    """The models of each backend cluster, and those of them whose requests go there without a cluster of their own.

    A request that fails over to the backend, or that goes there by the internal listener, passes a cluster of its model
    first. Only a share of the split that is sent to a backend directly shows in the backend's cluster alone.
    """

    def __init__(self) -> None:
        self._backend_of: dict[ModelKey, str | None] = {}
        self._users: dict[str, set[ModelKey]] = defaultdict(set)
        self._direct: dict[str, set[ModelKey]] = defaultdict(set)
        self._last_direct: dict[str, frozenset[ModelKey]] = {}

    def take(self, model: ModelKey, route: ModelRoute | None, keys: Iterable[ResourceKey]) -> None:
        """Take in what was last published for a model; None: it is gone."""
        backend = next((key.name for key in keys if key.type_url == CLUSTER and is_backend(key.name)), None)
        before = self._backend_of.get(model)
        if before is not None:
            self._leave(model, before, for_good=before != backend)
        if route is None:
            self._backend_of.pop(model, None)
            return
        self._backend_of[model] = backend
        if backend is not None and route.remote is not None:
            self._users[backend].add(model)
            is_limited = route.local.max_requests_per_replica is not None
            if is_direct(route.remote, is_limited=is_limited) and route.split.remote:
                self._direct[backend].add(model)
            if self._direct[backend]:
                self._last_direct[backend] = frozenset(self._direct[backend])

    def has(self, model: ModelKey) -> bool:
        """Tell whether a model is served."""
        return model in self._backend_of

    def users(self, backend: str) -> AbstractSet[ModelKey]:
        """Name the models that may be sent to a backend."""
        return self._users.get(backend, frozenset())

    def direct(self, backend: str) -> AbstractSet[ModelKey]:
        """Name the models that are sent there directly, or the last that were: their requests may still be on it."""
        return self._direct.get(backend) or self._last_direct.get(backend, frozenset())

    def _leave(self, model: ModelKey, backend: str, *, for_good: bool) -> None:
        self._users[backend].discard(model)
        self._direct[backend].discard(model)
        if for_good:
            self._last_direct[backend] = self._last_direct.get(backend, frozenset()) - {model}
            if not self._users[backend]:
                del self._users[backend], self._direct[backend], self._last_direct[backend]
