"""Directing a model by hand and having it explained, on a real API server, with the rights that the documents name."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.api.timing import REAL
from controller.programs.by_hand import Direction, Hand, Outcome, direct
from controller.programs.explain import explained
from controller.programs.models import Place
from tests.support.beamlit import Ended, beamlit
from tests.support.kube.cluster import User
from tests.support.kube.site import Site
from tests.support.load import closed_loop
from tests.support.objects import a_model
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAUSED, OVERRIDE = "beamlit.com/paused", "beamlit.com/override"
HAND = {"apiGroups": ["deployment.beamlit.com"], "resources": ["modeldeployments"], "verbs": ["get", "patch"]}
"""What docs/cluster.md gives to somebody who directs by hand."""


def hand(site: Site) -> User:
    return site.cluster.user(site.namespace, "hand", HAND)


async def run(site: Site, user: User, command: str, *more: object) -> Ended:
    return await beamlit(*command.split(), "--kubeconfig", user.kubeconfig, "-n", site.namespace, *more)


async def annotations(site: Site, name: str) -> dict[str, str]:
    found: dict[str, str] = (await site.read(name))["metadata"].get("annotations", {})
    return {key: value for key, value in found.items() if key.startswith("beamlit.com/")}


async def served(site: Site, name: str) -> None:
    site.write(site.served(name, [site.backend(f"{name}-local")], site.backend(f"{name}-remote")))
    # The model may be seen before its slices: then the first requests leave, and come back in steps.
    await site.until_split(name, "100/0 Steady")
    await site.until_condition(name, "Ready", "True")


async def test_a_split_set_by_hand_is_in_force_and_resumed(running_site: Site) -> None:
    site, user = running_site, hand(running_site)
    await served(site, "chat")
    asked = await run(site, user, "set-split 30 --for 1h chat --wait")
    assert (asked.code, asked.errors) == (0, "")
    (override,) = (await annotations(site, "chat")).values()
    until = datetime.fromisoformat(override.partition(" until=")[2])
    assert timedelta(minutes=55) < until - datetime.now(UTC) <= timedelta(hours=1, seconds=1)
    end = f"{until:%Y-%m-%dT%H:%M:%SZ}"
    lines = [line.strip() for line in asked.output.splitlines()]
    assert lines[0] == f"{site.namespace}/chat in the cluster {site.cluster.url}"
    assert lines[1] == "was    the rules decide"
    assert lines[2] == f"now    set by hand: 30 % of the requests go to the remote backend, until {end}"
    assert lines[3].startswith("undo   beamlit resume chat --kubeconfig ")
    assert lines[4].startswith("in force      70/30 Override: set by hand: 30 %")
    assert await site.split("chat") == "70/30 Override"

    explained = await run(site, user, "explain chat -o json")
    status, shown = await site.status("chat"), json.loads(explained.output)
    assert shown["split"] == status["split"]
    assert shown["split"]["changesAt"] == end
    assert [one["rule"] for one in shown["rules"] if one["decides"]] == ["Override"]
    # What no status says takes other rights: the commands are told.
    home = (await site.status("chat"))["controller"].partition("/")[0]
    assert shown["more"]["envoys"].startswith(f"kubectl -n {home} get pods -l ")
    text = await run(site, user, "explain chat")
    assert f"  see requests kubectl -n {home} port-forward " in text.output and "  meanwhile    curl " in text.output
    assert text.output.startswith(f"{site.namespace}/chat: 70 % of the requests stay local")

    paused = await run(site, user, "pause chat --wait")
    assert (paused.code, await annotations(site, "chat")) == (0, {OVERRIDE: override, PAUSED: "true"})
    assert "with the split that was set by hand" in paused.output
    again = await run(site, user, "pause chat")
    assert (again.code, "as it was, nothing is written" in again.output) == (0, True)

    port, toggles = await site.port("chat"), itertools.cycle((f"{PAUSED}-", f"{PAUSED}=true"))

    async def counted() -> dict[str, int]:
        """What is explained of where requests went: that is written with whatever else is, such as a pause."""
        assert (await closed_loop(f"http://{site.gateway}:{port}/", 4, 20)).errors == {}
        await asyncio.to_thread(site.kubectl, "annotate", "--overwrite", "mdep", "chat", next(toggles))
        return json.loads((await run(site, user, "explain chat -o json")).output).get("traffic") or {
            "local": 0,
            "remote": 0,
        }

    sent = await eventually(counted, lambda seen: seen["local"] and seen["remote"])
    share, total = sent["remote"] / (sent["local"] + sent["remote"]), sent["local"] + sent["remote"]
    assert abs(share - 0.3) < 4.5 * (0.3 * 0.7 / total) ** 0.5
    explained = await run(site, user, "explain chat")
    assert re.search(
        r"^  measured     \d+ of the last \d+ requests \(.* s, \d+%\) left, counted", explained.output, re.M
    )

    resumed = await run(site, user, "resume chat --wait")
    assert (resumed.code, await annotations(site, "chat")) == (0, {})
    assert "in force      100/0 Steady" in resumed.output


async def test_failover_and_failback(running_site: Site) -> None:
    site, user = running_site, hand(running_site)
    await served(site, "away")
    assert (await run(site, user, "failover away --wait")).code == 0
    assert await site.split("away") == "0/100 Override"
    back = await run(site, user, "failback away --wait")
    assert (back.code, await site.split("away")) == (0, "100/0 Override")
    assert "undo   beamlit set-split 100 away" in back.output


OFF = pytest.mark.parametrize("off", [timedelta(minutes=-3), timedelta(0), timedelta(minutes=3)])


@OFF
async def test_what_is_ago_or_ahead_is_so_by_the_clock_of_the_cluster(running_site: Site, off: timedelta) -> None:
    site, user = running_site, hand(running_site)
    site.write(a_model("old"))
    place, begun = Place(kubeconfig=user.kubeconfig, namespace=site.namespace), datetime.now(UTC)
    found = await asyncio.to_thread(explained, place, "old", lambda: datetime.now(UTC) + off, REAL)
    ended = datetime.now(UTC)
    # By a second of the answer's time, and by what it took.
    assert begun <= found.now <= ended + (ended - begun) + timedelta(seconds=1)


@OFF
async def test_a_while_is_one_of_the_clock_of_the_cluster(running_site: Site, off: timedelta) -> None:
    """Whoever types may have another clock: his two minutes were over before they began, or lasted for five."""
    site, user, lasting, told = running_site, hand(running_site), timedelta(minutes=2), list[str]()
    site.write(a_model("late"))
    skewed = Hand(told.append, lambda: datetime.now(UTC) + off, REAL)
    place = Place(kubeconfig=user.kubeconfig, namespace=site.namespace)
    begun = datetime.now(UTC)
    outcome = await asyncio.to_thread(direct, place, "late", Direction(remote=30, lasting=lasting), skewed)
    ended = datetime.now(UTC)
    (override,) = (await annotations(site, "late")).values()
    until = datetime.fromisoformat(override.partition(" until=")[2])
    assert outcome is Outcome.DONE
    # By a second of the answer's time, by one of the annotation's, and by what it took.
    assert begun + lasting <= until <= ended + (ended - begun) + lasting + timedelta(seconds=2)
    assert f"until {until:%Y-%m-%dT%H:%M:%SZ}" in "\n".join(told)
    assert any("by which it ends" in line for line in told) is bool(off)


async def test_what_a_rule_before_it_decides_is_told_at_once(running_site: Site) -> None:
    site, user = running_site, hand(running_site)
    model = site.served("off", [site.backend("off-local")], site.backend("off-remote")).disabled()
    site.write(model)
    await eventually(lambda: site.split("off"), "100/0 Disabled".__eq__)
    ended = await run(site, user, "failover off --wait --timeout 25s")
    assert ended.code == 6
    assert "note   Disabled comes before it and decides for now: spec.enabled is false" in ended.output
    assert "not in force  Disabled comes before it and decides: 100/0, spec.enabled is false" in ended.output


async def test_without_the_right_it_says_which_one_is_missing(site: Site) -> None:
    site.write(a_model("chat"))
    reader = site.cluster.user(site.namespace, "reader", {**HAND, "verbs": ["get"]})
    nobody = site.cluster.user(site.namespace, "nobody")
    for user, verb in ((reader, "patch"), (nobody, "get")):
        ended = await run(site, user, "pause chat")
        assert (ended.code, ended.output) == (4, "")
        right = f"the right to {verb} modeldeployments.deployment.beamlit.com in the namespace {site.namespace}"
        assert right in ended.errors
    assert await annotations(site, "chat") == {}
    explained = await run(site, reader, "explain chat")
    assert (explained.code, "no controller has looked at this model yet" in explained.output) == (0, True)


async def test_nothing_but_the_annotations_changes_and_others_who_manage_them_are_named(site: Site) -> None:
    user = hand(site)
    site.write(a_model("chat").annotated(team="blue", **{OVERRIDE: "remote=10"}))
    before = await site.read("chat")
    ended = await run(site, user, "set-split 20 chat")
    after = await site.read("chat")
    assert ended.code == 0
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert after["metadata"]["annotations"] == {"team": "blue", OVERRIDE: "remote=20"}
    (note,) = [line for line in ended.output.splitlines() if line.startswith("  note ")]
    assert "manages this annotation too" in note
    assert "undo   beamlit set-split 10 chat" in ended.output


async def test_what_is_not_there_or_does_not_answer(site: Site, tmp_path: Any) -> None:
    user = hand(site)
    absent = await run(site, user, "pause absent")
    assert (absent.code, absent.output) == (1, "")
    assert f"there is no ModelDeployment {site.namespace}/absent in the cluster {site.cluster.url}" in absent.errors
    config = json.loads(user.kubeconfig.read_text())
    contexts = tmp_path / "contexts"
    contexts.write_text(json.dumps({**config, "current-context": ""}))
    unsaid = await beamlit("pause", "chat", "--kubeconfig", contexts)
    assert (unsaid.code, "no context is chosen (--context): there are test" in unsaid.errors) == (3, True)
    wrong = await beamlit("pause", "chat", "--kubeconfig", contexts, "--context", "prod")
    assert (wrong.code, "there is no context prod: there are test" in wrong.errors) == (3, True)
    stranger = tmp_path / "stranger"
    stranger.write_text(json.dumps({**config, "users": [{"name": "test", "user": {"token": "nobody's"}}]}))
    unknown = await beamlit("pause", "chat", "--kubeconfig", stranger)
    assert (unknown.code, "does not know who you are" in unknown.errors) == (4, True)
    config["contexts"][0]["context"]["namespace"] = site.namespace
    contexts.write_text(json.dumps(config))
    site.write(a_model("chat"))
    at_home = await beamlit("pause", "chat", "--kubeconfig", contexts)
    assert (at_home.code, await annotations(site, "chat")) == (0, {PAUSED: "true"})
