"""The remote backend as a route carries it."""

from datetime import timedelta

import pytest

from controller.api.contract.route import Header, HttpCheck
from controller.api.resources.backend import RemoteBackend
from controller.api.schema.values import parse
from controller.intent.remotes import remotes_of
from tests.support.objects import a_model

DEFAULT = parse(RemoteBackend, {"host": "default.example:8080", "pathPrefix": "/$workspace/models/$model"})


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("h", ("h", 80)),
        ("h:8080", ("h", 8080)),
        ("10.0.0.1:81", ("10.0.0.1", 81)),
        ("[::1]", ("::1", 80)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_where_to_connect_and_what_to_send_as_the_host(host, address):
    remote = remotes_of(a_model().with_remote(host).intent(), None)[0]
    assert (remote.host, remote.port) == address
    assert remote.authority == host


@pytest.mark.parametrize(
    ("host", "scheme", "resolved", "authority", "server_name"),
    [
        ("Models.Example.COM", "https", "models.example.com", "models.example.com", "models.example.com"),
        ("models.example.", "https", "models.example.", "models.example", "models.example"),
        ("models.example.:443", "https", "models.example.", "models.example", "models.example"),
        ("models.example.:80", "https", "models.example.", "models.example:80", "models.example"),
        ("models.example:80", "http", "models.example", "models.example", None),
        ("[2001:DB8:0::1]:443", "https", "2001:db8::1", "[2001:db8::1]", "2001:db8::1"),
        ("xn--bcher-kva.example", "https", "xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_name_is_resolved_as_it_was_written_and_told_as_it_should_be(host, scheme, resolved, authority, server_name):
    remote = remotes_of(a_model().with_remote(host, scheme=scheme).intent(), None)[0]
    assert (remote.host, remote.authority) == (resolved, authority)
    assert (remote.tls.server_name if remote.tls else None) == server_name


def test_a_name_to_ask_for_has_no_case():
    remote = remotes_of(a_model().with_remote("h", scheme="https", tls={"sni": "Models.Example"}).intent(), None)[0]
    assert remote.tls.server_name == "models.example"


@pytest.mark.parametrize(
    ("prefix", "filled_in"),
    [
        ("", ""),
        ("/v1", "/v1"),
        ("/$workspace/models/$model", "/ml/models/llama"),
        ("/$model/$model", "/llama/llama"),
        ("/$models", "/llamas"),
    ],
)
def test_the_variables_of_a_path_prefix(prefix, filled_in):
    model = a_model("llama").in_namespace("ml").with_remote(pathPrefix=prefix)
    assert remotes_of(model.intent(), None)[0].path_prefix == filled_in


def test_headers_in_the_order_of_their_names():
    model = a_model().with_remote(headersToAdd={"x-b": "2", "x-a": "1"})
    assert remotes_of(model.intent(), None)[0].headers_to_add == (
        Header(name="x-a", value="1"),
        Header(name="x-b", value="2"),
    )


def test_a_health_check():
    model = a_model().with_remote(healthCheck={"path": "/up", "interval": "3s"})
    assert remotes_of(model.intent(), None)[0].health_check == HttpCheck(path="/up", interval=timedelta(seconds=3))


def test_without_offloading_there_is_no_remote_side():
    assert remotes_of(a_model().intent(), DEFAULT) == ()


def test_the_default_serves_a_model_that_names_none():
    remote = remotes_of(a_model("m").offloading().intent(), DEFAULT)[0]
    assert (remote.authority, remote.path_prefix) == ("default.example:8080", "/default/models/m")


def test_its_own_comes_before_the_default():
    assert remotes_of(a_model().with_remote("own").intent(), DEFAULT)[0].host == "own"


def test_without_any_there_is_no_remote_side():
    assert remotes_of(a_model().offloading().intent(), None) == ()


@pytest.mark.parametrize(
    ("backend", "patience"),
    [
        ({}, (None, None, None)),
        ({"timeouts": {}, "retry": {}}, (None, None, None)),
        (
            {"timeouts": {"connect": "500ms", "request": "2m"}},
            (timedelta(milliseconds=500), timedelta(minutes=2), None),
        ),
        ({"retry": {"attempts": 2}}, (None, None, 2)),
        ({"retry": {"attempts": 0}}, (None, None, None)),
    ],
)
def test_how_long_and_how_often_it_is_asked(backend, patience):
    remote = remotes_of(a_model().with_remote(**backend).intent(), None)[0]
    assert (remote.connect_timeout, remote.answer_timeout, remote.retries) == patience
