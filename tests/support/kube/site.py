"""A namespace of a cluster with our programs in it, as an operator would install them: each is a process of its own,
with the rights of deploy/rbac and no others. Replicas and remote backends answer at this machine's own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from controller.api.registry import KINDS
from controller.gateway.bootstrap import HostPort, Provision
from tests.support.beamlit import Reply, Start, ask, no_request_fails
from tests.support.data_plane.backends import Backend
from tests.support.envoy import Envoy
from tests.support.forked import Forked
from tests.support.kube.addresses import own_address
from tests.support.kube.cluster import Cluster, User
from tests.support.kube.program import Program
from tests.support.kube.reading_xds import Served, served_by
from tests.support.kube.user import UserHand
from tests.support.load import Traffic, closed_loop
from tests.support.network import Network, unused_port
from tests.support.objects import (
    ADeployment,
    AModel,
    AService,
    ASlice,
    KubeObject,
    a_deployment,
    a_model,
    a_service,
    a_slice,
)
from tests.support.processes import ROOT
from tests.support.tls import Certificates
from tests.support.waiting import eventually

TOKEN = "the-token-of-these-tests"
XDS_SERVICE = "beamlit-xds"
CONTROLLER_OF_SLICES = "endpointslice-controller.k8s.io"


class Site:
    """The programs of one namespace. Everything it started ends with `running`.

    The gateway's ports are at a loopback address of this site alone: every site gives the same ones. Without `tls` the
    xDS server knows its Envoys by a token.
    """

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, *, tls: bool = True) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.host = own_address()
        self.gateway = Network.unused().host(1)
        self.folder = folder
        self.controllers: list[Program] = []
        self.xds_servers: list[Program] = []
        self.replicas: list[HostPort] = []
        """Where the xDS servers answer Envoys."""
        self.reports: list[HostPort] = []
        """Where they answer controllers."""
        self.envoys: list[Envoy] = []
        self.backends: list[Backend] = []
        self._token = folder / "node-token"
        self._token.write_text(TOKEN)
        self.server_name = f"{XDS_SERVICE}.{namespace}.svc"
        self.certificates = Certificates.make(folder / "tls", server_names=(self.server_name,)) if tls else None
        self._users: dict[str, User] = {}
        self.slices: list[ASlice] = []
        self._hand = UserHand(cluster)
        self._client = cluster.client()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Site]:
        """Stop all processes afterwards; then none of our programs may have logged a traceback, whoever was killed."""
        try:
            yield self
        finally:
            for program in (*self.controllers, *self.xds_servers):
                program.kill()
            for envoy in self.envoys:
                await envoy.stop()
            for backend in self.backends:
                backend.kill()
            self._client.close()
        for program in (*self.controllers, *self.xds_servers):
            assert "Traceback" not in program.log, f"{program.name}:\n{program.log}"

    # Its programs.

    async def start(
        self, *options: object, controllers: int = 1, xds_servers: int = 1, envoys: int = 1, start: Start = Forked
    ) -> None:
        """Start so many replicas of everything; each Envoy joins another xDS server. Ready when this returns."""
        for _ in range(xds_servers):
            self.xds_server(*options, start=start)
        for _ in range(controllers):
            self.controller(*options, start=start)
        for number in range(envoys):
            await self.envoy(f"envoy-{number}", self.replicas[number % xds_servers])
        for program in (*self.xds_servers, *self.controllers):
            await program.ready()

    def controller(self, *options: object, user: User | None = None, start: Start = Forked) -> Program:
        """Start one more replica of the controller, without waiting."""
        probe = f"127.0.0.1:{unused_port()}"
        lease, service = f"{self.namespace}/beamlit-controller", f"{self.namespace}/{XDS_SERVICE}"
        command: tuple[object, ...] = ("controller", "--metrics-addr", "0", "--probe-addr", probe, "--lease", lease)
        command = (*command, "--xds-service", service, *self._where(user or self._known("controller")), *options)
        if self.certificates:
            command = (*command, *options_of("xds", self.certificates.files("controller")))
        program = Program(f"controller-{len(self.controllers)}", self.folder, command, probe, start)
        self.controllers.append(program)
        program.start()
        return program

    def xds_server(self, *options: object, user: User | None = None, start: Start = Forked) -> Program:
        """Start one more replica of the xDS server, without waiting; an EndpointSlice of its Service names it."""
        name = f"xds-server-{len(self.xds_servers)}"
        xds, admin, reports = (HostPort(self.host, unused_port()) for _ in range(3))
        self.replicas.append(xds)
        self.reports.append(reports)
        self.slices.append(_xds_slice(name, xds, admin, reports))
        self.announce()
        command: tuple[object, ...] = ("xds-server", "--xds-address", xds, "--admin-address", admin)
        where = self._where(user or self._known("xds-server"))
        command = (*command, "--gateway-address", self.gateway, "--reports-address", reports, *where, *options)
        if self.certificates:
            certificate, key, ca = self.certificates.files("xds-server")
            command = (*command, "--tls-cert", certificate, "--tls-key", key, "--client-ca", ca)
        else:
            command = (*command, "--insecure-xds", "--node-token-file", self._token)
        program = Program(name, self.folder, command, str(admin), start)
        self.xds_servers.append(program)
        program.start()
        return program

    def announce(self) -> None:
        """Write the EndpointSlices of the xDS servers' Service."""
        self.write(*self.slices)

    async def envoy(self, name: str = "envoy", xds: HostPort | None = None, certificate: str = "gateway") -> Envoy:
        """Start an Envoy that joins an xDS server, the first one if none is said."""
        tls = self.certificates.client(certificate, self.server_name) if self.certificates else None
        token = "" if tls else TOKEN
        envoy = Envoy.joining(name, token, xds or self.replicas[0], self.folder, provision=Provision(tls=tls))
        self.envoys.append(envoy)
        await envoy.started()
        return envoy

    async def resources(self, replica: int = 0) -> Served:
        """Read every resource that one of the xDS servers has for an Envoy."""
        assert self.certificates
        return await served_by(self.replicas[replica], self.certificates.channel_credentials("gateway"))

    async def served_by_all(self) -> Served:
        """Wait until all xDS servers serve equal bytes at equal versions, which is what they stay at; return that."""

        async def all_of_them() -> list[Served]:
            return [await self.resources(number) for number in range(len(self.replicas))]

        first, *_ = await eventually(all_of_them, lambda seen: all(one == seen[0] for one in seen))
        return first

    def user(self, program: str) -> User:
        """Somebody who may do what deploy/rbac says of a program, in this namespace."""
        return self.cluster.user(self.namespace, f"beamlit-{program}", *rules_of(program))

    def may_watch(self, namespace: str) -> None:
        """Give the programs their rights in one more namespace."""
        for program in ("controller", "xds-server"):
            account = {"kind": "ServiceAccount", "name": f"beamlit-{program}", "namespace": self.namespace}
            self._known(program)
            rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": account["name"]}}
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account["name"]}
            self.cluster.apply(
                {**rbac, "kind": "Role", "rules": rules_of(program)},
                {**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [account]},
                namespace=namespace,
            )

    def _known(self, program: str) -> User:
        if program not in self._users:
            self._users[program] = self.user(program)
        return self._users[program]

    def _where(self, user: User) -> tuple[object, ...]:
        return ("--kubeconfig", user.kubeconfig, "--namespaces", self.namespace)

    # Its objects.

    def backend(self, name: str, host: str = "") -> Backend:
        """Start a server that is a replica or a remote backend, at this machine's own address unless one is said."""
        backend = Backend(name, host or self.host, self.folder, port=unused_port())
        backend.start()
        self.backends.append(backend)
        return backend

    def served(self, name: str, replicas: Iterable[Backend], remote: Backend | None = None) -> AModel:
        """Write the Service and the endpoints of a model; return the model, which is still to be written."""
        self.write(service(name), *(endpoints(name, replica) for replica in replicas))
        return model(name, remote)

    def write(self, *objects: KubeObject) -> None:
        """Apply objects to the namespace, as the only user of them."""
        self._hand.apply_now(*self._here(objects))

    async def change(self, *objects: KubeObject) -> None:
        """Apply objects while requests go on."""
        await self._hand.apply(*self._here(objects))

    async def remove(self, *objects: KubeObject) -> None:
        await self._hand.remove(*self._here(objects))

    def set_status(self, kind: str, name: str, status: Mapping[str, Any]) -> None:
        """Write a status, as a controller or a kubelet does."""
        path = KINDS[kind].path(self.namespace, name, "status")
        merge = {"Content-Type": "application/merge-patch+json"}
        answer = self._client.patch(path, content=json.dumps({"status": status}), headers=merge)
        assert answer.is_success, answer.text

    def _here(self, objects: Iterable[KubeObject]) -> list[dict[str, Any]]:
        return [one.in_namespace(self.namespace).raw for one in objects]

    def kubectl(self, *arguments: object) -> str:
        """Run kubectl in the namespace and return what it prints."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments).stdout

    # What can be seen of it.

    async def read(self, name: str, kind: str = "ModelDeployment") -> dict[str, Any]:
        """Read one object; kubectl would be too slow for looking often."""
        answer = await asyncio.to_thread(self._client.get, KINDS[kind].path(self.namespace, name))
        answer.raise_for_status()
        read: dict[str, Any] = answer.json()
        return read

    async def status(self, name: str) -> dict[str, Any]:
        """The status of one model."""
        status: dict[str, Any] = (await self.read(name)).get("status", {})
        return status

    async def split(self, name: str) -> str:
        """The split of one model and its reason, such as `100/0 Steady`."""
        split = (await self.status(name)).get("split")
        return f"{split['summary']} {split['reason']}" if split else ""

    async def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of one condition of this generation; empty while there is none."""
        read = await self.read(name)
        for one in read.get("status", {}).get("conditions", ()):
            if one["type"] == kind and one["observedGeneration"] == read["metadata"]["generation"]:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    async def until_condition(self, name: str, kind: str, *expected: str, within: float = 30) -> str:
        """Wait until a condition has this status, and this reason if one is given; return its message."""
        seen = await eventually(
            lambda: self.condition(name, kind), lambda seen: seen[: len(expected)] == expected, within
        )
        return seen[2]

    async def until_message(self, name: str, kind: str, words: str, within: float = 30) -> None:
        """Wait until the message of a condition has these words: why something is so may be known later than that."""
        await eventually(lambda: self.condition(name, kind), lambda seen: words in seen[2], within)

    async def until_status(self, name: str, good: Callable[[dict[str, Any]], object], within: float = 30) -> None:
        """Wait until the status of a model is as it shall be."""
        await eventually(lambda: self.status(name), good, within)

    async def until_split(self, name: str, expected: str, within: float = 30) -> None:
        """Wait until a model has this split for this reason, such as `100/0 Steady`."""
        await eventually(lambda: self.split(name), lambda seen: seen == expected, within)

    async def writes(self) -> float:
        """How often all controllers that run wrote a status."""
        return sum([await one.metric("beamlit_status_writes_total") for one in self.controllers if one.alive])

    # Its clients.

    async def port(self, name: str) -> int:
        """Wait for the port of the gateway that serves a model, and until a request is answered there."""
        status = await eventually(lambda: self.status(name), lambda seen: seen.get("servingPort"))
        port = int(status["servingPort"])
        await eventually(lambda: self.ask(port), lambda reply: not reply.error, within=30)
        return port

    async def ask(self, port: int, **headers: str) -> Reply:
        """Send one request to the gateway, once, on a connection of its own."""
        return await ask(port, host=self.gateway, **headers)

    async def until_answered(self, port: int, server: str, within: float = 30) -> None:
        """Wait until this server answers a request."""
        await eventually(lambda: self.ask(port), lambda reply: reply.server == server, within)

    def no_request_fails(self, *ports: int) -> contextlib.AbstractAsyncContextManager[None]:
        """Send 40 requests a second to the gateway while the block runs; all are answered."""
        return no_request_fails(*ports, host=self.gateway)

    async def local_share(self, port: int, requests: int = 400) -> float:
        """Send requests; return the share of them that stayed, 0 to 1. None may fail."""
        report = await closed_loop(f"http://{self.gateway}:{port}/", 8, requests, Traffic(keepalive=False))
        assert report.errors == {}, report.errors
        return report.summary.local_share


