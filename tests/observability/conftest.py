"""Build what tries rules and queries before the first test starts: it takes longer than a test may."""

from __future__ import annotations

import pytest

from tests.tools import binaries


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.promtool()
            binaries.prometheus()
