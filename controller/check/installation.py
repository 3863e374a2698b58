"""What is installed, and where: read from the Deployments that run our programs, unless the command line says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

import yaml

from controller.api.registry import DEPLOYMENT, Program
from controller.check.cluster import ClusterReader, Listed, ServiceAccount, Unread

ENVOY = "envoy"
"""The program of the gateway: `beamlit envoy`. It has no rights in a cluster."""
PROGRAMS = (Program.CONTROLLER.value, Program.XDS_SERVER.value, ENVOY)
USUAL_NAMESPACE = "beamlit-system"
USUAL_LEASE = "beamlit-controller"
_MOST_DEPLOYMENTS = 2000
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_OF_ENVIRONMENT = {
    "--xds-service": "BEAMLIT_XDS_SERVICE",
    "--gateway-service": "BEAMLIT_GATEWAY_SERVICE",
    "--namespaces": "BEAMLIT_NAMESPACES",
    "--controller-class": "BEAMLIT_CONTROLLER_CLASS",
    "--metrics-addr": "BEAMLIT_METRICS_ADDR",
    "--probe-addr": "BEAMLIT_PROBE_ADDR",
}

Named = tuple[str, str]
"""Namespace and name."""
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """One Deployment of a program: how it is called, as whom, and how many of its pods are ready of those wanted.

    `selector` finds its pods. `configuration` is what its configuration file says, as far as that could be read.
    """

    program: str
    namespace: str
    name: str
    account: ServiceAccount
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    selector: str = ""
    ready: int = 0
    wanted: int = 1
    image: str = ""
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def option(self, name: str) -> str:
        """Find the value of an option, or that of its environment variable; empty if neither is given."""
        for place, word in enumerate(self.words):
            option, sign, value = word.partition("=")
            if option == name:
                value = value if sign else next(iter(self.words[place + 1 :]), "")
                return self._filled_in(value)
        return self.environment.get(_OF_ENVIRONMENT.get(name, ""), "")

    def port(self, option: str, usual: int) -> int:
        """Find the port of an address that an option names."""
        number = self.option(option).rpartition(":")[2]
        return int(number) if number.isdigit() else usual

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that it watches; none for all."""
        given: Any = self.option("--namespaces") or self.configuration.get("namespaces") or ()
        names = given.split(",") if isinstance(given, str) else given
        return tuple(name for one in names if (name := str(one).strip()))

    @property
    def gateway_service(self) -> Named | None:
        """The Service of the gateway that it was told."""
        if named := _named(self.option("--gateway-service")):
            return named
        service = self.configuration.get("proxyService")
        if isinstance(service, Mapping) and service.get("name"):
            return str(service.get("namespace") or "default"), str(service["name"])
        return None

    @property
    def controller_class(self) -> str:
        """Whose models it serves; empty for those without a class."""
        return self.option("--controller-class") or str(self.configuration.get("controllerClass") or "")

    @property
    def asks_prometheus(self) -> bool:
        """Whether metrics of type External come from a Prometheus."""
        informer = self.configuration.get("metricInformer")
        return isinstance(informer, Mapping) and informer.get("type") == "prometheus"

    def _filled_in(self, value: str) -> str:
        """Put in variables as the kubelet does; one that it does not know stays."""
        return _VARIABLE.sub(lambda match: self.environment.get(match[1], match[0]), value)


