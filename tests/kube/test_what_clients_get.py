"""The table of docs/cluster.md: what clients get in each case, and that the status says so."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backend
from tests.support.kube.cases import Case, Said, all_cases, documented_cases
from tests.support.kube.site import Site, endpoints, model, service
from tests.support.load import Report, Traffic, closed_loop
from tests.support.network import unused_port
from tests.support.objects import AModel, a_secret
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT, CLIENTS = 2, 8
WORKERS = 2
TOLD_OF_EXCESS = {
    "Offloading": "True Overflow",
    "offloadingStatus": "True",
    "beamlit_model_condition Offloading": "1.0",
}
"""What status and metrics say once Envoys have reported that the excess of a limit left."""
FOLLOWS = {"Accepted": "True AcceptedWithWarnings", "FailingOver": "False AsDecided", "Paused": "False NotPaused"}
"""What is the same in all cases: its Deployment is not there, clients get what the split says, and nobody holds it."""
GAUGES = (
    "beamlit_model_ready",
    "beamlit_model_replicas",
    "beamlit_model_replicas_ready",
    "beamlit_model_capacity_requests",
)
CASES = documented_cases()
each_case = pytest.mark.parametrize(("case", "said"), CASES, ids=[case.name for case, _ in CASES])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(running_site: Site) -> AsyncIterator[Site]:
    """The model of each case; one replica and one remote backend serve them all."""
    replica, remote = running_site.backend("local-1"), running_site.backend("remote")
    nobody = f"{running_site.host}:{unused_port()}"
    running_site.write(a_secret("known").holding(apiKey="a-key"))
    for case, _ in CASES:
        name, ready = case.name, case.replicas == "yes"
        there = endpoints(name, replica, ready=ready, leaving=case.replicas == "leaving")
        running_site.write(service(name), there)
    # Models come last: what they refer to is known by then, and no event tells that it came.
    running_site.write(*(model_of(case, remote, nobody) for case, _ in CASES))
    yield running_site


def model_of(case: Case, remote: Backend, nobody: str) -> AModel:
    one = model(case.name)
    if case.remote != "none":
        ref = {"name": "known" if case.credential == "yes" else "missing"}
        auth = {"type": "apiKey", "apiKey": {"secretRef": ref, "header": "x-key"}}
        host = nobody if case.remote == "down" else f"{remote.host}:{remote.port}"
        # One that several models are sent to directly is counted for all of them together.
        own = {"timeouts": {"connect": f"{10 + [known for known, _ in CASES].index(case)}s"}}
        one = one.with_remote(host, **own, **({} if case.credential == "-" else {"authConfig": auth}))
    if case.remote == "off":
        one = one.disabled()
    if case.policy == "yes":
        one.raw["spec"]["policies"] = [{"refType": "localPolicy", "name": "stay"}]
    # For so long as restoreAfter an overflow stays.
    return one.offloading(maxRequestsPerReplica=LIMIT, restoreAfter="1s") if case.limit == "yes" else one


async def test_the_table_has_every_case_once() -> None:
    cases = [case for case, _ in CASES]
    assert len(cases) == len(set(cases))
    assert set(cases) == all_cases()


@each_case
async def test_the_status_says_what_clients_get(played: Site, case: Case, said: Said) -> None:
    wanted = said_by_the_table(case, said)
    await eventually(lambda: shown(played, case.name), lambda seen: seen == wanted)
    assert await clients_get(played, (await played.status(case.name))["servingPort"]) == said.clients
    # The split may be what clients get for a moment only. What was just sent beyond a limit may be told by now.
    told = TOLD_OF_EXCESS if "excess" in said.clients else {}
    seen = await shown(played, case.name)
    # The metrics may be ahead of the status.
    unlike = {key: value for key, value in seen.items() if value not in (wanted[key], told.get(key, wanted[key]))}
    assert (unlike, seen.keys()) == ({}, wanted.keys())


def said_by_the_table(case: Case, said: Said) -> dict[str, str]:
    offloads = said.split != "100/0"
    local, remote = (int(share) / 100 for share in said.split.split("/"))
    ready, limited = case.replicas == "yes", case.limit == "yes" and said.remote != "Unknown NoRemote"
    conditions = {
        "Ready": said.ready,
        "ResolvedRefs": said.resolved,
        "RemoteHealthy": said.remote,
        "Offloading": f"{offloads} {said.reason}",
        "Programmed": "True Programmed",
        **FOLLOWS,
        "Fronted": "False Disabled" if case.remote == "off" else "False NoGateway",
        "LocalHealthy": "True ReplicasReady" if ready else "False NoReadyReplica",
    }
    values = {"True": "1.0", "False": "0.0", "Unknown": ""}
    return {
        "split": f"{said.split} {said.reason}",
        "history": f"{said.split} {said.reason}",
        **conditions,
        **{f"beamlit_model_condition {type_}": values[one.split()[0]] for type_, one in conditions.items()},
        "offloadingStatus": str(offloads),
        "beamlit_model_split_ratio": f"{local} {remote}",
        "beamlit_model_split_reason": f"{said.reason} 1.0",
        # A limit where nothing may leave is none.
        "beamlit_model_capacity_requests": str(float(ready * LIMIT)) if limited else "",
        "beamlit_model_ready": str(float(said.ready.startswith("True"))),
        "beamlit_model_replicas": str(float(case.replicas != "leaving")),
        "beamlit_model_replicas_ready": str(float(ready)),
    }


async def shown(site: Site, name: str) -> dict[str, str]:
    """What the status and the metrics say of a model, in the words of the table."""
    status = await site.status(name)
    if "split" not in status:
        return {}
    found = {one["type"]: f"{one['status']} {one['reason']}" for one in status["conditions"]}
    latest = status["history"][0]
    text = (await site.controllers[0].look("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("beamlit_model_"))
    labels = f'name="{name}",namespace="{site.namespace}"'
    of_sides = [lines.get(f'beamlit_model_split_ratio{{{labels},side="{side}"}}', "") for side in ("local", "remote")]
    of_reasons = re.findall(rf'^beamlit_model_split_reason{{{labels},reason="(\w+)"}} (.+)$', text, re.MULTILINE)
    of_conditions = {type_: lines.get(f'beamlit_model_condition{{{labels},type="{type_}"}}', "") for type_ in found}
    return {
        "split": f"{status['split']['summary']} {status['split']['reason']}",
        "history": f"{latest['split']} {latest['reason']}",
        **found,
        **{f"beamlit_model_condition {type_}": value for type_, value in of_conditions.items()},
        "offloadingStatus": str(status["offloadingStatus"]),
        "beamlit_model_split_ratio": " ".join(of_sides),
        "beamlit_model_split_reason": ", ".join(map(" ".join, of_reasons)),
        **{metric: lines.get(f"{metric}{{{labels}}}", "") for metric in GAUGES},
    }


async def clients_get(site: Site, port: int) -> str:
    """Send one request, and then more at once than the limit lets stay; say what becomes of both."""
    alone = await site.ask(port)
    if alone.error:
        return alone.error.removeprefix("status ")
    report = await at_once(site, port)
    assert report.errors == {}
    if alone.side == "local" and report.summary.remote:
        # Each further worker of Envoy lets one more pass.
        assert LIMIT <= report.summary.local <= LIMIT + WORKERS - 1
        return "local, excess remote"
    assert {"local": report.summary.local, "remote": report.summary.remote}[alone.side] == CLIENTS
    return alone.side


async def at_once(site: Site, port: int) -> Report:
    """Send so many requests that all are in flight together: replicas answer none before all have arrived."""

    async def arrived() -> int:
        return sum([await asyncio.to_thread(one.count) for one in site.backends])

    before = await arrived()
    held = Traffic(headers=lambda _: {"on-local": "held=all"}, keepalive=False)
    url = f"http://{site.gateway}:{port}/"
    sending = asyncio.create_task(closed_loop(url, clients=CLIENTS, requests=CLIENTS, traffic=held))
    await eventually(arrived, lambda count: count == before + CLIENTS)
    for one in site.backends:
        await asyncio.to_thread(one.release, "all")
    return await sending


async def test_each_column_shows_it(played: Site) -> None:
    statuses = {case.name: await played.status(case.name) for case, _ in CASES}
    shows = {name: one.get("remote", {}).get("host", "") for name, one in statuses.items()}
    assert {name for name, host in shows.items() if host} == {
        case.name for case, _ in CASES if case.remote != "none" and case.policy == "no"
    }
    wanted = {
        case.name: {
            "SPLIT": said.split,
            "REASON": said.reason,
            "READY": said.ready.split()[0],
            "LOCAL": {"yes": "1/1", "no": "0/1", "leaving": "0/0"}[case.replicas],
            "PORT": str(statuses[case.name]["servingPort"]),
            "FRONTEND": "Gateway",
            "REMOTE": shows[case.name],
            "PROXIES": "Programmed",
        }
        for case, said in CASES
    }

    async def columns() -> dict[str, dict[str, str]]:
        text = await asyncio.to_thread(played.kubectl, "get", "mdep", "--output=wide")
        header, *lines = text.splitlines()
        # A cell may be empty: where each begins, its heading says.
        begins = {one[0]: one.start() for one in re.finditer(r"\S+", header)}
        rows = [{name: (line[begin:].split("  ")[0]).strip() for name, begin in begins.items()} for line in lines]
        return {row["NAME"]: {name: row[name] for name in next(iter(wanted.values()))} for row in rows}

    # That requests left beyond a limit is told for a while, in place of the reason of the split.
    await eventually(columns, lambda seen: seen == wanted)


async def test_each_case_has_its_events_and_no_other(played: Site) -> None:
    wanted = {case.name: set(said.events.split(", ")) for case, said in CASES}

    async def told() -> dict[str, dict[str, Event]]:
        return await eventually(
            lambda: events(played), lambda seen: all(wanted[name] <= seen[name].keys() for name in seen)
        )

    await told()
    overflowing = [case.name for case, said in CASES if "excess" in said.clients]
    for name in overflowing:
        await at_once(played, (await played.status(name))["servingPort"])
        wanted[name].add("Overflow")
    seen = await told()
    for name in overflowing:
        assert re.search(r"^\d+ of the last \d+ requests .* at a split of 100/0: what the", seen[name]["Overflow"].note)
        seen[name].pop("AsDecided", None)  # Told when it is over.
    # A model may be seen before the Service that was written right before it.
    assert {name: set(found) - {"ServiceNotFound", "Resolved"} for name, found in seen.items()} == wanted
    for case, said in CASES:
        if said.resolved.endswith("SecretNotFound"):
            assert f"Secret {played.namespace}/missing does not exist" in seen[case.name]["SecretNotFound"].note
        if "NotReady" in said.events:
            assert seen[case.name]["NotReady"].note.startswith("NothingAnswers: no local replica is ready, and ")
        # That a split is what it is for want of a remote backend is one, too, where the cause has an event of its own.
        normal = {"Ready", "Overflow"} | (set() if said.resolved.endswith("NoRemoteBackend") else {"NoRemoteBackend"})
        types = {reason: seen[case.name][reason].type for reason in wanted[case.name]}
        assert types == {reason: "Normal" if reason in normal else "Warning" for reason in types}


class Event(NamedTuple):
    """What there is of an event but its reason."""

    type: str
    note: str


async def events(site: Site) -> dict[str, dict[str, Event]]:
    """The events of each model by their reasons."""
    text = await asyncio.to_thread(site.kubectl, "get", "events.v1.events.k8s.io", "--output=json")
    found: dict[str, dict[str, Event]] = {case.name: {} for case, _ in CASES}
    items: list[dict[str, Any]] = json.loads(text)["items"]
    for one in items:
        if one["regarding"]["kind"] == "ModelDeployment":
            found[one["regarding"]["name"]][one["reason"]] = Event(one["type"], one["note"])
    return found
