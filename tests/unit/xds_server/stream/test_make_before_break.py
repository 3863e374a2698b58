"""X43 to X47: the order in which a delta client is given resources and loses them."""

from scripted import DeltaScript, cluster, endpoints, host, listener, model, names, route

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, Resource, ResourceKey
from xds_server.stream.protocol.messages import ClientTerms


def envoy(*resources, **more):
    """A client of all clusters and listeners that has ACKed the model m."""
    client = DeltaScript(*model("m"), *resources, **more)
    client.settle(client.ask(CLUSTER))
    client.settle(client.ask(ENDPOINT, "m"))
    client.settle(client.ask(LISTENER))
    client.settle(client.ask(ROUTE, "m"))
    return client


def test_x44_a_route_waits_for_the_ack_of_its_new_cluster_and_of_its_endpoints():
    client = envoy()
    (clusters,) = client.publish(cluster("n"), endpoints("n"), route("m", "m", "n"))
    assert names([clusters]) == [("CDS", ["n"], [])]
    assert client.ack(clusters) == ()
    (assignment,) = client.ask(ENDPOINT, "n")
    assert names(client.ack(assignment)) == [("RDS", ["m"], [])]


def test_x44_the_wait_is_bounded_and_its_end_is_an_error():
    client = envoy()
    client.publish(cluster("n"), endpoints("n"), route("m", "m", "n"))
    assert client.output.wake_at == 5.0
    assert client.after(4.9) == ()
    assert names(client.after(0.1)) == [("RDS", ["m"], [])]
    (late,) = client.output.overdue
    assert late.waited_for == (ResourceKey(CLUSTER, "n"), ResourceKey(ENDPOINT, "n"))
    assert client.session.overdue == (late,)


def test_x44_an_overdue_wait_is_over_when_the_client_catches_up():
    client = envoy()
    (clusters,) = client.publish(cluster("n"), endpoints("n"), route("m", "m", "n"))
    client.after(5)
    client.ack(clusters)
    client.settle(client.ask(ENDPOINT, "n"))
    assert client.session.overdue == ()


def test_x44_what_was_refused_since_it_came_too_early_is_sent_again_once_all_it_requires_is_there():
    client = envoy()
    (clusters,) = client.publish(cluster("n"), endpoints("n"), route("m", "m", "n"))
    (early,) = client.after(5)
    assert client.nack(early, "unknown cluster n") == ()
    assert client.ack(clusters) == ()
    (assignment,) = client.ask(ENDPOINT, "n")
    (again,) = client.ack(assignment)
    assert names([again]) == [("RDS", ["m"], [])]
    assert client.ack(again) == ()
    assert client.session.rejections == ()


def test_x44_it_is_sent_again_at_once_if_the_refusal_comes_last_and_only_once():
    client = envoy()
    (clusters,) = client.publish(cluster("n"), endpoints("n"), route("m", "m", "n"))
    (early,) = client.after(5)
    client.ack(clusters)
    client.settle(client.ask(ENDPOINT, "n"))
    (again,) = client.nack(early, "unknown cluster n")
    assert names([again]) == [("RDS", ["m"], [])]
    assert client.nack(again, "no") == ()
    assert client.publish(cluster("n", "2"))
    assert [one.message for one in client.session.rejections] == ["no"]


def test_x44_what_was_refused_before_the_client_asked_for_clusters_is_sent_again_once_it_has_them():
    """While a cluster of an earlier stream warms, Envoy asks for listeners and not for clusters."""
    client = DeltaScript(*model("m"))
    client.settle(client.ask(ENDPOINT, "m"))
    (early,) = client.ask(ROUTE, "m")
    assert client.nack(early, "unknown cluster m") == ()
    # Nobody is asked to refuse it again and again.
    assert (client.after(60), client.publish(listener("n"))) == ((), ())
    seen = names(client.settle(client.ask(CLUSTER)))
    assert seen == [("CDS", ["m"], []), ("EDS", ["m"], []), ("RDS", ["m"], [])]
    assert client.session.rejections == ()


def test_x43_a_cluster_goes_only_after_the_route_that_names_it_and_its_endpoints_last():
    client = envoy(cluster("old"), endpoints("old"))
    client.settle(client.publish(route("m", "m", "old")))
    client.settle(client.ask(ENDPOINT, "old"))
    client.settle(client.after(5))
    gone = [ResourceKey(CLUSTER, "old"), ResourceKey(ENDPOINT, "old")]
    seen = client.settle(client.publish(route("m", "m"), removed=gone))
    assert names(seen) == [("RDS", ["m"], []), ("CDS", [], ["old"]), ("EDS", [], ["old"])]


