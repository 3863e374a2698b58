"""What the metrics APIs of Kubernetes answer: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from controller.api.kubernetes.objects import KubernetesValue
from controller.api.schema.scalars import Quantity, WholeNumber

Seconds = Annotated[WholeNumber, Field(ge=0)]


class Named(KubernetesValue):
    """What something was measured of."""

    name: str = ""


class ContainerUsage(KubernetesValue):
    """What one container used."""

    name: str = ""
    usage: dict[str, Quantity] = {}


class PodUsage(KubernetesValue):
    """What the containers of one pod used, over a window that ended at a moment (`metrics.k8s.io/v1beta1`)."""

    metadata: Named
    timestamp: AwareDatetime | None = None
    window: str = ""
    """A duration as Go writes it, such as 10.06s."""
    containers: tuple[ContainerUsage, ...] = ()


class MetricValue(KubernetesValue):
    """One value of a custom metric. The version v1beta1 has it in the same fields, apart from the metric's name."""

    described_object: Named = Named()
    timestamp: AwareDatetime | None = None
    window_seconds: Seconds = 0
    value: Quantity


class ExternalMetricValue(KubernetesValue):
    """One series of an external metric."""

    timestamp: AwareDatetime | None = None
    window: Seconds = 0
    value: Quantity


class GroupVersion(KubernetesValue):
    """One version of a group of the API, as `apps/v1`."""

    group_version: str = ""


class ApiGroup(KubernetesValue):
    """The versions of a group of the API that are served."""

    versions: tuple[GroupVersion, ...] = ()


class ApiResource(KubernetesValue):
    """A resource of the API: what it is called in paths, and the kind of its objects."""

    name: str = ""
    kind: str = ""


class ApiResourceList(KubernetesValue):
    """The resources of one version of a group."""

    resources: tuple[ApiResource, ...] = ()
