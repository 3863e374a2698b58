"""YAML as Kubernetes reads it: what a scalar, an alias or a merge key means, and on which line it is written.

kubectl reads YAML with sigs.k8s.io/yaml, which is go-yaml v2: YAML 1.1 booleans (`yes`, `on`, `y` and their opposites),
octal numbers with a leading zero, underscores in numbers, timestamps that stay strings, no sexagesimal numbers. The
result becomes JSON, where `1.0` and `1e3` are the integers 1 and 1000, and infinity and NaN do not exist.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml._yaml import CParser

Scalar = str | int | float | bool | None

_CONSTANTS: dict[str, bool | None] = {
    **{cased: True for word in ("y", "yes", "true", "on") for cased in (word, word.title(), word.upper())},
    **{cased: False for word in ("n", "no", "false", "off") for cased in (word, word.title(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))"
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_LARGEST_WRITTEN_OUT = 1e21  # From here on Go's JSON writes a float with an exponent, which is read back as a float.
_LONGEST_NUMBER = 400  # Characters. Longer ones are nobody's number, and converting them is slow.


def resolve_plain(text: str) -> Scalar:
    """Give the value of a scalar written without quotes. Raises ValueError for numbers that JSON does not have."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _NOT_A_NUMBER.fullmatch(text):
        raise ValueError("must be a finite number")
    digits = text if text[0] == "." else text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        base = match.lastgroup or "dec"
        return int(match["sign"] + match[base], _BASES[base])
    if _FLOAT.fullmatch(digits):
        return _as_json(float(digits))
    return text


def _as_json(number: float) -> int | float:
    if math.isinf(number):
        raise ValueError("must be a finite number")
    return int(number) if number.is_integer() and abs(number) < _LARGEST_WRITTEN_OUT else number


Key = str | int
Path = tuple[Key, ...]

