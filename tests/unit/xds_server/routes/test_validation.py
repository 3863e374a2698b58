"""A hostile status: whoever may write `status.route` gets no further than whoever may write the object.

`FIELDS` has a line for each field of a route, whatever is nested in it: a field that somebody adds fails the first test
until its line says what becomes of it in a status that nobody decided.
"""

import copy
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
from pydantic import BaseModel

from controller.api.contract.route import Route, RouteKey, Split
from controller.api.destinations import CHECKS_PORT
from controller.api.kubernetes.endpoints import PodsOnly
from controller.api.resources.configuration import DefaultRemoteBackend
from controller.api.schema.values import parse
from controller.intent.remotes import remotes_of
from tests.support.entrance import TokenIssuer, a_serving_secret, pem_of
from tests.support.objects import a_grant, a_model, a_secret, a_service, a_slice
from tests.support.publishing import publishing
from tests.support.routes import A, B, a_remote, a_route
from tests.support.store import settled
from xds_server.control_plane import ControlPlaneOptions
from xds_server.reports import Reports
from xds_server.routes.contests import Contender, Contests
from xds_server.routes.translation import ServingOptions
from xds_server.routes.validation import asked_with
from xds_server.snapshot.snapshot import CLUSTER, EMPTY, ENDPOINT, LISTENER, SECRET
from xds_server.stream.server.clients import Progress
from xds_server.translate import translate

PORT, FIXED_BY_B = 10_000, 10_001