@dataclass(frozen=True, slots=True)
class Sought:
    """What the command line says of the installation; what it leaves out is found, or is as usual."""

    namespace: str | None = None
    xds_service: Named | None = None
    gateway_service: Named | None = None
    lease: Named | None = None
    controller_account: Named | None = None
    xds_server_account: Named | None = None
    namespaces: tuple[str, ...] = ()
    controller_class: str | None = None


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed, and where.

    `namespaces` are those that are watched, none for all; `unread` says why Deployments could not be looked for.
    """

    programs: tuple[RunningProgram, ...]
    namespace: str
    lease: Named
    xds_service: Named
    gateway_service: Named | None
    accounts: Mapping[Program, ServiceAccount]
    namespaces: tuple[str, ...] = ()
    controller_class: str = ""
    unread: Unread | None = None

    def of(self, program: str) -> tuple[RunningProgram, ...]:
        """List the Deployments of one program."""
        return tuple(one for one in self.programs if one.program == program)


async def find_installation(reader: ClusterReader, sought: Sought) -> Installation:
    """Look for our programs in one namespace, or in all."""
    found, unread = await _programs(reader, sought.namespace)
    programs = tuple([await _with_configuration(reader, one) for one in found])
    controllers = [one for one in programs if one.program == Program.CONTROLLER]
    servers = [one for one in programs if one.program == Program.XDS_SERVER]
    first = next(iter((*controllers, *servers, *programs)), None)
    namespace = sought.namespace or (first.namespace if first else USUAL_NAMESPACE)
    services = [one.gateway_service for one in (*controllers, *servers)]
    xds = [_named(one.option("--xds-service")) for one in controllers]
    leases = [_named(one.option("--lease")) or (one.namespace, USUAL_LEASE) for one in controllers]
    classes = [one.controller_class for one in controllers]
    accounts = {
        Program.CONTROLLER: _account(sought.controller_account, controllers, namespace, "beamlit-controller"),
        Program.XDS_SERVER: _account(sought.xds_server_account, servers, namespace, "beamlit-xds-server"),
    }
    return Installation(
        programs,
        namespace,
        lease=sought.lease or _first(leases) or (namespace, USUAL_LEASE),
        xds_service=sought.xds_service or _first(xds) or (namespace, "beamlit-xds"),
        gateway_service=sought.gateway_service or _first(services),
        accounts=accounts,
        namespaces=sought.namespaces or next((one.namespaces for one in controllers), ()),
        controller_class=sought.controller_class if sought.controller_class is not None else _first(classes) or "",
        unread=unread,
    )


async def _programs(reader: ClusterReader, namespace: str | None) -> tuple[list[RunningProgram], Unread | None]:
    places = [namespace] if namespace else ["", *dict.fromkeys((reader.home, USUAL_NAMESPACE))]
    unread: Unread | None = None
    for place in places:
        listed = await reader.list(DEPLOYMENT.path(place), _MOST_DEPLOYMENTS)
        if isinstance(listed, Listed):
            programs = [program for raw in listed.items for program in programs_of(raw)]
            if programs or not place:
                return programs, None
        else:
            unread = unread or listed
    return [], unread


def programs_of(raw: Mapping[str, Any]) -> Iterator[RunningProgram]:
    """Find our programs in a Deployment: containers that call `beamlit` with the name of one."""
    metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    namespace = str(metadata.get("namespace") or "default")
    labels, component = (spec.get("selector") or {}).get("matchLabels") or {}, _component(raw)
    containers = [one for one in pod.get("containers") or () if one.get("name") == component or not component]
    for container in containers:
        words = [str(one) for one in (*(container.get("command") or ()), *(container.get("args") or ()))]
        image = str(container.get("image") or "")
        is_named = bool(words) and PurePosixPath(words[0]).name == "beamlit"
        words = words[1:] if is_named else words
        if component:
            # The image may begin with the name of the program.
            words = words if words[:1] == [component] else [component, *words]
        elif not words or words[0] not in PROGRAMS or not (is_named or "beamlit" in image):
            continue
        status = raw.get("status") or {}
        yield RunningProgram(
            program=words[0],
            namespace=namespace,
            name=str(metadata.get("name")),
            account=ServiceAccount(namespace, str(pod.get("serviceAccountName") or "default")),
            words=tuple(words),
            environment=dict(_environment(container.get("env") or (), namespace)),
            selector=",".join(f"{name}={value}" for name, value in sorted(labels.items())),
            ready=int(status.get("readyReplicas") or 0),
            wanted=int(spec.get("replicas", 1)),
            image=image,
            configuration=_mounted(words, container, pod),
        )


def _component(raw: Mapping[str, Any]) -> str:
    """Name the program that a Deployment of the chart runs, and its container; empty for any other Deployment."""
    labels = (raw.get("metadata") or {}).get("labels") or {}
    if labels.get("app.kubernetes.io/name") != "beamlit":
        return ""
    component = str(labels.get("app.kubernetes.io/component") or "")
    return {"gateway": ENVOY}.get(component, component if component in PROGRAMS else "")


def _environment(variables: Iterable[Mapping[str, Any]], namespace: str) -> Iterator[tuple[str, str]]:
    for one in variables:
        field_path = ((one.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if field_path == "metadata.namespace":
            yield str(one.get("name")), namespace
        elif "value" in one:
            yield str(one.get("name")), str(one["value"])


def _mounted(words: list[str], container: Mapping[str, Any], pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say which key of which ConfigMap is the file of --config; nothing if that cannot be told."""
    joined = [word for one in words for word in one.split("=", 1)]
    file = joined[joined.index("--config") + 1] if "--config" in joined[:-1] else ""
    for mount in container.get("volumeMounts") or ():
        folder = str(mount.get("mountPath") or "")
        if not file or not PurePosixPath(file).is_relative_to(folder):
            continue
        for volume in pod.get("volumes") or ():
            name = (volume.get("configMap") or {}).get("name")
            if volume.get("name") == mount.get("name") and name:
                key = mount.get("subPath") or PurePosixPath(file).name
                return {"configMap": name, "key": key}
    return {}


async def _with_configuration(reader: ClusterReader, program: RunningProgram) -> RunningProgram:
    """Read the file of --config, if it is a ConfigMap's and can be read."""
    name, key = program.configuration.get("configMap"), program.configuration.get("key")
    read: Any = None
    if name:
        found = await reader.read(f"/api/v1/namespaces/{program.namespace}/configmaps/{name}")
        text = (found.get("data") or {}).get(key) if isinstance(found, Mapping) else None
        try:
            read = yaml.safe_load(text or "")
        except yaml.YAMLError:
            read = None
    return replace(program, configuration=read if isinstance(read, dict) else {})


def _account(given: Named | None, programs: list[RunningProgram], namespace: str, usual: str) -> ServiceAccount:
    if given:
        return ServiceAccount(*given)
    return next((one.account for one in programs), ServiceAccount(namespace, usual))


def _named(text: str) -> Named | None:
    namespace, slash, name = text.partition("/")
    return (namespace, name) if slash and namespace and name else None


def _first(given: Iterable[Value | None]) -> Value | None:
    return next((one for one in given if one), None)
