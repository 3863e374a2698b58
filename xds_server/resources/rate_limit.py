"""How often clients may ask a route: Envoy's local rate limit, one token bucket for each limit and each client.

The filter stands in every front listener, off, and costs nothing there. A route configuration turns it on with the
limits of its route: so they are the same at the port of a model and at the port that all models share, an edit of them
holds at once, and no connection has to end for it. What it costs: the buckets are those of a route configuration. A new
one, by a new split for example, begins with full buckets (docs/adr/0063).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeFractionalPercent,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    RateLimit,
    RateLimitAction,
    RateLimitActionGenericKey,
    RateLimitActionRemoteAddress,
)
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import LocalRateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit.v3 import LocalRateLimit
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.rate_limit_descriptors.expr import v3 as expression
from envoy_data_plane.envoy.type.v3 import FractionalPercent, TokenBucket
from envoy_data_plane.google.protobuf import Any as PackedAny

from controller.api.contract.rate_limit import RouteRateLimit
from controller.api.contract.route import RouteKey
from xds_server.resources import names
from xds_server.resources.encoding import extension, packed

_NAME = "beamlit.rate_limit"
_UNITS = MappingProxyType({"Second": 1, "Minute": 60, "Hour": 3600})

# Of how many clients one limit remembers what they have left. Of more, the one that asked longest ago begins anew. With
# names of 512 characters of four bytes they weigh 5 MB; without a bound whoever makes up names has the memory of all.
CLIENTS = 1_000
_LONGEST_NAME = 512

# The name of the limit is first in every descriptor: two limits may count by the same.
_LIMIT, _ADDRESS, _HEADER = "limit", "remote_address", "header"

# For a request that no limit counts, which does not happen: Envoy wants to be told one (`LocalRateLimit.token_bucket`).
_NO_LIMIT = TokenBucket(max_tokens=2**32 - 1, tokens_per_fill=2**32 - 1, fill_interval=timedelta(seconds=1))
_ALWAYS = RuntimeFractionalPercent(default_value=FractionalPercent(numerator=100))

# Its module imports another class of this name, which mypy takes for it.
_Expression: Any = expression.Descriptor

FILTER = HttpFilter(name=_NAME, disabled=True, typed_config=packed(LocalRateLimit(stat_prefix=_NAME)))
"""The filter of a front listener, which does nothing until a route configuration tells it limits."""


def limits_of_route(key: RouteKey, limits: Sequence[RouteRateLimit]) -> Mapping[str, PackedAny]:
    """Build what a virtual host tells the filter: nothing without limits."""
    return {_NAME: packed(_filter_config(key, limits))} if limits else {}


def _filter_config(key: RouteKey, limits: Sequence[RouteRateLimit]) -> LocalRateLimit:
    return LocalRateLimit(
        stat_prefix=names.entrance_statistics(key),
        token_bucket=_NO_LIMIT,
        always_consume_default_token_bucket=False,
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        rate_limits=[RateLimit(actions=_actions(index, limit)) for index, limit in enumerate(limits)],
        descriptors=[_descriptor(index, limit) for index, limit in enumerate(limits)],
        max_dynamic_descriptors=CLIENTS,
        response_headers_to_add=[_retry_after(limits)],
        # Else it were UNAVAILABLE, which clients of gRPC send again at once.
        rate_limited_as_resource_exhausted=True,
    )


def _actions(index: int, limit: RouteRateLimit) -> list[RateLimitAction]:
    """Say what of a request is its client, for one limit."""
    which = RateLimitAction(generic_key=RateLimitActionGenericKey(descriptor_key=_LIMIT, descriptor_value=str(index)))
    match limit.per:
        case "Model":
            return [which]
        case "ClientAddress":
            return [which, RateLimitAction(remote_address=RateLimitActionRemoteAddress())]
        case "Header":
            return [which, RateLimitAction(extension=_value_of(limit.header))]


def _value_of(header: str | None) -> TypedExtensionConfig:
    """Take the value of a header for the name of the client, or an empty one if it is absent or too long to remember.

    Envoy's own action for headers has no bound. It makes no descriptor of a header that is absent, and whoever leaves
    it out would have no limit. This expression never fails: text that is no UTF-8 has a size, too.
    """
    value = f"request.headers['{header}']"
    text = f"'{header}' in request.headers && size({value}) <= {_LONGEST_NAME} ? {value} : ''"
    return extension("envoy.rate_limit_descriptors.expr", _Expression(descriptor_key=_HEADER, text=text))


def _descriptor(index: int, limit: RouteRateLimit) -> LocalRateLimitDescriptor:
    """Build the bucket of a limit, or what a bucket is made by for each client: an entry without a value is any."""
    entries = [RateLimitDescriptorEntry(key=_LIMIT, value=str(index))]
    if limit.per != "Model":
        entries.append(RateLimitDescriptorEntry(key=_ADDRESS if limit.per == "ClientAddress" else _HEADER))
    interval = timedelta(seconds=_UNITS[limit.unit])
    bucket = TokenBucket(max_tokens=limit.requests, tokens_per_fill=limit.requests, fill_interval=interval)
    return LocalRateLimitDescriptor(entries=entries, token_bucket=bucket)


def _retry_after(limits: Sequence[RouteRateLimit]) -> HeaderValueOption:
    """Tell a client when to ask again: once the slowest of the limits lets one more in (RFC 6585, section 4)."""
    seconds = max(-(-_UNITS[limit.unit] // limit.requests) for limit in limits)
    return HeaderValueOption(
        header=HeaderValue(key="retry-after", value=str(seconds)),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
