"""From an Envoy message to bytes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    TypedExtensionConfig,
)
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.message_pool import default_message_pool

from xds_server.resources.encoding import encoded
from xds_server.snapshot.snapshot import Resource, ResourceKey

ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
NEVER = timedelta(0)

# With the default of 140 one bad replica of three sends a third of the traffic to the next priority.
OVERPROVISIONING_FACTOR = 100_000


def packed(message: Message, common: bytes = b"") -> Any:
    """Pack a message into an Any.

    `common` is what many messages of its type have in common, serialised once: one message after the other reads as
    both merged (Protocol Buffers, "Encoding", "Last One Wins").
    """
    return Any(type_url=default_message_pool.type_to_url[type(message)], value=common + encoded(message))


def extension(name: str, message: Message) -> TypedExtensionConfig:
    """Name and pack the configuration of an extension."""
    return TypedExtensionConfig(name=name, typed_config=packed(message))


def resource(name: str, message: Message, requires: Iterable[ResourceKey] = (), common: bytes = b"") -> Resource:
    """Pack a top-level message as a resource of its type; `common` as in `packed`."""
    any_ = packed(message, common)
    return Resource.of(any_.type_url, name, any_.value, requires)
