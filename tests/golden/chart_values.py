"""The table of values in docs/install.md: each key of the chart, with its default and its comment. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml

BEGIN, END = "<!-- values: written by `make golden` -->", "<!-- end of values -->"
_WHOLE = ("resources",)
"""What is shown as one value, though it has parts."""


def values_table(values: str) -> str:
    """Write the table."""
    lines, said = values.splitlines(), dict[str, str]()
    rows = ["| value | default | |", "|---|---|---|"]
    for path, node, comment in _keys(yaml.compose(values), "", lines):
        name = path.rpartition(".")[2]
        if comment:
            said.setdefault(name, path)
        words = comment or f"as `{said[name]}`"
        default = "" if _is_section(name, node) else f"`{json.dumps(_value(node), ensure_ascii=False)}`"
        rows.append(f"| `{path}` | {default} | {words.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def keys_of(values: str) -> Iterator[tuple[str, str]]:
    """List every key with its comment."""
    for path, _, comment in _keys(yaml.compose(values), "", values.splitlines()):
        yield path, comment


def _keys(node: yaml.Node, prefix: str, lines: list[str]) -> Iterator[tuple[str, yaml.Node, str]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path, comment = f"{prefix}{key.value}", _comment_above(key.start_mark.line, key.start_mark.column, lines)
        section = _is_section(key.value, value)
        if comment or not section:
            yield path, value, comment
        if section:
            yield from _keys(value, f"{path}.", lines)


def _is_section(name: str, node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) and not node.flow_style and name not in _WHOLE


def _comment_above(line: int, column: int, lines: list[str]) -> str:
    found: list[str] = []
    lead = " " * column + "# "
    while line > 0 and lines[line - 1].startswith(lead):
        line -= 1
        found.insert(0, lines[line].removeprefix(lead))
    return " ".join(found)


def _value(node: yaml.Node) -> object:
    value: object = yaml.safe_load(yaml.serialize(node))
    return value
