"""Whose each field of an object is: merge patches and server-side apply, over plain JSON objects. Pure.

A field is a path of keys that leads to anything but a filled object. So a list is one field: there is no schema here
that says how its items merge. The API server does the same with custom resources, unless their schema says otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from controller.store.protocol import FIELD_MANAGER, FieldConflict, FieldConflictError

Path = tuple[str, ...]
Manager = tuple[str, str]
"""A field manager and its operation: what `Apply` says is complete, an `Update` only adds."""

Owners = Mapping[Manager, frozenset[Path]]

_APPLY, _UPDATE = "Apply", "Update"
# They name an object and belong to nobody.
_NOBODYS = frozenset({("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")})


def merge_patch(target: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changes into an object (RFC 7386, section 2); neither is changed."""
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, change in changes.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), change) if isinstance(change, Mapping) else change
    return merged


def owners_after_update(before: Mapping[str, Any], after: Mapping[str, Any], owners: Owners) -> Owners:
    """Return whose the fields are after an update: those with another value are its author's."""
    old, new = fields_of(before), fields_of(after)
    changed = frozenset(path for path, value in new.items() if path not in old or old[path] != value)
    gone = old.keys() - new.keys()
    left = {manager: frozenset(paths - changed - gone) for manager, paths in owners.items()}
    author = (FIELD_MANAGER, _UPDATE)
    return _without_empty({**left, author: left.get(author, frozenset()) | changed})


def apply_fields(
    live: Mapping[str, Any], applied: Mapping[str, Any], manager: str, owners: Owners, *, force: bool
) -> tuple[dict[str, Any], Owners]:
    """Return an object and whose its fields are after a manager applied what it has to say. Raises FieldConflictError.

    Fields that it applied before and does not any more go, unless somebody else has them too.
    """
    me, fields = (manager, _APPLY), fields_of(applied)
    others = {other: paths for other, paths in owners.items() if other != me}
    conflicts = [
        (other, path, theirs)
        for path, value in fields.items()
        for other, paths in others.items()
        for theirs in paths
        if _is_conflict(live, path, value, theirs)
    ]
    if conflicts and not force:
        raise _error(conflicts)
    for other, _, theirs in conflicts:
        others[other] = others[other] - {theirs}
    result = copy.deepcopy(dict(live))
    for path in owners.get(me, frozenset()) - fields.keys():
        if not any(path in paths for paths in others.values()):
            _remove(result, path)
    for path, value in fields.items():
        _set(result, path, value)
    return result, _without_empty({**others, me: frozenset(fields)})


def fields_of(raw: Mapping[str, Any], above: Path = ()) -> dict[Path, Any]:
    """Return every field of an object with its value."""
    return {path: value for path, value in _walk(raw, above) if path not in _NOBODYS}


def _walk(raw: Mapping[str, Any], above: Path) -> Iterator[tuple[Path, Any]]:
    for name, value in raw.items():
        if isinstance(value, Mapping) and value:
            yield from _walk(value, (*above, name))
        elif value is not None:
            yield (*above, name), value


def _is_conflict(live: Mapping[str, Any], path: Path, value: Any, theirs: Path) -> bool:
    """Whether to apply a value would change what another manager's field is now."""
    if path == theirs:
        current = _find(live, path)
        return bool(current != value) and not (value == {} and isinstance(current, Mapping))
    if path[: len(theirs)] == theirs:
        return not isinstance(_find(live, theirs), Mapping)
    return theirs[: len(path)] == path and value != {}


def _error(conflicts: list[tuple[Manager, Path, Path]]) -> FieldConflictError:
    named = tuple(FieldConflict(other[0], f".{'.'.join(path)}") for other, path, _ in sorted(conflicts))
    words = ", ".join(f'conflict with "{one.manager}": {one.field}' for one in named)
    return FieldConflictError(f"Apply failed with {len(named)} conflict{'s' * (len(named) > 1)}: {words}", named)


def _find(raw: Any, path: Path) -> Any:
    for name in path:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw


def _set(raw: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(raw.get(name), dict):
            raw[name] = {}
        raw = raw[name]
    if value != {} or not isinstance(raw.get(path[-1]), dict):
        raw[path[-1]] = copy.deepcopy(value)


def _remove(raw: dict[str, Any], path: Path) -> None:
    """Remove a field, and the objects around it that are empty then. What others filled stays."""
    *above, last = path
    parents = [raw]
    for name in above:
        inner = parents[-1].get(name)
        if not isinstance(inner, dict):
            return
        parents.append(inner)
    if not parents[-1].get(last) or not isinstance(parents[-1][last], dict):
        parents[-1].pop(last, None)
    for name, parent, inner in zip(reversed(above), reversed(parents[:-1]), reversed(parents[1:]), strict=True):
        if inner:
            return
        del parent[name]


def _without_empty(owners: Owners) -> Owners:
    return {manager: paths for manager, paths in owners.items() if paths}
