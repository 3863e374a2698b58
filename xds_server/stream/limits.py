"""How much one message of a client may hold, and how that is known before it costs anything.

To parse 4 MiB of empty messages takes protobuf two seconds. So what is large is looked through first, field by field on
the outermost level, which ends at the first field too many: a client that says too much is refused in milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from xds_server.stream.protocol.messages import DeltaRequest, ProtocolError, SotwRequest
from xds_server.stream.protocol.parts import Parts

LONGEST_MESSAGE = 4 << 20
"""What gRPC accepts of anybody: a client that reconnects lists the versions of all that it has."""
LONGEST_NAME = 1024
"""Of a resource, in characters; ours have up to 600."""
LONGEST_WORD = 256
"""Of what else a client says of itself, in characters: names of types, of nodes, of programs."""
LONGEST_TEXT = 4096
"""Of the text of a NACK, in bytes. Envoy itself cuts what it says at 4096."""

LONG_MESSAGE = 128 << 10
"""Bytes. What is smaller costs a few milliseconds, whatever it holds; what is larger is looked through first."""
_LONGEST_REST = 256 << 10  # All that is no list. An Envoy's node has 61 KB, for it names each of its extensions.
_MOST_OF_THE_REST = 1_000
_LOOKED_AT_ONCE = 10_000
"""Fields: half a microsecond each."""
_PART, _LONGEST_ENTRY = 32 << 10, 8 << 10

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class TooLargeError(ProtocolError):
    """A client says more than this server takes from it; the message says of what, and how much it takes."""

    code = "RESOURCE_EXHAUSTED"


class MalformedRequestError(ProtocolError):
    """The bytes are no message of the kind that belongs here, or hold what no client says."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one client may say: `size` in bytes of a message, `names` in each list of it, and of each type in all."""

    size: int
    names: int

    def check(self, size: int, request: DeltaRequest | SotwRequest) -> None:
        """Check a parsed request of so many bytes. Raises TooLargeError and MalformedRequestError."""
        self.check_size(size)
        for field, names in _lists(request).items():
            if len(names) > self.names:
                raise TooLargeError(f"{field} has {len(names)} names; at most {self.names} are taken{self._of_whom}")
        if not (isinstance(request, DeltaRequest) and request.shared) and (words := too_long(request)):
            raise MalformedRequestError(words)

    def check_size(self, size: int) -> None:
        """Check the size of a message. Raises TooLargeError."""
        if size > self.size:
            raise TooLargeError(f"the message has {size} bytes; at most {self.size} are taken{self._of_whom}")

    @property
    def _of_whom(self) -> str:
        return " from a client without the node token" if self == OF_STRANGERS else ""


OF_MEMBERS = RequestLimits(LONGEST_MESSAGE, 20_000)
"""Of clients that carry the node token, and of all where there is none."""
OF_STRANGERS = RequestLimits(1 << 20, 100)
"""Of clients that do not: people who look."""


def _lists(request: DeltaRequest | SotwRequest) -> Mapping[str, Collection[str]]:
    """Return what a request lists, by the names of the fields."""
    if isinstance(request, SotwRequest):
        return {"resource_names": request.names}
    return {
        "resource_names_subscribe": request.subscribe,
        "resource_names_unsubscribe": request.unsubscribe,
        "initial_resource_versions": request.claimed,
    }


def too_long(request: DeltaRequest | SotwRequest) -> str | None:
    """Say which word of a request is longer than anybody's may be, None if none is."""
    for field, names in _lists(request).items():
        if names and max(map(len, names)) > LONGEST_NAME:
            return f"{field} has a name of more than {LONGEST_NAME} characters"
    if isinstance(request, DeltaRequest) and max(map(len, request.claimed.values()), default=0) > LONGEST_WORD:
        return f"initial_resource_versions has a version of more than {LONGEST_WORD} characters"
    return f"type_url has more than {LONGEST_WORD} characters" if len(request.type_url) > LONGEST_WORD else None


