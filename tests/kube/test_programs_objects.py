"""Both programs in a cluster: what a user writes, and what he sees through kubectl. They run on through all tests."""

from __future__ import annotations

import pytest

from tests.support.beamlit import eventually
from tests.support.kube.site import Site, deployment, endpoints, model, service

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def site(running_site: Site) -> Site:
    """One for all tests here."""
    return running_site


async def columns(site: Site, name: str, *options: str) -> dict[str, str]:
    """One model as `kubectl get mdep` shows it."""
    header, row = site.kubectl("get", "mdep", name, *options).splitlines()
    return dict(zip(header.split(), row.split(), strict=True))


def columns_at(site: Site, name: str, *columns: str) -> dict[str, str]:
    """These columns of a model, by where each begins: one may be empty."""
    header, row = site.kubectl("get", "mdep", name).splitlines()
    return {one: row[header.index(one) :].partition("  ")[0].strip() for one in columns}


async def test_kubectl_shows_what_is_now(site: Site) -> None:
    """Prior fault 30: no conditions, printer columns or events; `offloadingStatus` never written."""
    replicas, remote = [site.backend(f"local-{number}") for number in (1, 2, 3)], site.backend("remote")
    chat = site.served("chat", replicas, remote).overridden("remote=20")
    site.write(endpoints("chat", replicas[2], ready=False), chat)
    # The model may be seen before its slices: then the first status says something else.
    await site.until_status("chat", lambda seen: seen.get("local", {}).get("summary") == "2/3")
    await site.until_condition("chat", "Ready", "True")
    site.kubectl("wait", "mdep/chat", "--for=condition=Ready", "--timeout=3m")
    seen = await columns(site, "chat", "--output=wide")
    assert seen.pop("AGE")
    assert seen == {
        "NAME": "chat",
        "MODEL": "chat",
        "READY": "True",
        "PORT": str((await site.status("chat"))["servingPort"]),
        "LOCAL": "2/3",
        "SPLIT": "80/20",
        "REASON": "Override",
        "FRONTEND": "Gateway",
        "REMOTE": f"{remote.host}:{remote.port}",
        "PROXIES": "Programmed",
    }
    assert (await site.status("chat"))["offloadingStatus"] is True
    await site.change(*(endpoints("chat", replica, ready=False) for replica in replicas))
    # What is decided without the override is decided on these: they come by another watch than the model.
    await site.until_status("chat", lambda seen: seen["local"]["summary"] == "0/3")
    await site.change(model("chat", remote))
    await site.until_split("chat", "0/100 LocalDown")
    seen = await columns(site, "chat")
    assert [seen[name] for name in ("READY", "LOCAL", "SPLIT", "REASON")] == ["True", "0/3", "0/100", "LocalDown"]

    async def described() -> str:
        return site.kubectl("describe", "mdep", "chat").partition("Events:")[2]

    # With the numbers that were measured. One that could not be written comes after those that followed it.
    words = (
        "none of 3 local replicas is ready",
        "split 80/20 -> 0/100",
        "20 % of the requests go to the remote backend",
    )
    await eventually(described, lambda events: all(one in events for one in words))
    site.kubectl("get", "beamlit")  # The category.


async def test_a_mistyped_workload_is_warned_of(site: Site) -> None:
    typo, kind = site.served("typo", [site.backend("local-1")]), model("kind")
    kind.raw["spec"]["modelSourceRef"]["kind"] = "Deploiment"
    site.write(typo, kind)
    message = await site.until_condition("typo", "Accepted", "True", "AcceptedWithWarnings")
    assert f"spec.modelSourceRef: Deployment {site.namespace}/typo does not exist" in message
    message = await site.until_condition("kind", "Accepted", "True", "AcceptedWithWarnings")
    assert "Deployment or StatefulSet, is 'Deploiment'" in message
    await site.change(deployment("typo"))
    await site.until_condition("typo", "Accepted", "True", "Accepted")


async def test_what_is_behind_a_service_and_does_not_count_is_in_the_condition(site: Site) -> None:
    # Endpoints that no cluster mirrors into slices, and a Service that has none.
    by_hand, elsewhere = service("by-hand"), service("elsewhere")
    del by_hand.raw["spec"]["selector"]
    elsewhere.raw["spec"] = {"type": "ExternalName", "externalName": "models.example", "ports": [{"port": 80}]}
    unmirrored = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "by-hand", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 8000}]}],
    }
    site.cluster.apply(unmirrored, namespace=site.namespace)
    site.write(by_hand, elsewhere, model("by-hand"), model("elsewhere"))
    words = {
        "by-hand": 'unless they have the label endpointslice.kubernetes.io/skip-mirror: "true"',
        "elsewhere": "it is of type ExternalName, which has no endpoints; models.example can be the host of a remote",
    }
    for name, why in words.items():
        message = await site.until_condition(name, "LocalHealthy", "False", "NoReadyReplica")
        assert message.startswith("0 of 0 replicas are ready; not counted: ")
        assert why in message


async def test_the_row_of_a_model_that_is_not_served_says_why(site: Site) -> None:
    site.write(
        model("nowhere"), site.served("elder", [site.backend("local-1")]), model("younger").fronting("elder", 80)
    )
    for name, reason in (("nowhere", "ServiceNotFound"), ("younger", "Conflict")):
        await eventually(lambda name=name: site.status(name), lambda seen, why=reason: seen.get("reason") == why)
        seen = columns_at(site, name, "READY", "PORT", "SPLIT", "REASON")
        assert seen == {"READY": "False", "PORT": "", "SPLIT": "", "REASON": reason}


async def test_a_write_of_ours_changes_nothing_that_a_user_wrote(site: Site) -> None:
    """Prior fault 12: `enabled: false` and `percentage: 0` are lost on the controller's own write."""
    replica, remote = site.backend("local-1"), site.backend("remote")
    off, zero = site.served("off", [replica], remote).disabled(), site.served("zero", [replica], remote)
    zero = zero.offloading(percentage=0)
    site.write(off, zero)
    written = {one.ref.name: await site.read(one.ref.name) for one in (off, zero)}
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
    said = await site.until_condition("measured", "Accepted", "True", "AcceptedWithWarnings")
    assert "Deployment" in said and "does not exist" in said
    # None of the metrics APIs is served, and there is no pod: each says so, none counts as zero.
    # A model that was seen before its slices takes its requests back in steps.
    await site.until_status(
        "measured",
        lambda seen: (
            all(one.get("message") for one in seen.get("signals", [{}]))
            and {one["state"] for one in seen["signals"]} == {"Unknown"}
            and seen.get("split", {}).get("summary") == "100/0"
        ),
    )
    assert "spec.serviceRef" in await site.until_condition("lost", "ResolvedRefs", "False", "NoService")
    assert "first" in await site.until_condition("second", "Accepted", "False", "Conflict")
    await site.until_condition("alone", "ResolvedRefs", "False", "NoRemoteBackend")
    # The older one is gone: the next one has the name, and everybody else is as before.
    await site.remove(model("first"))
    await site.until_condition("second", "Ready", "True")
    (controller,) = site.controllers
    assert controller.alive
    assert "Traceback" not in controller.log
