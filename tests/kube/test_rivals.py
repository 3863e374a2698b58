"""Two installations over one namespace: each has the models of its class, and without classes the second one yields."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import yaml

from tests.support.beamlit import eventually
from tests.support.kube.site import Site, endpoints


async def notes(site: Site, reason: str) -> list[str]:
    """What events of this reason say."""
    text = await asyncio.to_thread(site.kubectl, "get", "events.v1.events.k8s.io", "--output=json")
    return [one["note"] for one in json.loads(text)["items"] if one["reason"] == reason]


async def test_of_two_controllers_the_second_yields_and_both_say_so(site: Site, tmp_path: Path) -> None:
    replica = site.backend("local-1")
    site.write(site.served("chat", [replica]))
    await site.start()
    await site.until_split("chat", "100/0 NoRemoteBackend")
    # It has another mind: there is a remote backend.
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"defaultRemoteBackend": {"host": "models.example.com"}}))
    second = site.controller("--lease", f"{site.namespace}/second", "--config", config)
    await second.ready()
    await eventually(lambda: second.metric("beamlit_models_yielded"), lambda count: count == 1)
    await site.until_split("chat", "100/0 NoRemoteBackend")
    assert (await site.status("chat"))["controller"] == f"{site.namespace}/beamlit-controller"
    written = await second.metric("beamlit_status_writes_total")
    for ready, split in ((False, "100/0 NothingAnswers"), (True, "100/0 NoRemoteBackend")):
        await site.change(endpoints("chat", replica, ready=ready))
        await site.until_split("chat", split)
    assert await second.metric("beamlit_status_writes_total") == written
    assert await site.controllers[0].metric("beamlit_models_yielded") == 0

    def both_told(said: list[str]) -> bool:
        return any("takes it back once" in one for one in said) and any("writes it no more" in one for one in said)

    await eventually(lambda: notes(site, "ForeignWriter"), both_told)


async def test_each_controller_has_the_models_of_its_class(site: Site) -> None:
    plain, blue = site.backend("local-1"), site.backend("local-2")
    of_blue = site.served("blue", [blue])
    of_blue.raw["spec"]["controllerClass"] = "blue"
    site.write(site.served("plain", [plain]), of_blue)
    await site.start()
    site.controller("--lease", f"{site.namespace}/second", "--controller-class", "blue")
    for name, lease in (("plain", "beamlit-controller"), ("blue", "second")):
        await site.until_status(name, lambda seen, lease=lease: seen.get("controller") == f"{site.namespace}/{lease}")
    # Each has a gateway with ports of its own, and the xDS server without a class knows nothing of blue.
    ports = [(await site.status(name))["servingPort"] for name in ("plain", "blue")]
    assert ports[0] == ports[1]
    await site.until_answered(ports[0], "local-1")
    assert {(await site.ask(ports[0])).server for _ in range(20)} == {"local-1"}
    # It is handed over by an edit, and its status with it.
    handed = site.served("plain", [plain])
    handed.raw["spec"]["controllerClass"] = "blue"
    await site.change(handed)
    await site.until_status("plain", lambda seen: seen["controller"] == f"{site.namespace}/second")
    assert await notes(site, "ForeignWriter") == []
