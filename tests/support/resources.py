"""Resources as text: every message decoded, every `Any` in it too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from xds_server.snapshot.snapshot import PREFIX, Resource, ResourceKey
from xds_server.stream.server.reflection import described


def message_of(resource: Resource) -> Any:
    """Parse a resource as the protobuf message it is, with the fields that are newer than the generated classes."""
    kind = described().FindMessageTypeByName(resource.key.type_url.removeprefix(PREFIX))
    message: Message = GetMessageClass(kind).FromString(resource.body)
    return message


def decoded(resource: Resource) -> dict[str, Any]:
    """Decode a resource, its fields named as in Envoy's documentation."""
    text = MessageToJson(message_of(resource), preserving_proto_field_name=True, descriptor_pool=described())
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def by_key(resources: Iterable[Resource]) -> dict[ResourceKey, Resource]:
    return {one.key: one for one in resources}
