"""The readers of a store: each has what it has not read yet, the newest state of each object only."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterable

from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch, StoreError


class Watch(AsyncIterator[Batch]):
    """One reader. A cancelled read loses nothing. Ends with its store; raises StoreError if that failed."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = frozenset(kinds)
        self._changed: dict[ObjectRef, StoredObject] = {}
        self._deleted: dict[ObjectRef, None] = {}
        self._complete = False
        self._end: Exception | None = None
        self._news = asyncio.Event()

    async def __anext__(self) -> Batch:
        await self._news.wait()
        if self._end is not None:
            raise self._end
        batch = Batch(tuple(self._changed.values()), tuple(self._deleted), self._complete)
        self._changed, self._deleted, self._complete = {}, {}, False
        self._news.clear()
        return batch

    async def aclose(self) -> None:
        """Stop reading; a read under way ends."""
        self.end(StopAsyncIteration())

    def end(self, reason: Exception) -> None:
        """Let every read, now and later, raise `reason`."""
        self._end = self._end or reason
        self._news.set()

    def list(self, objects: Iterable[StoredObject]) -> None:
        """Take all objects there are in place of whatever was not read yet."""
        self._changed = {stored.ref: stored for stored in objects if stored.ref.kind in self._kinds}
        self._deleted, self._complete = {}, True
        self._news.set()

    def add(self, changed: Iterable[StoredObject], deleted: Iterable[ObjectRef]) -> None:
        """Take changes."""
        for stored in changed:
            if stored.ref.kind in self._kinds:
                self._changed[stored.ref] = stored
                self._deleted.pop(stored.ref, None)
                self._news.set()
        for ref in deleted:
            if ref.kind in self._kinds:
                self._changed.pop(ref, None)
                if not self._complete:
                    self._deleted[ref] = None
                self._news.set()


class Watches:
    """All readers of one store. They wait until it is `started`."""

    def __init__(self, objects: Callable[[], Iterable[StoredObject]]) -> None:
        self._objects = objects
        self._open: weakref.WeakSet[Watch] = weakref.WeakSet()  # A reader that nobody holds needs nothing.
        self.started = False
        self._end: Exception | None = None

    def open(self, kinds: Collection[str]) -> Watch:
        """Begin a watch of these kinds."""
        watch = Watch(kinds)
        self._open.add(watch)
        if self.started:
            watch.list(self._objects())
        if self._end is not None:
            watch.end(self._end)
        return watch

    def start(self) -> None:
        """All objects are known: give every reader its first batch."""
        self.started = True
        for watch in self._open:
            watch.list(self._objects())

    def publish(self, changed: Collection[StoredObject], deleted: Collection[ObjectRef]) -> None:
        """Tell every reader."""
        for watch in self._open:
            watch.add(changed, deleted)

    def close(self, failure: BaseException | None = None) -> None:
        """End every watch, normally or with the failure of the store."""
        reason = StopAsyncIteration() if failure is None else StoreError(f"the store failed: {type(failure).__name__}")
        self._end = self._end or reason
        for watch in self._open:
            watch.end(self._end)
