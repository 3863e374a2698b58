from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.store.manifest.manifest import Document, parse_manifests

BOM = "\ufeff"

TWO = """\
# A comment.
apiVersion: v1
kind: Service
metadata:
  name: a
  annotations: {x: "1",
    z: "2"}
spec:
  ports:
  - port: 80
    name: http
  -
    port: 81
---
# Nothing here.
---
kind: Other
when: 2026-01-01T00:00:00Z
"""


def documents_of(text: str) -> tuple[Document, ...]:
    parsed = parse_manifests(text)
    assert parsed.faults == ()
    return parsed.documents


def faults_of(text: str) -> list[tuple[int, tuple[str | int, ...], str]]:
    return [(fault.line, fault.path, fault.message) for fault in parse_manifests(text).faults]


def test_each_field_has_its_line() -> None:
    first, second = documents_of(TWO)
    assert {path: first.line_of(path) for path in LINES_OF_FIRST} == LINES_OF_FIRST
    assert second.line_of(()) == 17
    assert second.line_of(("when",)) == 18
    assert second.raw["when"] == "2026-01-01T00:00:00Z"


LINES_OF_FIRST = {
    (): 2,
    ("kind",): 3,
    ("metadata",): 4,
    ("metadata", "name"): 5,
    ("metadata", "annotations", "z"): 7,
    ("spec", "ports"): 9,
    ("spec", "ports", 0): 10,
    ("spec", "ports", 0, "name"): 11,
    ("spec", "ports", 1): 13,
    ("spec", "ports", 1, "port"): 13,
}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("nothing",), 2),
        (("spec", "selector", "app"), 8),
        (("spec", "ports", 2), 9),
        (("spec", "ports", -1), 9),
        (("spec", "ports", "0"), 9),
        (("metadata", "name", "deeper"), 5),
        (("metadata", "name", 0), 5),
    ],
)
def test_a_field_that_is_not_there_has_the_line_of_its_nearest_ancestor(path: tuple[str | int, ...], line: int) -> None:
    assert documents_of(TWO)[0].line_of(path) == line


def test_what_an_alias_or_a_merge_brings_in_has_the_line_where_it_is_written() -> None:
    (document,) = documents_of("a: &x\n  b: 1\n  c: 2\nd: *x\ne:\n  <<: *x\n  b: 3\nf:\n  <<: [{c: 7}, *x]\n")
    assert document.raw == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 2},
        "e": {"b": 3, "c": 2},
        "f": {"b": 1, "c": 7},
    }
    paths: list[tuple[str | int, ...]] = [("d",), ("d", "c"), ("e", "b"), ("e", "c"), ("f", "c"), ("f", "b")]
    assert [document.line_of(path) for path in paths] == [4, 3, 7, 3, 9, 2]


@pytest.mark.parametrize(
    "text", ["kind: List\nitems: null\n", '{"kind": "ServiceList", "items": null}', "kind: List\nitems: []"]
)
def test_an_empty_list_may_be_null_as_go_writes_it(text: str) -> None:
    assert documents_of(text) == ()


def test_a_list_is_its_items() -> None:
    documents = documents_of("kind: List\nitems:\n- a: 1\n- kind: List\n  items:\n  - a: 2\n    b: 3\n")
    assert [document.raw for document in documents] == [{"a": 1}, {"a": 2, "b": 3}]
    assert [document.line_of(("b",)) for document in documents] == [3, 7]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: 1\nb: 2\na: 3", (3, ("a",), "is given twice, first on line 1")),
        ("s:\n  - {yes: 1, true: 2}", (2, ("s", 0, "true"), "is given twice, first on line 2")),
        ("a: 1\nb:\n\tc: 1", (3, (), "is indented with a tab; YAML wants spaces")),
        ("a: b: c", (1, (), "mapping values are not allowed in this context")),
        (
            "a: 1\nb: 'x\n",
            (3, (), "found unexpected end of stream, while scanning a quoted scalar that starts on line 2"),
        ),
        ("a: 1\n---\nb: *x\n", (3, (), "found undefined alias")),
        ("a: 1\nb: \x01", (2, (), "a character here is not allowed in YAML")),
        ("a: 1\nb: !x y", (2, ("b",), "has a YAML tag, which Kubernetes does not know")),
        ("a: 1\nb: !x {}", (2, ("b",), "has a YAML tag, which Kubernetes does not know")),
        ("a: 1\nb: [1, .inf]", (2, ("b", 1), "must be a finite number")),
        ("a: &a\n  b: *a", (1, ("a", "b"), "contains itself through an alias")),
        ("a: &a\n  <<: *a", (1, ("a",), "contains itself through an alias")),
        ("a:\n  <<: 1", (2, ("<<",), "must be an object or a list of objects")),
        ("? [a]\n: b", (1, (), "a key must be a string")),
        ("~: b", (1, (), "a key must be a string")),
        ("a: 1\n---\n- b", (3, (), "must be an object")),
        # What is cut behind its colon is not the null that Go writes for an empty list.
        ("kind: List\nitems:\n", (2, ("items",), "must be a list")),
        ("kind: List", (1, ("items",), "must be a list")),
        ("kind: List\nitems: 1", (2, ("items",), "must be a list")),
        ("kind: List\nitems:\n- a", (3, (), "must be an object")),
        ("a: " + "[" * 100_000, (1, (), "is nested deeper than 100 levels")),
        ("\n".join(" " * depth + "a:" for depth in range(3000)), (100, (), "is nested deeper than 100 levels")),
    ],
)
def test_a_fault_has_line_field_and_words(text: str, error: tuple[int, tuple[str | int, ...], str]) -> None:
    assert faults_of(text) == [error]


