"""The route: shares of any number of remote backends, and the form that every version reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.api.contract.route import REMOTE, LocalBackend, Remote, Route, RouteKey, RouteKind, Shares, Split
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse

LOCAL = LocalBackend(namespace="default", service="a")
EU, US = (Remote(name=f"remote-{name}", host=f"{name}.example", port=443, authority=name) for name in ("eu", "us"))


def written(route: Route) -> dict:
    return json.loads(route.model_dump_json(by_alias=True, exclude_none=True))


def a_route(shares: Shares, *remotes: Remote) -> Route:
    return Route(port=80, shares=shares, local=LOCAL, remotes=remotes)


def test_kinds_do_not_meet_on_the_wire():
    assert str(RouteKey.of_model("a", "b")) == "model/a/b"
    assert str(RouteKey(RouteKind.TOOL, "a", "b")) == "tool/a/b"


@given(st.lists(st.integers(0, 100), max_size=4).filter(lambda some: sum(some) <= 100))
def test_shares_make_a_hundred(percents):
    shares = Shares.of({f"remote-{number}": percent for number, percent in enumerate(percents)})
    assert shares.local + sum(one.percent for one in shares.remotes) == 100
    assert shares.split == Split(local=100 - sum(percents), remote=sum(percents))
    assert all(one.percent for one in shares.remotes)


@pytest.mark.parametrize(
    "given",
    [
        {"local": 50, "remotes": [{"name": "remote", "percent": 20}]},
        {"local": 60, "remotes": [{"name": "remote", "percent": 20}, {"name": "remote", "percent": 20}]},
    ],
    ids=["not a hundred", "one twice"],
)
def test_shares_that_are_none(given):
    with pytest.raises(ValidationError):
        Shares.model_validate(given)


def test_two_remotes():
    route = a_route(Shares.of({EU.name: 30, US.name: 10}), EU, US)
    assert (str(route.split), route.remote) == ("60/40", EU)
    assert [route.percent_of(one) for one in (EU, US)] == [30, 10]
    assert parse(Route, written(route)) == route
    assert [one["name"] for one in written(route)["remotes"]] == ["remote-eu", "remote-us"]


@pytest.mark.parametrize(
    ("shares", "remotes", "words"),
    [
        (Shares.of({"remote-xx": 10}), (EU, US), "must be 0 for remote-xx"),
        (Shares(local=100), (EU, EU), "must each have a name of their own"),
    ],
    ids=["a share of nobody", "one name twice"],
)
def test_remotes_that_do_not_fit(shares, remotes, words):
    with pytest.raises(ValidationError, match=words):
        a_route(shares, *remotes)


@pytest.mark.parametrize("name", ["local", "fallback", "remote-first", "remote-eu-first", "", "other"])
def test_a_remote_is_called_what_no_other_side_is(name):
    with pytest.raises(ValidationError):
        Remote(name=name, host="h", port=1, authority="h")


@pytest.mark.parametrize("away", [0, 30, 100])
def test_one_remote_is_written_as_every_version_reads_it(away):
    remote = Remote(host="h", port=1, authority="h")
    route = Route.between(port=80, split=Split.away(away), local=LOCAL, remote=remote)
    assert route == a_route(Shares.of({REMOTE: away}), remote)
    as_before = {
        "port": 80,
        "split": {"local": 100 - away, "remote": away},
        "local": {"namespace": "default", "service": "a", "portName": ""},
        "remote": {"host": "h", "port": 1, "authority": "h", "pathPrefix": "", "headersToAdd": []},
    }
    assert written(route) == as_before
    assert parse(Route, as_before) == route


def test_without_a_remote_it_is_written_as_every_version_reads_it():
    route = Route.between(port=80, split=Split.away(0), local=LOCAL)
    assert written(route) == {
        "port": 80,
        "split": {"local": 100, "remote": 0},
        "local": {"namespace": "default", "service": "a", "portName": ""},
    }
    assert parse(Route, written(route)) == route


def test_a_split_to_nowhere_names_its_field():
    with pytest.raises(InvalidObjectError, match=r"split\.remote: must be 0 without a remote"):
        parse(Route, {"port": 80, "split": {"local": 0, "remote": 100}, "local": {"namespace": "d", "service": "a"}})


def test_equal_routes_have_equal_digests():
    remote = Remote(host="h", port=1, authority="h")
    one, same, other = (Route.between(port=80, split=Split.away(n), local=LOCAL, remote=remote) for n in (1, 1, 2))
    assert one.digest == same.digest != other.digest
    assert remote.digest == parse(Remote, json.loads(remote.model_dump_json(by_alias=True))).digest
    # As the version before wrote it, so that one program may be older than the other.
    assert one.digest == "e8fb7d7c11377927"
