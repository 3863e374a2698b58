"""How replicas are checked, from the readiness probe of the workload that runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError

from controller.api.contract.route import Header, ReplicaCheck
from controller.api.kubernetes.objects import Container, HttpGetAction, ReadinessProbe, Workload
from controller.api.schema.http import HeaderName, HeaderValue, may_hold_credential

# A path with an optional query and fragment in the characters of RFC 3986. The kubelet parses what it is given and
# writes it anew (`net/url`), and Envoy sends it as it is: of these characters both make the same. What begins with "//"
# is a host to the kubelet, and so is a scheme what a path without "/" has before its first colon.
_PLAIN = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_PATH = re.compile(rf"(?:/(?!/)|(?!/|[^/?#]*:))(?P<asked>{_PLAIN}*(?:\?(?:{_PLAIN}|\?)*)?)(?:#(?:{_PLAIN}|\?)*)?")
_LONGEST_PATH = 1024

# As many headers as `headersToAdd` may have, and as many characters as a header: they stand in the status of the model.
_MOST_HEADERS = 32
_LONGEST_HEADERS = 8000
_LONGEST_NAME = 64  # Characters that are told of.

# The full name of a service of gRPC, or a word: each check sends it.
_LONGEST_SERVICE = 256

# What takes longer than that is work, such as a generation, and no question. A cluster is used when each of its
# replicas was asked once: one that hangs would keep a model from being served for as long.
_LONGEST_ANSWER = timedelta(seconds=5)

_LONGEST_PERIOD = timedelta(days=1)

# What Go's client writes itself, whatever the headers of a request say (net/http, "reqWriteExcludeHeader").
_NOT_SENT = ("content-length", "trailer", "transfer-encoding")

# What the kubelet sends unless the probe says otherwise (kubernetes/pkg/probe/http); some servers go by it.
_OF_THE_KUBELET = (Header(name="user-agent", value="kube-probe/1"), Header(name="accept", value="*/*"))

_HEADER: TypeAdapter[tuple[str, str]] = TypeAdapter(tuple[HeaderName, HeaderValue])


def readiness_check(workload: Workload | None, serving: int | str) -> ReplicaCheck | None:
    """Let Envoy ask what the kubelet asks of the container that serves at this port; None lets it connect, no more.

    So it is for what Envoy cannot ask (`exec`, a `host` of its own, a header that nobody can send), for a path, headers
    or a service of gRPC that are too long, for what need not be asked (`tcpSocket`), for what may take long, for a port
    that requests do not use, which may be open to the kubelet alone, and for what may hold a credential. It is never
    stricter than the kubelet (docs/adr/0022).

    It must not depend on the replicas there are: a change of a cluster costs a warming, one of endpoints does not.
    """
    probe = _probe(workload, serving)
    check = (_http(probe.http_get) if probe.http_get else _grpc(probe)) if probe else None
    if check is None or probe is None:
        return None
    return check.model_copy(
        update={
            "interval": min(timedelta(seconds=probe.period_seconds), _LONGEST_PERIOD),
            "timeout": timedelta(seconds=probe.timeout_seconds),
            "failures": probe.failure_threshold,
        }
    )


def credential_in_probe(workload: Workload | None, serving: int | str) -> str:
    """Name what keeps the probe of the container that serves at this port from being asked: a header, or a key.

    It is empty where nothing seems to hold a credential. What is asked stands in the status of the model, and every
    client of the xDS server may look at it.
    """
    probe = _probe(workload, serving)
    return next(_credentials(probe.http_get), "") if probe and probe.http_get else ""


def check_of_all(
    check: ReplicaCheck | None, workload: Workload | None, before: ReplicaCheck | None
) -> ReplicaCheck | None:
    """Return the check that fits all pods there are; None lets Envoy connect, no more.

    While a rollout is under way, older pods have the probe of an older template: they may not know the path of the new
    one. So then only what was asked `before` as well is asked: a rollout that changes no probe changes no cluster.
    """
    return check if check == before or workload is None or not workload.is_rolling_out else None


def _probe(workload: Workload | None, serving: int | str) -> ReadinessProbe | None:
    """Find the probe of the container that serves at a port, if it asks there and an answer is near."""
    found = _serving(workload.spec.template.spec.containers, serving) if workload else None
    probe = found.readiness_probe if found else None
    if found is None or probe is None or timedelta(seconds=probe.timeout_seconds) > _LONGEST_ANSWER:
        return None
    asked = probe.http_get.port if probe.http_get else probe.grpc.port if probe.grpc else serving
    return probe if (_number(found, asked) or asked) == (_number(found, serving) or serving) else None


def _serving(containers: tuple[Container, ...], serving: int | str) -> Container | None:
    """Find the container that serves at a port: whose probe asks there, which names it, or which is the only one."""
    asked = (one for one in containers if _asks_at(one, serving))
    named = (one for one in containers if any(serving in (port.name, port.container_port) for port in one.ports))
    only = containers if len(containers) == 1 else ()
    return next((one for found in (asked, named, only) for one in found), None)


def _asks_at(container: Container, serving: int | str) -> bool:
    probe = container.readiness_probe
    action = (probe.http_get or probe.grpc) if probe else None
    return action is not None and _number(container, action.port) == (_number(container, serving) or serving)


def _number(container: Container, port: int | str) -> int | None:
    """Return the number of a port that a container may have given a name; None if nobody has."""
    names = {one.name: one.container_port for one in container.ports if one.name}
    if isinstance(port, int) or port.isdecimal():
        return int(port)
    return names.get(port)


def _http(action: HttpGetAction) -> ReplicaCheck | None:
    path = _PATH.fullmatch(action.path) if len(action.path) <= _LONGEST_PATH else None
    given = [(one.name.lower(), one.value) for one in action.http_headers]
    size = sum(len(name) + len(value) for name, value in given)
    if action.host or path is None or len(given) > _MOST_HEADERS or size > _LONGEST_HEADERS:
        return None
    if any(_credentials(action)) or not all(map(_can_be_sent, given)):
        return None
    names = {name for name, _ in given}
    # The kubelet leaves out its own two where the probe has them empty.
    left_out = {name for name, value in given if not value and name in ("user-agent", "accept")}
    sent = [
        Header(name=name, value=value)
        for name, value in given
        if name not in ("host", *_NOT_SENT) and name not in left_out
    ]
    return ReplicaCheck(
        path=f"/{path['asked']}",
        host=next((value for name, value in given if name == "host"), ""),
        headers=(*(one for one in _OF_THE_KUBELET if one.name not in names), *sent),
        tls=True if action.scheme == "HTTPS" else None,
    )


def _credentials(action: HttpGetAction) -> Iterator[str]:
    """Name each header, and each key in the path or its query, that may hold a credential."""
    yield from (
        f"the header {one.name[:_LONGEST_NAME]}" for one in action.http_headers if may_hold_credential(one.name)
    )
    for part in re.split("[/?&;]", action.path[:_LONGEST_PATH]):
        key, given, _ = part.partition("=")
        if given and may_hold_credential(unquote(key)):
            yield f"the key {key[:_LONGEST_NAME]} in its path"


def _can_be_sent(header: tuple[str, str]) -> bool:
    """Say whether Envoy can send a header: one that it cannot would take the whole cluster down with it."""
    try:
        _HEADER.validate_python(header)
    except ValidationError:
        return False
    return True


def _grpc(probe: ReadinessProbe) -> ReplicaCheck | None:
    service = probe.grpc.service if probe.grpc else None
    can_be_asked = service is not None and len(service) <= _LONGEST_SERVICE and service.isprintable()
    return ReplicaCheck(grpc_service=service) if can_be_asked else None
