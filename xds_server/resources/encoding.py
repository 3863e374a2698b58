"""The bytes of an authored message, without validating it again.

A message of envoy-data-plane is validated while it is built. `bytes(message)` does that once more for each message in
it, and makes a new validator each time: nine tenths of what a translation cost. This writes the same bytes from the
same description of the fields (Protocol Buffers, "Encoding"); docs/adr/0007 has the figures.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any, NamedTuple

from betterproto2 import FieldMetadata, Message

Encode = Callable[[Any], bytes]

_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED = {"double": "<d", "float": "<f", "fixed32": "<I", "fixed64": "<Q", "sfixed32": "<i", "sfixed64": "<q"}

# Durations, which are few, are made into messages only to be written.
_REMEMBERED = 1024


class Field(NamedTuple):
    """How one field of a class is written. `explicit` ones are written whenever they are set, others unless zero."""

    name: str
    explicit: bool
    encode: Encode


def encoded(message: Message) -> bytes:
    """Serialise a message: what `bytes(message)` gives, but maps are in the order of their keys.

    Equal content gives equal bytes in every process. A message that was changed after it was built is not validated.
    """
    values = vars(message)
    written = []
    for name, explicit, encode in _fields(type(message)):
        value = values[name]
        if value is not None and (explicit or value):
            written.append(encode(value))
    written.append(values["_unknown_fields"])
    return b"".join(written)


@cache
def _fields(kind: type[Message]) -> tuple[Field, ...]:
    return tuple(_field(field.name, FieldMetadata.get(field)) for field in fields(kind))  # type: ignore[arg-type]


def _field(name: str, meta: FieldMetadata) -> Field:
    if meta.map_meta:
        return Field(name, False, _map_encoder(meta.number, *meta.map_meta))
    if meta.repeated:
        return Field(name, False, _list_encoder(meta))
    explicit = bool(meta.optional or meta.group) or meta.proto_type == "message"
    return Field(name, explicit, _single_encoder(meta.number, meta))


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
    if len(_fields(wrapper)) > 1:
        return lru_cache(_REMEMBERED)(lambda value: encoded(wrapper.from_wrapped(value)))
    ((_, _, encode),) = _fields(wrapper)
    return lambda value: encode(value) if value else b""


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