def paths_of(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Every field in which a value stands, as a status has it."""
    for field in model.model_fields.values():
        name = f"{at}{field.alias}"
        inner, listed = _model_in(field.annotation)
        if inner:
            yield from paths_of(inner, f"{name}[]." if listed else f"{name}.")
        else:
            yield name


def _model_in(annotation: Any, listed: bool = False) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, listed
    for inner in typing.get_args(annotation):
        found, is_list = _model_in(inner, listed or typing.get_origin(annotation) is tuple)
        if found:
            return found, is_list
    return None, False


REFUSED = "refused"
"""Nothing of the route is served, and the status is told the field. With a route of before, that is served on."""
LOCAL = "local"
"""Nothing leaves, and no credential is sent to any Envoy. With a route of before, that is served on."""
UNREAD = "unread"
"""It is no route: what there is stays, and without it nothing is served."""
SERVED = "served"
"""It does no more than the author of the object may do, for the reason that stands beside it."""


@dataclass(frozen=True)
class Hostile:
    """What somebody writes into a field, and what becomes of it."""

    value: Any
    outcome: str
    why: str = ""


def its(outcome: str, *values: Any, why: str = "") -> list[Hostile]:
    assert bool(why) == (outcome == SERVED)
    return [Hostile(one, outcome, why) for one in values]


OTHER = {"source": "Secret", "name": "stolen", "key": "apiKey"}
AT_THE_SERVICE = "requests stay at Services that the author of the object may name"
ITS_OWN_CLIENTS = "clients of this model alone; who writes its status may end its route, too"
TO_WHAT_IS_ASKED = "requests leave for what the object asks for alone, and the author may send all there"

FIELDS: dict[str, list[Hostile]] = {
    "port": [*its(REFUSED, CHECKS_PORT, 8080, FIXED_BY_B), *its(UNREAD, 0, 70_000, "x")],
    "shares.local": its(UNREAD, 99),
    "shares.remotes[].name": its(UNREAD, "remote-other", "../x"),
    "shares.remotes[].percent": its(UNREAD, 101, 12),
    "local.namespace": its(REFUSED, "other", ""),
    "local.service": its(SERVED, "b", why=AT_THE_SERVICE),
    "local.fronted": its(REFUSED, "b"),
    "local.portName": its(SERVED, "admin", why="a port of the same Service"),
    "local.healthCheck.path": its(SERVED, "/quit", why="pods of its own namespace, and nobody sees the answer"),
    "local.healthCheck.interval": its(UNREAD, "0s", "1ms", "-1s"),
    "local.healthCheck.timeout": its(UNREAD, "0s", "1ms"),
    "local.healthCheck.failures": its(UNREAD, 0, -1),
    "local.healthCheck.port": its(REFUSED, 22),
    "local.healthCheck.host": its(SERVED, "x.example", why="pods of its own namespace, and nobody sees the answer"),
    "local.healthCheck.headers[].name": [*its(REFUSED, "authorization", "Cookie"), *its(UNREAD, "a b", ":path")],
    "local.healthCheck.headers[].value": its(UNREAD, "a\nb"),
    "local.healthCheck.tls": its(SERVED, True, why="pods of its own namespace are spoken to"),
    "local.healthCheck.grpcService": its(SERVED, "x", why="pods of its own namespace, and nobody sees the answer"),
    "local.customEndpoints": its(SERVED, True, why="the Service says it itself: see the test of it"),
    "local.firstByteTimeout": its(UNREAD, "0s", "1ms"),
    "local.maxRequestsPerReplica": its(UNREAD, 0, -1),
    "remotes[].name": its(UNREAD, "remote-other", "../x"),
    "remotes[].host": its(LOCAL, "evil.example", "10.0.0.1", "REMOTE.example"),
    "remotes[].port": its(LOCAL, 81),
    "remotes[].authority": its(LOCAL, "evil.example"),
    "remotes[].pathPrefix": its(LOCAL, "/evil", ""),
    "remotes[].headersToAdd[].name": its(LOCAL, "x-evil"),
    "remotes[].headersToAdd[].value": its(LOCAL, "evil"),
    "remotes[].healthCheck.path": its(LOCAL, "/evil"),
    "remotes[].healthCheck.interval": its(UNREAD, "0s", "1ms"),
    "remotes[].tls.serverName": its(LOCAL, "evil.example"),
    "remotes[].tls.ca.source": its(UNREAD, "Spec"),
    "remotes[].tls.ca.name": its(LOCAL, "evil"),
    "remotes[].tls.ca.key": its(LOCAL, "evil"),
    "remotes[].tls.clientCertificate.certificate.source": its(UNREAD, "DefaultBackend"),
    "remotes[].tls.clientCertificate.certificate.name": its(LOCAL, "stolen"),
    "remotes[].tls.clientCertificate.certificate.key": its(LOCAL, "stolen"),
    "remotes[].tls.clientCertificate.privateKey.source": its(UNREAD, "DefaultBackend"),
    "remotes[].tls.clientCertificate.privateKey.name": its(LOCAL, "stolen"),
    "remotes[].tls.clientCertificate.privateKey.key": its(LOCAL, "stolen"),
    "remotes[].auth.oauth.clientId": its(LOCAL, "evil"),
    "remotes[].auth.oauth.clientSecret.source": its(UNREAD, "Spec", "DefaultBackend"),
    "remotes[].auth.oauth.clientSecret.name": its(LOCAL, "stolen"),
    "remotes[].auth.oauth.clientSecret.key": its(LOCAL, "stolen"),
    "remotes[].auth.oauth.tokenUrl": its(LOCAL, "https://evil.example/token"),
    "remotes[].auth.oauth.scopes": its(LOCAL, ["admin"]),
    "remotes[].auth.apiKey.header": its(LOCAL, "x-evil"),
    "remotes[].auth.apiKey.value.source": its(UNREAD, "Spec"),
    "remotes[].auth.apiKey.value.name": its(LOCAL, "stolen"),
    "remotes[].auth.apiKey.value.key": its(LOCAL, "stolen"),
    "remotes[].connectTimeout": [*its(UNREAD, "0s"), *its(SERVED, "9s", why="a number within the bounds of a spec")],
    "remotes[].answerTimeout": [*its(UNREAD, "1ms"), *its(SERVED, "9s", why="a number within the bounds of a spec")],
    "remotes[].retries": [*its(UNREAD, -1, 11), *its(SERVED, 9, why="a number within the bounds of a spec")],
    "remotes[].throughGateway": its(SERVED, True, why="a request that leads back comes four times, and ends there"),
    "rateLimits[].requests": [*its(UNREAD, 0, -1, 2**31), *its(SERVED, 1, why=ITS_OWN_CLIENTS)],
    "rateLimits[].unit": [*its(UNREAD, "Day", ""), *its(SERVED, "Hour", why=ITS_OWN_CLIENTS)],
    "rateLimits[].per": its(UNREAD, "Model", "x"),
    "rateLimits[].header": [
        *its(UNREAD, "", "X-Key", "x'] + 'y", "x" * 65, None),
        *its(SERVED, "x-other", why=ITS_OWN_CLIENTS),
    ],
    "tls.certificates": [*its(REFUSED, ["other"], ["cert", "other"]), *its(UNREAD, [], ["../x"], ["a"] * 5)],
    "tls.minVersion": [*its(REFUSED, "1.2"), *its(UNREAD, "1.1", "")],
    "tls.alpn": [*its(REFUSED, ["h2"], ["http/1.1", "h2"]), *its(UNREAD, [], ["h3"])],
    "tls.clientValidation.authorities": [*its(REFUSED, ["other"]), *its(UNREAD, [], ["../x"])],
    "tls.clientValidation.optional": [*its(REFUSED, True), *its(UNREAD, False)],
    "tls.clientValidation.told": [*its(REFUSED, [], ["URI"]), *its(UNREAD, ["Cert"])],
    "jwt[].name": [*its(REFUSED, "other"), *its(UNREAD, "", "a/b")],
    "jwt[].issuer": [*its(REFUSED, "https://evil.example"), *its(UNREAD, "", "a b")],
    "jwt[].audiences": [*its(REFUSED, ["other"], ["chat", "other"]), *its(UNREAD, [])],
    "jwt[].jwks": [*its(REFUSED, TokenIssuer().jwks), *its(UNREAD, "x" * 16_385)],
    "hosts": its(REFUSED, ["a.other"], ["b.default"], ["a.default", "b.default:80"]),
}


def test_every_field_of_a_route_has_a_line():
    assert sorted(FIELDS) == sorted(paths_of(Route))


A_REMOTE = {
    "scheme": "https",
    "pathPrefix": "/$workspace/$model",
    "headersToAdd": {"x-tenant": "t"},
    "healthCheck": {"path": "/healthz"},
    "tls": {"caRef": {"name": "ca"}, "clientCertRef": {"name": "own"}},
    "timeouts": {"connect": "1s", "request": "60s"},
    "retry": {"attempts": 1},
}
OAUTH = {
    "type": "oauth",
    "oauthConfig": {
        "clientId": "me",
        "tokenUrl": "https://auth.example/token",
        "scopes": ["use"],
        "clientSecretRef": {"name": "s"},
    },
}
API_KEY = {"type": "apiKey", "apiKey": {"secretRef": {"name": "s"}, "header": "x-key"}}
DEFAULT = parse(DefaultRemoteBackend, {"host": "default.example:80"})
OPTIONS = ServingOptions(guard=PodsOnly(), ask=asked_with(DEFAULT), reserved_ports=frozenset((CHECKS_PORT, 8080)))

# Whose port nobody else gets, since its spec fixes it.
FIXING = a_model("b").fixing(FIXED_BY_B).created("2026-02-02T00:00:00Z")
SECRET_OF_A = a_secret("s").holding(apiKey="hush", clientSecret="hush").stored()
STOLEN = a_secret("stolen").holding(apiKey="hush", clientSecret="hush").stored()


def asking(auth: dict[str, Any]):
    return a_model("a").with_remote("remote.example:443", authConfig=auth, **A_REMOTE)


ISSUER = TokenIssuer()
_CHAIN, _KEY = pem_of(trustme.CA().issue_cert("a.default"))
SERVED_WITH = (
    a_serving_secret("cert").holding(tls__crt=_CHAIN, tls__key=_KEY).saying("kubernetes.io/tls", "type").stored(),
    a_serving_secret("clients").holding(ca__crt=trustme.CA().cert_pem.bytes().decode()).stored(),
)
TLS = {
    "certificateRefs": [{"name": "cert"}],
    "minVersion": "1.3",
    "clientValidation": {"caCertificateRefs": [{"name": "clients"}], "certDetailsToAdd": ["DNS"]},
}
JWT = {
    "providers": [
        {
            "name": "main",
            "issuer": ISSUER.issuer,
            "audiences": ["chat"],
            "localJWKS": {"type": "Inline", "inline": ISSUER.jwks},
        }
    ]
}


def guarded(model, tls: dict[str, Any] = TLS, jwt: dict[str, Any] | None = JWT):
    """The same with TLS, and with tokens."""
    model = model.saying("Gateway", "spec", "frontend").saying(tls, "spec", "tls")
    return model.saying(jwt, "spec", "jwt") if jwt else model


def decided(model, **local: Any) -> dict[str, Any]:
    """The route that a controller decides on, in the form in which each part is a field of its own."""
    remotes = remotes_of(model.intent(), DEFAULT)
    check = {"path": "/ready", "headers": [{"name": "x-probe", "value": "1"}]}
    route = Route.between(port=PORT, split=Split.away(30), local=a_route().local, remote=remotes[0])
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    del raw["split"], raw["remote"]
    return {
        **raw,
        "shares": {"local": 70, "remotes": [{"name": "remote", "percent": 30}]},
        "remotes": [remotes[0].model_dump(mode="json", by_alias=True, exclude_none=True) | {"name": "remote"}],
        "local": {"namespace": "default", "service": "a", "portName": "", "healthCheck": check, **local},
        "hosts": ["a.default"],
        "rateLimits": [{"requests": 10, "unit": "Second", "per": "Header", "header": "x-key"}],
        **entrance_of(model),
    }


def entrance_of(model) -> dict[str, Any]:
    """Who is let in, as a controller writes it."""
    intent = model.intent()
    if intent.tls is None:
        return {}
    written = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in (intent.tls, *intent.jwt)]
    return {"tls": written[0], **({"jwt": written[1:]} if written[1:] else {})}


def forged(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The same with another value in one field."""
    raw = copy.deepcopy(raw)
    if path == "local.service":
        raw["hosts"] = []  # they have a line of their own
    here: Any = raw
    *steps, last = path.replace("[]", ".0").split(".")
    for step in steps:
        here = here[int(step)] if step.isdigit() else here.setdefault(step, {})
    here[last] = value
    return raw


def holding(model, route: dict[str, Any], version: str = "1"):
    return model.stored(status={"observedGeneration": 1, "route": route}, version=version)


def others():
    """What there is besides: the Service, its endpoints, Secrets, and the model that fixes its port."""
    own = a_route(port=FIXED_BY_B).model_dump(mode="json", by_alias=True, exclude_none=True)
    own["local"]["service"] = "b"
    slices = (a_slice(name).written_by("endpointslice-controller.k8s.io").ready("10.1.0.1") for name in ("a", "b"))
    return (
        holding(FIXING, own),
        a_service("a").port(80).selecting(run="a").stored(),
        *(one.stored() for one in slices),
        SECRET_OF_A,
        STOLEN,
        *SERVED_WITH,
    )


def shown(value: Any) -> str:
    """Write a value as part of a test's name, which has to be the same in each process."""
    text = str(value)
    return text if len(text) < 100 else f"{len(text)} characters"


LINES = [
    pytest.param(path, one, id=f"{path}-{shown(one.value)}-{one.outcome}")
    for path, some in FIELDS.items()
    for one in some
]


def model_for(path: str):
    if path.startswith(("tls", "jwt")):
        return guarded(asking(API_KEY))
    return asking(API_KEY if ".apiKey." in path else OAUTH)


@pytest.mark.parametrize("auth", [OAUTH, API_KEY])
def test_what_a_controller_decides_is_served_as_it_is(auth):
    found = translate([holding(asking(auth), decided(asking(auth))), *others()], OPTIONS)
    # But for the certificates, which are no matter here.
    assert {one.reason for one in found.problems[A]} == {"SecretNotFound"}
    assert found.problems.keys() == {A}


def served(snapshot) -> dict[str, bool]:
    """Whether the port is served, anything can leave, and a credential is delivered."""
    return {
        "port": f"port/{PORT}" in snapshot.by_type[LISTENER] or "model/default/a/local" in snapshot.by_type[CLUSTER],
        "leaves": any(name.startswith("backend/") for name in snapshot.by_type[CLUSTER]),
        "secret": bool(snapshot.by_type[SECRET]),
    }


@pytest.mark.parametrize(("path", "hostile"), LINES)
def test_a_status_that_nobody_decided(path, hostile):
    model = model_for(path)
    found = translate([holding(model, forged(decided(model), path, hostile.value)), *others()], OPTIONS)
    problems = {one.reason: "" for one in found.problems.get(A, ())}
    now = served(found.gateway)
    if hostile.outcome == REFUSED:
        assert problems.keys() == {"RouteRefused"}
        # Of TLS, all is compared together.
        named = "tls" if path.startswith("tls") else path.partition("[")[0]
        assert any(named in one.message for one in found.problems[A])
        assert now == {"port": False, "leaves": False, "secret": False}
    elif hostile.outcome == LOCAL:
        assert problems.keys() == {"RemoteNotAskedFor"}
        assert now == {"port": True, "leaves": False, "secret": False}
    elif hostile.outcome == UNREAD:
        assert (problems, now) == ({}, {"port": False, "leaves": False, "secret": False})
    else:
        assert not problems.keys() & {"RouteRefused", "RemoteNotAskedFor", "NotTranslated"}
        assert now["port"]


def without_tls(model):
    backend = dict(model.raw["spec"]["offloadingConfig"]["remoteBackend"], host="remote.example:80", scheme="http")
    del backend["tls"]
    return model.saying(backend, "spec", "offloadingConfig", "remoteBackend")


@pytest.mark.parametrize(
    ("path", "hostile"),
    [one for one in LINES if one.values[1].outcome != SERVED and ".tls." not in one.values[0]],
)
async def test_an_object_that_is_served_goes_on_as_before(path, hostile):
    model = without_tls(model_for(path))
    good = decided(model)
    async with publishing([holding(model, good), *others()], OPTIONS) as this:
        before = dict(this.published.bodies)
        assert served(this.published.snapshot) == {"port": True, "leaves": True, "secret": True}
        assert this.publisher.problems(A) == ()
        this.store.put(holding(model, forged(good, path, hostile.value), "2"))
        await settled()
        assert this.published.bodies == before
        reasons = {one.reason for one in this.publisher.problems(A)}
        assert reasons == (set() if hostile.outcome == UNREAD else {"RouteRefused"})
        # Its endpoints are followed all the same.
        slices = a_slice("a").written_by("endpointslice-controller.k8s.io").ready("10.1.0.9")
        this.store.put(slices.stored(version="2"))
        await settled()
        assert b"10.1.0.9" in this.published.snapshot.by_type[ENDPOINT]["model/default/a/local"].body
        # And what is decided is served again.
        this.store.put(holding(model, {**good, "hosts": []}, "3"))
        await settled()
        assert this.publisher.problems(A) == ()


async def test_a_refused_route_is_reported_as_one_that_no_envoy_has():
    model = without_tls(asking(API_KEY))
    async with publishing([holding(model, forged(decided(model), "port", 8080)), *others()], OPTIONS) as this:
        report = Reports(this.publisher, Nobody()).report(A)
        (words,) = report.refusals
        assert words == "status.route.port: 8080 is one that a program of the gateway listens on"
        assert report.route == parse(Route, forged(decided(model), "port", 8080)).digest


async def test_an_edit_of_the_object_keeps_what_is_served_until_somebody_decides():
    model = without_tls(asking(API_KEY))
    edited = model.saying("elsewhere.example:80", "spec", "offloadingConfig", "remoteBackend", "host")
    async with publishing([holding(model, decided(model)), *others()], OPTIONS) as this:
        before = dict(this.published.bodies)
        this.store.put(edited.stored(status={"observedGeneration": 1, "route": decided(model)}, version="2"))
        await settled()
        assert (this.published.bodies, this.publisher.problems(A)) == (before, ())
        this.store.put(holding(edited, decided(edited), "3"))
        await settled()
        assert this.publisher.problems(A) == ()
        assert this.published.bodies != before
        # What was asked for once is not asked for any more.
        this.store.put(holding(edited, decided(model), "4"))
        await settled()
        assert [one.reason for one in this.publisher.problems(A)] == ["RouteRefused"]


def test_an_address_in_another_form_is_what_the_object_asks_for():
    """A controller of before wrote it as the object has it."""
    model = without_tls(asking(API_KEY)).saying(
        "[2001:DB8:0::1]:80", "spec", "offloadingConfig", "remoteBackend", "host"
    )
    for host, leaves in (("2001:db8:0::1", True), ("2001:db8::1", True), ("2001:db8::2", False)):
        found = translate([holding(model, forged(decided(model), "remotes[].host", host)), *others()], OPTIONS)
        assert served(found.gateway)["leaves"] is leaves


@pytest.mark.parametrize("host", ["remote.example", "evil.example"])
def test_an_edit_that_nobody_decided_on_leaves_for_what_it_asks_for_also_where_nothing_is_remembered(host):
    model = without_tls(asking(API_KEY))
    edited = model.saying("elsewhere.example:80", "spec", "offloadingConfig", "remoteBackend", "host")
    route = forged(decided(model), "remotes[].host", host)

    def found(generation: int, observed: object = 1):
        status = {"observedGeneration": observed, "route": route}
        return translate([edited.stored(status=status, generation=generation), *others()], OPTIONS)

    gateway = found(generation=2).gateway
    assert served(gateway) == {"port": True, "leaves": True, "secret": True}
    asked_for = [body.body for body in gateway.by_type[CLUSTER].values()]
    assert any(b"elsewhere.example" in body for body in asked_for)
    assert not any(host.encode() in body for body in asked_for)
    assert A not in found(generation=2).problems
    # Of an object that somebody decided on, the status says what nobody asked for.
    assert not served(found(generation=1).gateway)["leaves"]
    # Whoever writes it may write anything.
    for observed in (None, "x", [], {}, 2**70):
        assert not served(found(generation=2, observed=observed).gateway)["leaves"]


@pytest.mark.parametrize("left_out", [("tls", "jwt"), ("jwt",), ("tls.clientValidation",)])
async def test_nobody_is_let_in_by_a_status_that_says_nothing_of_who_may_come(left_out):
    model = without_tls(guarded(asking(API_KEY)))
    good, forged_route = decided(model), decided(model)
    for path in left_out:
        *steps, last = path.split(".")
        here = forged_route
        for step in steps:
            here = here[step]
        del here[last]
    found = translate([holding(model, forged_route), *others()], OPTIONS)
    assert [one.reason for one in found.problems[A]] == ["RouteRefused"]
    assert served(found.gateway) == {"port": False, "leaves": False, "secret": False}
    async with publishing([holding(model, good), *others()], OPTIONS) as this:
        before = dict(this.published.bodies)
        assert this.publisher.problems(A) == ()
        this.store.put(holding(model, forged_route, "2"))
        await settled()
        assert this.published.bodies == before


def test_an_edit_of_who_is_let_in_holds_where_nothing_is_remembered():
    """The status is of before the edit, and so is what it says of TLS."""
    model = without_tls(asking(API_KEY))
    status = {"observedGeneration": 1, "route": decided(model)}
    found = translate([guarded(model).stored(status=status, generation=2), *others()], OPTIONS)
    assert A not in found.problems
    assert b"envoy.transport_sockets.tls" in found.gateway.by_type[LISTENER][f"port/{PORT}"].body


def test_clients_of_a_service_that_is_taken_over_speak_no_tls_until_they_are_led_back():
    model = guarded(a_model("a"))
    raw = {**decided(a_model("a").with_remote()), "remotes": [], "shares": {"local": 100}, "hosts": []}
    raw["local"] = {**raw["local"], "service": "a-beamlit", "fronted": "a"}
    shadow = a_service("a-beamlit").port(80).headless().saying({"beamlit.com/shadow-of": "a"}, "metadata", "labels")
    led = shadow.annotated(**{"beamlit.com/gateway-ports": str(PORT)})
    assert translate([holding(model, raw), *others(), led.stored()], OPTIONS).problems == {}
    for away in (shadow.stored(), led.named("other").stored()):
        found = translate([holding(model, raw), *others(), away], OPTIONS)
        assert found.problems[A][0].message == "status.route.tls: is not what the object asks for"


class Nobody:
    """No client is there."""

    def progress(self) -> Progress:
        return Progress(EMPTY, (), ())

    def refused(self) -> str:
        return ""


@pytest.mark.parametrize("source", ["Spec", "DefaultBackend"])
def test_no_other_credential_is_sent_to_what_the_object_asks_for(source):
    model = asking(OAUTH)
    raw = forged(decided(model), "remotes[].auth.oauth.clientSecret", {"source": source})
    found = translate([holding(model, raw), *others()], OPTIONS)
    assert [one.reason for one in found.problems[A]] == ["RemoteNotAskedFor"]
    assert served(found.gateway) == {"port": True, "leaves": False, "secret": False}


@pytest.mark.parametrize(
    "model",
    [
        asking(API_KEY).disabled(),
        asking(API_KEY).offloading(mode="Shadow"),
        asking(API_KEY).saying([{"refType": "localPolicy", "name": "p"}], "spec", "policies"),
        a_model("a"),
    ],
)
def test_nothing_leaves_for_an_object_that_lets_nothing_leave(model):
    found = translate([holding(model, decided(asking(API_KEY))), *others()], OPTIONS)
    assert [one.reason for one in found.problems[A]] == ["RemoteNotAskedFor"]
    assert served(found.gateway) == {"port": True, "leaves": False, "secret": False}


def test_the_default_backend_is_that_of_our_own_configuration():
    model = a_model("a").saying({}, "spec", "offloadingConfig")
    found = translate([holding(model, decided(model)), *others()], OPTIONS)
    assert (found.problems.get(A), served(found.gateway)["leaves"]) == (None, True)
    found = translate([holding(model, forged(decided(model), "remotes[].host", "evil.example")), *others()], OPTIONS)
    assert "nor the defaultRemoteBackend of the xDS server" in found.problems[A][0].message
    assert not served(found.gateway)["leaves"]


FOREIGN = RouteKey.of_model("guests", "g")


def guest(**local: Any):
    """A model of another namespace, in front of the Service of this one."""
    route = a_route(port=10_002).model_dump(mode="json", by_alias=True, exclude_none=True)
    route = {**route, "local": {"namespace": "default", "service": "a", **local}}
    return holding(a_model("g").in_namespace("guests"), route)


TO_GUESTS = {"allow-from.beamlit.com/guests": "true"}
CONSENTING = a_service("a").port(80).selecting(run="a").annotated(**TO_GUESTS)
GRANT = a_grant().of("guests").to("Service", "a").saying("default", "metadata", "namespace")


async def test_consent_is_asked_for_again_and_ends():
    service = a_service("a").port(80).selecting(run="a")
    async with publishing([guest(), service.stored()], OPTIONS) as this:

        def is_served() -> bool:
            return this.publisher.problems(FOREIGN) == () and bool(list(this.publisher.versions(FOREIGN)))

        assert not is_served()
        assert "does not permit references" in this.publisher.problems(FOREIGN)[0].message
        for given, taken in ((CONSENTING, service), (GRANT, None)):
            this.store.put(given.stored(version="2"))
            await settled()
            assert is_served()
            if taken:
                this.store.put(taken.stored(version="3"))
            else:
                this.store.remove(given.ref)
            await settled()
            assert not is_served()


@pytest.mark.parametrize(
    "check", [{"path": "/admin"}, {"host": "x"}, {"grpcService": ""}, {"headers": [{"name": "x", "value": "y"}]}]
)
def test_pods_of_another_namespace_are_asked_for_nothing(check):
    found = translate([guest(healthCheck=check), CONSENTING.stored()], OPTIONS)
    assert "local.healthCheck" in found.problems[FOREIGN][0].message
    found = translate([guest(healthCheck={}), CONSENTING.stored()], OPTIONS)
    assert found.problems == {}


def test_a_service_that_is_taken_over_is_served_until_its_clients_are_led_back():
    service = a_service("a").port(80).selecting(run="a").stored()
    shadow = a_service("a-beamlit").port(80).headless().saying({"beamlit.com/shadow-of": "a"}, "metadata", "labels")
    taken = guest(service="a-beamlit", fronted="a")
    for annotations, is_served in (
        ({"beamlit.com/gateway-ports": "10002"}, True),
        ({"beamlit.com/gateway-ports": "10003"}, False),
        ({}, False),
    ):
        found = translate([taken, service, shadow.annotated(**annotations).stored()], OPTIONS)
        assert (FOREIGN not in found.problems) == is_served
    stranger = a_service("a-beamlit").port(80).annotated(**{"beamlit.com/gateway-ports": "10002"})
    assert FOREIGN in translate([taken, service, stranger.stored()], OPTIONS).problems


def endpoints(*objects) -> bytes:
    snapshot = translate(objects, OPTIONS).gateway
    return snapshot.by_type[ENDPOINT]["model/default/a/local"].body


def test_endpoints_written_by_hand_count_where_the_service_says_so():
    raw = decided(asking(API_KEY), customEndpoints=True)
    raw = {**raw, "remotes": [], "shares": {"local": 100}, "hosts": []}
    model, by_hand = holding(a_model("a"), raw), a_slice("a").ready("10.9.9.9").stored()
    assert b"10.9.9.9" in endpoints(model, by_hand, a_service("a").port(80).stored())
    assert b"10.9.9.9" not in endpoints(model, by_hand, a_service("a").port(80).selecting(run="a").stored())
    assert b"10.9.9.9" not in endpoints(model, by_hand)


def test_a_port_has_one_model_and_a_host_too():
    first, second = (
        a_route(port=PORT).model_copy(update={"hosts": ("a.default",)}).model_dump(mode="json", by_alias=True)
        for _ in range(2)
    )
    older, newer = a_model("b").created("2026-01-01T00:00:00Z"), a_model("a").created("2026-01-02T00:00:00Z")
    found = translate([holding(older, first), holding(newer, second), *others()[1:]], OPTIONS)
    assert list(found.problems) == [A]
    assert found.problems[A][0].message == f"status.route.port: {PORT} is that of model/default/b"
    # Who fixes it goes before who is older.
    found = translate([holding(older, first), holding(newer.fixing(PORT), second), *others()[1:]], OPTIONS)
    assert list(found.problems) == [B]


async def test_a_model_that_is_served_on_a_port_keeps_it_whatever_the_status_of_an_older_one_says():
    route = a_route(port=PORT).model_dump(mode="json", by_alias=True)
    older, newer = a_model("b").created("2026-01-01T00:00:00Z"), a_model("a").created("2026-01-02T00:00:00Z")
    async with publishing([holding(newer, route), *others()[1:]], OPTIONS) as this:
        this.store.put(holding(older, route))
        await settled()
        assert this.publisher.problems(A) == ()
        assert this.publisher.problems(B)[0].message == f"status.route.port: {PORT} is that of model/default/a"
        # Whoever is told something else by the controller lets go of it.
        this.store.put(holding(newer, a_route(port=PORT + 1).model_dump(mode="json", by_alias=True), version="2"))
        await settled()
        assert this.publisher.problems(A) == this.publisher.problems(B) == ()
    # One that starts meanwhile has nothing to go by but the objects.
    found = translate([holding(older, route), holding(newer, route), *others()[1:]], OPTIONS)
    assert list(found.problems) == [A]


async def test_another_object_of_a_name_is_not_served_on_the_port_of_the_one_before():
    route = a_route(port=PORT).model_dump(mode="json", by_alias=True)
    older, newer = a_model("b").created("2026-01-01T00:00:00Z"), a_model("a").created("2026-01-02T00:00:00Z")
    async with publishing([holding(newer, route), *others()[1:]], OPTIONS) as this:
        this.store.put(holding(older, route))
        await settled()
        another = newer.saying("another", "metadata", "uid")
        this.store.put(holding(another, route, version="2"))
        await settled()
        assert this.publisher.problems(B) == ()
        assert this.publisher.problems(A)[0].message == f"status.route.port: {PORT} is that of model/default/b"


def test_who_wins_and_who_loses_is_told():
    contests = Contests()
    a, b = Contender(1, True, False, "2026-01-02", A), Contender(1, True, False, "2026-01-01", B)
    assert contests.claim(A, {80: a}) == frozenset()
    assert contests.winner(80) == A
    assert contests.claim(B, {80: b}) == {A}
    assert contests.winner(80) == B
    assert contests.claim(A, {80: a, "a.default": a}) == frozenset()
    assert contests.claim(A, {80: a._replace(rank=0)}) == {B}
    assert contests.winner("a.default") is None
    assert contests.claim(A, {}) == {B}
    assert contests.claim(B, {}) == frozenset()
    assert contests.winner(80) is None


def test_in_a_folder_whoever_writes_a_status_may_write_the_object():
    assert ControlPlaneOptions().serving.ask is None
    assert ControlPlaneOptions(believes_statuses=False).serving.ask is not None
    raw = a_route(a_remote(host="anywhere.example"), away=30, port=CHECKS_PORT)
    stored = holding(a_model("a"), raw.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert translate([stored], ServingOptions()).problems == {}
