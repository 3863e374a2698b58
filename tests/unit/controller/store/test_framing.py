"""How documents are put together in a file: as kubectl takes it apart, and so that no mistake hides another."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.store.manifest.manifest import parse_manifests

BOM = "\ufeff"
DOCUMENTS = ("a: 1\nb: [x]\n", "c: |\n  ---\n  text\n", '{"d": "---", "e": {}}\n', "# comment\nf: {g: h}\n")
READ: tuple[dict[str, Any], ...] = (
    {"a": 1, "b": ["x"]},
    {"c": "---\ntext\n"},
    {"d": "---", "e": {}},
    {"f": {"g": "h"}},
)


def read(text: str) -> list[Any]:
    parsed = parse_manifests(text)
    assert [(fault.line, fault.message) for fault in parsed.faults] == []
    return [document.raw for document in parsed.documents]


def told(text: str, **bound: int) -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for fault in parse_manifests(text, **bound).faults]


FRAMES: tuple[Callable[[str], str], ...] = (
    lambda document: f"---\n{document}",
    lambda document: f"{BOM}---\n{document}",
    lambda document: f"---\n{BOM}{document}",
    lambda document: f"---\n{BOM}# Source: chart\n{BOM}{document}",
    lambda document: f"--- # a comment\n{document}",
    lambda document: f"---\n\n---\n# nothing\n---\n{document}",
    lambda document: f"---\n{document}...\n",
    lambda document: f"...\n%YAML 1.1\n---\n{document}",
    lambda document: f"...\n# above\n%TAG ! tag:example.com,2000:\n# below\n---\n{document}",
)


@given(st.lists(st.tuples(st.sampled_from(FRAMES), st.integers(0, 3)), min_size=1, max_size=6), st.booleans())
def test_however_documents_are_put_together_each_is_read_at_its_line(
    parts: list[tuple[Callable[[str], str], int]], is_windows: bool
) -> None:
    text, lines = "", []
    for frame, index in parts:
        text += frame(DOCUMENTS[index])
        above = text[: text.rindex(DOCUMENTS[index])].count("\n")
        lines.append(above + (2 if DOCUMENTS[index].startswith("#") else 1))
    parsed = parse_manifests(text.replace("\n", "\r\n") if is_windows else text)
    assert [document.raw for document in parsed.documents] == [READ[index] for _, index in parts]
    assert [document.line_of(()) for document in parsed.documents] == lines
    assert parsed.faults == ()


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)), max_size=3), st.data())
def test_json_objects_may_stand_back_to_back(objects: list[dict[str, Any]], data: st.DataObject) -> None:
    between = st.sampled_from(["", " ", "\n", "\r\n\t", "\n---\n", f"\n---\n{BOM}", "\n...\n---\n"])
    text = "".join(json.dumps(one) + data.draw(between) for one in objects)
    assert read(text) == objects


def test_escapes_of_json_mean_what_they_do_to_go() -> None:
    (document,) = parse_manifests(r'{"\ud83d\ude00": "\\ud83d", "\uD83D\uDE01": "\ud83d \ude00\/"}').documents
    assert document.raw == {"😀": "\\ud83d", "😁": "\ufffd \ufffd/"}


def test_braces_are_yaml_too() -> None:
    assert read("{a: 1, b: {c: yes}}\n---\n{'d': 1} # a comment\n") == [{"a": 1, "b": {"c": True}}, {"d": 1}]
    assert read('{"a": [1,],\n}') == [{"a": [1]}]


def test_a_byte_order_mark_amid_a_document_is_named() -> None:
    words = "begins with a byte order mark (U+FEFF, invisible) amid a document: is `---` missing above?"
    assert told(f"{BOM}a: 1\n---\n{BOM}b: 2\n{BOM}c: 3\n---\nd: 1\n") == [(4, words)]
    assert read(f'a: "{BOM}"\nb: {BOM}x\n') == [{"a": BOM, "b": f"{BOM}x"}]


def test_each_document_tells_its_own_mistakes_and_the_good_ones_are_read() -> None:
    text = 'a: \'x\n---\nb: 1\n---\nc: 1\nc: 2\nd: .nan\nc: 3\n---\n{"e": 1,}\n---\nf: !x 1\n---\n- g\n---\nh: [\n'
    assert told(text) == [
        (2, "found unexpected end of stream, while scanning a quoted scalar that starts on line 1"),
        (6, "is given twice, first on line 5"),
        (7, "must be a finite number"),
        (8, "is given twice, first on line 5"),
        (12, "has a YAML tag, which Kubernetes does not know"),
        (14, "must be an object"),
        (17, "did not find expected node content"),
    ]
    assert next(document.raw for document in parse_manifests(text).documents) == {"b": 1}


def test_a_typed_list_is_its_items_which_need_not_say_their_kind() -> None:
    item = {"metadata": {"name": "a"}}
    typed = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **item}
    whole = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": {}, "items": [item, typed]}
    assert read(json.dumps(whole)) == [typed, typed]
    # client-go fills in both or none.
    assert read(json.dumps(whole | {"items": [{"kind": "Pod"}]})) == [{"kind": "Pod"}]
    assert read(json.dumps(whole | {"kind": "List", "items": [item]})) == [item]
    assert read(json.dumps(whole | {"items": []})) == []


@pytest.mark.parametrize("kind", ["List", "EndpointSliceList"])
def test_a_list_without_items_is_a_mistake(kind: str) -> None:
    assert told(f"kind: {kind}\nitems:\n") == [(2, "must be a list")]


def test_a_fault_in_an_item_is_not_told_again() -> None:
    parsed = parse_manifests("kind: List\nitems:\n- {a: 1}\n- {b: {c: .inf}}\n")
    assert [fault.path for fault in parsed.faults] == [("items", 1, "b", "c")]
    assert [document.is_unread(("b", "c", "d")) for document in parsed.documents] == [False, True]
    assert not parsed.documents[1].is_unread(("b",))


def test_the_number_of_documents_is_bounded() -> None:
    assert told("{}" * 1_000, most=1_000) == told("a: 1\n---\n" * 1_000, most=1_000) == []
    assert told("{}" * 1_001, most=1_000) == [(1, "is one of more than 1000 documents")]
    ((line, words),) = told("a: 1\n---\n" * 1_001, most=1_000)
    assert (line, words) == (2_000, "is the 1001th document; a file may have 1000")


def test_whoever_says_no_bound_has_that_of_a_hundred_thousand() -> None:
    assert told("{}" * 100_001) == [(1, "is one of more than 100000 documents")]
