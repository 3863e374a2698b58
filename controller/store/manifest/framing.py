"""Where each document of a file begins and ends, as kubectl finds it. What is in it is read one by one.

kubectl takes files apart before it reads them (`k8s.io/apimachinery/pkg/util/yaml`): at each line `---`, and JSON at
the end of each value; what looks like JSON and is none is YAML. So a mistake in one document says nothing of the
others, and what some tool put before a document, such as a byte order mark, is no part of any (YAML 1.2.2, 5.2, 9.1.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from controller.store.manifest.nodes import ManifestError

BYTE_ORDER_MARK = "\ufeff"

DOCUMENTS = 100_000  # Of one text: each costs a parser. A file of 8 MiB has 80 bytes for each.
_MARKER = re.compile(r"(?:\A|(?<=[\r\n]))\ufeff*(?P<word>---|\.\.\.)(?=[ \t\r\n]|\Z)")
# Lines that are empty, comments, directives or `---`: what may stand before the content of a document.
_PROLOGUE = re.compile(
    r"(?:\ufeff*(?:[ \t]*(?:#[^\r\n]*)?|%[^\r\n]*|---[ \t]*(?:#[^\r\n]*)?)(?:\r\n|\r|\n|\Z))*\ufeff*"
)
_MARK_INSIDE = re.compile(r"[\r\n]\ufeff")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_BLANK = re.compile(r"[ \t\r\n]*")
_HEX = "[0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"\\(?:u([dD][89abAB]{_HEX})\\u([dD][c-fC-F]{_HEX})|u([dD][89a-fA-F]{_HEX})|.)", re.DOTALL)
_OPENING = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*["}]')


class Frame(NamedTuple):
    """The text of one document, with the lines above its first one."""

    text: str
    above: int


class Value(NamedTuple):
    """A JSON value, its text as YAML, and the lines above its first one."""

    value: Any
    text: str
    above: int


def frames(text: str, most: int) -> Iterator[Frame]:
    """Cut a text at its `---` and `...`. Raises ManifestError at the end if there are more than `most` documents."""
    begin = above = count = 0
    for start, end in _cuts(text):
        frame = text[begin:start]
        if _prologue_of(frame) < len(frame):
            count += 1
            if count > most:
                raise ManifestError(above + 1, (), f"is the {count}th document; a file may have {most}")
            yield Frame(frame, above)
        elif end == start:
            continue  # Nothing yet but comments and directives: they belong to what comes.
        above += lines_in(text[begin:end])
        begin = end


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """Yield where a document ends and the next one begins: at `---`, which is of the next, or around `...`."""
    for marker in _MARKER.finditer(text):
        yield marker.start(), marker.start() if marker["word"] == "---" else marker.end()
    yield len(text), len(text)


def unmarked(frame: str) -> str:
    """Return a document without the byte order marks before its content. Raises ManifestError for one inside."""
    begin = _prologue_of(frame)
    if inside := _MARK_INSIDE.search(frame, begin):
        line = lines_in(frame[: inside.end()]) + 1
        raise ManifestError(
            line, (), "begins with a byte order mark (U+FEFF, invisible) amid a document: is `---` missing above?"
        )
    return frame[:begin].replace(BYTE_ORDER_MARK, "") + frame[begin:]


def _prologue_of(frame: str) -> int:
    matched = _PROLOGUE.match(frame)
    return matched.end() if matched else 0


def lines_in(text: str) -> int:
    """Count the line breaks of a text, as libyaml does."""
    return sum(1 for _ in _LINE_BREAK.finditer(text))


def json_values(frame: str, most: int) -> tuple[Value, ...]:
    """Read JSON values one behind the other, `most` of them at most.

    Raises json.JSONDecodeError for what may still be YAML, ManifestError for what no JSON of Kubernetes has.
    """
    frame = _ESCAPE.sub(_without_half_pairs, frame)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    values: list[Value] = []
    begin, above, place = 0, 0, _prologue_of(frame)
    try:
        while (place := _skip_blank(frame, place)) < len(frame):
            value, end = decoder.raw_decode(frame, place)
            above += lines_in(frame[begin:place])
            values.append(Value(value, _ESCAPE.sub(_as_yaml, frame[place:end]), above))
            begin, place = place, end
            if len(values) > most:
                raise ManifestError(above + 1, (), f"is one of more than {most} documents")
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError):
        line = lines_in(frame[:place]) + 1
        words = "is not JSON that Kubernetes reads: nested too deeply, a number too large or none"
        raise ManifestError(line, (), words) from None
    return tuple(values)


def _without_half_pairs(escape: re.Match[str]) -> str:
    """Replace half of a surrogate pair, as Go does: it is no character."""
    return r"\ufffd" if escape[3] else escape[0]


def _as_yaml(escape: re.Match[str]) -> str:
    """Write an escape of JSON as one of YAML. All of them are the same but surrogate pairs (RFC 8259, section 7)."""
    if not escape[1]:
        return escape[0]
    return rf"\U{0x10000 + (int(escape[1], 16) - 0xD800) * 0x400 + int(escape[2], 16) - 0xDC00:08x}"


def may_be_json(frame: str) -> bool:
    """Tell whether the first thing in a document is a brace, as kubectl does."""
    return frame.startswith("{", _skip_blank(frame, _prologue_of(frame)))


def is_meant_as_json(frame: str) -> bool:
    """Tell whether whoever wrote a document that is neither JSON nor YAML will have had JSON in mind."""
    return _OPENING.match(frame, _prologue_of(frame)) is not None


def _skip_blank(text: str, place: int) -> int:
    matched = _BLANK.match(text, place)
    return matched.end() if matched else place


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
