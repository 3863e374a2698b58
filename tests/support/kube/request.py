"""What a client asked of an API server, in the words of the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it was sent."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str
    body: bytes = field(repr=False)

    @property
    def resource(self) -> str:
        """The plural of what is asked for; empty for what is no resource, such as /readyz."""
        return self._words[0]

    @property
    def name(self) -> str:
        """The object's name; empty for a collection."""
        return self._words[1]

    @property
    def subresource(self) -> str:
        return self._words[2]

    @property
    def watches(self) -> bool:
        return self.query.get("watch", "") in ("1", "true")

    @property
    def lists(self) -> bool:
        return self.method == "GET" and self.resource != "" and not self.name and not self.watches

    @property
    def writes(self) -> bool:
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def _words(self) -> tuple[str, str, str]:
        match self.path.strip("/").split("/"):
            case ["api", _, *rest] | ["apis", _, _, *rest]:
                words = rest[2:] if rest[:1] == ["namespaces"] and len(rest) > 2 else rest
                return tuple((*words, "", "", "")[:3])  # type: ignore[return-value]
        return "", "", ""


Which = Callable[[Request], object]
"""Says of a request whether it is meant."""


def every(_: Request) -> bool:
    return True


def watch(resource: str) -> Which:
    """The watches of a resource, by its plural."""
    return lambda request: request.watches and request.resource == resource


def listing(resource: str) -> Which:
    """The lists of a resource, by its plural."""
    return lambda request: request.lists and request.resource == resource


def writing(resource: str, subresource: str | None = None) -> Which:
    """The writes of a resource; with `subresource`, only of that one ("" is the object itself)."""
    return lambda request: (
        request.writes and request.resource == resource and subresource in (None, request.subresource)
    )
