"""Every kind of object that the programs know: how it is called, what reads it, and what each program may do with it.

The one table from which come the paths of the Kubernetes API, the checks of a folder of YAML, the custom resource
definitions and the roles of the programs (`controller.install`), and the lists of what is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from controller.api.contract.credentials import CREDENTIAL, SENT, SERVING
from controller.api.contract.route import RouteKind
from controller.api.contract.status import ModelDeploymentStatus
from controller.api.kubernetes import objects
from controller.api.resources.model import ModelDeployment, ModelDeploymentSpec
from controller.api.resources.policy import Policy, PolicySpec, PolicyStatus
from controller.api.resources.tool import ToolDeployment, ToolDeploymentSpec, ToolDeploymentStatus
from controller.api.schema.errors import FieldError, InvalidObjectError
from controller.api.schema.values import parse


class Program(StrEnum):
    """A program that has rights in a cluster."""

    CONTROLLER = "controller"
    XDS_SERVER = "xds-server"


READ = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one program may do with the objects of a kind, and why: a rule of its role.

    It holds in all namespaces that the program watches; a grant `at_home` in the one that the program runs in. One that
    is `reserved` is not used yet: it is there so that the version which uses it needs no new rights. One `for_takeover`
    is in a role of its own, which is bound only where Services are taken over.
    """

    program: Program
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    at_home: bool = False
    reserved: bool = False
    for_takeover: bool = False

    @property
    def is_watch(self) -> bool:
        """Whether the program keeps up with all objects of the kind, in all namespaces that it watches."""
        return self.verbs == READ and not (self.at_home or self.reserved)


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One column of `kubectl get`; a `wide` one appears with `-o wide` only."""

    name: str
    json_path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """What a kind of ours has besides: what its CustomResourceDefinition says."""

    short_name: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[PrinterColumn, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its names in the Kubernetes API (`group` is empty for core), and what is done with it here.

    All kinds are namespaced. `schema` reads an object; None for kinds that are only written, or are asked for where
    they are needed. Objects without the label of `label_selector` are not seen. A cluster may lack a kind that is
    `optional`, and gain it while a program runs: until then it has no such objects. It may serve such a kind in one of
    `earlier_versions` alone.
    """

    kind: str
    group: str
    version: str
    plural: str
    schema: type[BaseModel] | None
    grants: tuple[Grant, ...]
    label_selector: str = ""
    definition: Definition | None = None
    optional: bool = False
    earlier_versions: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As objects carry it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As kubectl and RBAC call it: `services`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of all objects, of those in one namespace, of one object, or of a part of it such as `status`."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{place}/" + "/".join(filter(None, (self.plural, name, subresource)))


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_AGE = PrinterColumn("AGE", ".metadata.creationTimestamp", "The time since the object was made.", "date")

MODEL_DEPLOYMENT = Kind(
    kind=RouteKind.MODEL.value,
    group="deployment.beamlit.com",
    version="v1alpha1",
    plural="modeldeployments",
    schema=ModelDeployment,
    grants=(
        Grant(Program.CONTROLLER, READ, "The models that it decides about."),
        Grant(
            Program.CONTROLLER,
            ("patch", "update"),
            "What it decided: the status alone, never a spec. It patches by server-side apply, and updates where "
            "another manager has left fields.",
            subresource="status",
        ),
        Grant(
            Program.CONTROLLER,
            ("patch",),
            "The finalizer of a model that fronts a Service, so that its deletion waits until the Service is as it "
            "was: nothing else of it.",
            for_takeover=True,
        ),
        Grant(Program.XDS_SERVER, READ, "What was decided: the route in the status of each model."),
    ),
    definition=Definition(
        short_name="mdep",
        spec=ModelDeploymentSpec,
        status=ModelDeploymentStatus,
        columns=(
            PrinterColumn("MODEL", ".spec.model", "The name of the model."),
            PrinterColumn("READY", _condition("Ready", "status"), "Whether Envoy serves the route asked for."),
            PrinterColumn("PORT", ".status.servingPort", "The port on the gateway that serves the model.", "integer"),
            PrinterColumn("LOCAL", ".status.local.summary", "The replicas that are ready, of all there are."),
            PrinterColumn(
                "SPLIT", ".status.split.summary", "The shares of the requests that stay and that leave, in percent."
            ),
            PrinterColumn("REASON", ".status.reason", "Why the model is not served, or why the split is what it is."),
            PrinterColumn("FRONTEND", ".status.frontend", "How clients reach the model.", wide=True),
            PrinterColumn("REMOTE", ".status.remote.host", "The remote backend.", wide=True),
            PrinterColumn(
                "PROXIES", _condition("Programmed", "reason"), "Whether every Envoy has the route.", wide=True
            ),
            _AGE,
        ),
    ),
)

