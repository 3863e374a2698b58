"""Which objects of other namespaces may be referred to: those that permit it, and no others."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.intent.consent import View, any_grant_in, not_permitted
from controller.observe.index import ObjectIndex
from controller.observe.observation import subject_of
from controller.store.objects import ObjectRef
from controller.store.protocol import Batch
from tests.support.indexed import index_of
from tests.support.objects import a_deployment, a_grant, a_model, a_service, a_slice

SERVICE, DEPLOYMENT = ObjectRef("Service", "b", "s"), ObjectRef("Deployment", "b", "d")
OF_B = a_service("s").port(80).in_namespace("b")
WORKLOAD_OF_B = a_deployment("d").container().in_namespace("b")
SLICE_OF_B = a_slice("s").ready("10.0.0.1").in_namespace("b")


def view(*objects, namespace="a", needed=True):
    known = {one.ref: one for one in (OF_B, WORKLOAD_OF_B, SLICE_OF_B, *objects)}
    return View(index_of(*known.values()), namespace, needed=needed)


def shown(view):
    """What is shown of the Service, its endpoints and the workload."""
    return bool(view.service("b", "s")), bool(view.slices("b", "s")), bool(view.workload(DEPLOYMENT))


def test_without_consent_nothing_of_another_namespace_is_there():
    assert shown(view()) == (False, False, False)
    assert not view().permits(SERVICE)


def test_in_its_own_namespace_nobody_asks():
    assert shown(view(namespace="b")) == (True, True, True)


def test_where_all_is_one_user_s_nobody_asks():
    assert shown(view(needed=False)) == (True, True, True)


@pytest.mark.parametrize(
    ("annotations", "permitted"),
    [
        ({"allow-from.beamlit.com/a": "true"}, True),
        ({"allow-from.beamlit.com/c": "true", "allow-from.beamlit.com/a": "true"}, True),
        ({"allow-from.beamlit.com/a": "takeover"}, True),
        ({"allow-from.beamlit.com/a": "false"}, False),
        ({"allow-from.beamlit.com/a": ""}, False),
        ({"allow-from.beamlit.com/c": "true"}, False),
        ({"allow-from.beamlit.com/": "true"}, False),
        ({"allow-from.beamlit.com/*": "true"}, False),
        ({"beamlit.com/allow-from": "a"}, False),
    ],
)
def test_an_annotation_permits_one_namespace(annotations, permitted):
    service, workload = OF_B.annotated(**annotations), WORKLOAD_OF_B.annotated(**annotations)
    assert shown(view(service)) == (permitted, permitted, False)
    assert shown(view(workload)) == (False, False, permitted)


@pytest.mark.parametrize(
    ("grant", "permitted"),
    [
        (a_grant().of("a").to("Service"), (True, True, False)),
        (a_grant().of("a").to("Service", "s"), (True, True, False)),
        (a_grant().of("a").to("Service", "t"), (False, False, False)),
        (a_grant().of("a").to("Deployment", group="apps"), (False, False, True)),
        (a_grant().of("a").to("Deployment"), (False, False, False)),
        (a_grant().of("a").to("StatefulSet", group="apps"), (False, False, False)),
        (a_grant().of("a").to("Service").to("Deployment", "d", group="apps"), (True, True, True)),
        (a_grant().of("c").of("a").to("Secret").to("Service"), (True, True, False)),
        (a_grant().of("c").to("Service"), (False, False, False)),
        (a_grant().of("a", kind="HTTPRoute", group="gateway.networking.k8s.io").to("Service"), (False, False, False)),
        (a_grant().of("a", group="").to("Service"), (False, False, False)),
        (a_grant().of("a").to("Service").in_namespace("a"), (False, False, False)),
        # What cannot be read permits nothing.
        (a_grant().of("a"), (False, False, False)),
        (a_grant().of("a").to("Service")._with("yes", "spec", "from"), (False, False, False)),
    ],
)
def test_a_grant_permits_what_it_says_in_its_own_namespace(grant, permitted):
    assert shown(view(grant)) == permitted


def test_one_grant_that_cannot_be_read_takes_nothing_from_the_others():
    broken = a_grant("broken")._with(7, "spec")
    assert shown(view(broken, a_grant().of("a").to("Service")))[0]


def test_what_is_not_there_may_be_permitted_beforehand():
    early = View(index_of(a_grant().of("a").to("Service")), "a")
    assert early.permits(SERVICE)
    assert early.service("b", "s") is None


names = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(names, names, st.sampled_from(["", "s", "t"])), max_size=6), names, names)
def test_grants_permit_the_union_of_what_each_says(granted, who, where):
    """And who depends on them is told of each change: what was permitted before changes nothing."""
    index = ObjectIndex()
    for number, (at, from_, name) in enumerate(granted):
        grant = a_grant(f"g{number}").of(from_).to("Service", name).in_namespace(at)
        index.permissions(at)
        index.apply(Batch(changed=(grant.stored(),)))
    expected = who == where or any((at, from_) == (where, who) and name in ("", "s") for at, from_, name in granted)
    assert View(index, who).permits(ObjectRef("Service", where, "s")) == expected
    gone = tuple(a_grant(f"g{number}").in_namespace(at).ref for number, (at, _, _) in enumerate(granted))
    index.apply(Batch(deleted=gone))
    assert View(index, who).permits(ObjectRef("Service", where, "s")) == (who == where)


def test_who_depends_on_the_grants_of_a_namespace_is_looked_at_again():
    index = index_of(a_model())
    index.refers(a_model().ref, [any_grant_in("b")])
    grant = a_grant().of("default").to("Service")
    assert index.apply(Batch(changed=(grant.stored(),))) == {a_model().ref}
    assert index.apply(Batch(changed=(grant.in_namespace("c").stored(),))) == frozenset()
    assert index.apply(Batch(deleted=(grant.ref,))) == {a_model().ref}


def test_the_command_is_the_one_that_permits():
    words = not_permitted(DEPLOYMENT, "a")
    command = shlex.split(words.split("`")[1])
    expected = "kubectl -n b annotate deployment d --overwrite allow-from.beamlit.com/a=true"
    assert command == expected.split()
    annotation, _, value = command[-1].partition("=")
    assert view(WORKLOAD_OF_B.annotated(**{annotation: value})).permits(DEPLOYMENT)


@pytest.mark.parametrize(
    "name", ["x; rm -rf ~", "$(reboot)", "s\nkubectl delete ns b", "-n", "--all", "S", "s.", "s" * 300, "s'"]
)
def test_what_can_be_no_name_gets_into_no_command(name):
    """Somebody with more rights than the author of the object may copy it from there into a shell."""
    assert "kubectl -n" not in not_permitted(ObjectRef("Service", "b", name), "a")
    assert "kubectl -n" not in not_permitted(ObjectRef("Service", name, "s"), "a")


def test_metrics_of_pods_of_another_namespace_are_measured_with_its_consent_alone():
    workload = WORKLOAD_OF_B._with({"app": "d"}, "spec", "selector", "matchLabels")
    grant = a_grant().of("a").to("Deployment", "d", group="apps")
    model = a_model("m").in_namespace("a")._with("b", "spec", "modelSourceRef", "namespace").fronting("own")
    intent = model._with("d", "spec", "modelSourceRef", "name").intent()
    own = a_service("own").port(80).selecting(app="own").in_namespace("a")
    measured = [subject_of(intent, view(workload, own, *more)) for more in ((), (grant,))]
    assert [(one.namespace, one.selector) for one in measured] == [("a", "app=own"), ("b", "app=d")]


def test_of_a_service_without_consent_no_pod_is_measured():
    intent = a_model("m").in_namespace("a").fronting("s", namespace="b").intent()
    assert subject_of(intent, view(OF_B.selecting(app="s"))).selector == ""
