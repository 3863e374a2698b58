"""Pods, as far as a measurement of them needs it: what they request, and since when they are ready."""

from __future__ import annotations

from pydantic import AwareDatetime

from controller.api.kubernetes.objects import KubernetesValue
from controller.api.schema.scalars import Quantity


class PodMeta(KubernetesValue):
    """The name and labels of a pod, and since when it is on its way out."""

    name: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: AwareDatetime | None = None


class ResourceRequests(KubernetesValue):
    """What is requested of each resource. What is not there is not requested, which differs from zero."""

    requests: dict[str, Quantity] = {}


class PodContainer(KubernetesValue):
    """A container of a pod. An init container that restarts always is a sidecar (KEP-753)."""

    name: str = ""
    resources: ResourceRequests = ResourceRequests()
    restart_policy: str = ""

    @property
    def is_sidecar(self) -> bool:
        """Whether an init container runs as long as the pod."""
        return self.restart_policy == "Always"


class SpecOfPod(KubernetesValue):
    """What a pod runs; `resources` are those of the pod as a whole (KEP-2837)."""

    containers: tuple[PodContainer, ...] = ()
    init_containers: tuple[PodContainer, ...] = ()
    resources: ResourceRequests = ResourceRequests()
    overhead: dict[str, Quantity] = {}


class PodCondition(KubernetesValue):
    """One condition of a pod, such as Ready."""

    type: str = ""
    status: str = ""
    last_transition_time: AwareDatetime | None = None


class PodStatus(KubernetesValue):
    """How far a pod is."""

    phase: str = ""
    conditions: tuple[PodCondition, ...] = ()
    start_time: AwareDatetime | None = None


class PodObject(KubernetesValue):
    """A `v1` Pod."""

    metadata: PodMeta
    spec: SpecOfPod = SpecOfPod()
    status: PodStatus = PodStatus()
