"""One kind of objects, kept up to date by list and watch."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from controller.api.registry import Kind
from controller.store.kube.answers import error_of_event
from controller.store.kube.client import KubeClient
from controller.store.kube.collection import Changes, Collection, ObjectList
from controller.store.kube.objects import stored_object, without_bookkeeping
from controller.store.objects import StoredObject
from controller.store.protocol import ExpiredError, NotFoundError, StoreError, UnavailableError


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch: its type (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`), version, and object if it has one."""

    type: str
    version: int
    stored: StoredObject | None = None


def read_event(kind: Kind, line: bytes) -> WatchEvent:
    """Read one line of a watch. Raises ExpiredError or another StoreError that an `ERROR` event stands for."""
    try:
        event = json.loads(line)
        type_, raw = event["type"], event["object"]
        if type_ == "ERROR":
            raise error_of_event(f"watch {kind.resource}", raw)
        if type_ == "BOOKMARK":
            return WatchEvent(type_, version_of(raw))
        stored = without_bookkeeping(stored_object(kind, raw))
        return WatchEvent(type_, int(stored.resource_version), stored)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnavailableError(f"watch {kind.resource}: not an event: {type(error).__name__}") from None


def read_list(kind: Kind, pages: Iterable[Mapping[str, Any]]) -> ObjectList:
    """Put the pages of one list together. Raises UnavailableError when that is not what they are."""
    try:
        stored = [without_bookkeeping(stored_object(kind, raw)) for page in pages for raw in page.get("items") or ()]
        version = max(version_of(page) for page in pages)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnavailableError(f"list {kind.resource}: not a list: {type(error).__name__}") from None
    return ObjectList({one.ref: one for one in stored}, version)


def version_of(raw: Mapping[str, Any]) -> int:
    """The resourceVersion of an object or a list."""
    return int(raw["metadata"]["resourceVersion"])


_PAGE = 500  # Objects.

log = logging.getLogger(__name__)


class Reflector:
    """One kind's list and watch, for as long as `run` runs. `publish` is called with every change, in order."""

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        namespace: str,
        collection: Collection,
        publish: Callable[[Changes], None],
    ) -> None:
        self.kind = kind
        self.collection = collection
        self._client = client
        self._timing = client.timing
        self._namespace = namespace
        self._paths = tuple(
            replace(kind, version=version).path(namespace) for version in (kind.version, *kind.earlier_versions)
        )
        self._path = self._paths[0]
        self._selector = {"labelSelector": kind.label_selector} if kind.label_selector else {}
        self._publish = publish
        self._installed = True  # Whether the API server has the kind, as far as is known.
        self._resumable = False  # Whether the collection's version can be watched from.
        self._paged = True
        self._failures = 0
        self.trouble = "not listed yet"  # Why the collection may be behind; empty when it is not.

    def __str__(self) -> str:
        return f"{self.kind.resource} in {self._namespace}" if self._namespace else self.kind.resource

    async def run(self) -> None:
        """List, watch, relist; never ends by itself."""
        while True:
            try:
                await (self._resume() if self._resumable else self._list())
                if self._resumable:
                    await self._watch()
                wait = 0.0 if self._resumable else self.collection.second_look
            except ExpiredError as error:
                log.info("kind is listed again", extra={"kind": str(self), "why": str(error)})
                self._resumable = False
                wait = self._backoff() if self._failures else 0.0
                self._failures += 1
            except StoreError as error:
                self._in_trouble(_explained(error))
                wait = max(self._backoff(), getattr(error, "after", None) or 0.0)
                self._failures += 1
            await asyncio.sleep(wait)

    async def _list(self) -> None:
        listing = await self._listing()
        suspect_before = self.collection.suspect
        changes = self.collection.replace(listing, asyncio.get_running_loop().time())
        if self.collection.suspect is not None:
            log.warning("list not believed yet", extra={"kind": str(self), "why": self.collection.suspect.reason})
            return
        if suspect_before is not None:
            log.warning("list believed", extra={"kind": str(self), "deleted": len(changes.deleted)})
        self._resumable = self._installed
        self._recovered()
        self._publish(changes)

    async def _listing(self) -> ObjectList:
        """List everything, in a version in which the API server has the kind; nothing of one that it may lack."""
        for path in dict.fromkeys((self._path, *self._paths)):
            self._path = path
            try:
                listing = read_list(self.kind, await self._pages())
            except NotFoundError:
                if not self.kind.optional:
                    raise
            else:
                self._installed = True
                return listing
        if self._installed:
            log.info("kind is not installed", extra={"kind": str(self)})
        self._installed = False
        return ObjectList({}, self.collection.version)

    async def _pages(self) -> list[dict[str, Any]]:
        pages: list[dict[str, Any]] = []
        query = self._selector | ({"limit": str(_PAGE)} if self._paged else {})
        following = ""
        while following or not pages:
            try:
                page = await self._client.fetch(self._path, query | ({"continue": following} if following else {}))
            except ExpiredError:
                self._paged = False  # Pages take too long here; the API server gives all at once, too.
                raise
            pages.append(page)
            following = str((page.get("metadata") or {}).get("continue") or "")
        self._paged = True
        return pages

    async def _resume(self) -> None:
        """Make sure that the version to resume from is not ahead of the API server's, which would say nothing then."""
        try:
            page = await self._client.fetch(self._path, self._selector | {"limit": "1"})
        except NotFoundError as error:
            if self.kind.optional:
                raise ExpiredError(f"the API server no longer has it at {self._path}") from error
            raise
        version = read_list(self.kind, [page]).version
        if version < self.collection.version:
            raise ExpiredError(f"the API server is at {version}, behind {self.collection.version}")
        self._recovered()

    async def _watch(self) -> None:
        """Follow one watch to its end."""
        clock = asyncio.get_running_loop().time
        started = clock()
        query = self._selector | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self.collection.version),
            "timeoutSeconds": str(int(random.uniform(self._timing.shortest_watch, self._timing.longest_watch))),
        }
        any_event = False
        async with aclosing(self._client.lines(self._path, query)) as lines:
            async for line in lines:
                event = read_event(self.kind, line)
                any_event, self._failures = True, 0
                if event.stored is None:
                    self.collection.bookmark(event.version)
                else:
                    self._publish(self.collection.apply_event(event.type, event.stored))
        if not any_event and clock() - started < self._timing.no_watch:
            raise UnavailableError(f"watch {self}: ends at once")
        self._failures = 0

    def _backoff(self) -> float:
        longest = min(self._timing.first_relist * 2**self._failures, self._timing.longest_relist)
        return random.uniform(longest / 2, longest)

    def _in_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("kind cannot be read", extra={"kind": str(self), "why": trouble})
        self.trouble = trouble

    def _recovered(self) -> None:
        if self.trouble:
            log.info("kind is read", extra={"kind": str(self), "objects": len(self.collection.objects)})
        self.trouble = ""


def _explained(error: StoreError) -> str:
    if isinstance(error, NotFoundError):
        return "the API server does not know this kind: its CustomResourceDefinition is not applied"
    return str(error)
