"""Which replicas EndpointSlices name."""

import pytest

from controller.api.kubernetes.endpoints import MOST, Replica, count_of_ready, replicas_of, staying, taken, usable
from tests.support.objects import a_slice


def replicas(*slices, port=""):
    return replicas_of([one.parsed() for one in slices], port)


def test_ready_not_ready_and_on_their_way_out():
    found = replicas(a_slice().ready("10.0.0.3").not_ready("10.0.0.2").terminating("10.0.0.1"))
    assert found == (
        Replica("10.0.0.1", 8080, ready=False, leaving=True),
        Replica("10.0.0.2", 8080, False),
        Replica("10.0.0.3", 8080, True),
    )
    assert staying(found) == found[1:]


@pytest.mark.parametrize(
    ("conditions", "ready", "leaving"),
    [
        ({"ready": True, "serving": True, "terminating": True}, True, False),  # publishNotReadyAddresses
        ({"ready": True, "terminating": True}, True, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True),
        ({"serving": True, "terminating": True}, True, False),
        ({"terminating": True}, True, False),
        ({"ready": False, "serving": False}, False, False),
        ({"ready": False, "serving": True}, False, False),
    ],
)
def test_what_an_endpoint_says_of_itself(conditions, ready, leaving):
    assert replicas(a_slice()._endpoints(("10.0.0.1",), conditions)) == (Replica("10.0.0.1", 8080, ready, leaving),)


@pytest.mark.parametrize(
    "conditions",
    [{"ready": False, "serving": False, "terminating": True}, {"ready": False, "terminating": True}],
)
def test_who_terminates_and_does_not_answer_is_no_replica(conditions):
    assert replicas(a_slice()._endpoints(("10.0.0.1",), conditions)) == ()


def test_who_leaves_is_the_last_choice():
    ready, waiting = Replica("10.0.0.1", 80, True), Replica("10.0.0.2", 80, False)
    leaving = Replica("10.0.0.3", 80, ready=False, leaving=True)
    assert usable((ready, waiting, leaving)) == (ready,)
    assert usable((waiting, leaving)) == (leaving,)
    assert usable((waiting,)) == ()


def test_of_one_service_so_many_are_taken_and_those_that_are_ready_leave_none_out():
    waiting = [Replica(f"1.0.{number // 250}.{number % 250}", 80, False) for number in range(MOST + 1)]
    leaving = [Replica("1.9.0.1", 80, False, leaving=True)]
    ready = [Replica(f"10.0.{number // 250}.{number % 250}", 80, True) for number in range(MOST + 1)]
    assert taken(ready[:MOST]) == tuple(ready[:MOST])
    assert taken(ready) == tuple(ready[:MOST])
    assert taken((*waiting, *leaving, *ready)) == (*waiting[:MOST], *leaving, *ready[:MOST])
    # One that is gone makes room for one, and no other changes.
    assert taken(ready[1:]) == tuple(ready[1:])


def test_a_pod_that_leaves_by_one_slice_and_stays_by_another_stays():
    found = replicas(a_slice("a", "1").terminating("10.0.0.1"), a_slice("a", "2").ready("10.0.0.1"))
    assert found == (Replica("10.0.0.1", 8080, True),)


def test_who_says_nothing_is_ready():
    assert replicas(a_slice().saying_nothing("10.0.0.1")) == (Replica("10.0.0.1", 8080, True),)


def test_a_pod_in_two_slices_counts_once_and_is_ready_if_either_says_so():
    found = replicas(a_slice("a", "1").not_ready("10.0.0.1"), a_slice("a", "2").ready("10.0.0.1"))
    assert found == (Replica("10.0.0.1", 8080, True),)


def test_of_a_dual_stack_service_only_one_family_counts():
    v4, v6 = a_slice("a", "4").ready("10.0.0.1"), a_slice("a", "6").of("IPv6").ready("fd00::1")
    assert replicas(v6, v4) == (Replica("10.0.0.1", 8080, True),)
    assert replicas(v6) == (Replica("fd00::1", 8080, True),)


@pytest.mark.parametrize(
    "useless",
    [
        a_slice("a", "4").port(8000, "http").not_ready("10.0.0.1"),
        a_slice("a", "4").port(8000, "http").terminating("10.0.0.1"),
        a_slice("a", "4").port(8000, "web").ready("10.0.0.1"),
        a_slice("a", "4").port(None, "http").ready("10.0.0.1"),
        a_slice("a", "4").port(8000, "http"),
    ],
    ids=["not ready", "leaving", "another port", "no number", "nobody"],
)
def test_a_family_that_nothing_can_be_sent_to_hides_no_other_one(useless):
    v6 = a_slice("a", "6").of("IPv6").port(8000, "http").ready("fd00::1")
    assert replicas(useless, v6, port="http") == (Replica("fd00::1", 8000, True),)


def test_of_two_families_without_anybody_ready_those_that_leave_count_and_else_ipv4():
    v6 = a_slice("a", "6").of("IPv6")
    waiting, leaving = a_slice("a", "4").not_ready("10.0.0.1"), a_slice("a", "4").terminating("10.0.0.1")
    assert replicas(v6.terminating("fd00::1"), waiting) == (Replica("fd00::1", 8080, False, leaving=True),)
    assert replicas(v6.terminating("fd00::1"), leaving) == (Replica("10.0.0.1", 8080, False, leaving=True),)
    assert replicas(v6.not_ready("fd00::1"), waiting) == (Replica("10.0.0.1", 8080, False),)


def test_ready_pods_are_counted_in_the_family_that_has_any():
    v4, v6 = a_slice("a", "4").not_ready("10.0.0.1"), a_slice("a", "6").of("IPv6").ready("fd00::1", "fd00::2")
    assert count_of_ready([v4.parsed(), v6.parsed()]) == 2
    assert count_of_ready([v4.ready("10.0.0.2").parsed(), v6.parsed()]) == 1


def test_names_are_no_addresses():
    assert replicas(a_slice().of("FQDN").ready("pod.example")) == ()


def test_only_the_port_asked_for():
    slices = a_slice().ready("10.0.0.1").port(8000, "http").and_port(9000, "admin")
    assert replicas(slices, port="admin") == (Replica("10.0.0.1", 9000, True),)
    assert replicas(slices, port="other") == ()
    assert replicas(a_slice().ready("10.0.0.1").port(None), port="") == ()


def test_the_order_of_slices_does_not_matter():
    first, second = a_slice("a", "1").ready("10.0.0.2"), a_slice("a", "2").ready("10.0.0.1")
    assert replicas(first, second) == replicas(second, first)
