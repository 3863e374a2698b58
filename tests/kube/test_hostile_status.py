"""Somebody who may write the statuses of models, and nothing else, sends no request and no credential anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.api.registry import MODEL_DEPLOYMENT
from tests.support.beamlit import eventually
from tests.support.kube.cluster import Cluster
from tests.support.kube.credentials import sent, with_key
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site
from tests.support.objects import a_secret
from xds_server.snapshot.snapshot import SECRET


@pytest.fixture
async def site(api_server: Cluster, tmp_path: Path) -> AsyncIterator[Site]:
    with fresh_namespace(api_server) as namespace:
        async with Site(api_server, namespace, tmp_path).running() as site:
            yield site


class Intruder:
    """May read and patch statuses of models in the namespace of a site, and nothing else."""

    def __init__(self, site: Site) -> None:
        self._site = site
        rule = {
            "apiGroups": [MODEL_DEPLOYMENT.group],
            "resources": ["modeldeployments/status"],
            "verbs": ["get", "patch"],
        }
        self._user = site.cluster.user(site.namespace, "intruder", rule)

    async def write(self, name: str, route: dict[str, Any]) -> None:
        """Write a route into the status of a model."""
        patch = json.dumps({"status": {"route": route}})
        what = ("patch", "modeldeployment", name, "--subresource=status", "--type=merge", f"--patch={patch}")
        where = f"--namespace={self._site.namespace}"
        await asyncio.to_thread(self._site.cluster.kubectl, where, *what, user=self._user)


async def test_a_status_sends_nothing_where_its_object_does_not(site: Site) -> None:
    replica, remote, evil = (site.backend(name) for name in ("local-1", "remote", "evil"))
    other = site.backend("other")
    site.served("other", [other])
    site.served("chat", [replica])
    site.write(a_secret("known").holding(apiKey="of-the-model"), a_secret("stolen").holding(apiKey="of-another"))
    site.write(with_key("chat", remote, "known").overridden("remote=50"))
    await site.start()
    await site.until_condition("chat", "Ready", "True")
    port = await site.port("chat")
    await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: got == ["of-the-model"])
    intruder = Intruder(site)
    # Nobody mends what is written: the controller is away.
    for controller in site.controllers:
        controller.kill()
    good = (await site.status("chat"))["route"]
    aimed = {**good["remote"], "host": evil.host, "port": evil.port, "authority": f"{evil.host}:{evil.port}"}
    stolen = {**good["remote"], "auth": {"apiKey": {"header": "x-key", "value": _of_secret("stolen")}}}
    forged = {
        "a host of his": {**good, "split": {"local": 0, "remote": 100}, "remote": aimed},
        "another Secret": {**good, "remote": stolen},
        "a Service of the system": {
            **good,
            "local": {**good["local"], "namespace": "default", "service": "kubernetes"},
        },
        "a port of the gateway": {**good, "port": 19001},
    }
    async with site.no_request_fails(port):
        for what, route in forged.items():
            await intruder.write("chat", route)
            # By a resource that is published afterwards it is known that this was looked at.
            site.write(a_secret("known").holding(apiKey=f"after {what}"))
            await eventually(lambda: sent(site, port, remote, "x-key"), lambda got, what=what: got == [f"after {what}"])
            assert evil.count() == 0, what
            secrets = [name for kind, name in await site.resources() if kind == SECRET]
            assert secrets == [f"credential/secret/{site.namespace}/known/apiKey"], what
    # One that starts knows of no route of before: it serves less, and never more.
    site.xds_servers[0].kill()
    await intruder.write("chat", forged["a host of his"])
    site.xds_servers[0].start()
    await site.xds_servers[0].ready()
    await eventually(lambda: site.local_share(port, 100), lambda share: share == 1.0)
    assert evil.count() == 0
    assert [name for kind, name in await site.resources() if kind == SECRET] == []
    # Whoever decides mends it.
    site.controllers[0].start()
    await site.until_condition("chat", "Ready", "True")
    await eventually(lambda: sent(site, port, remote, "x-key"), lambda got: len(got) == 1)
    assert evil.count() == 0


def _of_secret(name: str) -> dict[str, str]:
    return {"source": "Secret", "name": name, "key": "apiKey"}
