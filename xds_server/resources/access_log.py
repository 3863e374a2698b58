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

from xds_server.resources import names
from xds_server.resources.names import ModelKey
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

_FIELDS = {
    "start_time": "%START_TIME%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "method": "%REQ(:METHOD)%",
    "protocol": "%PROTOCOL%",
    "traceparent": "%REQ(TRACEPARENT):64%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "flags_long": "%RESPONSE_FLAGS_LONG%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": f"%RESP({names.ROUTE_HEADER})%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "host": "%UPSTREAM_HOST%",
    "transport_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}


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
_SENT_AGAIN = AccessLogFilter(
    extension_filter=ExtensionFilter(
        name="sent_again", typed_config=packed(ExpressionFilter(expression="upstream.request_attempt_count > 1"))
    )
)
_FAILED = AccessLogFilter(or_filter=OrFilter(filters=[_SERVER_ERROR, _ANY_FLAG, _SENT_AGAIN]))


def of_clients(model: ModelKey, wanted: AccessLog) -> list[AccessLogMessage]:
    """Tell of the requests of clients: each at most once, at its end, whatever was tried for it."""
    if wanted is AccessLog.OFF:
        return []
    as_sent = {field: f"%FILTER_STATE({_state(field)}:PLAIN)%" for field in _AS_SENT}
    return [_log({**_said_of(model, "client"), **_FIELDS, **as_sent}, None if wanted is AccessLog.ALL else _FAILED)]


def of_leg(model: ModelKey, wanted: AccessLog, leg: str) -> list[AccessLogMessage]:
    """Tell of attempts that failed behind an internal listener, where alone it is known why."""
    if wanted is AccessLog.OFF:
        return []
    return [_log({**_said_of(model, leg), **_FIELDS}, _FAILED)]


def _said_of(model: ModelKey, leg: str) -> Mapping[str, str]:
    return {"leg": leg, "namespace": model.namespace, "model": model.name}


def _log(fields: Mapping[str, str], which: AccessLogFilter | None) -> AccessLogMessage:
    as_json = Struct(fields={name: Value(string_value=value) for name, value in fields.items()})
    return AccessLogMessage(
        name="envoy.access_loggers.stdout",
        filter=which,
        typed_config=packed(StdoutAccessLog(log_format=SubstitutionFormatString(json_format=as_json))),
    )
