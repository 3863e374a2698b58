"""The delta dialect, one statement of docs/xds.md per test."""

import pytest
from scripted import DeltaScript, cluster, endpoints, listener, names, route

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Layered, Resource, ResourceKey
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest
from xds_server.stream.protocol.openings import Openings

A1, A2, B1 = cluster("a"), cluster("a", "2"), cluster("b")


def started(*resources, **more):
    """A client that has ACKed all clusters."""
    client = DeltaScript(*resources, **more)
    for response in client.ask(CLUSTER):
        client.ack(response)
    return client


def test_x03_an_unknown_type_is_answered_with_removed_names():
    assert names(DeltaScript().ask("type.googleapis.com/x", "n")) == [("type.googleapis.com/x", [], ["n"])]


def test_x04_a_nonce_of_one_type_never_validates_another():
    client = DeltaScript(A1, listener("l"))
    (clusters,) = client.ask(CLUSTER)
    (listeners,) = client.ask(LISTENER)
    client.ask(CLUSTER, nonce=listeners.nonce)
    assert not client.session.holds(*key_and_version(A1))
    client.ack(clusters)
    assert client.session.holds(*key_and_version(A1))


def key_and_version(resource):
    return resource.key, resource.version


def test_x05_a_first_request_with_an_old_nonce_is_initial():
    assert names(DeltaScript(A1).ask(CLUSTER, nonce="CDS-1")) == [("CDS", ["a"], [])]


def test_x13_x16_an_ack_is_a_request_without_error_and_is_not_answered():
    client = DeltaScript(A1)
    (response,) = client.ask(CLUSTER)
    assert client.ack(response) == ()
    assert client.output.acknowledged == {A1.key}
    assert client.session.initialised


def test_x14_after_a_nack_nothing_is_sent_until_the_content_changes():
    client = started(A1)
    (bad,) = client.publish(A2)
    assert client.nack(bad, "no") == ()
    assert client.after(1000) == ()
    assert client.publish(A2) == ()
    assert names(client.publish(cluster("a", "3"))) == [("CDS", ["a"], [])]


def test_x15_a_rejection_is_recorded_and_the_next_ack_clears_it():
    client = started(A1)
    (bad,) = client.publish(A2)
    client.nack(bad, "no good")
    (rejection,) = client.session.rejections
    assert (rejection.key, rejection.version, rejection.message) == (A2.key, A2.version, "no good")
    (good,) = client.publish(cluster("a", "3"))
    client.ack(good)
    assert client.session.rejections == ()


def test_x15_who_comes_back_and_is_sent_nothing_but_what_it_refuses_counts():
    good, bad = listener("good"), listener("bad")
    client = DeltaScript(good, bad)
    (response,) = client.ask(LISTENER, "*", claimed={"good": good.version})
    assert names([response]) == [("LDS", ["bad"], [])]
    assert not client.session.initialised
    client.nack(response, "no")
    assert client.session.initialised
    client.ask(CLUSTER)
    assert not client.session.initialised, "it has not answered that"


def test_x15_of_much_that_is_refused_a_part_is_told_and_each_is_known():
    clusters = [cluster(f"c{number:03}") for number in range(300)]
    client = DeltaScript(*clusters)
    (response,) = client.ask(CLUSTER)
    client.nack(response, " ".join(one.key.name for one in clusters))
    assert len(client.session.rejections) == 20
    assert all(client.session.rejection(one.key).version == one.version for one in clusters)
    assert client.session.rejection(listener("c001").key) is None


def test_x17_x40_a_subscription_inside_a_nack_or_with_a_stale_nonce_is_honoured():
    client = DeltaScript(endpoints("a"), endpoints("b"), endpoints("c"))
    (first,) = client.ask(ENDPOINT, "a")
    (second,) = client.nack(first, "no", "b")
    assert names([second]) == [("EDS", ["b"], [])]
    assert client.ask(ENDPOINT, "c", nonce=first.nonce) == ()
    assert names(client.ack(second)) == [("EDS", ["c"], [])]


def test_x18_a_nack_of_one_type_does_not_stop_another():
    client = started(A1)
    (bad,) = client.publish(A2)
    client.nack(bad, "no")
    assert names(client.ask(LISTENER)) == [("LDS", [], [])]


@pytest.mark.parametrize("first", [{}, {"claimed": {"a": A1.version}}])
def test_x30_no_names_at_all_mean_everything(first):
    client = DeltaScript(A1)
    (response,) = client.ask(CLUSTER, **first)
    assert names([response]) == [("CDS", [] if first else ["a"], [])]
    (named,) = client.ack(response, "a")
    client.ack(named)
    assert names(client.publish(B1)) == [("CDS", ["b"], [])]


