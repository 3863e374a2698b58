"""Whether requests go where the split sends them."""

from dataclasses import replace

import pytest

from controller.api.contract.route import Split
from controller.decision import LocalFacts, SentRequests, detour, elsewhere, overflow
from controller.decision.detours import still_unused

READY = LocalFacts(ready=2, total=3)


def found(away, local, remote, *, may_leave=False):
    return detour(Split.away(away), SentRequests(local, remote, 8.4), READY, may_leave=may_leave)


@pytest.mark.parametrize(
    ("away", "local", "remote", "reason"),
    [
        (0, 0, 1, "ReplicasNotUsed"),
        (0, 99, 1, "ReplicasFail"),
        (100, 1, 0, "RemoteNotUsed"),
        (100, 1, 99, "RemoteFails"),
        (20, 0, 20, "ReplicasNotUsed"),
        (20, 300, 700, "ReplicasFail"),
        (80, 20, 0, "RemoteNotUsed"),
        (50, 700, 300, "RemoteFails"),
        (10, 500, 0, "RemoteNotUsed"),
        (90, 0, 500, "ReplicasNotUsed"),
        (1, 1375, 0, "RemoteNotUsed"),
        (10, 132, 0, "RemoteNotUsed"),
        (50, 20, 0, "RemoteNotUsed"),
        (20, 0, 9, "ReplicasNotUsed"),
    ],
)
def test_requests_that_go_elsewhere(away, local, remote, reason):
    assert found(away, local, remote).reason == reason


@pytest.mark.parametrize(
    ("away", "local", "remote"),
    [
        (0, 0, 0),
        (0, 50, 0),
        (100, 0, 50),
        (20, 80, 20),
        (20, 75, 25),
        (20, 0, 8),
        (50, 19, 0),
        (10, 131, 0),
        (1, 1374, 0),
        (50, 540, 460),
    ],
)
def test_requests_that_go_where_they_should_as_far_as_can_be_told(away, local, remote):
    assert found(away, local, remote) is None


@pytest.mark.parametrize(
    ("away", "local", "remote", "reason"),
    [
        (50, 20, 0, "RemoteNotUsed"),
        (50, 0, 20, "ReplicasNotUsed"),
        (50, 19, 0, None),
        (90, 0, 132, "ReplicasNotUsed"),
        (90, 132, 0, "RemoteNotUsed"),
        (100, 132, 0, None),
        (0, 0, 132, None),
    ],
)
@pytest.mark.parametrize("lately", [SentRequests(0, 0, 0.0), SentRequests(2, 3, 10.0)], ids=["none", "few"])
def test_where_few_come_those_of_minutes_tell(away, local, remote, reason, lately):
    """Where one side has all, what goes to the other one is told by the last seconds alone, and forgotten as soon."""
    traffic = replace(lately, run=SentRequests(local, remote, 200.0))
    if away in (0, 100):
        traffic = replace(traffic, local=0, remote=0)
    for is_limited in (False, True):
        found, excess = elsewhere(Split.away(away), traffic, READY, is_limited=is_limited)
        assert ((found and found.reason), excess) == (reason, None)
        assert not found or "requests (200 s) went to the" in found.message


def test_what_may_never_have_got_to_a_remote_backend_is_no_run_there():
    assert SentRequests(0, 0, 0.0, run=SentRequests(0, 132, 200.0)).arrived().run is None
    assert SentRequests(0, 0, 0.0, run=SentRequests(132, 0, 200.0)).arrived().run


def test_what_was_told_to_be_unused_still_is_until_it_gets_something():
    def still(reason, local, remote, away=50):
        traffic = SentRequests(0, 0, 0.0, run=SentRequests(local, remote, 200.0))
        found = still_unused(reason, Split.away(away), traffic, READY)
        return found and found.message

    words = "3 of the last 3 requests (200 s) went to the replicas at a split of 50/50: the remote backend fails"
    assert still("RemoteNotUsed", 3, 0) == words
    assert still("ReplicasNotUsed", 3, 0) is None
    assert still("RemoteNotUsed", 0, 3) is None
    assert still("RemoteNotUsed", 0, 0) is None
    assert still("RemoteNotUsed", 3, 0, away=100) is None


def test_with_a_limit_the_excess_is_no_detour_but_all_of_it_is():
    assert found(0, 1, 99, may_leave=True) is None
    assert found(0, 0, 99, may_leave=True).reason == "ReplicasNotUsed"
    assert found(50, 700, 300, may_leave=True).reason == "RemoteFails"


@pytest.mark.parametrize(
    ("away", "local", "remote", "failed", "reason"),
    [
        (0, 50, 50, 50, "ReplicasFail"),
        (0, 50, 50, 25, "ReplicasFail"),
        (0, 50, 50, 24, "Overflow"),
        (0, 99, 1, 1, "ReplicasFail"),
        (0, 99, 1, 0, "Overflow"),
        (0, 100, 0, 20, None),
        (20, 60, 40, 10, "ReplicasFail"),
        (20, 60, 40, 9, "Overflow"),
        (20, 80, 20, 50, None),
        (0, 0, 50, 0, "ReplicasNotUsed"),
    ],
)
def test_with_a_limit_what_may_have_failed_at_replicas_is_no_excess(away, local, remote, failed, reason):
    split, traffic = Split.away(away), SentRequests(local, remote, 10.0, failed=failed)
    found = [one for one in elsewhere(split, traffic, READY, is_limited=True) if one]
    assert [one.reason for one in found] == ([reason] if reason else [])
    told = "1 try failed at replicas" if failed == 1 else f"{failed} tries failed at replicas"
    assert all((told in one.message) is bool(failed) for one in found)
    # Without one it is by where they went, and how often replicas failed is told beside it.
    free = [one for one in elsewhere(split, traffic, READY, is_limited=False) if one]
    assert [one.reason for one in free] == [one.reason.replace("Overflow", "ReplicasFail") for one in found]


def test_the_words_have_the_counts():
    assert found(0, 3, 17).message == (
        "17 of the last 20 requests (8 s) went to the remote backend at a split of 100/0, though 2 of 3 replicas are "
        "ready: some fail requests or Envoy's check"
    )
    assert found(100, 20, 0).message == (
        "20 of the last 20 requests (8 s) went to the replicas at a split of 0/100: the remote backend fails"
    )


@pytest.mark.parametrize(
    ("away", "local", "remote", "leaves"),
    [
        (0, 100, 1, True),
        (0, 100, 0, False),
        (0, 0, 100, False),
        (20, 60, 40, True),
        (20, 79, 21, False),
        (100, 1, 99, False),
    ],
)
def test_what_the_replicas_have_no_room_for(away, local, remote, leaves):
    excess = overflow(Split.away(away), SentRequests(local, remote, 10.0))
    assert (excess is not None) == leaves
    if excess:
        assert excess.reason == "Overflow"
        assert excess.message.startswith(f"{remote} of the last {local + remote} requests (10 s) went to the remote")