TOOL_DEPLOYMENT = Kind(
    kind=RouteKind.TOOL.value,
    group="deployment.beamlit.com",
    version="v1alpha1",
    plural="tooldeployments",
    schema=ToolDeployment,
    grants=(
        Grant(
            Program.CONTROLLER, READ, "Tools are not served yet; the version that does needs no more.", reserved=True
        ),
    ),
    definition=Definition("tdep", ToolDeploymentSpec, ToolDeploymentStatus, (_AGE,)),
)

POLICY = Kind(
    kind="Policy",
    group="authorization.beamlit.com",
    version="v1alpha1",
    plural="policies",
    schema=Policy,
    grants=(
        Grant(
            Program.CONTROLLER,
            READ,
            "Policies are not enforced yet; the version that does needs no more.",
            reserved=True,
        ),
    ),
    definition=Definition(
        "bpol",
        PolicySpec,
        PolicyStatus,
        (PrinterColumn("TYPE", ".spec.type", "What is limited: places or kinds of machines."), _AGE),
    ),
)

SERVICE = Kind(
    kind="Service",
    group="",
    version="v1",
    plural="services",
    schema=objects.Service,
    grants=(
        Grant(Program.CONTROLLER, READ, "The Service that each model fronts: its ports."),
        Grant(
            Program.XDS_SERVER,
            READ,
            "Whether the Service of a route permits the model, and has its endpoints written by hand.",
        ),
        Grant(
            Program.CONTROLLER,
            ("create", "patch", "delete"),
            "The selector of a Service that is taken over, by one key; its shadow, a Service beside it that has its "
            "pods; and a Service that a model asks for at the gateway.",
            for_takeover=True,
        ),
    ),
)

ENDPOINT_SLICE = Kind(
    kind="EndpointSlice",
    group="discovery.k8s.io",
    version="v1",
    plural="endpointslices",
    schema=objects.EndpointSlice,
    grants=(
        Grant(Program.CONTROLLER, READ, "The replicas of each model: how many are ready."),
        Grant(
            Program.CONTROLLER,
            READ,
            "Where the xDS servers are, which say what Envoys acknowledged, and where the gateways are.",
            at_home=True,
        ),
        Grant(
            Program.CONTROLLER,
            ("create", "patch", "delete"),
            "The slices that lead clients of a Service that is taken over, or made for a model, to the gateway.",
            for_takeover=True,
        ),
        Grant(Program.XDS_SERVER, READ, "The addresses of the replicas of each model."),
        Grant(
            Program.XDS_SERVER, READ, "How many Envoys of the gateway share what replicas take at most.", at_home=True
        ),
    ),
)

_WORKLOAD = Grant(Program.CONTROLLER, READ, "The workload of each model: Envoy checks replicas by its readiness probe.")

DEPLOYMENT = Kind(
    kind="Deployment", group="apps", version="v1", plural="deployments", schema=objects.Workload, grants=(_WORKLOAD,)
)

STATEFUL_SET = Kind(
    kind="StatefulSet", group="apps", version="v1", plural="statefulsets", schema=objects.Workload, grants=(_WORKLOAD,)
)