def look_through(raw: bytes, lists: Mapping[int, str]) -> Parts[None]:
    """Refuse a large message that is not worth parsing, whoever sends it; `lists` are its fields that may be long.

    Raises TooLargeError and MalformedRequestError.
    """
    if len(raw) <= LONG_MESSAGE:
        return
    counts = dict.fromkeys(lists, 0)
    rest = others = 0
    for at, (number, size, _) in enumerate(_fields(raw)):
        if at % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
            yield
        if number in counts:
            counts[number] += 1
            if counts[number] > OF_MEMBERS.names:
                raise TooLargeError(
                    f"{lists[number]} has more than {OF_MEMBERS.names} entries, the most that are taken"
                )
            continue
        rest += size
        others += 1
        if rest > _LONGEST_REST or others > _MOST_OF_THE_REST:
            raise TooLargeError(
                f"all but the lists of names has more than {_LONGEST_REST} bytes, or {_MOST_OF_THE_REST} fields, "
                "the most that are taken: node, error_detail"
            )


def without(raw: bytes, lists: Collection[int]) -> bytes:
    """Return a message without these fields of its outermost level. Raises MalformedRequestError."""
    begin, kept = 0, []
    for number, _, end in _fields(raw):
        if number not in lists:
            kept.append(raw[begin:end])
        begin = end
    return b"".join(kept)


def parts(raw: bytes, number: int, name: str) -> Iterator[bytes]:
    """Cut a message between fields of its outermost level; to read all parts, one after the other, is to read it.

    A part has 32 KiB and its last field, which may have 8 KiB if it is of the list of this `number` (below 16) and
    `name`. Raises TooLargeError and MalformedRequestError, maybe after some parts.
    """
    tag, begin, at, end = number << 3 | _BYTES, 0, 0, len(raw)
    while at < end:
        # Reports have thousands of short entries every second.
        if raw[at] == tag and at + 1 < end and raw[at + 1] < 0x80:
            at += 2 + raw[at + 1]
        else:
            found, size, at = _field(raw, at)
            if found == number and size > _LONGEST_ENTRY:
                raise TooLargeError(f"{name} has an entry of {size} bytes; at most {_LONGEST_ENTRY} are taken")
        if at - begin >= _PART:
            yield raw[begin:at]
            begin = at
    if begin < end:
        yield raw[begin:]


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """Cut what a client said to so many bytes, and leave no character in it that a terminal or a log would obey."""
    cut = text.encode(errors="replace")[:longest].decode(errors="ignore")
    return "".join(_shown(cut))


def _shown(text: str) -> Iterable[str]:
    return (one if one.isprintable() else " " if one.isspace() else ascii(one)[1:-1] for one in text)


def _fields(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield number, size and end of each field on the outermost level. Raises MalformedRequestError."""
    at, end = 0, len(raw)
    while at < end:
        number, size, at = _field(raw, at)
        yield number, size, at


def _field(raw: bytes, at: int) -> tuple[int, int, int]:
    """Read number, size and end of the field that begins here, as protobuf encodes it. Raises MalformedRequestError."""
    try:
        # Most numbers are a byte.
        tag, at = (raw[at], at + 1) if raw[at] < 0x80 else _varint(raw, at)
        kind = tag & 7
        size = 0
        if kind == _BYTES:
            size, at = (raw[at], at + 1) if raw[at] < 0x80 else _varint(raw, at)
        elif kind == _VARINT:
            _, at = _varint(raw, at)
        elif kind == _FIXED64:
            size = 8
        elif kind == _FIXED32:
            size = 4
        else:
            raise MalformedRequestError("the message has a field of a kind that discovery has not")
    except IndexError:
        raise MalformedRequestError("the message ends in the middle of a field") from None
    return tag >> 3, size, at + size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Read a number and where it ends. Raises IndexError at the end of the message, and MalformedRequestError."""
    value = raw[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedRequestError("the message has a number that does not end")
