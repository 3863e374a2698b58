"""What an Envoy tells of single requests: one line of JSON each, on its standard output, if anything.

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
from xds_server.resources.packing import packed
from xds_server.resources.saved import kept


class AccessLog(Enum):
    """Which requests are told of."""

    OFF = "off"
    FAILURES = "failures"
    """Those that ended with a response flag or 5xx, or needed a second attempt."""
    ALL = "all"


# What the way to a backend rewrites or takes off, as the client sent it; by the names of the fields. A line stays below
# 2 KiB, whatever a client sends.
_AS_SENT = {
    "authority": "%REQ(:AUTHORITY):256%",
    "path": "%PATH(NQ:PATH):512%",
    "request_id": "%REQ(X-REQUEST-ID):128%",
}

_OF_BOTH = {
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
_OF_REQUEST = {
    **_OF_BOTH,
    "protocol": "%PROTOCOL%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": f"%RESP({names.ROUTE_HEADER})%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}
_OF_ATTEMPT = {**_OF_BOTH, "route": f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:{names.METADATA_KEY})%"}


def _state(field: str) -> str:
    return f"{names.METADATA_NAMESPACE}.sent.{field}"


# Sits before everything that changes a request.
REMEMBERING_WHAT_WAS_SENT = HttpFilter(
    name=f"{names.METADATA_NAMESPACE}.sent",
    typed_config=packed(
        SetFilterState(on_request_headers=[kept(_state(field), value) for field, value in _AS_SENT.items()])
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


def _expression(name: str, expression: str) -> AccessLogFilter:
    """Build a filter from an expression of CEL over Envoy's attributes."""
    typed_config = packed(ExpressionFilter(expression=expression))
    return AccessLogFilter(extension_filter=ExtensionFilter(name=name, typed_config=typed_config))


_SENT_AGAIN = _expression("sent_again", "upstream.request_attempt_count > 1")
# Not at an internal listener, which has attempts of its own.
_AT_A_SERVER = _expression("at_a_server", "!(has(upstream.address) && upstream.address.startsWith('envoy://'))")
_FAILED_REQUEST = AccessLogFilter(or_filter=OrFilter(filters=[_SERVER_ERROR, _ANY_FLAG, _SENT_AGAIN]))
_FAILED_ATTEMPT = AccessLogFilter(
    and_filter=AndFilter(
        filters=[AccessLogFilter(or_filter=OrFilter(filters=[_SERVER_ERROR, _ANY_FLAG])), _AT_A_SERVER]
    )
)


def of_requests(model: RouteKey, wanted: AccessLog) -> list[AccessLogMessage]:
    """Tell of the requests of clients: of each at most once, at its end, whatever was tried for it."""
    if wanted is AccessLog.OFF:
        return []
    as_sent = {field: f"%FILTER_STATE({_state(field)}:PLAIN)%" for field in _AS_SENT}
    fields = {**_said_of(model, "request"), **_OF_REQUEST, **as_sent}
    return [_log(fields, None if wanted is AccessLog.ALL else _FAILED_REQUEST)]


def of_attempts(model: RouteKey, wanted: AccessLog) -> list[AccessLogMessage]:
    """Tell why an attempt at a server failed: the request may have been answered by another, or seen by a leg alone."""
    if wanted is AccessLog.OFF:
        return []
    return [_log({**_said_of(model, "attempt"), **_OF_ATTEMPT}, _FAILED_ATTEMPT)]


def _said_of(model: RouteKey, kind: str) -> Mapping[str, str]:
    return {"kind": kind, "namespace": model.namespace, "model": model.name}


def _log(fields: Mapping[str, str], which: AccessLogFilter | None) -> AccessLogMessage:
    as_json = Struct(fields={name: Value(string_value=value) for name, value in fields.items()})
    return AccessLogMessage(
        name="envoy.access_loggers.stdout",
        filter=which,
        typed_config=packed(StdoutAccessLog(log_format=SubstitutionFormatString(json_format=as_json))),
    )
