"""ToolDeployment (`deployment.beamlit.com/v1alpha1`): accepted as the original has it, and without effect yet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from controller.api.kubernetes.objects import ObjectMeta
from controller.api.schema.values import ApiValue, ForeignValue


class ToolDeploymentSpec(ApiValue):
    """What a tool is. It has no effect yet."""

    foo: str = ""
    """An example. It has no effect."""


class ToolDeploymentStatus(ForeignValue):
    """What was found of a tool: nothing yet."""


class ToolDeployment(ApiValue):
    """A tool or MCP server. It has no effect yet."""

    api_version: Literal["deployment.beamlit.com/v1alpha1"] = "deployment.beamlit.com/v1alpha1"
    kind: Literal["ToolDeployment"] = "ToolDeployment"
    metadata: ObjectMeta
    spec: ToolDeploymentSpec = ToolDeploymentSpec()
    # Nobody's to write yet.
    status: Annotated[Any, Field(exclude=True)] = None
