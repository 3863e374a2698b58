"""What objects with `behavior.mode: Shadow` would use, and what that lacks (docs/adr/0030). Pure.

Their routes have no remote backend, so that nothing can leave. Who tries a policy is told all the same when nothing
could leave with another mode either, as for want of a credential.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.api.contract.route import Remote
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.model import ModelDeployment
from controller.api.schema.errors import InvalidObjectError
from controller.intent.intent import intent_of_model
from controller.store.objects import StoredObject
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.validation import remotes_asked_for


@dataclass(frozen=True, slots=True)
class ShadowedProblem(ServingProblem):
    """Why nothing could leave for a remote backend that `behavior.mode: Shadow` keeps from being used anyway."""

    remote: Remote


@dataclass(frozen=True, slots=True)
class Shadowed:
    """The remote backends that requests would leave for, were it not for `behavior.mode: Shadow`.

    `spec` is what they were read from.
    """

    remotes: tuple[Remote, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)


ReadShadowed = Callable[[StoredObject], Shadowed]
"""Reads which remote backends an object would use but for its mode."""


def shadowed_with(default: RemoteBackend | None) -> ReadShadowed:
    """Read what objects in Shadow would use, where this is the default backend; of all others it is nothing."""

    def read(stored: StoredObject) -> Shadowed:
        spec = stored.raw.get("spec") or {}
        match spec:
            case {"offloadingConfig": {"behavior": {"mode": "Shadow"}}}:
                with contextlib.suppress(InvalidObjectError):
                    intent = intent_of_model(stored.parsed_as(ModelDeployment), stored.generation)
                    return Shadowed(remotes_asked_for(intent, default) if intent.terms.enabled else (), spec)
        return Shadowed(spec=spec)

    return read
