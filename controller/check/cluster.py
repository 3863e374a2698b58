"""Reading a cluster to look at it: so many requests at most, and a word for everything that cannot be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controller.api.registry import Kind
from controller.store.kube.answers import RawAnswer, UnauthorizedError, error_for
from controller.store.kube.client import JSON, KubeClient
from controller.store.protocol import ForbiddenError, NotFoundError, StoreError, UnavailableError

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for the metadata of an object, without the rest of it (API concepts, "Partial object metadata")."""

_AT_ONCE = 10
_PAGE = 500
_LARGEST = 32 * 2**20
_AUTHORIZATION = "/apis/authorization.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Unread:
    """Why something could not be read, in one word and in a sentence.

    It is `absent`, we are `denied`, there was no answer that can be used (`unanswered`), or enough was asked (`spent`).
    `status` is that of HTTP where the API server itself said that there is none.
    """

    why: Literal["absent", "denied", "unanswered", "spent"]
    words: str
    status: int = 0

    @property
    def is_absent(self) -> bool:
        """Whether the API server says that there is no such thing."""
        return self.why == "absent"


@dataclass(frozen=True, slots=True)
class Listed:
    """Objects of one kind; not all of them if they are not `complete`."""

    items: tuple[Mapping[str, Any], ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """An account of a program."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """How the API server calls it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ClusterReader:
    """Reads an API server. After `most` requests it answers that enough was asked."""

    def __init__(self, client: KubeClient, most: int, longest: float) -> None:
        self.server = client.server
        self.home = client.namespace
        self._client = client
        self._left = most
        self._longest = longest
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def look(self, path: str, *, accept: str = JSON, **query: str) -> RawAnswer | Unread:
        """GET; give the answer as it is, also one that says no. Where none comes it is asked once more."""
        answer = await self._look(path, accept, query)
        return await self._look(path, accept, query) if isinstance(answer, Unread) else answer

    async def _look(self, path: str, accept: str, query: Mapping[str, str]) -> RawAnswer | Unread:
        if spent := self._spend():
            return spent
        try:
            async with self._turns, asyncio.timeout(self._longest):
                return await self._client.look(path, query, accept, _LARGEST)
        except TimeoutError:
            return Unread("unanswered", f"no answer within {self._longest:.0f} s")
        except StoreError as error:
            return Unread("unanswered", str(error))

    async def read(self, path: str, *, accept: str = JSON, **query: str) -> Mapping[str, Any] | Unread:
        """GET an object."""
        answer = await self.look(path, accept=accept, **query)
        if isinstance(answer, Unread):
            return answer
        if answer.status >= 300:
            return _unread(error_for(f"GET {path}", answer.status, {}, answer.body))
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else Unread("unanswered", f"GET {path}: the answer is no object")

    async def list(self, path: str, most: int = _PAGE, **query: str) -> Listed | Unread:
        """GET the objects of a path, page by page, and `most` of them at most."""
        found: list[Mapping[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = await self.read(path, limit=str(min(_PAGE, most)), **query, **more)
            if isinstance(page, Unread):
                return page
            found += [one for one in page.get("items") or () if isinstance(one, dict)]
            more = {"continue": (page.get("metadata") or {}).get("continue") or ""}
            if not more["continue"] or len(found) >= most:
                return Listed(tuple(found[:most]), not more["continue"] and len(found) <= most)

    async def whoami(self) -> str:
        """Say as whom we ask; empty where the API server does not tell (before 1.28)."""
        answer = await self._post("/apis/authentication.k8s.io/v1/selfsubjectreviews", "SelfSubjectReview", {})
        if isinstance(answer, Unread):
            return ""
        return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")

    async def may(self, account: ServiceAccount | None, what: Mapping[str, str]) -> bool | Unread:
        """Ask whether an account, or we ourselves (None), may do what the attributes of a resource say."""
        if account is None:
            path, kind, who = "selfsubjectaccessreviews", "SelfSubjectAccessReview", {}
        else:
            path, kind, who = "subjectaccessreviews", "SubjectAccessReview", {"user": account.user, "groups": []}
            who["groups"] = [
                "system:serviceaccounts",
                f"system:serviceaccounts:{account.namespace}",
                "system:authenticated",
            ]
        answer = await self._post(f"{_AUTHORIZATION}/{path}", kind, {"spec": {**who, "resourceAttributes": dict(what)}})
        return answer if isinstance(answer, Unread) else bool((answer.get("status") or {}).get("allowed"))

    async def _post(self, path: str, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any] | Unread:
        """Ask a question that is a POST, and changes nothing."""
        if spent := self._spend():
            return spent
        group = "/".join(path.split("/")[2:4])
        try:
            async with self._turns, asyncio.timeout(self._longest):
                return await self._client.request("POST", path, body={"apiVersion": group, "kind": kind, **body})
        except TimeoutError:
            return Unread("unanswered", f"no answer within {self._longest:.0f} s")
        except StoreError as error:
            return _unread(error)

    def _spend(self) -> Unread | None:
        if self._left <= 0:
            return Unread("spent", "enough was asked: name single namespaces with --namespaces")
        self._left -= 1
        return None


def _unread(error: StoreError) -> Unread:
    match error:
        case NotFoundError():
            return Unread("absent", str(error))
        case UnauthorizedError():
            return Unread("denied", f"the API server does not know who asks ({error})")
        case ForbiddenError():
            return Unread("denied", str(error))
        case UnavailableError(status=status):
            return Unread("unanswered", str(error), status)
    return Unread("unanswered", str(error))


def right_to(verb: str, kind: Kind | str, namespace: str = "") -> str:
    """Say in words which right is missing."""
    resource = kind if isinstance(kind, str) else kind.resource
    where = f"the namespace {namespace}" if namespace else "all namespaces"
    return f"it needs the right to {verb} {resource} in {where}"