def test_x43_a_whole_model_goes_from_the_route_down():
    client = envoy()
    seen = names(client.settle(client.publish(removed=[*model("m")])))
    assert [kind for kind, _, _ in seen][-2:] == ["CDS", "EDS"]
    assert {kind for kind, _, _ in seen[:2]} == {"LDS", "RDS"}


def test_x45_with_an_update_of_a_cluster_its_endpoints_are_sent_again():
    # Not after its ACK: Envoy acknowledges a cluster once it is warm, and it warms with its endpoints.
    client = envoy()
    assert names(client.publish(cluster("m", "2"))) == [("CDS", ["m"], []), ("EDS", ["m"], [])]


def test_x46_a_changed_weight_touches_routes_only():
    client = envoy()
    assert names(client.settle(client.publish(route("m", "m", content="2")))) == [("RDS", ["m"], [])]


def test_x47_a_grpc_client_gets_its_route_before_it_asks_for_clusters():
    client = DeltaScript(*model("m"))
    assert names(client.ask(LISTENER, "m")) == [("LDS", ["m"], [])]
    assert names(client.ask(ROUTE, "m")) == [("RDS", ["m"], [])]
    assert names(client.ask(CLUSTER, "m")) == [("CDS", ["m"], [])]
    assert names(client.ask(ENDPOINT, "m")) == [("EDS", ["m"], [])]


def test_x47_a_grpc_client_is_not_kept_waiting_for_a_cluster_it_learns_of_from_the_route():
    client = DeltaScript(*model("m"))
    client.settle(client.ask(ROUTE, "m"))
    client.settle(client.ask(CLUSTER, "m"))
    assert names(client.publish(cluster("n"), endpoints("n"), route("m", "n"))) == [("RDS", ["m"], [])]


def test_a_reader_of_routes_alone_is_not_kept_waiting():
    assert names(DeltaScript(*model("m")).ask(ROUTE, "m")) == [("RDS", ["m"], [])]


def test_a_debug_reader_is_not_kept_waiting():
    client = DeltaScript(*model("m"), terms=ClientTerms(ordered=False))
    assert [names(client.ask(t))[0][0] for t in (CLUSTER, LISTENER)] == ["CDS", "LDS"]
    assert names(client.ask(ROUTE, "m")) == [("RDS", ["m"], [])]


def test_a_route_that_works_is_kept_while_the_cluster_of_the_next_one_is_refused():
    client = envoy()
    (clusters,) = client.publish(cluster("n"), endpoints("n"), route("m", "m", "n"))
    assert client.nack(clusters, "no") == ()
    assert client.after(1000) == ()
    works = route("m", "m")
    assert client.session.holds(works.key, works.version)
    (mended,) = client.publish(cluster("n", "2"))
    client.ack(mended)
    assert names(client.settle(client.ask(ENDPOINT, "n")))[-1] == ("RDS", ["m"], [])


def test_what_another_owner_had_under_the_name_is_not_kept_though_a_cluster_is_refused():
    client = envoy()
    (clusters,) = client.publish(cluster("n"), endpoints("n"), route("m", "n"))
    assert client.nack(clusters, "no") == ()
    assert names(client.after(5)) == [("RDS", ["m"], [])]


def test_a_route_with_nothing_to_lose_is_sent_after_the_wait_though_a_cluster_is_refused():
    client = envoy()
    client.publish(cluster("n"), endpoints("n"), route("new", "m", "n"))
    assert client.ask(ROUTE, "new") == ()
    assert names(client.after(5)) == [("RDS", ["new"], [])]


def test_a_listener_with_nothing_to_lose_does_not_wait_for_endpoints_that_are_refused():
    needs = [ResourceKey(ENDPOINT, "bad")]
    client = envoy(cluster("bad"))
    client.settle(client.ask(ENDPOINT, "bad"))
    (assignment,) = client.publish(endpoints("bad"), Resource.of(LISTENER, "new", b"1", needs))
    assert names(client.nack(assignment, "malformed IP address")) == [("LDS", ["new"], [])]


