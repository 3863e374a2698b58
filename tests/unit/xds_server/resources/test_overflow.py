"""The limit of one Envoy, and the script that holds it."""

import pytest
from envoy.extensions.router.cluster_specifiers.lua.v3.lua_pb2 import LuaConfig

from controller.api.contract.route import RouteKey
from tests.support.resources import by_key, message_of
from tests.support.routes import A, a_remote, a_route, ready
from xds_server.resources.overflow import limit_of_one_envoy, local_until_full
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import ROUTE, ResourceKey

TWO = ready("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("each", "ready", "envoys", "limit"),
    [
        (4, 3, 1, 12),
        (4, 3, 3, 4),
        (4, 3, 5, 3),  # 2.4
        (1, 1, 10, 1),
        (4, 0, 1, 1),
        (4, 3, 0, 12),
    ],
)
def test_what_the_replicas_take_is_shared_by_the_envoys(each, ready, envoys, limit):
    assert limit_of_one_envoy(each, ready, envoys) == limit


ONE_ENVOY = EnvoySettings()


def script_of(route, replicas=TWO, settings=ONE_ENVOY):
    found = by_key(Translator(settings).resources(A, route, replicas))
    routes = message_of(found[ResourceKey(ROUTE, "port/80/default")]).virtual_hosts[0].routes
    config = LuaConfig()
    specifiers = [one.route.inline_cluster_specifier_plugin.extension.typed_config for one in routes]
    return next((config.source_code.inline_string for one in specifiers if one.Unpack(config)), None)


def limited(**more):
    route = a_route(more.pop("remote", a_remote()), **more)
    return route.model_copy(update={"local": route.local.model_copy(update={"max_requests_per_replica": 4})})


def test_the_script_counts_what_is_in_flight():
    assert script_of(limited()) == (
        "function envoy_on_route(handle)\n"
        '  local replicas = handle:getCluster("model/default/a/local")\n'
        "  if replicas ~= nil and replicas:numRequests() + replicas:numPendingRequests() >= 8 then\n"
        '    return "model/default/a/remote-first"\n'
        "  end\n"
        '  return "model/default/a/local-first"\n'
        "end\n"
    )


def test_the_limit_follows_the_ready_replicas_and_the_envoys():
    assert ">= 8 " in script_of(limited())
    assert ">= 4 " in script_of(limited(), TWO[:1])
    assert ">= 4 " in script_of(limited(), (TWO[0], TWO[1]._replace(ready=False)))
    assert ">= 3 " in script_of(limited(), settings=EnvoySettings(envoys=3))


def test_only_the_routes_change_with_the_envoys():
    translator = Translator(EnvoySettings())
    one, three = (by_key(translator.resources(A, limited(), TWO, envoys)) for envoys in (1, 3))
    assert {key for key in one if one[key] != three[key]} == {ResourceKey(ROUTE, "port/80/default")}


@pytest.mark.parametrize("away", [0, 30])
def test_a_limit_holds_with_any_split_that_keeps_something(away):
    assert script_of(limited(away=away))


def test_there_is_no_limit_where_nothing_may_leave_or_nothing_stays():
    assert script_of(limited(remote=None)) is None
    assert script_of(limited(away=100)) is None


def test_no_name_is_more_than_a_string():
    plugin = local_until_full(RouteKey.of_model('a" .. os.exit() .. "', "b\n\\"), 1)
    config = LuaConfig.FromString(plugin.extension.typed_config.value)
    name = r'"model/a\034\032..\032os.exit\040\041\032..\032\034/b\010\092/'
    assert config.source_code.inline_string.count(name) == 3
