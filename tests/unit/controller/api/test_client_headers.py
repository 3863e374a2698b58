"""The list of headers that do not pass as a client wrote them is said once, and the document shows it."""

from __future__ import annotations

import re

from controller.api.schema.client_headers import BESIDE_THE_PATH, CREDENTIALS, PRIVATE, REMOVED, WHO_ASKED, WRITTEN_ANEW
from tests.support.processes import ROOT

OF_ENVOY = {"x-envoy-external-address", "x-forwarded-client-cert"}
"""What no client can have sent, since the front takes it off; Envoy may write it."""


def test_the_document_shows_what_stays_inside_by_its_reason():
    text = (ROOT / "docs" / "data-plane.md").read_text()
    section = text[text.index("## What leaves, and what stays inside") :]
    rows = {
        reason: {name.lower() for name in re.findall(r"`([^`]+)`", names)}
        for reason, names in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section.partition("| also")[0], re.MULTILINE)
    }
    assert rows["credentials"] == {*CREDENTIALS}
    assert rows["who asked, by way of whom"] == {*WHO_ASKED} - OF_ENVOY
    assert rows["what some servers believe more than the path"] == {*BESIDE_THE_PATH}


def test_what_the_front_writes_itself_is_private_and_what_nobody_gets_need_not_be():
    assert {*WRITTEN_ANEW} <= {*PRIVATE}
    assert not {*REMOVED} & {*PRIVATE}
