"""What a model left behind is there for a moment more, for the requests that are still on their way to it."""

import asyncio
import contextlib

from controller.api.timing import GatewayTiming
from tests.support.objects import a_model, a_secret
from tests.support.publishing import publishing
from tests.support.routes import A, B, a_remote, a_route, with_key
from tests.support.store import settled
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.translation import ServingOptions
from xds_server.snapshot.scope import Role

KEY = a_secret("s").holding(apiKey="hush").stored()


def decided(model, route, version="1"):
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model(model.name).stored(status={"observedGeneration": 1, "route": raw}, version=version)


@contextlib.asynccontextmanager
async def delivering(*objects, seconds=60.0):
    envoys = {Role.GATEWAY: EnvoySettings(timing=GatewayTiming(departed=seconds))}
    async with publishing(objects, ServingOptions(envoys)) as this:
        yield this.store, this.published, this.publisher


DIRECT, GUARDED = a_route(a_remote(), away=50), a_route(a_remote(retries=1), away=50)
OF_THE_DIRECT_WAY = {("CDS", "model/default/a/fallback"), ("LDS", "local/model/default/a")}
OF_THE_GUARDED_WAY = ("CDS", "model/default/a/remote-first")


async def test_another_way_to_the_remote_leaves_the_one_before_for_a_while():
    async with delivering(decided(A, DIRECT)) as (store, published, _):
        store.put(decided(A, GUARDED, version="2"))
        await settled()
        assert published.names >= OF_THE_DIRECT_WAY
        assert OF_THE_GUARDED_WAY in published.names


async def test_after_a_while_it_is_gone():
    async with delivering(decided(A, DIRECT), seconds=0) as (store, published, _):
        store.put(decided(A, GUARDED, version="2"))
        await settled()
        assert not published.names & OF_THE_DIRECT_WAY
        assert OF_THE_GUARDED_WAY in published.names


async def test_what_came_back_stays():
    async with delivering(decided(A, DIRECT), seconds=0.01) as (store, published, _):
        store.put(decided(A, GUARDED, version="2"), decided(A, DIRECT, version="3"))
        await settled()
        await asyncio.sleep(0.05)
        assert published.names >= OF_THE_DIRECT_WAY
        assert OF_THE_GUARDED_WAY not in published.names


async def test_of_a_removed_model_nobody_gets_in_and_everybody_gets_out():
    async with delivering(decided(A, DIRECT), decided(B, DIRECT)) as (store, published, publisher):
        store.remove(decided(A, DIRECT).ref)
        await settled()
        assert not published.names & {("LDS", "model/default/a"), ("RDS", "model/default/a")}
        assert published.names >= {
            ("CDS", "model/default/a/local"),
            ("EDS", "model/default/a/local"),
            *OF_THE_DIRECT_WAY,
        }
        assert list(publisher.routes()) == [B]
        assert publisher.routes_with(
            one.key for kind in published.snapshot.by_type.values() for one in kind.values()
        ) == {B}


async def test_no_secret_is_kept_and_nothing_that_needs_one():
    protected = a_route(a_remote(auth=with_key()), away=50)
    async with delivering(decided(A, protected), KEY) as (store, published, _):
        store.put(decided(A, a_route(), version="2"))
        await settled()
        assert not [name for type_, name in published.names if type_ == "SDS" or name.startswith("backend/")]
        assert OF_THE_GUARDED_WAY in published.names
