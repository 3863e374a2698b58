"""The controller at work over a store: references into other namespaces, which need consent there."""

import pytest

from controller.api.contract.status import is_withdrawn
from controller.observe.fronting import TakeoverRules
from tests.support.controlled import IN_A_CLUSTER, controlled, stored
from tests.support.objects import a_deployment, a_grant, a_model, a_service, a_slice
from tests.support.store import MemoryStore, settled

SERVICE = a_service("s").port(80).selecting(app="s").in_namespace("b")
PERMITTING = SERVICE.annotated(**{"allow-from.beamlit.com/default": "true"})
MODEL = a_model("m").fronting("s", namespace="b")
AT_HOME = a_model("home").fronting("s").in_namespace("b").created("2026-06-01T00:00:00Z")
GRANT = a_grant().of("default").to("Service", "s")
GATEWAY = a_service("gateway").in_namespace("beamlit-system")
REPLICAS = a_slice("s").ready("10.0.0.1").in_namespace("b")


def in_a_cluster(store, **around):
    return controlled(store, ports=IN_A_CLUSTER, needs_consent=True, **around)


def said(store, type_, model=MODEL):
    conditions = store[model.ref].status["conditions"]
    return next((one["status"], one["reason"], one["message"]) for one in conditions if one["type"] == type_)


def serves(store, model=MODEL):
    """The Service that a model serves; empty for none."""
    route = store[model.ref].status.get("route")
    return f"{route['local']['namespace']}/{route['local']['service']}" if route else ""


NOT_PERMITTED = (
    "False",
    "RefNotPermitted",
    "spec.serviceRef: Service b/s does not permit references from namespace default, or its own namespace is not "
    "watched; to permit them: `kubectl -n b annotate service s --overwrite allow-from.beamlit.com/default=true`",
)


@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
async def test_without_consent_a_model_is_not_served_and_learns_nothing(there):
    store = MemoryStore(stored(MODEL, *((SERVICE, REPLICAS) if there else ())))
    async with in_a_cluster(store) as running:
        assert said(store, "ResolvedRefs") == NOT_PERMITTED
        assert said(store, "Ready")[:2] == ("False", "UnresolvedRefs")
        assert serves(store) == ""
        assert store[MODEL.ref].status["local"] == {"ready": 0, "total": 0, "summary": "0/0"}
        assert [(event.type, event.reason) for event in running.events] == [("Warning", "RefNotPermitted")]


@pytest.mark.parametrize(
    ("before", "consent"), [((SERVICE,), PERMITTING), ((SERVICE,), GRANT), ((), PERMITTING), ((GRANT,), SERVICE)]
)
async def test_consent_is_followed_at_once(before, consent):
    store = MemoryStore(stored(MODEL, *before))
    async with in_a_cluster(store):
        assert serves(store) == ""
        store.put(consent.stored(version="7"))
        await settled()
        assert serves(store) == "b/s"
        assert said(store, "ResolvedRefs")[:2] == ("True", "Resolved")


async def permitted_by(*consent):
    store = MemoryStore(stored(MODEL, REPLICAS, *consent))
    async with in_a_cluster(store):
        assert serves(store) == "b/s"
    return store


@pytest.mark.parametrize("while_it_runs", [True, False], ids=["running", "away"])
@pytest.mark.parametrize("grant", [True, False], ids=["grant", "annotation"])
async def test_consent_that_is_taken_away_takes_the_route_away_and_not_the_port(grant, while_it_runs):
    def take_away():
        if grant:
            store.remove(GRANT.ref)
        else:
            store.put(SERVICE.stored(version="7"))

    store = await permitted_by(*((SERVICE, GRANT) if grant else (PERMITTING,)))
    port = store[MODEL.ref].status["servingPort"]
    if not while_it_runs:
        take_away()
    async with in_a_cluster(store) as running:
        if while_it_runs:
            take_away()
            await settled()
        assert said(store, "ResolvedRefs") == NOT_PERMITTED
        assert is_withdrawn(store[MODEL.ref].status)
        assert store[MODEL.ref].status["servingPort"] == port
        assert [event.reason for event in running.events if event.type == "Warning"][:1] == ["RefNotPermitted"]
        newcomer = a_model("n").fronting("t")
        store.put(*stored(newcomer, a_service("t").port(80)))
        await settled()
        assert store[newcomer.ref].status["servingPort"] != port
        store.put(PERMITTING.stored(version="8"))
        await settled()
        assert (serves(store), store[MODEL.ref].status["servingPort"]) == ("b/s", port)


async def test_one_consent_of_two_is_enough():
    store = await permitted_by(PERMITTING, GRANT)
    async with in_a_cluster(store):
        store.remove(GRANT.ref)
        await settled()
        assert serves(store) == "b/s"


async def test_who_may_not_refer_to_a_service_keeps_nobody_from_it():
    older, younger = MODEL.created("2020-01-01T00:00:00Z"), MODEL.in_namespace("c").created("2026-05-01T00:00:00Z")
    store = MemoryStore(stored(older, younger, SERVICE, a_grant().of("c").to("Service")))
    async with in_a_cluster(store):
        assert (serves(store, older), serves(store, younger)) == ("", "b/s")
        assert said(store, "Accepted", younger)[:2] == ("True", "Accepted")


async def test_an_object_of_the_service_s_own_namespace_takes_it_from_an_older_one_of_another():
    store = await permitted_by(PERMITTING)
    async with in_a_cluster(store):
        store.put(AT_HOME.stored())
        await settled()
        assert (serves(store), serves(store, AT_HOME)) == ("", "b/s")
        words = "is that of ModelDeployment b/home, which is in the namespace of the Service"
        assert said(store, "Accepted") == ("False", "Conflict", f"spec.serviceRef: port 80 of Service b/s {words}")
        assert is_withdrawn(store[MODEL.ref].status)
        store.remove(AT_HOME.ref)
        await settled()
        assert serves(store) == "b/s"


