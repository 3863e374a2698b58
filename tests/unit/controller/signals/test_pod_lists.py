"""Many selectors of one namespace: one question, and for each selector what it would be told by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controller.api.kubernetes.pods import PodObject
from controller.api.kubernetes.selectors import LONGEST, terms_of
from controller.decision import Cause, Known, Sample, Unknown
from controller.signals.kube_api import Question, ask_for_items
from controller.signals.pod_lists import MOST_COMPARED, chosen_by
from controller.signals.source import Subject
from controller.signals.together import FROM
from controller.store.kube.answers import UnusableAnswerError
from controller.store.objects import ObjectRef
from controller.store.protocol import ForbiddenError, NotFoundError, StoreError, UnavailableError
from tests.support.metrics_api import CHAT, PODS, USED, Measuring, a_running_pod, items, measuring, usage_of
from tests.support.waiting import until

CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}}}
SELECTORS = (
    *(f"app=m{number}" for number in range(FROM)),
    "app in (m0,m1)",
    "app=m2,canary",
    "app=m2,!canary",
    "app=nobody",
    "app notin (m0,m1,m2,m3,m4,m5,m6)",
    "tier=x,app=m3",
)


def labels_of(number: int) -> dict[str, str]:
    return {"app": f"m{number}", "tier": "x"} | ({"canary": ""} if number == 2 else {})


@dataclass
class Cluster:
    """Pods with labels and what they use, chosen by label as an API server does.

    `asked` is each path with its selector, `most` how many bytes may be said of all; `faults` are answers to who asks
    for all at a path.
    """

    pods: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    faults: dict[str, StoreError | dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    most: dict[str, int | None] = field(default_factory=dict)

    def add(self, name: str, labels: Mapping[str, str], cpu: str) -> None:
        pod = a_running_pod(name)
        pod["metadata"]["labels"] = dict(labels)
        self.pods[name], self.labels[name] = (pod, usage_of(name, server=cpu)), labels

    async def fetch(self, path: str, query: Mapping[str, str], most: int | None = None) -> dict[str, Any]:
        selector = query.get("labelSelector", "")
        self.asked.append((path, selector))
        if not selector:
            self.most[path] = most
            fault = self.faults.get(path)
            if isinstance(fault, StoreError):
                raise fault
            if fault:
                return fault
        terms = (terms_of(selector) or ()) if selector else ()
        names = [name for name in self.pods if all(term.holds(self.labels[name]) for term in terms)]
        return items(*(self.pods[name][path == USED] for name in names))

    def asked_for_all(self, path: str) -> int:
        return self.asked.count((path, ""))

    def asked_by_selector(self, path: str) -> set[str]:
        return {selector for at, selector in self.asked if at == path and selector}


def a_cluster() -> Cluster:
    """Two pods of each model, which use what no other does, and one of nobody."""
    cluster = Cluster()
    for number in range(FROM):
        for which in "ab":
            cluster.add(f"m{number}-{which}", labels_of(number), f"{100 * number + (which == 'b')}m")
    cluster.add("stranger", {"tier": "x"}, "9")
    return cluster


def subject(selector: str) -> Subject:
    return replace(CHAT, ref=ObjectRef("ModelDeployment", "default", selector), selector=selector)


async def samples(sources: Measuring, selectors: tuple[str, ...] = SELECTORS) -> Mapping[str, Sample]:
    """Return the sample of each selector as soon as none is awaited any more."""

    def look() -> Mapping[str, Sample]:
        return {one: sources.look(CPU, subject(one)) for one in selectors}

    def all_there() -> bool:
        return not any(isinstance(one, Unknown) and one.pending for one in look().values())

    await until(all_there, "all are asked for")
    return look()


@pytest.fixture(scope="module")
def alone() -> Mapping[str, Sample]:
    """What each selector is told that is alone in its namespace."""

    async def told(selector: str) -> Mapping[str, Sample]:
        async with measuring(a_cluster()) as sources:
            return await samples(sources, (selector,))

    async def all_told() -> Mapping[str, Sample]:
        return {key: one for found in await asyncio.gather(*map(told, SELECTORS)) for key, one in found.items()}

    return asyncio.run(all_told())


async def test_one_question_tells_each_selector_what_it_would_be_told_alone(alone: Mapping[str, Sample]) -> None:
    cluster = a_cluster()
    async with measuring(cluster) as sources:
        together = await samples(sources)
    assert sorted(cluster.asked) == sorted([(PODS, ""), (USED, "")])
    assert together == alone
    assert len({one.value.value for one in together.values() if isinstance(one, Known)}) > FROM
    assert together["app=nobody"] == Unknown("no pod has the labels of its selector", cause=Cause.NO_SAMPLE)


A_LIE = {"containers": [{"resources": {"requests": {"cpu": "1e30"}}}]}


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (PODS, items({"metadata": {"name": 3}})),
        (PODS, items({"metadata": {"name": "x", "labels": {"app": "m0"}}, "spec": A_LIE})),
        (PODS, items(*[{"metadata": {"name": "x"}}] * 5001)),
        (PODS, {"metadata": {"continue": "x"}} | items({"metadata": {"name": "x", "labels": {"app": "m0"}}})),
        (PODS, ForbiddenError(f"GET {PODS}: HTTP 403")),
        (USED, items({"metadata": {"name": 3}})),
        (USED, items(usage_of("m0-a", server="-1"))),
        (USED, items(*[{"metadata": {"name": "x"}}] * 5001)),
        (USED, {"metadata": {"continue": "x"}} | items(usage_of("m0-a", server="0m"))),
        (USED, UnusableAnswerError(f"GET {USED}: the answer is larger than 1 MiB")),
    ],
)
async def test_an_answer_for_all_that_cannot_be_used_or_is_not_permitted_costs_nobody_a_sample(
    path: str, fault: dict[str, Any] | StoreError, alone: Mapping[str, Sample]
) -> None:
    cluster = a_cluster()
    cluster.faults[path] = fault
    async with measuring(cluster) as sources:
        assert await samples(sources) == alone
    assert cluster.asked_by_selector(path) == set(SELECTORS)
    assert cluster.asked_for_all(path) == 1


async def test_selectors_of_whose_pods_an_answer_for_all_has_nothing_are_asked_for_alone(
    alone: Mapping[str, Sample],
) -> None:
    cluster = a_cluster()
    cluster.faults[USED] = items(usage_of("m0-a", server="0m"), usage_of("m0-b", server="1m"))
    async with measuring(cluster) as sources:
        assert await samples(sources, SELECTORS[:FROM]) == {one: alone[one] for one in SELECTORS[:FROM]}
    assert cluster.asked_by_selector(USED) == set(SELECTORS[1:FROM])


async def test_pods_that_wait_for_a_node_have_no_sample_and_cost_no_question_of_their_own() -> None:
    cluster = a_cluster()
    for pod in ("m0-a", "m0-b"):
        cluster.pods[pod][0]["status"] = {"phase": "Pending"}
    waiting = Unknown("metrics.k8s.io has no cpu of its pods yet", cause=Cause.NO_SAMPLE)
    cluster.faults[USED] = items(*(used for name, (_, used) in cluster.pods.items() if not name.startswith("m0")))
    async with measuring(cluster) as sources:
        assert (await samples(sources, SELECTORS[:FROM]))["app=m0"] == waiting
    assert not cluster.asked_by_selector(USED)


async def test_what_nobody_of_the_models_has_costs_none_of_them_anything() -> None:
    cluster = a_cluster()
    cluster.add("liar", {"tier": "x"}, "-1")
    async with measuring(cluster) as sources:
        await samples(sources, SELECTORS[:FROM])
    assert sorted(cluster.asked) == sorted([(PODS, ""), (USED, "")])


async def test_a_failure_that_concerns_all_is_told_to_all_in_the_same_words() -> None:
    cluster = a_cluster()
    cluster.faults[USED] = NotFoundError(f"GET {USED}: HTTP 404")
    async with measuring(cluster) as sources:
        why = Unknown("metrics.k8s.io is not served: install metrics-server", cause=Cause.NO_SOURCE)
        assert await samples(sources) == dict.fromkeys(SELECTORS, why)
        assert not cluster.asked_by_selector(USED)
        # Who serves it again is believed again.
        del cluster.faults[USED]
        sources.clock.advance(5)
        await until(lambda: isinstance(sources.look(CPU, subject("app=m0")), Known), "it is measured")


async def test_of_two_questions_it_is_told_which_had_no_answer() -> None:
    cluster = a_cluster()
    cluster.faults[PODS] = UnavailableError(f"GET {PODS}: HTTP 500: it is broken", status=500)
    async with measuring(cluster) as sources:
        found = set((await samples(sources)).values())
    why = "the list of pods: the API server failed (HTTP 500): HTTP 500: it is broken"
    assert found == {Unknown(why, cause=Cause.NOT_ANSWERING)}


async def test_what_an_answer_for_all_may_cost_grows_with_how_many_ask() -> None:
    cluster = a_cluster()
    async with measuring(cluster) as sources:
        await samples(sources)
    number = len(SELECTORS)
    assert cluster.most == {PODS: number * 128 * 1024, USED: number * 16 * 1024}


async def test_few_pods_are_looked_at_for_a_selector_with_a_label_that_few_have() -> None:
    labels = [{"app": f"m{number}", "tier": "x"} for number in range(1000)]
    assert len(labels) ** 2 > MOST_COMPARED
    selectors = {f"app=m{number},tier=x" for number in range(1000)}
    assert await chosen_by(labels, selectors) == {f"app=m{number},tier=x": [number] for number in range(1000)}


async def test_selectors_that_cost_much_are_left_out_and_others_not() -> None:
    labels = [{"app": f"m{number}", "tier": "x"} for number in range(5000)]
    dear = {f"tier=x,app notin (m{number})" for number in range(5000)}
    cheap = {"app=m1", "app=nobody"}
    chosen = await chosen_by(labels, dear | cheap)
    assert chosen.keys() & cheap == cheap
    assert sum(map(len, chosen.values())) <= MOST_COMPARED


async def test_what_a_selector_costs_grows_with_all_that_it_asks_for() -> None:
    labels = [{"app": f"m{number}", "tier": "x"} for number in range(1000)]
    of_one = ",".join(["tier=x", *(f"k{number} notin (a)" for number in range(20))])
    of_many = f"tier=x,app in ({','.join(f'm{number}' for number in range(120))})"
    too_long = ",".join(f"k{number}=v" for number in range(200))
    assert (await chosen_by(labels, {of_one, of_many})).keys() == {of_one}
    assert len(too_long) > LONGEST
    assert not await chosen_by(labels, {too_long})


async def turns_during(work: Awaitable[object]) -> int:
    """How often others go on until something is done that waits for nobody."""
    task, turns = asyncio.ensure_future(work), 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


async def test_others_have_their_turns_while_the_pods_of_a_namespace_are_read() -> None:
    cluster = Cluster()
    for number in range(1000):
        cluster.add(f"m-{number}", {"app": f"m{number}"}, "1m")
    pods = [pod for pod, _ in cluster.pods.values()]
    assert await turns_during(ask_for_items(cluster, Question("", PODS, "", most=1), PodObject)) > 1000 / 100
    labels = [pod["metadata"]["labels"] for pod in pods]
    assert (
        await turns_during(chosen_by(labels, {f"app=m{number}" for number in range(500)})) > 1000 / 250 + 2 * 500 / 50
    )