def test_a_cluster_stays_as_long_as_the_last_good_route_needs_it_if_the_next_route_is_refused():
    client = envoy(cluster("n"))
    removed = [ResourceKey(CLUSTER, "m"), ResourceKey(ENDPOINT, "m")]
    (bad,) = client.publish(route("m", content="bad"), removed=removed)
    assert client.nack(bad, "no") == ()
    assert client.after(1000) == ()
    (good,) = client.publish(route("m", content="good"))
    assert names(client.ack(good)) == [("CDS", [], ["m"])]


def test_other_models_go_on_while_one_is_refused():
    client = envoy(*model("o"))
    client.settle(client.ask(ENDPOINT, "o"))
    client.settle(client.ask(ROUTE, "o"))
    (bad,) = client.publish(listener("m", "2"))
    client.nack(bad, "port taken")
    assert names(client.publish(listener("o", "2"), route("o", "o", content="2"))) == [
        ("LDS", ["o"], []),
        ("RDS", ["o"], []),
    ]


def test_a_first_answer_waits_until_it_is_complete():
    tunnel = Resource.of(LISTENER, "l", b"1", [ResourceKey(CLUSTER, "m")])
    client = DeltaScript(cluster("m"), tunnel)
    (clusters,) = client.ask(CLUSTER)
    assert client.ask(LISTENER) == ()
    assert names(client.ack(clusters)) == [("LDS", ["l"], [])]


def test_a_secret_the_client_may_not_see_is_not_waited_for():
    secured = Resource.of(CLUSTER, "c", b"1", [ResourceKey(SECRET, "s")])
    client = DeltaScript(secured, Resource.of(SECRET, "s", b"1"))
    client.settle(client.ask(SECRET, "s"))
    assert names(client.ask(CLUSTER)) == [("CDS", ["c"], [])]


def test_x43_a_cluster_stays_while_a_route_of_a_refused_response_may_have_been_applied():
    client = DeltaScript(*model("m"), route("bad", "m"))
    for type_url, wanted in ((CLUSTER, ()), (ENDPOINT, ("m",))):
        client.settle(client.ask(type_url, *wanted))
    (routes,) = client.ask(ROUTE, "m", "bad")
    client.publish(route("m", content="2"), removed=[route("bad"), *model("m")[:2]])
    seen = names(client.settle(client.nack(routes, "refused")))
    assert [kind for kind, _, _ in seen] == ["RDS", "RDS", "CDS", "EDS"]


def gateway(*resources: Resource) -> DeltaScript:
    """An Envoy with the model m that is called by hosts."""
    client = envoy(*resources)
    client.settle(client.ask(SCOPED_ROUTE))
    return client


def test_x63_a_scoped_route_waits_for_its_route_and_goes_before_it():
    client = gateway()
    client.settle(client.publish(*model("n"), host("h", "n")))
    client.settle(client.ask(ENDPOINT, "n"))
    assert not client.session.holds(host("h", "n").key, host("h", "n").version)
    assert names(client.settle(client.ask(ROUTE, "n"))) == [("RDS", ["n"], []), ("SRDS", ["h"], [])]
    gone = names(client.settle(client.publish(removed=[*model("n"), host("h", "n")])))
    kinds = [kind for kind, _, _ in gone]
    assert kinds.index("SRDS") < kinds.index("RDS") < kinds.index("CDS")


def test_x63_no_names_in_a_first_request_for_scoped_routes_mean_all_of_them():
    client = envoy(host("h", "m"))
    assert names(client.ask(SCOPED_ROUTE)) == [("SRDS", ["h"], [])]
    assert names(envoy().ask(SCOPED_ROUTE)) == [("SRDS", [], [])]


def test_x63_a_scoped_route_waits_for_nothing_that_nobody_will_ask_for():
    client = DeltaScript(*model("m"), host("h", "m"))
    assert names(client.ask(SCOPED_ROUTE)) == [("SRDS", ["h"], [])]


def test_x63_a_host_that_passed_to_a_model_whose_route_is_refused_does_not_stay_with_the_one_before():
    client = gateway(host("h", "m"))
    client.settle(client.publish(*model("n"), host("h", "n")))
    client.settle(client.ask(ENDPOINT, "n"))
    (refused,) = client.ask(ROUTE, "n")
    assert names(client.nack(refused, "no")) == [("SRDS", ["h"], [])]


def test_x63_a_host_stays_with_its_model_while_the_next_route_of_that_is_refused():
    client = gateway(host("h", "m"))
    (refused,) = client.publish(route("m", "m", content="2"))
    assert client.nack(refused, "no") == ()
    assert client.session.holds(host("h", "m").key, host("h", "m").version)
