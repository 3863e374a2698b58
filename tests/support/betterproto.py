"""Resources as betterproto2 reads them: it validates every message that it parses."""

from __future__ import annotations

from collections.abc import Iterator

from betterproto2 import Message
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.message_pool import default_message_pool


def messages_in(type_url: str, body: bytes) -> Iterator[Message]:
    """Parse a message, and those packed in it, but for those that are newer than the generated ones."""
    kind = default_message_pool.url_to_type.get(type_url)
    if kind is None:
        return
    message = kind.parse(body)
    yield message
    for one in packed_in(message):
        yield from messages_in(one.type_url, one.value)


def packed_in(value: object) -> Iterator[Any]:
    """Find every Any in a message."""
    match value:
        case Any():
            yield value
        case Message():
            yield from packed_in(list(vars(value).values()))
        case dict():
            yield from packed_in(list(value.values()))
        case list():
            for one in value:
                yield from packed_in(one)
