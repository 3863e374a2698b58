"""The state-of-the-world dialect, one statement of docs/xds.md per test."""

import pytest
from scripted import SotwScript, cluster, endpoints, listener, model, names, route

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE
from xds_server.stream.protocol.messages import ClientTerms, ResponseTooLargeError

A1, A2, B1 = cluster("a"), cluster("a", "2"), cluster("b")


def started(*resources, **more):
    """A client that has ACKed all clusters."""
    client = SotwScript(*resources, **more)
    for response in client.ask(CLUSTER):
        client.ack(response)
    return client


def test_x03_an_unknown_type_is_not_answered():
    assert SotwScript().ask("type.googleapis.com/x", "n") == ()


def test_x08_x09_the_version_is_the_content():
    one, two = SotwScript(A1, B1), SotwScript(B1, A1)
    (first,), (second,) = one.ask(CLUSTER), two.ask(CLUSTER)
    assert first.version == second.version == one.snapshot.type_version(CLUSTER)
    one.ack(first)
    (changed,) = one.publish(A2)
    assert changed.version != first.version


def test_x10_a_reconnect_with_the_current_version_is_answered_by_nothing_and_stays_subscribed():
    client = SotwScript(A1)
    assert client.ask(CLUSTER, version=client.snapshot.type_version(CLUSTER), nonce="old") == ()
    assert client.session.initialised
    assert names(client.publish(B1)) == [("CDS", ["a", "b"], [])]


def test_x11_a_reconnect_that_names_resources_gets_them():
    client = SotwScript(endpoints("a"))
    version = client.snapshot.type_version(ENDPOINT)
    assert names(client.ask(ENDPOINT, "a", version=version)) == [("EDS", ["a"], [])]


def test_x13_an_older_version_without_error_is_no_nack():
    client = SotwScript(A1)
    (response,) = client.ask(CLUSTER)
    client.ask(CLUSTER, version="older", nonce=response.nonce)
    assert client.session.rejections == ()
    assert client.session.holds(A1.key, A1.version)


def test_x14_after_a_nack_nothing_is_sent_until_the_content_changes():
    client = started(A1)
    (bad,) = client.publish(A2)
    assert client.nack(bad, "no") == ()
    assert client.after(1000) == ()
    (other,) = client.publish(B1)
    assert [r.body for r in other.resources] == [b"1", b"1"]  # the last good a, and b
    client.ack(other)
    assert names(client.publish(cluster("a", "3"))) == [("CDS", ["a", "b"], [])]


def test_x15_who_is_sent_nothing_but_what_it_refuses_counts():
    client = SotwScript(A1)
    (response,) = client.ask(CLUSTER)
    assert not client.session.initialised
    client.nack(response, "no")
    assert client.session.initialised


def test_x17_a_subscription_inside_a_nack_is_honoured():
    client = SotwScript(endpoints("a"), endpoints("b"))
    (first,) = client.ask(ENDPOINT, "a")
    assert names(client.nack(first, "no", "a", "b")) == [("EDS", ["b"], [])]


@pytest.mark.parametrize("type_url", [CLUSTER, LISTENER, ROUTE, ENDPOINT])
def test_x19_no_names_in_the_first_request_mean_everything(type_url):
    (response,) = SotwScript(*model("m")).ask(type_url)
    assert [r.key.name for r in response.resources] == ["m"]


def test_x20_the_worked_example_of_the_star():
    client = SotwScript(A1, B1)
    (first,) = client.ask(CLUSTER, "*")
    (both,) = client.ack(first, "*", "a")
    assert names([both]) == [("CDS", ["a", "b"], [])]
    client.ack(both, "a")
    (only_a,) = client.publish(A2, cluster("b", "2"))
    assert names([only_a]) == [("CDS", ["a"], [])]
    client.ack(only_a)
    assert client.publish(A1) == ()


def test_x21_a_newly_named_resource_is_sent_though_it_did_not_change():
    client = SotwScript(endpoints("a"), endpoints("b"))
    (first,) = client.ask(ENDPOINT, "a")
    assert names(client.ack(first, "a", "b")) == [("EDS", ["b"], [])]