_PLAIN = "plain"
_STRING = "tag:yaml.org,2002:str"
_STRINGS = (_STRING, "!", "tag:yaml.org,2002:timestamp")
_RESOLVED = (_PLAIN, *(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")))
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

_DEEPEST = 100  # Levels. A pod template has some fifteen.
_LARGEST = 1_000_000  # Values of one document once its aliases are written out.


class ManifestError(Exception):
    """A text that is no manifest: `line` from 1, `path` of the field as far as known, `message` without any content.

    `since` is a line above that the message ends with.
    """

    def __init__(self, line: int, path: Path, words: str, since: int | None = None) -> None:
        super().__init__(f"line {line}: {words}")
        self.line = line
        self.path = path
        self._words = words
        self._since = since

    @property
    def message(self) -> str:
        """What is wrong."""
        return self._words if self._since is None else f"{self._words} {self._since}"

    def below(self, lines: int) -> ManifestError:
        """Return the error of a text that has so many lines above it."""
        return ManifestError(self.line + lines, self.path, self._words, self._since and self._since + lines)


class _Composer(CParser):
    """libyaml's composer. It only tells plain scalars from quoted ones; what they mean is decided here.

    It recurses in C, where a text of brackets alone would overflow the stack: so it is stopped on the way down.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _STRING
        return _COLLECTIONS[kind is yaml.SequenceNode]

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        self._depth += 1
        if current_node is not None and self._depth > _DEEPEST:
            raise ManifestError(line_of_node(current_node), (), f"is nested deeper than {_DEEPEST} levels")

    def ascend_resolver(self) -> None:
        self._depth -= 1


def compose(text: str) -> Iterator[yaml.Node]:
    """Yield the root of each document. Raises ManifestError for what is not YAML."""
    composer = _Composer(text)
    try:
        while composer.check_node():
            node = composer.get_node()
            if node is not None:
                yield node
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from None  # The cause quotes the file.
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position]
        raise ManifestError(before.count(b"\n") + 1, (), "a character here is not allowed in YAML") from None
    finally:
        composer.dispose()


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> ManifestError:
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return ManifestError(line, (), "is indented with a tab; YAML wants spaces")
    message = error.problem or "is not YAML"
    if start and error.context and start.line + 1 != line:
        return ManifestError(line, (), f"{message}, {error.context} that starts on line", start.line + 1)
    return ManifestError(line, (), message)


def line_of_node(node: yaml.Node) -> int:
    """The line, from 1, where a node starts."""
    return int(node.start_mark.line) + 1


@dataclass(frozen=True, slots=True)
class MappingEntry:
    """One key of a mapping as JSON has it, and where it is written."""

    key: str
    key_node: yaml.Node
    value_node: yaml.Node


def entries(mapping: yaml.MappingNode) -> Iterator[MappingEntry]:
    """Yield every key of a mapping, its own before those of merge keys (`<<`); the first of a name counts.

    What is no key, or cannot be merged, is left out.
    """
    merged: list[yaml.MappingNode] = []
    for key_node, value_node in mapping.value:
        with contextlib.suppress(ManifestError):
            if _is_merge(key_node):
                merged.extend(_merged(value_node))
            else:
                yield MappingEntry(_key(key_node), key_node, value_node)
    for source in merged:
        yield from entries(source)


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN and node.value == "<<"


def _merged(node: yaml.Node) -> list[yaml.MappingNode]:
    sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(source, yaml.MappingNode) for source in sources):
        raise ManifestError(line_of_node(node), ("<<",), "must be an object or a list of objects")
    return list(sources)


def _key(node: yaml.Node) -> str:
    """A key as JSON has it: numbers and booleans become their JSON text."""
    key = _scalar(node, ()) if isinstance(node, yaml.ScalarNode) else None
    if key is None:
        raise ManifestError(line_of_node(node), (), "a key must be a string")
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _scalar(node: yaml.Node, path: Path) -> Scalar:
    if node.tag in _STRINGS:
        return str(node.value)
    if node.tag not in _RESOLVED:
        raise ManifestError(line_of_node(node), path, "has a YAML tag, which Kubernetes does not know")
    try:
        return resolve_plain(node.value)
    except ValueError as error:
        raise ManifestError(line_of_node(node), path, str(error)) from None


@dataclass(slots=True)
class NodeValues:
    """The values of a document's nodes. Each is read once, however many aliases name it, so values may be shared.

    What cannot be read is null, and one of the `faults`. An error is raised only for what nothing can be read of.
    """

    faults: list[ManifestError] = field(default_factory=list)
    _values: dict[int, tuple[yaml.Node, Any, int]] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of a node found at `path`: dict, list, str, int, float, bool or None. Raises ManifestError."""
        if id(node) in self._values:
            return self._values[id(node)][1]
        value, size = None, 1
        if not isinstance(node, yaml.ScalarNode) and node.tag in _COLLECTIONS:
            value, size = self._collection(node, path)
        else:
            try:
                value = _scalar(node, path)
            except ManifestError as fault:
                self.faults.append(fault)
        self._values[id(node)] = (node, value, size)  # The node is kept, so that its id stays its own.
        return value

    def _collection(self, node: yaml.Node, path: Path) -> tuple[Any, int]:
        if id(node) in self._open:
            raise ManifestError(line_of_node(node), path, "contains itself through an alias")
        if len(self._open) >= _DEEPEST:
            raise ManifestError(line_of_node(node), path, f"is nested deeper than {_DEEPEST} levels")
        self._open.add(id(node))
        try:
            return self._sequence(node, path) if isinstance(node, yaml.SequenceNode) else self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> tuple[list[Any], int]:
        values, size = [], 1
        for index, item in enumerate(node.value):
            values.append(self.value(item, (*path, index)))
            size = self._grown(size, item, path)
        return values, size

    def _mapping(self, node: yaml.Node, path: Path) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        size = 1
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                continue
            try:
                key = _key(key_node)
            except ManifestError as fault:
                self.faults.append(fault)
                continue
            value = self.value(value_node, (*path, key))
            size = self._grown(size, value_node, path)
            line = line_of_node(key_node)
            if key in lines:
                self.faults.append(ManifestError(line, (*path, key), "is given twice, first on line", lines[key]))
            else:
                lines[key], values[key] = line, value
        for key_node, value_node in node.value:
            if not _is_merge(key_node):
                continue
            try:
                sources = _merged(value_node)
            except ManifestError as fault:
                self.faults.append(fault)
                continue
            for source in sources:
                for key, value in self.value(source, path).items():
                    values.setdefault(key, value)
                size = self._grown(size, source, path)
        return values, size

    def _grown(self, size: int, child: yaml.Node, path: Path) -> int:
        grown = size + self._values[id(child)][2]
        if grown > _LARGEST:
            raise ManifestError(
                line_of_node(child), path, f"is larger than {_LARGEST} values with its aliases written out"
            )
        return grown
