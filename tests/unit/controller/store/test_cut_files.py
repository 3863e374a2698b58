"""A file that was cut short, by a full disk or a copy that broke off, takes no model down."""

from __future__ import annotations

import json

import yaml

from controller.api.registry import VALIDATION
from controller.store.directory.checking import check_file
from tests.support.objects import a_deployment, a_model, a_service, a_slice

OBJECTS = (
    a_model("chat").with_remote("models.example.com"),
    a_service("chat").port(80, name="http", target=8080),
    a_slice("chat").ready("10.0.0.1", "10.0.0.2"),
    a_deployment("chat").probed("/healthz", 8080),
)
BLOCK = "---\n".join(yaml.safe_dump(one.raw, sort_keys=False) for one in OBJECTS)
BACK_TO_BACK = "\n".join(json.dumps(one.raw) for one in OBJECTS)
LIST = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [one.raw for one in OBJECTS]}, sort_keys=False)


def whole_or_refused(text: str, begun: int) -> None:
    """Either something is wrong, or each document that has begun is the object that it was, and no other one."""
    content = check_file("a.yaml", text, VALIDATION)
    if not content.problems:
        assert [manifest.ref for manifest in content.manifests] == [one.ref for one in OBJECTS[:begun]], text[-60:]
        assert not content.notes


def test_a_document_cut_anywhere_is_a_mistake_or_still_the_object_that_it_was() -> None:
    documents = BLOCK.split("---\n")
    for index, document in enumerate(documents):
        above = "".join(f"{one}---\n" for one in documents[:index])
        for length in range(1, len(document) + 1):
            whole_or_refused(above + document[:length], index + 1)


def test_json_cut_anywhere_is_a_mistake() -> None:
    ends = [len("\n".join(json.dumps(one.raw) for one in OBJECTS[:count])) for count in range(1, len(OBJECTS) + 1)]
    for length in range(1, len(BACK_TO_BACK)):
        content = check_file("a.json", BACK_TO_BACK[:length], VALIDATION)
        assert bool(content.problems) == (len(BACK_TO_BACK[:length].rstrip()) not in ends)


def test_a_list_cut_anywhere_is_a_mistake_or_still_its_first_objects() -> None:
    for length in range(1, len(LIST) + 1):
        content = check_file("a.yaml", LIST[:length], VALIDATION)
        if not content.problems:
            refs = [manifest.ref for manifest in content.manifests]
            assert refs == [one.ref for one in OBJECTS[: len(refs)]]
            assert len(refs) == LIST[:length].count("\n- ")
