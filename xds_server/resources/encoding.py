"""From an Envoy message to bytes: `encoded`, and what is built from it.

A message of envoy-data-plane is validated while it is built. `bytes(message)` does that once more for each message in
it, and makes a new validator each time: nine tenths of what a translation cost. This writes the same bytes from the
same description of the fields (Protocol Buffers, "Encoding"); docs/adr/0007 has the figures.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, NamedTuple, Self

from betterproto2 import FieldMetadata, Message
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    TypedExtensionConfig,
)
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Duration
from envoy_data_plane.message_pool import default_message_pool

from xds_server.snapshot.snapshot import Resource, ResourceKey

ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
NO_TIMEOUT = timedelta(0)

Encode = Callable[[Any], bytes]

_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED = {"double": "<d", "float": "<f", "fixed32": "<I", "fixed64": "<Q", "sfixed32": "<i", "sfixed64": "<q"}


class _Field(NamedTuple):
    """How one field of a class is written. `explicit` ones are written whenever they are set, others unless zero."""

    name: str
    explicit: bool
    encode: Encode


class _FieldTable(dict[type[Message], tuple[_Field, ...]]):
    """How each class of messages is written, by class.

    An entry follows from the class alone and is made for the first message of it. There are as many as classes in use,
    about a hundred; nothing of any message is in it.
    """

    def __missing__(self, kind: type[Message]) -> tuple[_Field, ...]:
        made = tuple(_field(field.name, FieldMetadata.get(field)) for field in fields(kind))  # type: ignore[arg-type]
        self[kind] = made
        return made


_FIELDS = _FieldTable()


def encoded(message: Message) -> bytes:
    """Serialise a message: what `bytes(message)` gives, but maps are in the order of their keys.

    Equal content gives equal bytes in every process. A message that was changed after it was built is not validated.
    """
    values = vars(message)
    written = []
    for name, explicit, encode in _FIELDS[type(message)]:
        value = values[name]
        if value is not None and (explicit or value):
            written.append(encode(value))
    written.append(values["_unknown_fields"])
    return b"".join(written)


def packed(message: Message, common: bytes = b"") -> PackedAny:
    """Pack a message into an Any.

    `common` is what many messages of its type have in common, serialised once: one message after the other reads as
    both merged (Protocol Buffers, "Encoding", "Last One Wins").
    """
    return PackedAny(type_url=default_message_pool.type_to_url[type(message)], value=common + encoded(message))


def extension(name: str, message: Message) -> TypedExtensionConfig:
    """Name and pack the configuration of an extension."""
    return TypedExtensionConfig(name=name, typed_config=packed(message))


def resource(name: str, message: Message, requires: Iterable[ResourceKey] = (), common: bytes = b"") -> Resource:
    """Pack a top-level message as a resource of its type; `common` as in `packed`."""
    any_ = packed(message, common)
    return Resource.of(any_.type_url, name, any_.value, requires)


@dataclass(frozen=True, slots=True)
class Template:
    """A message that is written once and then used with another number in it: the bytes before and behind the number.

    A number from 1 to 127 is one byte, itself (Protocol Buffers, "Encoding", "Base 128 Varints"): whatever it is,
    nothing else in the message changes.
    """

    before: bytes
    behind: bytes

    @classmethod
    def of(cls, write: Callable[[int], bytes]) -> Self:
        """Build the template of a message that `write` serialises with the number it is given.

        Raises ValueError unless that number is in the message once.
        """
        one, two = write(1), write(2)
        at = next((at for at, pair in enumerate(zip(one, two, strict=False)) if pair == (1, 2)), None)
        if at is None or one[:at] != two[:at] or one[at + 1 :] != two[at + 1 :]:
            raise ValueError("the number is not one byte of the message")
        return cls(one[:at], one[at + 1 :])

    def filled(self, number: int) -> bytes:
        """Return the message with this number. Raises ValueError unless it is from 1 to 127."""
        if not 1 <= number <= 127:
            raise ValueError(f"{number} is not from 1 to 127")
        return self.before + bytes((number,)) + self.behind


def _field(name: str, meta: FieldMetadata) -> _Field:
    if meta.map_meta:
        return _Field(name, False, _map_encoder(meta.number, *meta.map_meta))
    if meta.repeated:
        return _Field(name, False, _list_encoder(meta))
    explicit = bool(meta.optional or meta.group) or meta.proto_type == "message"
    return _Field(name, explicit, _single_encoder(meta.number, meta))


def _single_encoder(number: int, meta: FieldMetadata) -> Encode:
    """Write tag and value."""
    content, wire_type = _content_encoder(meta), _wire_type(meta.proto_type)
    tag = _varint(number << 3 | wire_type)
    if wire_type != _LENGTH_DELIMITED:
        return lambda value: tag + content(value)

    def with_length(value: Any) -> bytes:
        body = content(value)
        return tag + _varint(len(body)) + body

    return with_length


def _list_encoder(meta: FieldMetadata) -> Encode:
    if _wire_type(meta.proto_type) == _LENGTH_DELIMITED:
        element = _single_encoder(meta.number, meta)
        return lambda values: b"".join(map(element, values))
    content, tag = _content_encoder(meta), _varint(meta.number << 3 | _LENGTH_DELIMITED)

    def as_one(values: Iterable[Any]) -> bytes:
        body = b"".join(map(content, values))
        return tag + _varint(len(body)) + body

    return as_one


def _map_encoder(number: int, key_meta: FieldMetadata, value_meta: FieldMetadata) -> Encode:
    key, value, tag = _single_encoder(1, key_meta), _single_encoder(2, value_meta), _varint(number << 3 | 2)

    def entry(pair: tuple[Any, Any]) -> bytes:
        body = key(pair[0]) + value(pair[1])
        return tag + _varint(len(body)) + body

    return lambda values: b"".join(entry((name, values[name])) for name in sorted(values))


def _content_encoder(meta: FieldMetadata) -> Encode:
    """Write the value alone, without tag and length."""
    if meta.unwrap is not None:
        return _wrapped_encoder(meta.unwrap())
    match meta.proto_type:
        case "message":
            return encoded
        case "string":
            return str.encode
        case "bytes":
            return bytes
        case "sint32" | "sint64":
            return lambda value: _varint(value << 1 if value >= 0 else ~(value << 1))
        case fixed if fixed in _FIXED:
            return struct.Struct(_FIXED[fixed]).pack
        case _:
            return _varint


def _wrapped_encoder(wrapper: Any) -> Encode:
    """Write a plain value as the message that stands for it: a number as UInt32Value, a timedelta as Duration."""
    if wrapper is Duration:
        return _duration
    if len(_FIELDS[wrapper]) > 1:
        return lambda value: encoded(wrapper.from_wrapped(value))
    ((_, _, encode),) = _FIELDS[wrapper]
    return lambda value: encode(value) if value else b""


_MICROSECOND = timedelta(microseconds=1)
_SECONDS_TAG, _NANOS_TAG = b"\x08", b"\x10"


def _duration(value: timedelta) -> bytes:
    """Write a Duration, its seconds and nanoseconds as betterproto2 computes them."""
    microseconds = value // _MICROSECOND
    seconds, nanos = int(microseconds / 1e6), int(microseconds % 1e6 * 1e3)
    return (_SECONDS_TAG + _varint(seconds) if seconds else b"") + (_NANOS_TAG + _varint(nanos) if nanos else b"")


def _wire_type(proto_type: str) -> int:
    match proto_type:
        case "message" | "string" | "bytes":
            return _LENGTH_DELIMITED
        case "double" | "fixed64" | "sfixed64":
            return 1
        case "float" | "fixed32" | "sfixed32":
            return 5
        case _:
            return _VARINT


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    value &= (1 << 64) - 1  # a negative number is written as its two's complement
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


_ONE_BYTE = tuple(bytes((value,)) for value in range(128))
