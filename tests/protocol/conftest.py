"""A server on a loopback port, and the real grpcurl."""

from pathlib import Path

import pytest

from tests.support.protocol.xds_client import Served
from tests.tools import binaries


@pytest.fixture
async def served():
    """An xDS server that was told nothing yet."""
    server = await Served.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    return binaries.grpcurl()
