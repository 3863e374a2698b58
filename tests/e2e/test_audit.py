"""`make audit` with its real tools: the list has what is pinned, and nobody's answer is none."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.tools.audit import PINNED, ask, write_sbom

pytestmark = pytest.mark.usefixtures("audit_tools")


def test_the_list_has_every_package_that_is_pinned(tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    count = write_sbom(path)
    listed = {f"{one['name']}=={one['version']}" for one in json.loads(path.read_text())["components"]}
    pinned = set(re.findall(r"^([\w.-]+==[^ ;]+)", PINNED.read_text(), re.MULTILINE))
    assert listed == pinned
    assert count == len(pinned)


def test_without_a_way_to_a_source_there_is_no_answer() -> None:
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    said, words = ask("osv", environment={**os.environ, **nowhere})
    assert said is None
    assert words
