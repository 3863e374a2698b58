"""The backends of a module's models, at addresses of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.data_plane.backends import Backends
from tests.support.network import Network


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with Backends(Network.unused(), tmp_path_factory.mktemp("backends")).running() as backends:
        yield backends


@pytest.fixture
def chat(tmp_path: Path, backends: Backends) -> Chat:
    return Chat(tmp_path, backends)
