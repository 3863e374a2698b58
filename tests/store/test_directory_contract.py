from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.store.directory import DirectoryStore
from tests.support.manifests import KINDS, write
from tests.support.store_contract import StoreContract


class FolderStage:
    home, away = "default", "team"

    def __init__(self, store: DirectoryStore, folder: Path) -> None:
        self.store = store
        self._folder = folder

    async def apply(self, *objects: Mapping[str, Any]) -> None:
        for raw in objects:
            write(self._file(raw), raw)

    async def remove(self, *objects: Mapping[str, Any]) -> None:
        for raw in objects:
            self._file(raw).unlink()

    def _file(self, raw: Mapping[str, Any]) -> Path:
        return self._folder / raw["metadata"]["namespace"] / f"{raw['kind']}-{raw['metadata']['name']}.yaml"


class TestDirectoryStore(StoreContract):
    @pytest.fixture
    async def stage(self, tmp_path: Path) -> AsyncIterator[FolderStage]:
        folder = tmp_path / "folder"
        folder.mkdir()
        async with DirectoryStore(folder, tmp_path / "state" / "state.json", KINDS) as store:
            yield FolderStage(store, folder)
