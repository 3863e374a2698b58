"""Forms of text that HTTP gives: hosts, paths, headers, and the URLs made of them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from controller.api.schema.cel import CelRules, Rule, matches
from controller.api.schema.client_headers import CREDENTIALS, REMOVED, REMOVED_PREFIXES, WRITTEN_ANEW
from controller.api.schema.errors import FieldFaultError
from controller.api.schema.scalars import Shape

# What RFC 9110 calls a token, but without "%", which begins a substitution in Envoy.
HeaderName = Annotated[
    str, Field(max_length=256), Shape(r"[!#$&'*+.^_`|~0-9A-Za-z-]+", "the name of a header, without spaces, ':' or '%'")
]
# What a route of an older version may have.
HeaderLine = Annotated[str, Field(max_length=8000), Shape(r"[^\r\n\x00]*", "the value of a header, on one line")]
# RFC 9110, section 5.5: no control characters but the tab. Envoy fails each request that it should put others into.
HeaderValue = Annotated[
    str,
    Field(max_length=8000),
    Shape(r"[^\x00-\x08\x0a-\x1f\x7f]*", "the value of a header, on one line, without control characters"),
]

# RFC 9110, section 7.6.1, and what frames a message.
_CONNECTION_HEADERS = (
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
# Envoy, "Router", "HTTP headers (consumed)": what says how often and how long a request is tried.
_ROUTER_HEADERS = (
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
)
# RFC 8586: who takes it off, or writes it anew, lets requests go around.
_LOOP_HEADERS = ("cdn-loop",)
# What the gateway never reads as a client wrote it: it is taken off at the door, or written anew.
_NOT_OF_CLIENTS = (*_CONNECTION_HEADERS, *REMOVED, *WRITTEN_ANEW)
_NOT_HOST = "may not be set: the Host that is sent is remoteBackend.host"
_NOT_CONNECTION = "may not be set: it belongs to the connection, which is Envoy's"
_NOT_ROUTER = "may not be set: Envoy does as it says, and does not send it"
_NOT_LOOP = "may not be set: by it gateways know a request that comes back to them"
_NOT_READ = "must be one that clients can be told apart by: this one belongs to the connection or to the gateway"


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() == "host":
            raise FieldFaultError((name,), _NOT_HOST)
        if name.lower() in _CONNECTION_HEADERS:
            raise FieldFaultError((name,), _NOT_CONNECTION)
        if name.lower() in _ROUTER_HEADERS:
            raise FieldFaultError((name,), _NOT_ROUTER)
        if name.lower() in _LOOP_HEADERS:
            raise FieldFaultError((name,), _NOT_LOOP)
    return headers


def _check_header_name(name: str) -> str:
    if name.lower() == "host":
        raise ValueError(_NOT_HOST)
    if name.lower() in _CONNECTION_HEADERS:
        raise ValueError(_NOT_CONNECTION)
    if name.lower() in _LOOP_HEADERS:
        raise ValueError(_NOT_LOOP)
    return name


def is_credential_header(name: str) -> bool:
    """Tell whether a header of this name usually holds a credential."""
    return name.lower() in CREDENTIALS


# Names are many: of what only passes on what somebody else wrote, such as a probe, each with one of these counts.
_WORDS_OF_CREDENTIALS = (
    "auth",
    "cookie",
    "credential",
    "jwt",
    "key",
    "passw",
    "pwd",
    "secret",
    "session",
    "signature",
    "token",
)


def may_hold_credential(name: str) -> bool:
    """Tell whether by its name a header, or a key of a query, may hold a credential: `X-Probe-Key` may, too."""
    return any(word in name.lower() for word in _WORDS_OF_CREDENTIALS)


def _check_client_header(name: str) -> str:
    if name.lower() in _NOT_OF_CLIENTS or name.lower().startswith(REMOVED_PREFIXES):
        raise ValueError(_NOT_READ)
    return name


_CEL_CONNECTION_HEADERS, _CEL_ROUTER_HEADERS, _CEL_LOOP_HEADERS, _CEL_NOT_OF_CLIENTS = (
    f"[{', '.join(map(repr, names))}]"
    for names in (_CONNECTION_HEADERS, _ROUTER_HEADERS, _LOOP_HEADERS, _NOT_OF_CLIENTS)
)

HeadersToAdd = Annotated[
    dict[HeaderName, HeaderValue],
    Field(max_length=32),
    AfterValidator(_check_headers),
    CelRules(
        Rule("self.all(name, size(name) <= 256)", "the name of a header must have at most 256 characters"),
        Rule("self.all(name, name.lowerAscii() != 'host')", f"Host {_NOT_HOST}"),
        Rule(
            f"self.all(name, !(name.lowerAscii() in {_CEL_CONNECTION_HEADERS}))",
            f"a header of the connection {_NOT_CONNECTION}",
        ),
        Rule(f"self.all(name, !(name.lowerAscii() in {_CEL_ROUTER_HEADERS}))", f"what steers Envoy {_NOT_ROUTER}"),
        Rule(f"self.all(name, !(name.lowerAscii() in {_CEL_LOOP_HEADERS}))", f"CDN-Loop {_NOT_LOOP}"),
    ),
]
CredentialHeaderName = Annotated[
    HeaderName,
    AfterValidator(_check_header_name),
    CelRules(
        Rule("self.lowerAscii() != 'host'", _NOT_HOST),
        Rule(f"!(self.lowerAscii() in {_CEL_CONNECTION_HEADERS})", _NOT_CONNECTION),
        Rule(f"!(self.lowerAscii() in {_CEL_LOOP_HEADERS})", _NOT_LOOP),
    ),
]
# Letters, digits and dashes alone: the name becomes a part of an expression (xds_server/resources/rate_limit.py), and
# the gateway drops headers with "_".
ClientHeaderName = Annotated[
    str,
    Field(max_length=64),
    Shape(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", "the name of a header: letters, digits and '-' between them"),
    AfterValidator(_check_client_header),
    CelRules(
        Rule(
            " && ".join(
                (
                    f"!(self.lowerAscii() in {_CEL_NOT_OF_CLIENTS})",
                    *(f"!self.lowerAscii().startsWith({prefix!r})" for prefix in REMOVED_PREFIXES),
                )
            ),
            _NOT_READ,
        ),
    ),
]

_PORT = r"0{0,4}([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_NO_PORT = "must have a port from 1 to 65535"


def check_port(text: str) -> str:
    """Return a URL or an authority whose port, if there is one, exists. Raises ValueError."""
    named = re.fullmatch(r"(?:https?://)?(?:\[[^]]*\]|[^][/:]*):([0-9]+)(?:/.*)?", text)
    if named and not 1 <= int(named[1]) <= 65535:
        raise ValueError(f"{_NO_PORT}, has {named[1]}")
    return text


Authority = Annotated[
    str,
    Field(max_length=260),
    Shape(
        r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?",
        "a host or host:port, such as models.example.com:8080 or [::1]:80, without a scheme or a path",
    ),
    AfterValidator(check_port),
    CelRules(Rule(f'!self.matches(":[0-9]+$") || self.matches(":{_PORT}$")', _NO_PORT)),
]
ServerName = Annotated[
    str, Field(max_length=253), Shape(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "a host name, without a port")
]

UrlPath = Annotated[
    str, Field(max_length=2048), Shape(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?", "a path such as /v1, without a query")
]
CheckedPath = Annotated[
    str, Field(max_length=2048), Shape(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*", "a path such as /healthz")
]


def _check_variables(prefix: str) -> str:
    if not re.fullmatch(_PREFIX, prefix):
        raise ValueError(_VARIABLES)
    return prefix


_PREFIX = r"([^$]|[$]workspace|[$]model)*"
_VARIABLES = "may use the variables $workspace and $model, no others; write %24 for a dollar sign"
PathPrefix = Annotated[UrlPath, AfterValidator(_check_variables), CelRules(Rule(matches(_PREFIX), _VARIABLES))]

Url = Annotated[
    str,
    Field(max_length=2048),
    Shape(
        r"(https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)?",
        "a URL such as https://auth.example.com/oauth/token",
    ),
    AfterValidator(check_port),
    CelRules(
        Rule(f'!self.matches("^https?://[^/]*:[0-9]+(/|$)") || self.matches("^https?://[^/]*:{_PORT}(/|$)")', _NO_PORT)
    ),
]
