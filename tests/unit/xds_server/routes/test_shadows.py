"""A route that moves to the shadow of its Service and back: it always has the pods."""

from controller.api.contract.route import Route
from tests.support.objects import a_model, a_slice
from tests.support.publishing import publishing
from tests.support.routes import a_route
from tests.support.store import settled
from xds_server.snapshot.snapshot import ENDPOINT

CONTROLLER = "endpointslice-controller.k8s.io"


def decided(route: Route, version: str = "1"):
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model().stored(status={"observedGeneration": 1, "route": raw}, version=version)


async def test_a_route_whose_shadow_has_no_slices_yet_has_the_pods_of_the_service():
    route = a_route()
    shadowed = route.model_copy(
        update={"local": route.local.model_copy(update={"service": "a-beamlit", "fronted": "a"})}
    )
    own, shadows = (a_slice(name).written_by(CONTROLLER) for name in ("a", "a-beamlit"))
    async with publishing((decided(route), own.ready("10.0.0.1", "10.0.0.2").stored())) as this:

        def endpoints() -> list[bool]:
            body = this.published.snapshot.by_type[ENDPOINT]["model/default/a/local"].body
            return [address in body for address in (b"10.0.0.1", b"10.0.0.2")]

        this.store.put(decided(shadowed, version="2"))
        await settled()
        assert endpoints() == [True, True]
        assert not any(("EDS", "model/default/a/local") in changes for changes in this.published.changes[1:])
        # Once they are there they alone count.
        this.store.put(shadows.ready("10.0.0.2").stored())
        await settled()
        assert endpoints() == [False, True]
        this.store.put(shadows.not_ready("10.0.0.2").stored(version="2"))
        await settled()
        assert endpoints() == [False, False]
