"""`metadata` of any Kubernetes object, as far as we read it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from controller.api.base import ForeignValue

PAUSED = "beamlit.com/paused"
OVERRIDE = "beamlit.com/override"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


class ObjectMeta(ForeignValue):
    """Name, labels and annotations."""

    name: Annotated[str, Field(min_length=1)]
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