REFERENCE_GRANT = Kind(
    kind="ReferenceGrant",
    group="gateway.networking.k8s.io",
    version="v1",
    plural="referencegrants",
    schema=objects.ReferenceGrant,
    grants=(
        Grant(
            Program.CONTROLLER,
            READ,
            "Which namespaces may refer to the Services and workloads of another; there are none without the Gateway "
            "API.",
        ),
        Grant(Program.XDS_SERVER, READ, "Whether the namespace of the Service of a route permits the model."),
    ),
    optional=True,
    earlier_versions=("v1beta1",),
)

SECRET = Kind(
    kind="Secret",
    group="",
    version="v1",
    plural="secrets",
    schema=objects.Secret,
    # Whoever owns a Secret says that it may leave the cluster (docs/adr/0057): all others never come here.
    label_selector=f"{CREDENTIAL} in ({SENT},{SERVING})",
    grants=(
        Grant(
            Program.XDS_SERVER,
            READ,
            "The credentials that remote backends refer to, and the certificates of models with TLS. It asks for those "
            "with the label beamlit.com/credential; a role cannot say that. No other program reads Secrets.",
        ),
    ),
)

POD = Kind(
    kind="Pod",
    group="",
    version="v1",
    plural="pods",
    schema=None,
    grants=(
        Grant(
            Program.CONTROLLER,
            ("list",),
            "The pods that metrics are measured of, for models with such metrics: what they request, and which are "
            "ready.",
        ),
    ),
)

POD_METRICS = Kind(
    kind="PodMetrics",
    group="metrics.k8s.io",
    version="v1beta1",
    plural="pods",
    schema=None,
    grants=(Grant(Program.CONTROLLER, ("list",), "Metrics of type Resource and ContainerResource."),),
)

CUSTOM_METRICS = Kind(
    kind="MetricValue",
    group="custom.metrics.k8s.io",
    version="v1beta2",
    plural="*",
    schema=None,
    grants=(Grant(Program.CONTROLLER, ("get",), "Metrics of type Pods and Object, whatever their names."),),
)

EXTERNAL_METRICS = Kind(
    kind="ExternalMetricValue",
    group="external.metrics.k8s.io",
    version="v1beta1",
    plural="*",
    schema=None,
    grants=(Grant(Program.CONTROLLER, ("list",), "Metrics of type External, whatever their names."),),
)

EVENT = Kind(
    kind="Event",
    group="events.k8s.io",
    version="v1",
    plural="events",
    schema=None,
    grants=(
        Grant(Program.CONTROLLER, ("create", "patch"), "Events about its decisions, and how often they were repeated."),
    ),
)

LEASE = Kind(
    kind="Lease",
    group="coordination.k8s.io",
    version="v1",
    plural="leases",
    schema=None,
    grants=(
        Grant(
            Program.CONTROLLER,
            ("get", "create", "update"),
            "The election of the one replica that decides.",
            at_home=True,
        ),
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        one.kind: one
        for one in (
            MODEL_DEPLOYMENT,
            TOOL_DEPLOYMENT,
            POLICY,
            SERVICE,
            ENDPOINT_SLICE,
            DEPLOYMENT,
            STATEFUL_SET,
            REFERENCE_GRANT,
            SECRET,
            POD,
            POD_METRICS,
            CUSTOM_METRICS,
            EXTERNAL_METRICS,
            EVENT,
            LEASE,
        )
    }
)


def watched_by(program: Program) -> tuple[str, ...]:
    """Name the kinds of which a program watches every object."""
    return tuple(
        one.kind for one in KINDS.values() if any(grant.is_watch for grant in one.grants if grant.program == program)
    )


Validate = Callable[[Mapping[str, Any]], Sequence[FieldError]]


def faults(schema: type[BaseModel], raw: Mapping[str, Any]) -> Sequence[FieldError]:
    """List what is wrong with an object; nothing if it fits its schema."""
    try:
        parse(schema, raw)
    except InvalidObjectError as error:
        return error.errors
    return ()


VALIDATION: Mapping[tuple[str, str], Validate] = MappingProxyType(
    {
        (one.api_version, one.kind): partial(faults, one.schema)
        for one in KINDS.values()
        if one.schema and not one.optional
    }
)
"""By `apiVersion` and `kind`: what finds the faults of an object of a folder, where no optional kind is used."""
