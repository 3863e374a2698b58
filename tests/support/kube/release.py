"""A release of the chart whose pods are processes: with the arguments, files and rights that pods would have."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from controller.gateway.bootstrap import HostPort
from tests.support.chart import Chart, Object, named
from tests.support.kube.program import Program
from tests.support.kube.site import Site
from tests.support.network import unused_port
from tests.support.objects import a_slice

PREFIX = "trial"


def rendered(chart: Chart, namespace: str, *values: str) -> list[Object]:
    """Render a release that has a namespace to itself, and names in the cluster that no other test has."""
    own = (f"allowedNamespaces={{{namespace}}}", f"config.namespaces={namespace}", f"namePrefix={PREFIX}-{namespace}")
    return chart.objects(*values, *own, options=[f"--namespace={namespace}"])


class ProcessRelease:
    """Applied to the namespace of a site. What is started ends with the site."""

    def __init__(self, site: Site, chart: Chart, *values: str) -> None:
        self.site = site
        self.prefix = f"{PREFIX}-{site.namespace}"
        self.objects = rendered(chart, site.namespace, "crds.install=false", *values)
        site.cluster.apply(*self.objects, namespace=site.namespace)

    async def all_ready(self) -> tuple[Program, Program, Program]:
        """Start the xDS server, the controller and the gateway, and wait for each: the certificates are there."""
        site = self.site
        xds, admin, reports = (HostPort(site.host, unused_port()) for _ in range(3))
        site.write(
            a_slice(f"{self.prefix}-xds", "xds")
            .port(xds.port, "grpc-xds")
            .and_port(reports.port, "reports")
            .ready(site.host)
        )
        where = ("--xds-address", xds, "--admin-address", admin, "--reports-address", reports)
        where = (*where, "--gateway-address", site.gateway)
        xds_server = self.started("xds-server", *where, probe=admin, within=site.xds_servers)
        metrics, probe, gateway_probe = (HostPort("127.0.0.1", unused_port()) for _ in range(3))
        listens = ("--metrics-addr", metrics, "--probe-addr", probe)
        controller = self.started("controller", *listens, probe=probe, within=site.controllers)
        await xds_server.ready()
        await controller.ready()
        name = f"{self.prefix}-xds.{site.namespace}.svc"
        joins = ("--xds-address", xds, "--xds-server-name", name, "--admin-address", gateway_probe)
        gateway = self.started("gateway", *joins, probe=gateway_probe, within=site.controllers)
        await gateway.ready()
        return xds_server, controller, gateway

    def started(self, deployment: str, *options: object, probe: HostPort, within: list[Program]) -> Program:
        """Start the one container of a Deployment; the options come after its own, and say where it listens."""
        pod = named(self.objects, "Deployment", f"{self.prefix}-{deployment}")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        root = self.site.folder / deployment
        for mount in container["volumeMounts"]:
            volume = next(one for one in pod["volumes"] if one["name"] == mount["name"])
            self._mount(volume, root / mount["mountPath"].lstrip("/"), root)
        arguments = [one.replace("/etc/", f"{root}/etc/") for one in container["args"]]
        assert container["command"] == ["beamlit"]
        if deployment != "gateway":
            account = self.site.cluster.service_account(self.site.namespace, pod["serviceAccountName"])
            options = ("--kubeconfig", account.kubeconfig, *options)
        program = Program(deployment, self.site.folder, (*arguments, *options), str(probe))
        within.append(program)
        program.start()
        return program

    def _mount(self, volume: Object, folder: Path, root: Path) -> None:
        folder.mkdir(parents=True)
        if "configMap" in volume:
            for name, text in self._read("configmap", volume["configMap"]["name"])["data"].items():
                (folder / name).write_text(text.replace("/etc/", f"{root}/etc/"))
        elif "secret" in volume:
            data = self._read("secret", volume["secret"]["secretName"])["data"]
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))

    def _read(self, kind: str, name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.site.kubectl("get", kind, name, "--output=json"))
        return read