def test_x30_giving_up_the_star_keeps_what_was_named():
    client = DeltaScript(A1, B1)
    (response,) = client.ask(CLUSTER, "*", "a")
    client.ack(response, unsubscribe=("*",))
    assert names(client.publish(A2, cluster("b", "2"))) == [("CDS", ["a"], [])]


def test_x31_a_first_wildcard_is_answered_even_if_there_is_nothing():
    assert names(DeltaScript().ask(CLUSTER)) == [("CDS", [], [])]
    assert names(DeltaScript(A1).ask(CLUSTER, "*", claimed={"a": A1.version})) == [("CDS", [], [])]


def test_x32_every_name_asked_for_is_answered_even_if_it_is_held():
    client = DeltaScript(endpoints("a"))
    (first,) = client.ask(ENDPOINT, "a")
    assert names(client.ack(first, "a")) == [("EDS", ["a"], [])]


def test_x33_x34_a_missing_name_is_removed_promptly_and_sent_when_it_appears():
    client = DeltaScript()
    (first,) = client.ask(ENDPOINT, "a")
    assert names([first]) == [("EDS", [], ["a"])]
    client.ack(first)
    assert names(client.publish(endpoints("a"))) == [("EDS", ["a"], [])]


def test_x35_x46_only_what_changed_is_sent():
    client = started(A1, B1)
    assert names(client.publish(A2)) == [("CDS", ["a"], [])]


def test_x36_what_is_deleted_is_removed():
    client = started(A1, B1)
    assert names(client.publish(removed=[A1])) == [("CDS", [], ["a"])]


def test_x37_nothing_follows_an_unsubscription():
    client = DeltaScript(endpoints("a"), endpoints("b"))
    (first,) = client.ask(ENDPOINT, "a", "b")
    assert client.ack(first, unsubscribe=("a", "never-there")) == ()
    assert names(client.publish(endpoints("a", "2"), endpoints("b", "2"))) == [("EDS", ["b"], [])]


@pytest.mark.parametrize(("exists", "answer"), [(True, ("CDS", ["a"], [])), (False, ("CDS", [], ["a"]))])
def test_x38_a_name_given_up_under_a_wildcard_is_answered(exists, answer):
    client = DeltaScript(*[A1] * exists)
    (first,) = client.ask(CLUSTER, "*", "a")
    assert names(client.ack(first, unsubscribe=("a",))) == [answer]


def test_x39_claims_are_believed_changed_is_resent_and_vanished_is_removed():
    client = DeltaScript(A1, cluster("b", "2"), terms=ClientTerms(timing=StreamTiming(settle=0)))
    claimed = {"a": A1.version, "b": B1.version, "gone": "0"}
    assert names(client.ask(CLUSTER, "*", claimed=claimed)) == [("CDS", ["b"], ["gone"])]


def test_x39_claims_alone_subscribe_to_nothing():
    client = DeltaScript(endpoints("a"))
    assert client.ask(ENDPOINT, claimed={"a": "0"}) == ()
    assert client.publish(endpoints("a", "2")) == ()


def test_x39_a_vanished_cluster_stays_until_the_client_named_its_routes_and_has_the_new_ones():
    new = route("r", content="2")
    client = DeltaScript(new)
    (first,) = client.ask(CLUSTER, "*", claimed={"old": "0"})
    assert names([first]) == [("CDS", [], [])]
    client.ack(first)
    client.ask(LISTENER)
    (routes,) = client.ask(ROUTE, "r", claimed={"r": "0"})
    assert names([routes]) == [("RDS", ["r"], [])]
    assert client.after(100) == ()
    assert names(client.ack(routes)) == [("CDS", [], ["old"])]


def test_x39_a_reader_of_clusters_alone_hears_of_the_vanished_a_moment_later():
    client = DeltaScript()
    (first,) = client.ask(CLUSTER, "*", claimed={"old": "0"})
    client.ack(first)
    assert client.output.wake_at == 1.0
    assert names(client.after(1)) == [("CDS", [], ["old"])]


def test_x42_a_revert_to_the_last_good_content_is_sent_after_a_nack():
    client = started(A1)
    (bad,) = client.publish(A2)
    client.nack(bad, "no")
    (revert,) = client.publish(A1)
    assert names([revert]) == [("CDS", ["a"], [])]
    client.ack(revert)
    assert client.session.holds(A1.key, A1.version)
    assert client.session.rejections == ()


