"""Which resources a model has, what a change of it touches, and that Envoy's own parser reads them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.contract.credentials import CredentialSource
from controller.api.contract.route import RouteKey
from controller.api.kubernetes.endpoints import Replica
from controller.api.schema.http import Authority, CheckedPath, HeaderName, HeaderValue, UrlPath
from controller.api.schema.scalars import Shape
from controller.intent.remotes import remotes_of
from tests.support.objects import a_model
from tests.support.resources import by_key, message_of
from tests.support.routes import A, B, a_remote, a_route, over_tls, ready, with_key, with_token
from xds_server.resources.backend_names import backend_name, check_name
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, SHORT, ResourceKey, Snapshot

TWO = ready("10.0.0.1", "10.0.0.2")


def resources(route, replicas=TWO, model=A):
    return by_key(Translator(EnvoySettings()).resources(model, route, replicas))


def named(found):
    return {(SHORT[key.type_url], key.name) for key in found}


def touched(before, after):
    """Say which resources differ, and which came or went."""
    return named(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


REMOTE_SIDE = {
    ("CDS", "model/default/a/remote"),
    ("CDS", "model/default/a/local-first"),
    ("CDS", "model/default/a/fallback"),
    ("LDS", "local/model/default/a"),
    ("LDS", "remote/model/default/a"),
    ("RDS", "remote/model/default/a"),
}


@pytest.mark.parametrize(("address", "both"), [("::", True), ("::1", False), ("0.0.0.0", False)])
def test_listeners_on_all_addresses_of_ipv6_have_those_of_ipv4_too(address, both):
    """Envoy refuses `ipv4_compat` of any other address, and without it IPv4."""
    settings = EnvoySettings(address=address, shared_port=8080)
    route = a_route().model_copy(update={"hosts": ("a.default",)})
    found = by_key(Translator(settings).resources(A, route, TWO))
    bound = [message_of(one).address.socket_address for key, one in found.items() if key.type_url == LISTENER]
    assert [(one.address, one.ipv4_compat) for one in bound] == [(address, both)] * 2


def test_a_model_with_a_remote():
    found = named(resources(a_route(a_remote())))
    (backend,) = (name for type_, name in found if name.startswith("backend/"))
    assert found == REMOTE_SIDE | {
        ("CDS", backend),
        ("CDS", "model/default/a/local"),
        ("EDS", "model/default/a/local"),
        ("LDS", "port/80"),
        ("RDS", "port/80/default"),
    }


def test_a_model_without_a_remote_has_nothing_that_could_leave():
    found = resources(a_route())
    assert named(found) == {
        ("CDS", "model/default/a/local"),
        ("EDS", "model/default/a/local"),
        ("LDS", "port/80"),
        ("RDS", "port/80/default"),
    }
    (assignment,) = (message_of(one) for key, one in found.items() if key.type_url == ENDPOINT)
    assert [side.priority for side in assignment.endpoints] == [0]


def test_a_weight_change_touches_rds_only():
    assert touched(resources(a_route(a_remote())), resources(a_route(a_remote(), away=30))) == {
        ("RDS", "port/80/default")
    }


def test_replicas_that_come_and_go_touch_eds_only():
    assert touched(resources(a_route(a_remote())), resources(a_route(a_remote()), ())) == {
        ("EDS", "model/default/a/local")
    }


@pytest.mark.parametrize("away", [0, 30, 100])
def test_what_replicas_that_come_and_go_leave_alone_is_not_built_again(away):
    translator = Translator(EnvoySettings())
    first, second = (
        by_key(translator.resources(A, a_route(a_remote(), away=away), replicas)) for replicas in (TWO, TWO[:1])
    )
    assert {SHORT[key.type_url] for key, one in second.items() if one is not first[key]} == {"EDS"}


def test_a_replica_that_is_not_ready_is_as_one_that_is_not_there():
    unready = (*TWO, Replica("10.0.0.3", 8080, False))
    assert touched(resources(a_route(a_remote())), resources(a_route(a_remote()), unready)) == set()


def test_a_path_or_a_header_touches_the_remote_side_only():
    other = a_remote(path_prefix="/v1", headers={"x-team": "ml"})
    assert touched(resources(a_route(a_remote())), resources(a_route(other))) == {
        ("CDS", "model/default/a/fallback"),
        ("RDS", "remote/model/default/a"),
    }


def test_a_remote_that_goes_takes_its_side_with_it_and_leaves_the_listener_alone():
    before, after = resources(a_route(a_remote())), resources(a_route())
    changed = touched(before, after)
    assert changed > REMOTE_SIDE
    assert ("LDS", "port/80") not in changed
    assert ("EDS", "model/default/a/local") not in changed


def test_prior_fault_21_models_share_a_backend_and_nothing_else():
    one = resources(a_route(a_remote(path_prefix="/a")))
    other = resources(a_route(a_remote(path_prefix="/b"), port=81), model=B)
    (shared,) = one.keys() & other.keys()
    assert shared.name.startswith("backend/")
    assert one[shared] == other[shared]


def test_models_of_two_namespaces_share_the_check_of_a_backend_and_its_cluster_with_the_default_credential_alone():
    """Where requests go there from the front, its cluster alone tells whose they were."""
    next_door = RouteKey.of_model("next", "door")
    everybodys = a_remote(auth=with_token(CredentialSource(source="DefaultBackend")))
    assert check_name(A, a_remote()) == check_name(next_door, a_remote())
    assert backend_name(A, a_remote()) != backend_name(next_door, a_remote())
    assert backend_name(A, a_remote()) == backend_name(B, a_remote())
    assert backend_name(A, everybodys) == backend_name(next_door, everybodys)
    assert check_name(A, a_remote(auth=with_key())) != check_name(next_door, a_remote(auth=with_key()))


@pytest.mark.parametrize(
    ("hosts", "backends"),
    [
        (("Models.Example", "models.example", "models.example:80"), 1),
        (("[2001:db8:0::1]", "[2001:DB8::1]:80", "[2001:0db8:0:0:0:0:0:1]"), 1),
        # A name with the dot at its end may lead to another place (RFC 1034, section 3.1).
        (("models.example", "models.example."), 2),
    ],
)
def test_a_backend_and_a_token_endpoint_are_one_however_their_host_is_written(hosts, backends):
    remotes = [remotes_of(a_model().with_remote(host).intent(), None)[0] for host in hosts]
    assert len({backend_name(A, remote) for remote in remotes}) == backends
    tokens = [a_remote(auth=with_token(url=f"http://{host}/token")) for host in hosts]
    found = {key.name for remote in tokens for key in resources(a_route(remote)) if key.name.startswith("auth/")}
    assert len(found) == backends


def test_backends_that_differ_in_anything_of_their_own_are_not_shared():
    remotes = [
        a_remote(),
        a_remote("other.example"),
        a_remote(port=81),
        a_remote(authority="x"),
        a_remote(health_check={"path": "/up", "interval": "1s"}),
    ]
    names = {key.name for remote in remotes for key in resources(a_route(remote)) if key.name.startswith("backend/")}
    assert len(names) == len(remotes)


def text_of(annotated, **kwargs):
    """Draw texts that a field accepts."""
    (shape,) = (one for one in annotated.__metadata__ if isinstance(one, Shape))
    return st.from_regex(shape.pattern, fullmatch=True, **kwargs).filter(lambda text: len(text) < 200)


# A "$" begins a variable.
prefixes = text_of(UrlPath).map(lambda path: path.replace("$", ""))
headers = st.dictionaries(text_of(HeaderName), text_of(HeaderValue), max_size=3)
backends = st.fixed_dictionaries(
    {"host": text_of(Authority), "pathPrefix": prefixes, "headersToAdd": headers},
    optional={"healthCheck": st.fixed_dictionaries({"path": text_of(CheckedPath)})},
)
replicas = st.lists(
    st.builds(Replica, st.ip_addresses().map(str), st.integers(1, 65535), st.booleans()), max_size=4, unique=True
)
remotes = st.builds(
    a_remote,
    st.sampled_from(["r", "s"]),
    path_prefix=st.sampled_from(["", "/v1"]),
    tls=st.sampled_from([None, over_tls(), over_tls(ca="c")]),
    auth=st.sampled_from([None, with_key(), with_token()]),
)
routes = st.one_of(st.just(a_route()), st.builds(a_route, remotes, away=st.sampled_from([0, 30, 100])))


@settings(max_examples=50)
@given(backends, replicas, st.integers(0, 100))
def test_every_accepted_backend_gives_a_consistent_snapshot_that_parses(backend, found, away):
    host, _, port = backend["host"].rpartition(":")
    if host and not backend["host"].endswith("]") and not 1 <= int(port) <= 65535:
        backend = {**backend, "host": host}
    if any(name.lower() == "host" for name in backend["headersToAdd"]):
        backend = {**backend, "headersToAdd": {}}
    spec = {name: value for name, value in backend.items() if name != "host"}
    (remote,) = remotes_of(a_model().with_remote(backend["host"], **spec).intent(), None)
    built = Translator(EnvoySettings()).resources(A, a_route(remote, away=away), tuple(found))
    Snapshot.of(built).check()
    for one in built:
        message = message_of(one)
        assert (getattr(message, "name", None) or message.cluster_name) == one.key.name
        assert message.SerializeToString(deterministic=True)


@settings(max_examples=50)
@given(routes, routes, replicas, replicas)
def test_what_a_resource_requires_follows_from_its_content(one, other, found, later):
    before = resources(one, tuple(found))
    for key, resource in resources(other, tuple(later)).items():
        if key in before and before[key].version == resource.version:
            assert before[key].requires == resource.requires


@settings(max_examples=25)
@given(routes, replicas)
def test_the_same_in_gives_the_same_bytes_out(route, found):
    again = type(route).model_validate_json(route.model_dump_json(by_alias=True))
    assert resources(route, tuple(found)) == resources(again, tuple(found))


def test_what_is_required_comes_before_in_the_order_of_delivery():
    order = [SECRET, CLUSTER, ENDPOINT, LISTENER, ROUTE]
    remotes = a_remote(), a_remote(tls=over_tls(ca="c"), auth=with_token())
    found = [resources(a_route(remote, away=30)) for remote in remotes]
    for key, resource in (one for each in found for one in each.items()):
        for required in resource.requires:
            assert order.index(required.type_url) < order.index(key.type_url)


def test_a_route_requires_what_it_sends_requests_to():
    def required(away):
        return named(resources(a_route(a_remote(), away=away))[ResourceKey(ROUTE, "port/80/default")].requires)

    assert required(0) == {
        ("CDS", "model/default/a/local"),
        ("EDS", "model/default/a/local"),
        ("CDS", "model/default/a/local-first"),
        ("CDS", "model/default/a/remote"),
        ("LDS", "remote/model/default/a"),
    }
    assert required(30) > required(0) | REMOTE_SIDE - {("RDS", "remote/model/default/a")}
