"""What is concluded from what was read, where a real cluster cannot be made to say it at will: times, and versions."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from controller.api.registry import LEASE, Program
from controller.check.api_server import check_apis, judge_version
from controller.check.certificates import Shown
from controller.check.cluster import ClusterReader, ServiceAccount
from controller.check.control_plane import judge_certificate, judge_lease
from controller.check.definitions import judge
from controller.check.installation import RunningProgram
from controller.check.models import judge_model, keys_held
from controller.check.pods import pods_ready
from controller.check.report import Topic, TopicFindings
from controller.check.rights import in_words, needed_rights
from controller.install.crd import definitions
from controller.store.kube.answers import RawAnswer
from controller.store.objects import ObjectRef, StoredObject, micro_time

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SAYS = TopicFindings(Topic.XDS)
MODELS = "modeldeployments.deployment.beamlit.com"


def version(text: str) -> list[str]:
    return [one.health for one in judge_version("https://here", RawAnswer(200, text.encode()))]


def test_a_version_is_old_below_1_27_and_a_vendor_may_write_a_plus_behind_it() -> None:
    assert version('{"major": "1", "minor": "27", "gitVersion": "v1.27.0"}') == ["ok"]
    assert version('{"major": "1", "minor": "26+", "gitVersion": "v1.26.9-eks"}') == ["ok", "failed"]
    assert version('{"major": "1", "minor": "31+"}') == ["ok"]
    assert version("<html>") == ["ok", "unseen"]
    assert version('{"major": "one"}') == ["ok", "unseen"]


class Serves:
    """An API server that serves these APIs."""

    def __init__(self, *versions: str) -> None:
        self._groups = [{"versions": [{"groupVersion": version}]} for version in versions]

    async def read(self, path: str) -> dict[str, Any]:
        assert path == "/apis"
        return {"groups": self._groups}


def test_apis_that_are_not_served_are_named() -> None:
    def apis(*versions: str) -> list[tuple[str, str, str]]:
        found = asyncio.run(check_apis(cast(ClusterReader, Serves(*versions))))
        return [(one.health, one.message, one.remedy) for one in found if one.check == "apis"]

    needed = ("apps/v1", "coordination.k8s.io/v1", "discovery.k8s.io/v1", "events.k8s.io/v1")
    ((health, message, _),) = apis(*needed)
    assert (health, set(needed)) == ("ok", set(message.removeprefix("it serves ").split(", ")))
    ((health, message, remedy),) = apis(*needed[:2], "discovery.k8s.io/v1beta1", needed[3])
    assert (health, message) == ("failed", "it does not serve discovery.k8s.io/v1")
    assert remedy == "enable these APIs (--runtime-config of the API server)"


def test_a_program_that_is_scaled_to_nothing_is_told_with_the_command_that_starts_it() -> None:
    account = ServiceAccount("n", "beamlit-envoy")
    stopped = RunningProgram("envoy", "n", "gateway", account, ("envoy",), wanted=0)
    # Nobody has to be asked for that.
    (found,) = asyncio.run(pods_ready(cast(ClusterReader, None), stopped))
    assert (found.health, found.message) == ("failed", "Deployment n/gateway is scaled to 0")
    assert found.remedy == "kubectl -n n scale --replicas=2 deployment gateway"


def lease(holder: str = "me", renewed: datetime = NOW, written: datetime = NOW) -> StoredObject:
    managed = [
        {
            "manager": "beamlit",
            "time": written.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "fieldsV1": {"f:spec": {"f:renewTime": {}}},
        },
        {"manager": "kubectl", "time": "2026-01-01T13:00:00Z", "fieldsV1": {"f:metadata": {}}},
    ]
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": micro_time(renewed)}
    metadata = {"name": "l", "namespace": "n", "resourceVersion": "1", "managedFields": managed}
    return StoredObject(ObjectRef(LEASE.kind, "n", "l"), {"metadata": metadata, "spec": spec})


def judged(one: StoredObject) -> list[tuple[str, str]]:
    return [(finding.check, finding.health) for finding in judge_lease(one, NOW)]


def test_a_lease_is_over_by_the_clock_of_the_server_and_the_clock_of_its_holder_is_compared_with_that() -> None:
    assert judged(lease()) == [("leader", "ok")]
    assert judged(lease(holder="")) == [("leader", "failed")]
    long_ago = NOW - timedelta(seconds=60)
    assert judged(lease(renewed=long_ago, written=long_ago)) == [("leader", "failed")]
    # Its holder renews, and his clock is wrong.
    for off in (-40, 40):
        assert judged(lease(renewed=NOW + timedelta(seconds=off))) == [("leader", "ok"), ("clock", "warning")]


def test_a_certificate_is_told_of_before_it_ends() -> None:
    def at(days: float, life: int = 90) -> str:
        shown = Shown("a", 1, NOW + timedelta(days=days), timedelta(days=life))
        return judge_certificate(SAYS, "a:1", shown, NOW).health

    assert [at(89), at(10), at(8.9), at(0)] == ["ok", "ok", "warning", "failed"]
    # One of a day that is renewed each day.
    assert [at(0.5, life=1), at(0.05, life=1)] == ["ok", "warning"]


def stored_definition() -> dict[str, Any]:
    return copy.deepcopy(dict(definitions()[MODELS]))


def judged_definition(theirs: dict[str, Any]) -> tuple[str, str]:
    finding = judge(MODELS, definitions()[MODELS], theirs)
    return finding.health, finding.message


def test_a_definition_is_compared_field_by_field() -> None:
    assert judged_definition(stored_definition())[0] == "ok"
    older = stored_definition()
    status = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    del status["properties"]["verdicts"]
    health, message = judged_definition(older)
    assert (health, "it lacks status.verdicts, status.verdicts[].matched" in message) == ("failed", True)
    newer = stored_definition()
    newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["later"] = {}
    assert judged_definition(newer)[0] == "warning"
    assert "newer than this version: it has spec.later" in judged_definition(newer)[1]
    other = stored_definition()
    other["spec"]["versions"][0]["additionalPrinterColumns"] = []
    assert "with other bounds, words or columns" in judged_definition(other)[1]
    renamed = stored_definition()
    renamed["spec"]["versions"][0]["name"] = "v1"
    assert "does not serve v1alpha1; it serves v1" in judged_definition(renamed)[1]
    refused = stored_definition()
    refused["status"] = {"conditions": [{"type": "NamesAccepted", "status": "False", "reason": "ShortNamesConflict"}]}
    assert "is not served: ShortNamesConflict" in judged_definition(refused)[1]


def test_a_definition_without_the_fields_at_fault_is_that_of_this_version_and_one_without_a_rule_is_not() -> None:
    kept = json.loads(re.sub(r'"fieldPath": "[^"]*", |, "fieldPath": "[^"]*"', "", json.dumps(stored_definition())))
    assert kept != stored_definition()
    assert judged_definition(kept)[0] == "ok"
    spec = kept["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-validations"].pop()
    assert "with other bounds, words or columns" in judged_definition(kept)[1]


def test_the_keys_of_a_secret_are_known_by_who_wrote_them() -> None:
    written = {"fieldsV1": {"f:data": {".": {}, "f:tls.crt": {}, "f:tls.key": {}}, "f:type": {}}}
    assert keys_held({"metadata": {"managedFields": [written]}}) == {"tls.crt", "tls.key"}
    assert keys_held({"metadata": {"managedFields": [{"fieldsV1": {"f:type": {}}}]}}) == frozenset()
    assert keys_held({"metadata": {"managedFields": [{}]}}) is None
    assert keys_held({"metadata": {}}) is None


def told(status: dict[str, Any], age: float = 60) -> list[tuple[str, str]]:
    created = (NOW - timedelta(seconds=age)).isoformat()
    metadata = {"namespace": "n", "name": "m", "generation": 2, "creationTimestamp": created}
    return [(one.check, one.health) for one in judge_model({"metadata": metadata, "status": status}, NOW)]


def test_what_a_status_says_is_told_with_what_it_means() -> None:
    ready = {"type": "Ready", "status": "True"}
    well: dict[str, Any] = {"observedGeneration": 2, "conditions": [ready]}
    assert told(well) == []
    assert told({}) == [("ready", "failed")]
    assert told({}, age=5) == [("ready", "warning")]
    assert told({**well, "observedGeneration": 1}) == [("ready", "warning")]
    assert told({**well, "conditions": [{**ready, "status": "False", "reason": "UnresolvedRefs"}]}) == [
        ("ready", "failed")
    ]
    assert told({**well, "conditions": [{**ready, "status": "False", "reason": "Updating"}]}) == [("ready", "warning")]
    warned = {"type": "Accepted", "status": "True", "reason": "AcceptedWithWarnings", "message": "spec.frontend"}
    assert told({**well, "conditions": [ready, warned]}) == [("accepted", "warning")]
    assert told({**well, "signals": [{"name": "cpu", "state": "Unknown"}]}) == [("signals", "warning")]
    for reason, expected in {
        "TakeoverContested": [("fronted", "failed")],
        "Pending": [("fronted", "warning")],
        "NoGateway": [("fronted", "warning")],
        "NotAsked": [],
        "Disabled": [],
    }.items():
        fronted = {"type": "Fronted", "status": "False", "reason": reason}
        assert told({**well, "conditions": [ready, fronted]}) == expected, reason


def test_rights_are_those_of_the_registry_where_the_program_watches_and_at_home() -> None:
    everywhere = list(needed_rights(Program.CONTROLLER, (), "home"))
    assert {one.namespace for one in everywhere} == {"", "home"}
    assert {one.kind.kind for one in everywhere if one.namespace == "home"} == {"EndpointSlice", "Lease"}
    some = list(needed_rights(Program.XDS_SERVER, ("a", "b"), "home"))
    assert {one.namespace for one in some} == {"a", "b", "home"}
    assert {
        "group": "discovery.k8s.io",
        "version": "v1",
        "resource": "endpointslices",
        "verb": "watch",
        "namespace": "a",
    } in [dict(one.attributes) for one in some]
    groups = {one.only_for for one in everywhere}
    assert groups == {"", "models with such metrics", "models with frontend: Takeover, the default, or gatewayService"}
    patched = [one for one in everywhere if one.grant.subresource == "status"]
    assert in_words(patched) == f"patch, update {MODELS}/status in all namespaces"
