"""The objects of a manifest file, each field with its line, so that an editor can jump to what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from controller.store.manifest.nodes import Key, ManifestError, NodeValues, Path, compose, entries, line_of_node


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault: the file relative to the folder, its line (from 1), the field (empty for the whole) and the words."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{self.file}:{self.line}: {what}"


_ESCAPE = re.compile(r"\\(u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file. Its content is left out of `repr`: it may be a Secret."""

    raw: Mapping[str, Any] = field(repr=False)
    _node: yaml.Node = field(repr=False, compare=False)

    def line_of(self, path: Path) -> int:
        """The line, from 1, of the field at `path`, or of its nearest ancestor that is written down.

        A field's line is its key's; a list item's is where its content starts. What an alias or a merge key (`<<`)
        brought in has the line where it is written.
        """
        node, line = self._node, line_of_node(self._node)
        for step in path:
            child = _child(node, step)
            if child is None:
                break
            line, node = child
        return line


def parse_yaml(text: str) -> tuple[Document, ...]:
    """Parse a file of several documents; empty ones are left out. Raises ManifestError at the first fault."""
    values = NodeValues()
    return tuple(
        document
        for node in compose(text)
        if (value := values.value(node, ())) is not None
        for document in _documents(value, node)
    )


def parse_json(text: str) -> tuple[Document, ...]:
    """Parse a file of one JSON value. Raises ManifestError at the first fault."""
    if not text.strip():
        return ()
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ManifestError(error.lineno, (), f"is not JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise ManifestError(
            1, (), "is not JSON that Kubernetes reads: nested too deeply or a number too large"
        ) from error
    # JSON is YAML but for escaped surrogate pairs. The nodes are only read for lines and keys given twice.
    (node,) = compose(_ESCAPE.sub(lambda escape: escape[0] if len(escape[1]) == 1 else r"\u0020", text))
    NodeValues().value(node, ())
    return tuple(_documents(value, node))


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _documents(value: Any, node: yaml.Node) -> Iterator[Document]:
    if not isinstance(value, dict):
        raise ManifestError(line_of_node(node), (), "must be an object")
    document = Document(value, node)
    if value.get("kind") != "List":
        yield document
        return
    items = value.get("items")
    if not isinstance(items, list):
        raise ManifestError(document.line_of(("items",)), ("items",), "must be a list")
    for index, item in enumerate(items):
        list_node = _child(node, "items")
        item_node = _child(list_node[1], index) if list_node else None
        yield from _documents(item, item_node[1] if item_node else node)


def _child(node: yaml.Node, step: Key) -> tuple[int, yaml.Node] | None:
    """The line and the value of a key or an index."""
    if isinstance(node, yaml.MappingNode):
        for entry in entries(node):
            if entry.key == step:
                return line_of_node(entry.key_node), entry.value_node
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        item: yaml.Node = node.value[step]
        return line_of_node(item), item
    return None
