"""What `beamlit restore` looks for, and where."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FRONTED_KEY
from controller.api.timing import REAL
from controller.programs.restore import RestoreOptions, _Cluster
from controller.reconcile.restoration import TakenOver
from controller.store.objects import ObjectRef
from controller.store.protocol import ForbiddenError

CHAT = ObjectRef("Service", "shared", "chat")
AWAY, BESIDE = (ObjectRef("ModelDeployment", namespace, "m") for namespace in ("team", "shared"))


def a_model(ref: ObjectRef) -> dict[str, Any]:
    local = {"namespace": "shared", "service": "chat-beamlit", "fronted": "chat"}
    metadata = {"namespace": ref.namespace, "name": ref.name, "uid": ref.namespace, "resourceVersion": "1"}
    return {"kind": ref.kind, "metadata": metadata, "spec": {}, "status": {"route": {"local": local}}}


SERVICE = {
    "kind": "Service",
    "metadata": {"namespace": "shared", "name": "chat", "uid": "1", "resourceVersion": "1"},
    "spec": {"selector": {FRONTED_KEY: "true"}},
}


class Client:
    """Lists a Service that is taken over, and models in front of it, of all namespaces for who may see them."""

    namespace = "default"

    def __init__(self, *, sees_all: bool) -> None:
        self._sees_all = sees_all

    async def request(self, method: str, path: str, **_: object) -> dict[str, Any]:
        assert method == "GET"
        if not path.endswith("/modeldeployments"):
            return {"items": [SERVICE] if path.endswith("/services") else []}
        if "/namespaces/" in path:
            return {"items": [a_model(BESIDE)] if "/shared/" in path else []}
        if not self._sees_all:
            raise ForbiddenError("cannot list")
        return {"items": [a_model(AWAY), a_model(BESIDE)]}


def found(said: list[str], *, sees_all: bool) -> TakenOver:
    options = RestoreOptions(REAL, None, None, services=(("shared", "chat"),))
    cluster = _Cluster(Client(sees_all=sees_all))  # type: ignore[arg-type]
    return asyncio.run(cluster.find(options, said.append))


@pytest.mark.parametrize(("sees_all", "models"), [(True, {AWAY, BESIDE}), (False, {BESIDE})])
def test_a_named_service_is_found_with_the_models_of_other_namespaces(sees_all: bool, models: set[ObjectRef]) -> None:
    """Their routes follow its shadow, which goes."""
    said: list[str] = []
    it = found(said, sees_all=sees_all)
    assert (set(it.services), set(it.models)) == ({CHAT}, models)
    assert ["not seen" in one for one in said] == ([] if sees_all else [True])
