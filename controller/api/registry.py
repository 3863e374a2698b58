"""The kinds of objects that are read, and how each is validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel

from controller.api.kubernetes.objects import EndpointSlice, Secret, Service, Workload
from controller.api.resources import policy, tool
from controller.api.resources.model import API_VERSION, KIND, ModelDeployment
from controller.api.resources.policy import Policy
from controller.api.resources.tool import ToolDeployment
from controller.api.schema.errors import FieldError, InvalidObjectError
from controller.api.schema.values import parse

Validate = Callable[[Mapping[str, Any]], Sequence[FieldError]]


def faults(schema: type[BaseModel], raw: Mapping[str, Any]) -> Sequence[FieldError]:
    """List what is wrong with an object; nothing if it fits its schema."""
    try:
        parse(schema, raw)
    except InvalidObjectError as error:
        return error.errors
    return ()


VALIDATION: Mapping[tuple[str, str], Validate] = {
    (API_VERSION, KIND): partial(faults, ModelDeployment),
    (policy.API_VERSION, policy.KIND): partial(faults, Policy),
    (tool.API_VERSION, tool.KIND): partial(faults, ToolDeployment),
    ("v1", "Service"): partial(faults, Service),
    ("v1", "Secret"): partial(faults, Secret),
    ("discovery.k8s.io/v1", "EndpointSlice"): partial(faults, EndpointSlice),
    ("apps/v1", "Deployment"): partial(faults, Workload),
    ("apps/v1", "StatefulSet"): partial(faults, Workload),
}