def test_x22_unsubscribed_gets_nothing_and_subscribed_again_is_sent_again():
    client = SotwScript(endpoints("a"), endpoints("b"))
    (first,) = client.ask(ENDPOINT, "a", "b")
    assert client.ack(first, "b") == ()
    assert client.publish(endpoints("a", "2")) == ()
    assert names(client.ask(ENDPOINT, "a", "b")) == [("EDS", ["a"], [])]


def test_x23_clusters_come_as_full_sets_and_what_is_left_out_is_deleted():
    client = started(A1, B1)
    (changed,) = client.publish(A2)
    assert names([changed]) == [("CDS", ["a", "b"], [])]
    client.ack(changed)
    (without,) = client.publish(removed=[A1])
    assert names([without]) == [("CDS", ["b"], [])]
    client.ack(without)
    assert names(client.publish(removed=[B1])) == [("CDS", [], [])]


def test_x24_endpoints_come_alone_and_are_never_deleted():
    client = SotwScript(endpoints("a"), endpoints("b"))
    (first,) = client.ask(ENDPOINT, "a", "b")
    client.ack(first, "a", "b")
    (changed,) = client.publish(endpoints("a", "2"))
    assert names([changed]) == [("EDS", ["a"], [])]
    client.ack(changed, "a", "b")
    assert client.publish(removed=[endpoints("a")]) == ()


def test_x25_a_newer_request_replaces_the_one_before():
    client = SotwScript(endpoints("a"), endpoints("b"), endpoints("c"))
    (first,) = client.ask(ENDPOINT, "a")
    assert client.ask(ENDPOINT, "a", "b") == ()
    assert client.ask(ENDPOINT, "a", "c") == ()
    assert names(client.ack(first, "a", "c")) == [("EDS", ["c"], [])]


def test_x26_names_in_a_request_with_a_stale_nonce_are_not_lost():
    client = SotwScript(endpoints("a"), endpoints("b"))
    (first,) = client.ask(ENDPOINT, "a")
    client.ack(first, "a")
    (second,) = client.publish(endpoints("a", "2"))
    assert client.ask(ENDPOINT, "a", "b", nonce=first.nonce) == ()
    assert names(client.ack(second, "a", "b")) == [("EDS", ["b"], [])]


def test_x27_a_missing_resource_is_said_to_be_missing_once_and_delivered_when_it_appears():
    client = SotwScript()
    (first,) = client.ask(ENDPOINT, "a")
    assert (first.resources, first.missing) == ((), ("a",))
    assert client.ack(first, "a") == ()
    assert names(client.publish(endpoints("a"))) == [("EDS", ["a"], [])]


@pytest.mark.parametrize(("asked", "sent"), [(("a",), ["a"]), (("b", "a", "b"), ["a", "b"])])
def test_x28_x29_one_name_or_many_and_each_once(asked, sent):
    client = SotwScript(endpoints("a"), endpoints("b"))
    assert names(client.ask(ENDPOINT, *asked)) == [("EDS", sent, [])]


def test_x43_x44_an_omission_waits_until_no_route_needs_the_cluster():
    client = SotwScript(*model("m"), *model("n"))
    for type_url, wanted in [(CLUSTER, ()), (ENDPOINT, ("m", "n")), (LISTENER, ()), (ROUTE, ("m", "n"))]:
        (response,) = client.ask(type_url, *wanted)
        client.ack(response, *wanted)
    (routes,) = client.publish(route("m", "n"), removed=[cluster("m"), endpoints("m")])
    assert names([routes]) == [("RDS", ["m"], [])]
    (clusters,) = client.ack(routes, "m", "n")
    assert names([clusters]) == [("CDS", ["n"], [])]


def test_x48_intermediate_states_coalesce():
    client = SotwScript(A1)
    (first,) = client.ask(CLUSTER)
    assert client.publish(A2) == ()
    assert client.publish(B1) == ()
    assert names(client.ack(first)) == [("CDS", ["a", "b"], [])]


def test_x50_a_full_set_above_the_limit_is_refused_loudly():
    with pytest.raises(ResponseTooLargeError, match="2 resources"):
        SotwScript(A1, B1, terms=ClientTerms(max_response_bytes=300)).ask(CLUSTER)


def test_a_refused_listener_is_left_out_and_the_others_arrive():
    client = SotwScript(listener("a"), listener("b"))
    (first,) = client.ask(LISTENER)
    (again,) = client.nack(first, "Error adding/updating listener(s) a: cannot bind")
    assert names([again]) == [("LDS", ["b"], [])]