async def test_an_edit_to_what_is_not_permitted_keeps_what_is_served():
    own = a_model("m")
    store = MemoryStore(stored(own, a_service("m").port(80), SERVICE))
    async with in_a_cluster(store):
        assert serves(store) == "default/m"
        store.put(MODEL.stored(version="9", generation=2, status=store[own.ref].status))
        await settled()
        assert said(store, "ResolvedRefs") == NOT_PERMITTED
        assert serves(store) == "default/m"


async def test_an_edit_away_from_what_is_permitted_no_longer_does_not_go_back_to_it():
    store = await permitted_by(PERMITTING)
    async with in_a_cluster(store):
        elsewhere = MODEL.fronting("gone")
        store.put(elsewhere.stored(version="9", generation=2, status=store[MODEL.ref].status))
        await settled()
        assert said(store, "ResolvedRefs")[1] == "ServiceNotFound"
        assert serves(store) == "b/s"
        store.put(SERVICE.stored(version="7"))
        await settled()
        assert serves(store) == ""


@pytest.mark.parametrize("while_it_runs", [True, False], ids=["running", "away"])
async def test_an_object_that_cannot_be_read_loses_the_route_with_the_consent(while_it_runs):
    store = await permitted_by(PERMITTING)
    broken = MODEL._with("yes", "spec", "enabled")
    store.put(broken.stored(version="9", generation=2, status=store[MODEL.ref].status))
    if not while_it_runs:
        store.put(SERVICE.stored(version="7"))
    async with in_a_cluster(store):
        if while_it_runs:
            assert serves(store) == "b/s"
            store.put(SERVICE.stored(version="7"))
            await settled()
        assert said(store, "Accepted")[0] == "False"
        assert "spec.enabled" in said(store, "Accepted")[2]
        assert is_withdrawn(store[MODEL.ref].status)


async def test_a_route_stays_withdrawn_whatever_is_written_into_the_spec_then():
    """An xDS server that was away may see the last status alone."""
    store = await permitted_by(PERMITTING)
    async with in_a_cluster(store):
        store.put(SERVICE.stored(version="7"))
        await settled()
        for number, edited in enumerate(
            (MODEL.fronting("gone"), MODEL.fronting(None), MODEL._with(7, "spec", "model")), 2
        ):
            store.put(edited.stored(version=f"{number}9", generation=number, status=store[MODEL.ref].status))
            await settled()
            assert said(store, "ResolvedRefs")[1] != "RefNotPermitted" or said(store, "Accepted")[1] == "Invalid"
            assert is_withdrawn(store[MODEL.ref].status)
        store.put(*stored(a_service("m").port(80)))
        store.put(a_model("m").stored(version="99", generation=9, status=store[MODEL.ref].status))
        await settled()
        assert serves(store) == "default/m"
        assert "withdrawn" not in store[MODEL.ref].status


async def test_a_route_that_somebody_wrote_into_a_status_is_taken_out():
    """As an older version did, which asked nobody."""
    store = await permitted_by(PERMITTING)
    other = MemoryStore([*stored(SERVICE), MODEL.stored(status=store[MODEL.ref].status)])
    async with in_a_cluster(other):
        assert is_withdrawn(other[MODEL.ref].status)


async def test_a_grant_lets_a_service_be_referred_to_and_not_be_taken_over():
    rules = TakeoverRules(gateway=GATEWAY.ref)
    ready = a_slice("gateway").in_namespace("beamlit-system").of("IPv4").port(10000).ready("10.9.0.1")
    store = MemoryStore(stored(MODEL, SERVICE, REPLICAS, GRANT, ready))
    async with in_a_cluster(store, takeover=rules):
        assert serves(store) == "b/s"
        assert said(store, "Fronted")[:2] == ("False", "TakeoverNotPermitted")
        assert "takeover" not in store[MODEL.ref].status
        allowed = SERVICE.annotated(**{"allow-from.beamlit.com/default": "takeover"})
        store.put(allowed.stored(version="7"))
        await settled()
        assert store[MODEL.ref].status["takeover"]["namespace"] == "b"


async def test_in_a_folder_nobody_asks():
    store = MemoryStore(stored(MODEL, SERVICE, REPLICAS))
    async with controlled(store):
        assert serves(store) == "b/s"


def with_workload_in_b(model):
    return model._with("b", "spec", "modelSourceRef", "namespace")


async def test_a_workload_that_does_not_permit_it_is_not_read_and_the_model_says_so():
    model = with_workload_in_b(a_model("m"))
    own = a_service("m").port(80).selecting(app="m")
    workload = a_deployment("m").probed("/up", 8080).in_namespace("b")
    store = MemoryStore(stored(model, own, workload))
    async with in_a_cluster(store, expects_workloads=True):
        words = "spec.modelSourceRef: Deployment b/m does not permit references from namespace default, or its own"
        assert said(store, "Accepted")[:2] == ("True", "AcceptedWithWarnings")
        assert said(store, "Accepted")[2].startswith(words)
        assert said(store, "Accepted")[2].endswith(
            "annotate deployment m --overwrite allow-from.beamlit.com/default=true`"
        )
        assert serves(store) == "default/m"
        store.put(a_grant().of("default").to("Deployment", "m", group="apps").stored())
        await settled()
        assert said(store, "Accepted")[2].endswith("are not in one namespace: its readiness probe is not asked")
