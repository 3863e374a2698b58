"""Both programs in a cluster, with a real Envoy: what a user writes, and what he sees through kubectl."""

from __future__ import annotations

from tests.support.beamlit import eventually
from tests.support.kube.site import Site, endpoints, model, service


async def columns(site: Site, name: str, *options: str) -> dict[str, str]:
    """One model as `kubectl get mdep` shows it."""
    header, row = site.kubectl("get", "mdep", name, *options).splitlines()
    return dict(zip(header.split(), row.split(), strict=True))


async def test_a_model_is_served_leaves_when_its_replicas_are_gone_and_comes_back(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(site.served("a", [replica], remote))
    await site.start()
    site.kubectl("wait", "modeldeployment/a", "--for=condition=Ready", "--timeout=30s")
    port = await site.port("a")
    await site.until_answered(port, "local-1")
    async with site.no_request_fails(port):
        await site.change(endpoints("a", replica, ready=False))
        await site.until_answered(port, "remote")
        await site.change(endpoints("a", replica))
        await site.until_answered(port, "local-1", within=40)
        await site.until_split("a", "100/0 Steady")
    assert [program.end() for program in (*site.controllers, *site.xds_servers)] == [0, 0]


async def test_kubectl_shows_what_is_now(site: Site) -> None:
    """Prior fault 30: no conditions, printer columns or events; `offloadingStatus` never written."""
    replicas, remote = [site.backend(f"local-{number}") for number in (1, 2, 3)], site.backend("remote")
    chat = site.served("chat", replicas, remote).overridden("remote=20")
    site.write(chat, endpoints("chat", replicas[2], ready=False))
    await site.start()
    site.kubectl("wait", "mdep/chat", "--for=condition=Ready", "--timeout=30s")
    seen = await columns(site, "chat", "--output=wide")
    assert seen.pop("AGE")
    assert seen == {
        "NAME": "chat",
        "MODEL": "chat",
        "READY": "True",
        "LOCAL": "2/3",
        "SPLIT": "80/20",
        "REASON": "Override",
        "REMOTE": f"{remote.host}:{remote.port}",
        "PROXIES": "Programmed",
    }
    assert (await site.status("chat"))["offloadingStatus"] is True
    await site.change(*(endpoints("chat", replica, ready=False) for replica in replicas), model("chat", remote))
    await site.until_split("chat", "0/100 LocalDown")
    seen = await columns(site, "chat")
    assert [seen[name] for name in ("READY", "LOCAL", "SPLIT", "REASON")] == ["True", "0/3", "0/100", "LocalDown"]

    async def described() -> str:
        return site.kubectl("describe", "mdep", "chat").partition("Events:")[2]

    # With the numbers that were measured.
    await eventually(described, lambda events: "none of 3 local replicas is ready" in events)
    events = await described()
    assert "split 80/20 -> 0/100" in events
    assert "20 % of the requests go to the remote backend" in events
    site.kubectl("get", "beamlit")  # The category.


async def test_a_write_of_ours_changes_nothing_that_a_user_wrote(site: Site) -> None:
    """Prior fault 12: `enabled: false` and `percentage: 0` are lost on the controller's own write."""
    replica, remote = site.backend("local-1"), site.backend("remote")
    off, zero = site.served("off", [replica], remote).disabled(), site.served("zero", [replica], remote)
    zero = zero.offloading(percentage=0)
    site.write(off, zero)
    written = {one.ref.name: await site.read(one.ref.name) for one in (off, zero)}
    await site.start()
    for name in written:
        await site.until_condition(name, "Ready", "True")
    # More writes than one, of routes too.
    site.write(endpoints("off", replica, ready=False), endpoints("zero", replica, ready=False))
    await site.until_split("zero", "0/100 LocalDown")
    await site.until_condition("off", "LocalHealthy", "False")
    for name, before in written.items():
        now = await site.read(name)
        assert (now["spec"], now["metadata"]["generation"]) == (before["spec"], 1)
        owned = {one["manager"]: one for one in now["metadata"]["managedFields"]}
        assert owned.keys() == {"user", "beamlit-controller"}
        ours = owned["beamlit-controller"]
        assert (ours["operation"], ours["subresource"], [*ours["fieldsV1"]]) == ("Apply", "status", ["f:status"])
    assert (await site.read("off"))["spec"]["enabled"] is False
    assert (await site.read("zero"))["spec"]["offloadingConfig"]["behavior"]["percentage"] == 0
    assert await site.split("off") == "100/0 Disabled"


async def test_nothing_that_a_user_writes_ends_the_controller(site: Site) -> None:
    """Prior faults 6, 13 and 16: a metric that is not supported, no `serviceRef`, two objects of one model."""
    replica, remote = site.backend("local-1"), site.backend("remote")
    target = {"type": "Utilization", "averageUtilization": 90}
    metrics = [
        {"type": "Resource", "resource": {"name": "cpu", "target": target}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": target}},
        {
            "type": "Object",
            "object": {
                "describedObject": {"kind": "Ingress", "name": "main"},
                "metric": {"name": "hits"},
                "target": {"type": "Value", "value": "2k"},
            },
        },
        {
            "type": "Pods",
            "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "1"}},
        },
    ]
    lost = model("lost", remote)
    del lost.raw["spec"]["serviceRef"]
    site.write(site.served("first", [replica], remote))
    await site.start()
    await site.until_condition("first", "Ready", "True")
    await site.change(
        # The pods of its workload request nothing; there is no workload at all.
        site.served("measured", [replica], remote).measuring(*metrics),
        lost,
        service("second"),
        endpoints("second", replica),
        model("second", remote).of_model("first"),
        site.served("alone", [replica]),
    )
    await site.until_condition("measured", "Ready", "True")
    assert "not measured" in await site.until_condition("measured", "Accepted", "True", "AcceptedWithWarnings")
    assert "spec.serviceRef" in await site.until_condition("lost", "ResolvedRefs", "False", "NoService")
    assert "first" in await site.until_condition("second", "Accepted", "False", "Conflict")
    assert "NoRemoteBackend" in (await site.condition("alone", "ResolvedRefs"))[1]
    # The older one is gone: the next one has the name, and everybody else is as before.
    await site.remove(model("first"))
    await site.until_condition("second", "Ready", "True")
    (controller,) = site.controllers
    assert controller.alive
    assert "Traceback" not in controller.log


async def test_a_restart_keeps_what_was_decided(site: Site) -> None:
    """Prior fault 10: all state is in memory."""
    replica, remote = site.backend("local-1"), site.backend("remote")
    slow = site.served("slow", [replica], remote).offloading(recoverAfter="8s", stepInterval="8s")
    held = site.served("held", [replica], remote).overridden("remote=40")
    site.write(slow, held, endpoints("slow", replica, ready=False))
    await site.start()
    await site.until_split("slow", "0/100 LocalDown")
    await site.change(endpoints("slow", replica), held.paused())
    # Half of it is back; the other half comes in its time, not anew after the restart.
    await site.until_split("slow", "50/50 Recovering")
    history = (await site.status("slow"))["history"]
    await site.until_split("held", "60/40 Paused")
    await site.until_condition("held", "RemoteHealthy", "True")
    held_before = await site.status("held")
    (controller,) = site.controllers
    assert controller.end() == 0
    controller.start()
    await controller.ready()
    await eventually(controller.leads, bool)
    await site.until_split("slow", "100/0 Steady", within=25)
    back = (await site.status("slow"))["history"]
    assert [one["reason"] for one in back] == ["Steady", "Recovering", "LocalDown"]
    assert back[1:] == history
    # A split that nobody measures any more is still held, since when it was.
    assert {**await site.status("held"), "conditions": []} == {**held_before, "conditions": []}
