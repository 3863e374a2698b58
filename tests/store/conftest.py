from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.running_store import Running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.fixture
async def running(folder: Path, tmp_path: Path) -> AsyncIterator[Running]:
    """A store that runs over an empty folder."""
    running = Running(folder, tmp_path / "state" / "state.json")
    await running.store.start()
    yield running
    await running.store.close()