def test_aliases_that_multiply_are_bounded() -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    ((_, _, words),) = faults_of("\n".join(lines))
    assert words == "is larger than 1000000 values with its aliases written out"


def test_merges_that_multiply_are_bounded() -> None:
    keys = "\n".join(f"  k{number}: 1" for number in range(2000))
    ((_, _, words),) = faults_of(f"a: &a\n{keys}\nb:\n  <<: [{', '.join(['*a'] * 2000)}]\n")
    assert words == "is larger than 1000000 values with its aliases written out"


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n---\n", "---\n...\n"])
def test_a_text_without_content_has_no_documents(text: str) -> None:
    assert documents_of(text) == ()


def test_keys_are_strings_as_in_json() -> None:
    assert documents_of("1: a\nyes: b\n'2': c\n0x10: d\n")[0].raw == {"1": "a", "true": "b", "2": "c", "16": "d"}


def test_explicit_tags_of_plain_types_are_taken() -> None:
    assert documents_of("a: !!str 1\nb: !!int '2'\nc: !!timestamp 2026-01-01\n")[0].raw == {
        "a": "1",
        "b": 2,
        "c": "2026-01-01",
    }


def test_json_is_read_as_json_and_has_lines() -> None:
    (document,) = documents_of('{\n\t"a": "\\ud83d\\ude00 \\\\ud83d yes",\n\t"b": [1.5,\n\t\t{"c": "\\/"}]\n}')
    assert document.raw == {"a": "😀 \\ud83d yes", "b": [1.5, {"c": "/"}]}
    assert document.line_of(("b", 1, "c")) == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1,\n"a": 2}', 2),
        ('{"a": 1,\n"b"\n:: 2}', 3),
        ('{"a": 1\n}\n{"a"}', 3),
        ('{"a": 1\n}\n\n{"b": 1,\n"b": 2}', 5),
        ('{"a": 1\n}\n\n{"b": NaN}', 4),
        ('{"a": NaN}', 1),
        ("[" * 100_000, 1),
        ("[1]", 1),
    ],
)
def test_what_is_not_json_is_refused(text: str, line: int) -> None:
    assert [fault[0] for fault in faults_of(text)] == [line]


def test_the_content_of_a_document_is_not_printed() -> None:
    assert "hunter2" not in repr(documents_of("password: hunter2"))


KEYS = st.text("abcxyz-./", min_size=1, max_size=6)
# Beyond the basic plane JSON escapes in pairs, which YAML has not.
TEXTS = st.text(st.characters(max_codepoint=0xD7FF), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
OBJECTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=5)


@given(st.lists(OBJECTS, min_size=1, max_size=3))
def test_what_is_written_is_read(objects: list[dict[str, Any]]) -> None:
    # PyYAML leaves `y` and `n` unquoted, which kubectl reads as booleans: quote everything.
    text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper, default_style='"', allow_unicode=True)
    assert [document.raw for document in documents_of(text)] == objects
    assert documents_of(json.dumps(objects[0]))[0].raw == objects[0]


@given(OBJECTS, st.integers(0, 5))
def test_every_field_of_any_json_has_the_line_it_is_written_on(raw: dict[str, Any], above: int) -> None:
    lines: list[str] = [""] * above
    expected = dict(_written(raw, (), lines))
    (document,) = documents_of("\n".join(lines))
    (same,) = documents_of("--- &yaml\n" + "\n".join(lines))
    assert {path: document.line_of(path) for path in expected} == expected
    assert {path: same.line_of(path) - 1 for path in expected} == expected


def _written(value: Any, path: tuple[str | int, ...], lines: list[str]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Write one token per line; give each field's path and the line it begins on."""
    if isinstance(value, dict):
        lines.append("{")
        for index, (key, inner) in enumerate(value.items()):
            lines.append(("," if index else "") + json.dumps(key) + ":")
            yield (*path, key), len(lines)
            yield from _written(inner, (*path, key), lines)
        lines.append("}")
    elif isinstance(value, list):
        lines.append("[")
        for index, inner in enumerate(value):
            if index:
                lines.append(",")
            yield (*path, index), len(lines) + 1
            yield from _written(inner, (*path, index), lines)
        lines.append("]")
    else:
        lines.append(json.dumps(value))


@given(st.text() | st.text("{}[]:,-.\"'#%&* \n\r\ufeffab1"))
def test_any_text_is_read_or_has_faults_within_it(text: str) -> None:
    parsed = parse_manifests(text)
    last = text.count("\n") + text.count("\r") + len(text.splitlines()) + 2
    assert all(1 <= fault.line <= last for fault in parsed.faults)
    json.dumps([document.raw for document in parsed.documents], allow_nan=False)
