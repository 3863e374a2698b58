"""A server on a loopback port, clients for it, and the real programs the tests run against it."""

import sys
from pathlib import Path

import pytest
from xds_client import Served

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))


@pytest.fixture
async def served():
    """An xDS server that was told nothing yet."""
    server = await Served.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    from binaries import grpcurl  # noqa: PLC0415

    return grpcurl()
