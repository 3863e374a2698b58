"""Requests that come back: each front signs what it lets in, and turns away what it signed before.

A remote backend may lead back here, at once or by way of others: without a mark on the request it goes around until
the Envoys are dead (measured: 9,850 hops for one request). The mark is the header `CDN-Loop` (RFC 8586), which keeps
the names of all that a request passed, and which no proxy may take off. A front answers a request that bears its own
name too often with a 502, and whoever sent it on sends it to its replicas instead, as for any other 502.

A replica may well ask another model of the gateway, and pass on the headers that it got: an agent that calls a model, a
router in front of several. So a request may come back from replicas `PASSES` times. What leaves is signed so often
besides that its first return is one too many; but for what leaves for another model of this gateway, as the controller
knows it to be (`Remote.through_gateway`), which comes back as from a replica.

The answer says so in a load metric (ORCA), too, and the Envoy that gets it counts that in its load reports: so the xDS
server tells a loop from a backend that is merely down.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    HeaderFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeUInt32,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.http.cdn_loop.v3 import CdnLoopConfig
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from controller.api.contract.installation import check_installation
from xds_server.resources.encoding import packed
from xds_server.resources.original_request import LOOP_HEADER

PASSES = 3
"""How often a request may come back by way of replicas: enough for an agent that asks an agent that asks a router that
asks a model. Where somebody's replicas are the gateway itself, a request goes around so often."""

# What the metrics of an answer that ends a loop are called in a load report: see `loop_replies`.
CAME_BACK = "named_metrics.beamlit_came_back"
LEADS_HERE = "named_metrics.beamlit_leads_here"
LOOP_METRICS = (CAME_BACK, LEADS_HERE)


def loop_filter(installation: str) -> HttpFilter:
    """Build the filter that signs a request, or ends it with a 502 if it bears this signature more than `PASSES` times.

    An entry of the header that is not ours counts for nothing (RFC 8586, section 2).
    """
    config = CdnLoopConfig(cdn_id=check_installation(installation), max_allowed_occurrences=PASSES)
    return HttpFilter(name="envoy.filters.http.cdn_loop", typed_config=packed(config))


def leaving_signature(installation: str) -> list[HeaderValueOption]:
    """Return what is put behind the signature of a request that leaves: with it, its first return is its last.

    Replicas that get the request after all get it without this (`original_request.changed_headers`).
    """
    if not installation:
        return []
    return [
        HeaderValueOption(
            header=HeaderValue(key=LOOP_HEADER, value=",".join([installation] * PASSES)),
            append_action=HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD,
        )
    ]


def loop_replies(installation: str) -> LocalReplyConfig:
    """Say in the answer that ends a loop that it is one, and whether nobody else signed the request since we did.

    Then whoever sent it here is one of us, and all that it sends to this backend comes back.

    Of what a front answers itself with a 502, only this has no response flag: what becomes of a request on its way to
    an upstream has one (Envoy, "Response flags"). An expression of CEL could ask for the details, and weighs more.
    """
    ours_last = HeaderMatcher(name=LOOP_HEADER, string_match=StringMatcher(suffix=installation))
    return LocalReplyConfig(
        mappers=[  # the first that fits
            ResponseMapper(filter=_both(_IS_502, AccessLogFilter(response_flag_filter=ResponseFlagFilter()))),
            _mapper(_both(_IS_502, AccessLogFilter(header_filter=HeaderFilter(header=ours_last))), LEADS_HERE),
            _mapper(_IS_502, CAME_BACK),
        ]
    )


_IS_502 = AccessLogFilter(
    status_code_filter=StatusCodeFilter(
        comparison=ComparisonFilter(
            op=ComparisonFilterOp.EQ, value=RuntimeUInt32(default_value=502, runtime_key="unused")
        )
    )
)


def _both(one: AccessLogFilter, other: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(and_filter=AndFilter(filters=[one, other]))


def _mapper(which: AccessLogFilter, metric: str) -> ResponseMapper:
    told = HeaderValueOption(
        header=HeaderValue(key="endpoint-load-metrics", value=f"TEXT {metric}=1"),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return ResponseMapper(filter=which, headers_to_add=[told])
