"""The optional features of the product, each as a change of what a model is served by, and what they cost. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from benchmarks.proxies import configs, protection
from benchmarks.proxies.comparison import Ratios
from benchmarks.proxies.slots import Slot
from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.rate_limit import RateLimitKind, RouteRateLimit
from controller.api.contract.route import Route
from controller.api.destinations import ANYWHERE
from xds_server.resources.access_log import AccessLog
from xds_server.resources.translator import EnvoySettings


def _same_route(route: Route) -> Route:
    return route


def _same_settings(settings: EnvoySettings) -> EnvoySettings:
    return settings


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: what it changes of the route, and of what all Envoys have in common.

    The upstream stays as it is (see upstream.yaml): a feature that needs another one has to be served there too. The
    Secrets that a route names are those of `protection`. With `over_tls` clients speak it, and show a certificate if
    they are asked for one; `authorization` is what they say in that header.
    """

    name: str
    route: Callable[[Route], Route] = _same_route
    settings: Callable[[EnvoySettings], EnvoySettings] = _same_settings
    over_tls: bool = False
    authorization: str = "Bearer of-the-client"


def _replicas(**known: object) -> Callable[[Route], Route]:
    """Change what is asked of the replicas."""
    return lambda route: route.model_copy(update={"local": route.local.model_copy(update=known)})


def _limited(per: RateLimitKind, header: str | None = None) -> Callable[[Route], Route]:
    """Limit what clients may ask, to what is never reached."""
    limit = RouteRateLimit(requests=1_000_000, unit="Second", per=per, header=header)
    return lambda route: route.model_copy(update={"rate_limits": (limit,)})


def _entrance(tls: EntranceTls, *jwt: JwtProvider) -> Callable[[Route], Route]:
    """Let clients in over TLS alone, and with a token of these providers."""
    return lambda route: route.model_copy(update={"tls": tls, "jwt": jwt})


def _remote(**known: object) -> Callable[[Route], Route]:
    """Change what is asked of the remote backend."""

    def changed(route: Route) -> Route:
        assert route.remote
        return route.model_copy(update={"remotes": (route.remote.model_copy(update=known),)})

    return changed


def _with_token(route: Route) -> Route:
    """Have a token fetched at the remote backend."""
    assert route.remote
    return _remote(auth=protection.oauth(f"http://{route.remote.host}:{configs.UPSTREAM_PORT}/token"))(route)


def _by_name(route: Route) -> Route:
    """Write the address of the remote backend in a form that is resolved: where a name leads is what is guarded."""
    assert route.remote
    most, _, last = route.remote.host.rpartition(".")
    return _remote(host=f"{most}.0{last}")(route)


_DESTINATIONS = ANYWHERE.configured(allow=(), deny=("203.0.113.0/24",))

NONE = Feature("none")
FEATURES = (
    Feature("spec.tls", _entrance(protection.FRONT), over_tls=True),
    Feature("tls.clientValidation", _entrance(protection.CHECKED), over_tls=True),
    Feature(
        "spec.tls, jwt",
        _entrance(protection.FRONT, protection.ISSUER.provider()),
        over_tls=True,
        authorization=f"Bearer {protection.ISSUER.token(exp=2**31)}",
    ),
    Feature("firstByteTimeout", _replicas(first_byte_timeout=timedelta(minutes=1))),
    Feature("rateLimit: Model", _limited("Model")),
    Feature("rateLimit: Address", _limited("ClientAddress")),
    Feature("rateLimit: Header", _limited("Header", "x-api-key")),
    # A limit that is never reached: what counting costs, and the way by the internal listener.
    Feature("maxRequestsPerReplica", _replicas(max_requests_per_replica=1_000)),
    Feature("retry, timeouts.request", _remote(retries=1, answer_timeout=timedelta(minutes=1))),
    Feature("TLS", _remote(port=configs.TLS_PORT, tls=protection.TLS)),
    Feature("an API key", _remote(auth=protection.API_KEY)),
    Feature("OAuth", _with_token),
    Feature("TLS, an API key", _remote(port=configs.TLS_PORT, tls=protection.TLS, auth=protection.API_KEY)),
    Feature("remoteBackends.deny", _by_name, lambda settings: replace(settings, destinations=_DESTINATIONS)),
    Feature("access log: failures", settings=lambda settings: replace(settings, access_log=AccessLog.FAILURES)),
    Feature("access log: all", settings=lambda settings: replace(settings, access_log=AccessLog.ALL)),
)


class Case(NamedTuple):
    """One Envoy: with one feature, and `local` percent to the replicas."""

    feature: str
    local: int

    @property
    def without(self) -> Case:
        """What it is compared with."""
        return Case(NONE.name, self.local)


# Each leg by itself: at 50/50 a feature of one of them would seem to cost half.
LEGS = (100, 0)
CASES = tuple(Case(feature.name, local) for local in LEGS for feature in (NONE, *FEATURES))

CasesRound: TypeAlias = Mapping[Case, Slot]
"""One slot of each case."""

_HEADER = (
    f"{'feature':<24}{'split':>7}{'requests':>10}{'CPU us/request':>16}{'costs':>9} {'(quartiles)':<18}{'failed':>7}"
)
LEGEND = """\
costs: CPU per request more than without any feature, at the same split and in the same round; medians of the rounds."""


def turns(number: int) -> tuple[Case, ...]:
    """Return the order of a round: each starts at another case, and every second one goes backwards."""
    order = CASES[::-1] if number % 2 else CASES
    first = number % len(order)
    return order[first:] + order[:first]


def cost(rounds: Sequence[CasesRound], case: Case) -> Ratios:
    """Say how much more CPU a request needs, as a share: 0.1 is a tenth more."""
    return Ratios.of([one[case].cpu_per_request / one[case.without].cpu_per_request - 1 for one in rounds])


def table(rounds: Sequence[CasesRound]) -> str:
    """Write a row for each case; LEGEND says how to read it."""
    return "\n".join([_HEADER, *(_row(rounds, case) for case in CASES)])


def _row(rounds: Sequence[CasesRound], case: Case) -> str:
    slots = [one[case] for one in rounds]
    microseconds = statistics.median(slot.cpu_per_request for slot in slots) * 1e6
    shown = f"{'-':>9} {'':<18}"
    if case != case.without:
        ratios = cost(rounds, case)
        low, high = ratios.quartiles
        shown = f"{ratios.median:>+9.1%} {f'({low:+.1%} to {high:+.1%})':<18}"
    return (
        f"{case.feature:<24}{f'{case.local}/{100 - case.local}':>7}{sum(slot.requests for slot in slots):>10}"
        f"{microseconds:>16.1f}{shown}{sum(slot.failed for slot in slots):>7}"
    )