def test_x48_one_response_at_a_time_and_the_newest_state_wins():
    client = DeltaScript(A1)
    (first,) = client.ask(CLUSTER)
    assert client.publish(A2) == ()
    assert client.publish(cluster("a", "3"), B1) == ()
    (last,) = client.ack(first)
    assert [(r.key.name, r.body) for r in last.resources] == [("a", b"3"), ("b", b"1")]


def test_x50_a_response_above_the_limit_is_split():
    client = DeltaScript(*(cluster(n, "x" * 1000) for n in "abc"), terms=ClientTerms(max_response_bytes=2500))
    (first,) = client.ask(CLUSTER)
    (second,) = client.ack(first)
    assert names([first, second]) == [("CDS", ["a", "b"], []), ("CDS", ["c"], [])]
    assert client.ack(second) == ()


@pytest.mark.parametrize(("secrets", "answer"), [(True, ("SDS", ["s"], [])), (False, ("SDS", [], ["s"]))])
def test_x57_secrets_are_seen_only_by_who_may(secrets, answer):
    client = DeltaScript(Resource.of(SECRET, "s", b"hush"), terms=ClientTerms(secrets=secrets))
    assert names(client.ask(SECRET, "s")) == [answer]
    assert "hush" not in repr(client.output)


def test_a_nack_that_names_a_resource_quarantines_that_one_and_sends_the_others_again():
    client = DeltaScript(A1, B1, cluster("ab"))
    (first,) = client.ask(CLUSTER)
    (again,) = client.nack(first, "Error adding/updating cluster(s) a: bad")
    assert names([again]) == [("CDS", ["ab", "b"], [])]
    client.ack(again)
    assert [r.key for r in client.session.rejections] == [A1.key]
    assert client.session.holds(*key_and_version(B1))


def test_a_nack_that_names_nothing_is_narrowed_down():
    client = DeltaScript(*(cluster(n) for n in "abcde"))
    queue, sizes = list(client.ask(CLUSTER)), []
    while queue:
        response = queue.pop(0)
        sizes.append(len(response.resources))
        bad = any(r.key.name == "d" for r in response.resources)
        queue += client.nack(response, "boom") if bad else client.ack(response)
    assert [r.key.name for r in client.session.rejections] == ["d"]
    assert all(client.session.holds(*key_and_version(cluster(n))) for n in "abce")
    assert len(sizes) <= 7


def test_a_rejected_resource_that_is_deleted_is_removed_and_forgotten():
    client = DeltaScript(A1)
    (first,) = client.ask(CLUSTER)
    client.nack(first, "no")
    (removal,) = client.publish(removed=[A1])
    assert names([removal]) == [("CDS", [], ["a"])]
    client.ack(removal)
    assert client.session.rejections == ()


def test_holds_is_false_for_what_nobody_asked_for():
    assert not DeltaScript(A1).session.holds(ResourceKey(ROUTE, "a"), "1")


def test_what_a_client_claims_beyond_what_there_is_is_not_kept_for_others():
    openings = Openings(Layered({"one": cluster("one")}))
    opening = Ledger(CLUSTER).opening
    usual, far_more = (
        DeltaRequest(CLUSTER, ("*",), claimed=dict.fromkeys(map(str, range(count)), "1"), shared=True)
        for count in (100, 20_000)
    )
    for request in (usual, far_more):
        openings.keep(request, opening)
    assert openings.find(usual) is opening
    assert openings.find(far_more) is None


def test_of_thousands_that_are_claimed_what_is_there_is_believed_and_the_rest_is_removed():
    client, there = DeltaScript(cluster("a")), cluster("a")
    claimed = {str(number): "1" for number in range(6000)} | {"a": there.version}
    (answer,) = client.ask(CLUSTER, "*", "b", claimed=claimed)
    assert (answer.resources, answer.removed) == ((), ("b",))
    assert client.ack(answer) == ()
    (later,) = client.after(REAL.streams.settle)
    assert sorted(later.removed) == sorted(claimed.keys() - {"a"})
    assert client.ack(later) == ()
    assert client.session.has_all(client.snapshot)


def test_of_what_is_refused_beyond_the_first_a_short_text_is_kept():
    """A client may refuse each of thousands of resources with 4 KB of its own: that was 28 MB for one stream."""
    names = [f"c{number}" for number in range(1000)]
    client = DeltaScript(*map(cluster, names))
    for name in names:
        (response,) = client.ask(CLUSTER, name)
        client.nack(response, f"{name} {'x' * 4000}")
    kept = [client.session.rejection(ResourceKey(CLUSTER, name)) for name in names]
    assert [one.message.split()[0] for one in kept] == names
    assert [len(one.message) for one in kept[:10]] == [len(f"{name} ") + 4000 for name in names[:10]]
    assert sum(len(one.message) for one in kept) < 1_000_000
