"""What is known of a Service that was taken over, and of its models."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.kubernetes.fronting import FINALIZER, SHADOW_OF
from controller.frontend.service_facts import Stood
from controller.frontend.takeover import next_step
from controller.observe.fronting import TakeoverRules, facts_of
from controller.observe.index import ObjectIndex
from controller.runtime.writes import Verb
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch
from tests.support.objects import a_model, a_service
from tests.support.observations import NOW

SERVICE = ObjectRef("Service", "default", "chat")
RULES = TakeoverRules(gateway=ObjectRef("Service", "beamlit-system", "gateway"))
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "route": {
        "port": 10000,
        "shares": {"local": 100},
        "local": {"namespace": "default", "service": "chat-beamlit", "fronted": "chat"},
        "remotes": [],
    },
}


def model(**changes: Any) -> StoredObject:
    """A model whose route follows the shadow of a Service that nobody is led from any more."""
    stored = a_model("chat").stored(status=STATUS)
    metadata = {**stored.raw["metadata"], "finalizers": [FINALIZER], **changes.pop("metadata", {})}
    return StoredObject(stored.ref, {**stored.raw, **changes, "metadata": metadata})


def step_for(model: StoredObject):
    shadow = a_service("chat-beamlit").stored()
    raw = {**shadow.raw, "spec": {"clusterIP": "None", "ports": []}}
    raw["metadata"] = {**raw["metadata"], "labels": {SHADOW_OF: "chat"}}
    index = ObjectIndex("")
    index.apply(Batch(changed=(model, StoredObject(shadow.ref, raw)), complete=True))
    index.refers(model.ref, [SERVICE])
    return next_step(facts_of(index, SERVICE, RULES), Stood(NOW))


UNREADABLE = {"spec": {"model": ["no", "name"]}}
DELETED = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize("changes", [{}, UNREADABLE, DELETED])
def test_a_shadow_stays_while_a_route_follows_it(changes):
    step = step_for(model(**changes))
    assert step.writes == ()
    assert "routes still follow its shadow: default/chat" in step.message


def test_a_deleted_model_that_cannot_be_read_keeps_no_shadow_and_so_does_not_keep_itself():
    (write,) = step_for(model(**UNREADABLE, **DELETED)).writes
    assert (write.verb, write.ref.name) == (Verb.DELETE, "chat-beamlit")
