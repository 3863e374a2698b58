"""`make audit`: an answer is told from no answer, and no answer is never a good one."""

import json

import pytest

from tests.tools.audit import Advisories, advisories_in, outcome

KNOWN = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": "x"}
REPORT = {
    "dependencies": [
        {"name": "a", "version": "1.0", "vulns": [KNOWN, {**KNOWN, "id": "PYSEC-2", "fix_versions": []}]},
        {"name": "b", "version": "2.0", "vulns": []},
        {"name": "c", "skip_reason": "not found"},
    ],
    "fixes": [],
}


def test_what_is_known_is_told_by_package():
    found = advisories_in("osv", json.dumps(REPORT))
    words = ("a 1.0: PYSEC-1, fixed in 1.1", "a 1.0: PYSEC-2, fixed in no version")
    assert found == Advisories("osv", 2, words)


@pytest.mark.parametrize("answer", ["", "ERROR", "[]", "{}", "null"])
def test_what_is_no_report_is_no_answer(answer):
    assert advisories_in("osv", answer) is None


@pytest.mark.parametrize(
    ("said", "strict", "code", "text"),
    [
        (None, False, 0, "NOT CHECKED: osv did not answer, so nothing is known of these versions (no route)"),
        (None, True, 2, "NOT CHECKED: osv did not answer, so nothing is known of these versions (no route)"),
        (Advisories("osv", 2, ()), True, 0, "osv: 0 known vulnerabilities in 2 packages"),
        (Advisories("osv", 2, ("a 1.0: X",)), False, 1, "osv: 1 known vulnerabilities in 2 packages\n  a 1.0: X"),
    ],
)
def test_no_answer_is_said_in_as_many_words(said, strict, code, text):
    assert outcome("osv", said, "no route", strict=strict) == (code, text)
