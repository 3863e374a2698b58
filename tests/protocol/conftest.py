"""A server on a loopback port, and the real grpcurl."""

from pathlib import Path

import pytest

from tests.support.protocol.xds_client import Served
from tests.tools import binaries


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build grpcurl before the first test starts, if any needs it: it takes longer than a test may."""
    used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    if "grpcurl" in used and not session.config.option.collectonly:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            binaries.grpcurl()


@pytest.fixture
async def served():
    """An xDS server that was told nothing yet."""
    server = await Served.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    return binaries.grpcurl()
