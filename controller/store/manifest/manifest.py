"""The objects of a manifest file, each field with its line, so that an editor can jump to what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from controller.store.manifest.framing import (
    DOCUMENTS,
    frames,
    is_meant_as_json,
    json_values,
    may_be_json,
    unmarked,
)
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


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file. Its content is left out of `repr`: it may be a Secret.

    `unread` are the fields that are null in `raw`, or have the first of several values, because of a fault.
    """

    raw: Mapping[str, Any] = field(repr=False)
    _node: yaml.Node = field(repr=False, compare=False)
    _above: int = field(default=0, repr=False, compare=False)
    _unread: frozenset[Path] = field(default=frozenset(), repr=False, compare=False)

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
        return line + self._above

    def is_unread(self, path: Path) -> bool:
        """Tell whether what is said of a field would only repeat a fault of the text."""
        return any(path[:length] in self._unread for length in range(len(path) + 1))


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a text says: all objects that could be read, and all faults of its form, in their order."""

    documents: tuple[Document, ...]
    faults: tuple[ManifestError, ...]


def parse_manifests(text: str, most: int = DOCUMENTS) -> Manifests:
    """Parse a text of `most` documents at most, YAML or JSON; empty ones are left out.

    A list of any kind is its items, as for kubectl. A document whose form is wrong hides no other one.
    """
    documents: list[Document] = []
    faults: list[ManifestError] = []
    try:
        for frame in frames(text, most):
            try:
                roots = _roots(unmarked(frame.text), most)
            except ManifestError as fault:
                faults.append(fault.below(frame.above))
                continue
            for root in roots:
                found, wrong = _objects(root)
                documents += (replace(one, _above=one._above + frame.above) for one in found)
                faults += (fault.below(root.above + frame.above) for fault in wrong)
    except ManifestError as fault:
        faults.append(fault)
    return Manifests(tuple(documents), tuple(faults))


@dataclass(frozen=True, slots=True)
class _Root:
    """The root of a document: its nodes, and its value unless that is read from them."""

    node: yaml.Node
    above: int = 0
    json: Any = None


def _roots(text: str, most: int) -> list[_Root]:
    """Read the roots of a document. Raises ManifestError."""
    if not may_be_json(text):
        return [_Root(node) for node in compose(text)]
    try:
        # The nodes are only read for lines and keys given twice.
        return [_Root(next(compose(one.text)), one.above, one.value) for one in json_values(text, most)]
    except json.JSONDecodeError as error:
        not_json = ManifestError(error.lineno, (), f"is not JSON: {error.msg}")
    try:
        return [_Root(node) for node in compose(text)]  # Braces are YAML as well.
    except ManifestError:
        if is_meant_as_json(text):
            raise not_json from None
        raise


def _objects(root: _Root) -> tuple[list[Document], list[ManifestError]]:
    values = NodeValues()
    documents: list[Document] = []
    try:
        value = values.value(root.node, ())
        if value is not None:
            unread = frozenset(fault.path for fault in values.faults)
            whole = Document(value if root.json is None else root.json, root.node, root.above, unread)
            documents.extend(_flattened(whole, values.faults))
    except ManifestError as fault:
        values.faults.append(fault)
    return documents, values.faults


def _flattened(document: Document, faults: list[ManifestError]) -> Iterator[Document]:
    """Yield the objects of a list, or of a list of lists, or else the object itself."""
    raw: Any = document.raw
    node, above, unread = document._node, document._above, document._unread
    if not isinstance(raw, dict):
        if () not in unread:
            faults.append(ManifestError(line_of_node(node), (), "must be an object"))
        return
    items, kind = raw.get("items"), raw.get("kind")
    if not isinstance(items, list):
        if kind != "List" and not (isinstance(kind, str) and kind.endswith("List") and "items" in raw):
            yield document
        elif items is None and (of := _child(node, "items")) and of[1].value:
            # Go writes an empty list as null, and kubectl takes it. Where nothing is written, the rest may be missing.
            return
        elif ("items",) not in unread:
            faults.append(ManifestError(document.line_of(("items",)) - above, ("items",), "must be a list"))
        return
    of_items: dict[Key, set[Path]] = {}
    for path in unread:
        if len(path) > 1 and path[0] == "items":
            of_items.setdefault(path[1], set()).add(path[2:])
    found = _child(node, "items")
    for index, item in enumerate(items):
        item_node = _child(found[1], index) if found else None
        below = frozenset(of_items.get(index, ()))
        whole = Document(_typed(item, raw), item_node[1] if item_node else node, above, below)
        yield from _flattened(whole, faults)


def _typed(item: Any, whole: Mapping[str, Any]) -> Any:
    """Return an item of an `EndpointSliceList`, which says its kind for all, as client-go reads one."""
    kind = whole.get("kind")
    if not isinstance(item, dict) or item.get("kind") or item.get("apiVersion") or not isinstance(kind, str):
        return item
    of_items = kind.removesuffix("List")
    return {**item, "kind": of_items, "apiVersion": whole.get("apiVersion")} if of_items else item


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
