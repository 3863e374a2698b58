"""The access log: one line of JSON for a request, on the standard output of an Envoy.

A line says what the client asked and what came of it. Headers are left out but for those by which a request is known,
and so is the query: keys and prompts travel in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog as AccessLogMessage
from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    ExtensionFilter,
    OrFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import RuntimeUInt32, SubstitutionFormatString
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.http.set_filter_state.v3 import Config as SetFilterState
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Struct, Value

from controller.api.contract.route import RouteKey
from xds_server.resources import names
from xds_server.resources.encoding import packed
from xds_server.resources.original_request import filter_state


class AccessLog(Enum):
    """Which requests are logged."""

    OFF = "off"
    FAILURES = "failures"
    """Those that ended with a response flag or 5xx, or needed a second attempt; but not what a rate limit refused."""
    ALL = "all"


# What the way to a backend rewrites or takes off, as the client sent it; by the names of the fields. A line stays below
# 2 KiB, whatever a client sends.
_AS_SENT = {
    "authority": "%REQ(:AUTHORITY):256%",
    "path": "%PATH(NQ:PATH):512%",
    "request_id": "%REQ(X-REQUEST-ID):128%",
}

_COMMON_FIELDS = {
    "start_time": "%START_TIME%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "method": "%REQ(:METHOD):32%",
    "traceparent": "%REQ(TRACEPARENT):64%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "flags_long": "%RESPONSE_FLAGS_LONG%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "host": "%UPSTREAM_HOST%",
    "transport_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_REQUEST_FIELDS = {
    **_COMMON_FIELDS,
    "protocol": "%PROTOCOL%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": f"%RESP({names.ROUTE_HEADER})%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}
_ATTEMPT_FIELDS = {**_COMMON_FIELDS, "route": f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:{names.METADATA_KEY})%"}


def _state(field: str) -> str:
    return f"{names.METADATA_NAMESPACE}.sent.{field}"


# Sits before everything that changes a request.
SAVING_FOR_LOG = HttpFilter(
    name=f"{names.METADATA_NAMESPACE}.sent",
    typed_config=packed(
        SetFilterState(on_request_headers=[filter_state(_state(field), value) for field, value in _AS_SENT.items()])
    ),
)

_SERVER_ERROR = AccessLogFilter(
    status_code_filter=StatusCodeFilter(
        comparison=ComparisonFilter(
            op=ComparisonFilterOp.GE, value=RuntimeUInt32(default_value=500, runtime_key="unused")
        )
    )
)
_ANY_FLAG = AccessLogFilter(response_flag_filter=ResponseFlagFilter())


def expression(name: str, text: str) -> AccessLogFilter:
    """Build a filter from an expression of CEL over Envoy's attributes."""
    typed_config = packed(ExpressionFilter(expression=text))
    return AccessLogFilter(extension_filter=ExtensionFilter(name=name, typed_config=typed_config))


_SENT_AGAIN = expression("sent_again", "upstream.request_attempt_count > 1")
# Not at an internal listener, which has attempts of its own.
_AT_A_SERVER = expression("at_a_server", "!(has(upstream.address) && upstream.address.startsWith('envoy://'))")
# What is above a rate limit has a flag, but did not fail; and whoever asks too often shall not fill a disk by it.
_NOT_LIMITED = expression(
    "not_limited", "!(has(response.code_details) && response.code_details == 'local_rate_limited')"
)
_FAILED_REQUEST = AccessLogFilter(
    and_filter=AndFilter(
        filters=[
            AccessLogFilter(or_filter=OrFilter(filters=[_SERVER_ERROR, _ANY_FLAG, _SENT_AGAIN])),
            _NOT_LIMITED,
        ]
    )
)
_FAILED_ATTEMPT = AccessLogFilter(
    and_filter=AndFilter(
        filters=[AccessLogFilter(or_filter=OrFilter(filters=[_SERVER_ERROR, _ANY_FLAG])), _AT_A_SERVER]
    )
)


def request_log(key: RouteKey | None, wanted: AccessLog) -> list[AccessLogMessage]:
    """Build the log of the requests of clients: of each one line at most, at its end, whatever was tried for it.

    Without a key, a line says whose the request is by what `told_to_log` tells of its route.
    """
    if wanted is AccessLog.OFF:
        return []
    as_sent = {field: f"%FILTER_STATE({_state(field)}:PLAIN)%" for field in _AS_SENT}
    fields = {**_identity(key, "request"), **_REQUEST_FIELDS, **as_sent}
    return [_log(fields, None if wanted is AccessLog.ALL else _FAILED_REQUEST)]


def attempt_log(key: RouteKey | None, wanted: AccessLog) -> list[AccessLogMessage]:
    """Build the log of the attempts at a server that failed.

    The request may have been answered by another server, or may have been one that only an internal listener made.
    """
    if wanted is AccessLog.OFF:
        return []
    return [_log({**_identity(key, "attempt"), **_ATTEMPT_FIELDS}, _FAILED_ATTEMPT)]


def told_to_log(key: RouteKey) -> dict[str, str]:
    """Return what the metadata of a route's virtual host has to say where several routes have one log."""
    return {"namespace": key.namespace, "model": key.name}


def _identity(key: RouteKey | None, kind: str) -> Mapping[str, str]:
    if key is None:
        which = ("namespace", "model")
        return {"kind": kind, **{one: f"%METADATA(VIRTUAL_HOST:{names.METADATA_NAMESPACE}:{one})%" for one in which}}
    return {"kind": kind, **told_to_log(key)}


def _log(fields: Mapping[str, str], which: AccessLogFilter | None) -> AccessLogMessage:
    as_json = Struct(fields={name: Value(string_value=value) for name, value in fields.items()})
    return AccessLogMessage(
        name="envoy.access_loggers.stdout",
        filter=which,
        typed_config=packed(StdoutAccessLog(log_format=SubstitutionFormatString(json_format=as_json))),
    )
