"""A file that was cut short, by a full disk or a copy that broke off, takes no model down.

YAML has no end that could be missing: cut between two lines, or while nobody knows what was there before, it is what is
left of it. All else is a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml

from controller.api.registry import VALIDATION
from controller.api.timing import FolderTiming
from controller.store.directory.checking import FileContent, check_file
from controller.store.directory.folder import Folder
from tests.support.objects import a_deployment, a_model, a_service, a_slice

OBJECTS = (
    a_model("chat").with_remote("models.example.com", pathPrefix="/v1"),
    a_service("chat").port(80, name="http", target=8080),
    a_slice("chat").ready("10.0.0.1", "10.0.0.2"),
    a_deployment("chat").probed("/healthz", 8080),
)
BLOCK = "---\n".join(yaml.safe_dump(one.raw, sort_keys=False) for one in OBJECTS)
BACK_TO_BACK = "\n".join(json.dumps(one.raw) for one in OBJECTS)
LIST = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [one.raw for one in OBJECTS]}, sort_keys=False)
TIMING = FolderTiming()
BEGUN = (":\n", " -\n", " &id001\n")
"""How a text ends where a value is to follow."""
HEAD = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: chat-1, labels: {kubernetes.io/service-name: chat}}
addressType: IPv4
ports:
- port: 8080
"""


def read(text: str) -> FileContent:
    return check_file("a.yaml", text, VALIDATION)


WHOLE = read(BLOCK).manifests


@cache
def cuts(text: str) -> list[FileContent]:
    """What each beginning of a text says in which nothing is wrong."""
    contents = (read(text[:length]) for length in range(1, len(text) + 1))
    return [content for content in contents if not content.problems]


def is_left_of(left: Any, whole: Any) -> bool:
    """Whether a value is what a cut may leave: its first parts as they were, and of the last one any beginning.

    Of a key whose value is cut off, null is left.
    """
    if left is None or left == whole:
        return True
    if isinstance(left, list) and isinstance(whole, list):
        return is_left_of(dict(enumerate(left)), dict(enumerate(whole)))
    if not isinstance(left, Mapping) or not isinstance(whole, Mapping):
        return str(whole).startswith(str(left))
    *before, last = left
    kept = all(left[key] == whole[key] for key in before)
    return kept and [*left] == [*whole][: len(left)] and is_left_of(left[last], whole[last])


def assert_left(content: FileContent, begun: int) -> None:
    """Assert that so many objects are there: as they were, but for the end of the last one."""
    *before, last = (manifest.raw for manifest in content.manifests)
    *wanted, whole = (manifest.raw for manifest in WHOLE[:begun])
    assert (before, last["metadata"]) == (wanted, whole["metadata"]), content.text[-60:]
    assert is_left_of(last, whole), content.text[-60:]
    assert not content.notes


def test_of_documents_a_cut_leaves_a_mistake_or_what_was_before_it() -> None:
    for content in cuts(BLOCK):
        assert_left(content, content.text.count("apiVersion: "))


def test_of_a_list_a_cut_leaves_a_mistake_or_what_was_before_it() -> None:
    for content in cuts(LIST):
        assert_left(content, content.text.count("- apiVersion: "))


def test_of_a_file_that_was_whole_before_a_cut_amid_a_line_changes_nothing() -> None:
    folder = Folder({}, VALIDATION, TIMING)
    whole = read(BLOCK)
    for content in cuts(BLOCK):
        folder.accept("a.yaml", whole)
        waits = folder.quiet_periods({"a.yaml": content})["a.yaml"]
        for _ in range(2):
            folder.accept("a.yaml", content)
            if content.text.endswith(BEGUN):
                # Such as `endpoints:`, which would be none.
                (problem,) = folder.problems
                assert problem.line == content.text.count("\n")
                assert "cut short" in problem.message
                assert folder.manifests["a.yaml"] == WHOLE
            elif content.text.endswith("\n"):
                # It may as well be meant so: only that it is still being written can be waited for.
                assert waits == (TIMING.quiet if content.text == BLOCK else TIMING.losing)
                assert folder.manifests["a.yaml"] == content.manifests
            elif content.text + "\n" != BLOCK:
                (problem,) = folder.problems
                assert problem.line == content.text.count("\n") + 1
                assert "cut short" in problem.message
                assert folder.manifests["a.yaml"] == WHOLE


@pytest.mark.parametrize(
    ("left", "line"),
    [
        ("endpoints:\n", 7),
        ("endpoints:", 7),
        ("endpoints: # those of today\n\n# the first\n", 7),
        ("endpoints: &all\n", 7),
        ("endpoints: !!seq\n", 7),
        ("endpoints: null\n", None),
        ("endpoints: []\n", None),
        ("endpoints:\n- addresses: [10.0.0.2]\n", None),
        ("endpoints: []\n---\n", None),
    ],
)
def test_where_a_value_is_to_follow_a_file_was_cut(left: str, line: int | None) -> None:
    whole = read(f"{HEAD}endpoints:\n- addresses: [10.0.0.1]\n")
    folder = Folder({}, VALIDATION, TIMING)
    folder.accept("a.yaml", replace(whole, text=f"{HEAD}{left}\n- addresses: [10.0.0.1]\n"))
    folder.accept("a.yaml", read(f"{HEAD}{left}"))
    assert [problem.line for problem in folder.problems] == ([line] if line else [])
    assert (folder.manifests["a.yaml"] == whole.manifests) == bool(line)


def test_what_was_edited_or_never_ended_its_last_line_is_not_taken_for_cut() -> None:
    unended = BLOCK.rstrip()
    less = unended.removesuffix("scheme: HTTP").rstrip()
    assert read(less).manifests != WHOLE
    for before, after in (
        (BLOCK, unended),
        (BLOCK, less.replace("10.0.0.2", "10.0.0.3")),
        (unended, less),
        ("", less),
    ):
        folder = Folder({}, VALIDATION, TIMING)
        folder.accept("a.yaml", read(before))
        folder.accept("a.yaml", read(after))
        assert folder.problems == (), after[-60:]
        assert folder.manifests["a.yaml"] == read(after).manifests


def test_json_cut_anywhere_is_a_mistake() -> None:
    ends = [len("\n".join(json.dumps(one.raw) for one in OBJECTS[:count])) for count in range(1, len(OBJECTS) + 1)]
    for length in range(1, len(BACK_TO_BACK)):
        content = check_file("a.json", BACK_TO_BACK[:length], VALIDATION)
        assert bool(content.problems) == (len(BACK_TO_BACK[:length].rstrip()) not in ends)
