"""The files that other Envoys start with, filled in."""

import pytest
import yaml

from benchmarks.proxies import configs
from benchmarks.proxies.configs import Upstreams
from benchmarks.proxies.product import model_route
from controller.api.schema.client_headers import PRIVATE
from xds_server.resources.routing import PATH_TRAVERSAL

UPSTREAMS = Upstreams(("127.0.0.2", "127.0.0.3", "127.0.0.4"), "127.0.0.5")


def routes_of(text):
    listener = yaml.safe_load(text)["static_resources"]["listeners"][0]
    (host,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    return host["routes"]


@pytest.mark.parametrize("local", [100, 50, 0])
def test_the_static_one_has_the_weights(local):
    (route,) = routes_of(configs.static("127.0.0.1", UPSTREAMS, local))
    weights = {one["name"]: one["weight"] for one in route["route"]["weighted_clusters"]["clusters"]}
    assert weights == {"local": local, "remote": 100 - local}


def test_the_one_by_hand_has_the_split_as_a_fraction():
    to_local, *refusals, to_remote = routes_of(configs.by_hand("127.0.0.1", UPSTREAMS, 30))
    assert to_local["match"]["runtime_fraction"]["default_value"] == {"numerator": 30, "denominator": "HUNDRED"}
    assert ["direct_response" in one for one in refusals] == [True, True]
    assert to_remote["match"] == {"prefix": "/"}


def test_the_one_by_hand_has_no_route_that_nothing_takes():
    (to_local,) = routes_of(configs.by_hand("127.0.0.1", UPSTREAMS, 100))
    *_, to_remote = routes_of(configs.by_hand("127.0.0.1", UPSTREAMS, 0))
    assert (to_local["match"], to_local["route"]["cluster"]) == ({"prefix": "/"}, "local")
    assert to_remote["route"]["prefix_rewrite"] == f"{configs.PATH_PREFIX}/"


def test_the_file_by_hand_and_the_route_of_the_product_say_the_same():
    no_trace, leads_out, to_remote = routes_of(configs.by_hand("127.0.0.1", UPSTREAMS, 0))
    remote = model_route(UPSTREAMS, 0).remote
    assert no_trace["direct_response"] == {"status": 405}
    assert leads_out["match"]["safe_regex"]["regex"] == PATH_TRAVERSAL
    assert {*to_remote["request_headers_to_remove"]} == {*PRIVATE}
    added = [(one["header"]["key"], one["header"]["value"]) for one in to_remote["request_headers_to_add"]]
    assert added == [(one.name, one.value) for one in remote.headers_to_add]
    assert to_remote["route"]["host_rewrite_literal"] == remote.authority
    assert to_remote["route"]["prefix_rewrite"] == f"{remote.path_prefix}/"
