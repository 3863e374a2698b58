"""What Envoys report, without any."""

from controller.api.contract.route import Remote, Route
from controller.observe.proxies import ProxyReport
from controller.store.objects import ObjectRef


class AllProgrammed:
    """One Envoy, which has acknowledged everything."""

    def report(self, model: ObjectRef, route: Route) -> ProxyReport:
        return ProxyReport(connected=1, programmed=1)

    def remote(self, model: ObjectRef, remote: Remote) -> None:
        """Nobody has found out anything about any remote backend."""
