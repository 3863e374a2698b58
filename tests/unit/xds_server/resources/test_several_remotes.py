"""A route with several remote backends: its shares, its failover, and that they do not touch each other."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from envoy.extensions.clusters.aggregate.v3.cluster_pb2 import ClusterConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from controller.api.contract.route import REMOTE, Shares
from tests.support.resources import by_key, message_of
from tests.support.routes import A, a_remote, a_route_with, over_tls, ready, with_key, with_token
from xds_server.resources import names
from xds_server.resources.names import Side, side_of_cluster
from xds_server.resources.secret import secret_resources
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SHORT, ResourceKey, Snapshot

TWO = ready("10.0.0.1", "10.0.0.2")
B_NAME = "remote-b"
FIRST, SECOND = a_remote("one.example"), a_remote("two.example", name=B_NAME)
GUARDED = {"auth": with_key()}
SOURCES = (over_tls(ca="c").ca, with_key().api_key.value, with_token().oauth.client_secret)


def resources(route, replicas=TWO, envoys=1):
    return by_key(Translator(EnvoySettings()).resources(A, route, replicas, envoys))


def front_of(found):
    (host,) = message_of(found[ResourceKey(ROUTE, "port/80/default")]).virtual_hosts
    return host


def members(found, cluster):
    config = ClusterConfig()
    assert message_of(found[ResourceKey(CLUSTER, cluster)]).cluster_type.typed_config.Unpack(config)
    return list(config.clusters)


def named(keys):
    return {(SHORT[key.type_url], key.name) for key in keys}


def fractions(routes):
    """The number below which a request is matched by each route, a hundred without a fraction."""
    return [
        one.match.runtime_fraction.default_value.numerator if one.match.HasField("runtime_fraction") else 100
        for one in routes
    ]


def remotes_named(*called):
    return st.tuples(
        *(
            st.builds(
                a_remote,
                st.sampled_from(["one.example", "two.example"]),
                name=st.just(name),
                path_prefix=st.sampled_from(["", "/v1"]),
                headers=st.sampled_from([{}, {f"x-{name}": "1"}]),
                tls=st.sampled_from([None, over_tls(ca="c")]),
                auth=st.sampled_from([None, with_key(), with_token()]),
            )
            for name in called
        )
    )


def secrets_of(route):
    values = {source: SecretStr("x") for source in SOURCES}
    return [one for remote in route.remotes for one in secret_resources(A, remote, values, b"key")]


shares_of_two = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda two: (min(two), max(two) - min(two)))


@st.composite
def routes(draw):
    first, second = draw(shares_of_two)
    return a_route_with(
        *draw(remotes_named(REMOTE, B_NAME)),
        shares={REMOTE: first, B_NAME: second},
        max_requests_per_replica=draw(st.sampled_from([None, 4])),
        first_byte_timeout=draw(st.sampled_from([None, timedelta(seconds=1)])),
    )


@settings(max_examples=50)
@given(routes())
def test_the_snapshot_is_consistent_and_every_cluster_is_made_of_what_is_there(route):
    built = Translator(EnvoySettings()).resources(A, route, TWO)
    Snapshot.of((*built, *secrets_of(route))).check()
    assert max(Counter(one.key for one in built).values()) == 1
    found = by_key(built)
    clusters = {key.name for key in found if key.type_url == CLUSTER}
    for cluster in (name for name in clusters if name.endswith("-first")):
        assert set(members(found, cluster)) <= clusters
        assert len(members(found, cluster)) == 3
    for key in found:
        if key.type_url == ENDPOINT:
            assert key.name in clusters


@settings(max_examples=50)
@given(routes())
def test_the_shares_add_up(route):
    front = front_of(resources(route))
    by_name = {one.name: bound for one, bound in zip(front.routes, fractions(front.routes), strict=True)}
    sides = [(name, bound) for name, bound in by_name.items() if name == "local" or name.startswith(REMOTE)]
    percents = [second - first for (_, first), (_, second) in pairwise([("", 0), *sides])]
    assert sum(percents) == 100
    shown = dict(zip((name for name, _ in sides), percents, strict=True))
    given_ = {"local": route.shares.local, **{one.name: one.percent for one in route.shares.remotes}}
    assert shown == {name: percent for name, percent in given_.items() if percent}


def test_fractions_are_cumulative_and_the_last_route_takes_what_is_left():
    found = resources(a_route_with(FIRST, SECOND, shares={REMOTE: 30, B_NAME: 20}))
    front = front_of(found)
    assert [one.name for one in front.routes] == ["local", "trace", REMOTE, "trace", B_NAME]
    assert fractions(front.routes) == [50, 80, 80, 100, 100]


def test_what_may_not_leave_is_refused_only_where_the_request_would_go():
    prefixed = a_remote("one.example", path_prefix="/v1")
    front = front_of(resources(a_route_with(prefixed, SECOND, shares={REMOTE: 30, B_NAME: 20})))
    assert [(one.name, bound) for one, bound in zip(front.routes, fractions(front.routes), strict=True)] == [
        ("local", 50),
        ("trace", 80),
        ("leads_out", 80),
        (REMOTE, 80),
        ("trace", 100),
        (B_NAME, 100),
    ]


def test_each_remote_has_names_of_its_own():
    found = resources(a_route_with(FIRST, SECOND, shares={REMOTE: 30, B_NAME: 20}))
    assert {one for one in named(found) if not one[1].startswith("backend/")} == {
        ("CDS", "model/default/a/local"),
        ("CDS", "model/default/a/local-first"),
        ("CDS", "model/default/a/remote"),
        ("CDS", "model/default/a/fallback"),
        ("CDS", "model/default/a/remote-b"),
        ("CDS", "model/default/a/fallback-b"),
        ("EDS", "model/default/a/local"),
        ("LDS", "port/80"),
        ("LDS", "local/model/default/a"),
        ("LDS", "remote/model/default/a"),
        ("LDS", "remote-b/model/default/a"),
        ("RDS", "port/80/default"),
        ("RDS", "remote/model/default/a"),
        ("RDS", "remote-b/model/default/a"),
    }
    assert sum(name.startswith("backend/") for _, name in named(found)) == 2


@pytest.mark.parametrize("remote", [REMOTE, B_NAME, "remote-fallback"])
def test_only_the_cluster_of_a_remote_is_a_side(remote):
    assert side_of_cluster(names.remote_cluster(A, remote)) == Side(A, remote)
    assert side_of_cluster(names.fallback_cluster(A, remote)) is None
    assert side_of_cluster(names.remote_first_cluster(A, remote)) is None


def test_no_two_remotes_share_the_name_of_a_cluster():
    called = [REMOTE, "remote-b", "remote-b-fallback", "remote-fallback", "remote-fallback-b"]
    clusters = [of(A, one) for one in called for of in (names.remote_cluster, names.fallback_cluster)]
    assert len(set(clusters)) == 2 * len(called)


def test_an_answer_carries_the_name_of_its_remote():
    found = resources(a_route_with(FIRST, SECOND, shares={REMOTE: 30, B_NAME: 20}))
    front = front_of(found)
    backends = {key.name for key in front_requires(found) if key.name.startswith("backend/")}
    said = []
    for cluster in [*backends, "model/default/a/remote", "model/default/a/remote-b"]:
        endpoint = message_of(found[ResourceKey(CLUSTER, cluster)]).load_assignment.endpoints[0].lb_endpoints[0]
        said.append(endpoint.metadata.filter_metadata["beamlit"]["route"])
    assert sorted(said[:2]) == said[2:] == [REMOTE, B_NAME]
    assert front.routes


def front_requires(found):
    return found[ResourceKey(ROUTE, "port/80/default")].requires


def test_failover_is_the_replicas_first_and_then_the_remotes_in_order():
    found = resources(a_route_with(FIRST, SECOND))
    local, first, second = ("model/default/a/local", "model/default/a/remote", "model/default/a/remote-b")
    assert members(found, "model/default/a/local-first") == [local, first, second]
    (route,) = front_of(found).routes
    assert route.route.cluster == "model/default/a/local-first"
    # Each side is asked once.
    assert route.route.retry_policy.num_retries.value == 2


def test_failover_of_what_leaves_is_the_replicas_and_then_the_other_remotes():
    guarded = [one.model_copy(update=GUARDED) for one in (FIRST, SECOND)]
    found = resources(a_route_with(*guarded, shares={REMOTE: 60, B_NAME: 40}))
    local, first, second = ("model/default/a/local", "model/default/a/remote", "model/default/a/remote-b")
    assert members(found, "model/default/a/remote-first") == [first, local, second]
    assert members(found, "model/default/a/remote-b-first") == [second, local, first]
    leaving = [one for one in front_of(found).routes if one.name != "trace"]
    assert [(one.name, one.route.cluster) for one in leaving] == [
        (REMOTE, "model/default/a/remote-first"),
        (B_NAME, "model/default/a/remote-b-first"),
    ]


def test_what_is_sent_out_directly_comes_back_to_the_replicas_and_then_goes_to_any_remote():
    found = resources(a_route_with(FIRST, SECOND, shares={REMOTE: 100}))
    (chain,) = message_of(found[ResourceKey(LISTENER, "local/model/default/a")]).filter_chains
    assert b"model/default/a/local-first" in chain.filters[0].typed_config.value
    assert b"previous_priorities" in chain.filters[0].typed_config.value
    alone = resources(a_route_with(FIRST, shares={REMOTE: 100}))
    assert b"previous_priorities" not in alone[ResourceKey(LISTENER, "local/model/default/a")].body


def test_one_may_be_reached_directly_and_the_other_not():
    found = resources(a_route_with(FIRST, a_remote(name=B_NAME, **GUARDED), shares={REMOTE: 30, B_NAME: 20}))
    clusters = {name for type_, name in named(found) if type_ == "CDS"}
    assert {"model/default/a/fallback", "model/default/a/remote-b-first"} < clusters
    assert not {"model/default/a/fallback-b", "model/default/a/remote-first"} & clusters


def test_what_finds_the_replicas_full_goes_to_the_first_remote():
    found = resources(a_route_with(FIRST, SECOND, max_requests_per_replica=4))
    (route,) = front_of(found).routes
    script = route.route.inline_cluster_specifier_plugin.extension.typed_config.value
    assert b'"model/default/a/remote-first"' in script
    assert b"remote-b" not in script
    assert ("CDS", "model/default/a/remote-first") in named(front_requires(found))


@settings(max_examples=50)
@given(routes(), st.sampled_from([REMOTE, B_NAME]))
def test_a_remote_that_goes_leaves_what_is_the_others_own_alone(route, going):
    (other,) = (one for one in route.remotes if one.name != going)
    percents = {one.name: one.percent for one in route.shares.remotes if one.name != going}
    alone = route.model_copy(update={"remotes": (other,), "shares": Shares.of(percents)})
    before, after = resources(route), resources(alone)
    of_both = {
        ResourceKey(ROUTE, names.entrance_routes(A, route.port)),
        ResourceKey(CLUSTER, names.local_first_cluster(A)),
        ResourceKey(CLUSTER, names.remote_first_cluster(A, other.name)),
        ResourceKey(LISTENER, names.local_listener(A)),
    }
    assert after.keys() <= before.keys()
    assert {key for key in after if after[key] != before[key]} <= of_both
    # Whatever was that one's own is gone.
    for key in before.keys() - after.keys():
        shared = {ResourceKey(LISTENER, names.local_listener(A))}
        assert going in key.name.split("/") or key in shared or is_of_one_remote(key, going), key


def is_of_one_remote(key, remote):
    own = {names.fallback_cluster(A, remote), names.remote_first_cluster(A, remote)}
    return key.name in own or key.name.partition("/")[0] in ("backend", "auth")


@settings(max_examples=50)
@given(routes(), routes())
def test_what_a_resource_requires_follows_from_its_content(one, other):
    before = resources(one)
    for key, resource in resources(other).items():
        if key in before and before[key].version == resource.version:
            assert before[key].requires == resource.requires


def test_a_remote_without_a_share_is_required_as_well_and_another_in_its_place_is_another_route():
    third = a_remote("three.example", name="remote-c")
    before, after = (resources(a_route_with(FIRST, one)) for one in (SECOND, third))
    key = ResourceKey(ROUTE, "port/80/default")
    assert ("CDS", "model/default/a/remote-b") in named(before[key].requires)
    assert ("LDS", "remote-c/model/default/a") in named(after[key].requires)
    assert before[key].version != after[key].version


def test_an_order_of_one_is_not_written():
    assert not front_of(resources(a_route_with(FIRST))).HasField("metadata")
    order = front_of(resources(a_route_with(SECOND, FIRST))).metadata.filter_metadata["beamlit"]["failover"]
    assert order == "remote-b remote"
