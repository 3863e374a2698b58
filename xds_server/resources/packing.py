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

from xds_server.snapshot.snapshot import Resource, ResourceKey

ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
NEVER = timedelta(0)

# With the default of 140 one bad replica of three sends a third of the traffic to the next priority.
OVERPROVISIONING_FACTOR = 100_000


def packed(message: Message) -> Any:
    """Pack a message into an Any."""
    return Any.pack(message)


def extension(name: str, message: Message) -> TypedExtensionConfig:
    """Name and pack the configuration of an extension."""
    return TypedExtensionConfig(name=name, typed_config=Any.pack(message))


def resource(name: str, message: Message, requires: Iterable[ResourceKey] = ()) -> Resource:
    """Pack a top-level message as a resource of its type."""
    packed_message = Any.pack(message)
    return Resource.of(packed_message.type_url, name, packed_message.value, requires)