def rules_of(program: str) -> list[dict[str, Any]]:
    """What deploy/rbac lets a program do."""
    roles = yaml.load_all((ROOT / "deploy" / "rbac" / f"{program}.yaml").read_text(), yaml.CSafeLoader)
    return [rule for role in roles if role["kind"] == "ClusterRole" for rule in role["rules"]]


def options_of(what: str, files: Iterable[Path]) -> tuple[object, ...]:
    """The options by which a client proves who it is: certificate, key and authorities."""
    certificate, key, ca = files
    return (f"--{what}-cert", certificate, f"--{what}-key", key, f"--{what}-ca", ca)


def _xds_slice(name: str, xds: HostPort, admin: HostPort, reports: HostPort) -> ASlice:
    """The EndpointSlice that names one replica of the xDS server."""
    named = a_slice(XDS_SERVICE, name).port(xds.port, "xds").and_port(admin.port, "admin")
    return named.and_port(reports.port, "reports").ready(admin.host)


def service(name: str) -> AService:
    """A Service with one port, 80, and a selector."""
    return a_service(name).port(80).selecting(run=name)


def deployment(name: str) -> ADeployment:
    """The Deployment that a model of this name refers to."""
    workload = a_deployment(name).container(name="server", image="any")
    pods = {"run": name}
    workload.raw["spec"]["selector"] = {"matchLabels": pods}
    workload.raw["spec"]["template"]["metadata"] = {"labels": pods}
    return workload


def endpoints(name: str, replica: Backend, *, ready: bool = True, leaving: bool = False) -> ASlice:
    """The EndpointSlice with one replica of a Service, as the endpoint controller writes it.

    One that is `leaving` terminates, and still answers.
    """
    one = a_slice(name, replica.name).port(replica.port).written_by(CONTROLLER_OF_SLICES)
    if leaving:
        return one.terminating(replica.host)
    return one.ready(replica.host) if ready else one.not_ready(replica.host)


def model(name: str, remote: Backend | None = None) -> AModel:
    """A ModelDeployment in front of the Service of the same name."""
    named = a_model(name).fronting(name, 80).offloading(percentage=50)
    return named.with_remote(f"{remote.host}:{remote.port}") if remote else named
