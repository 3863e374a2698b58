"""From the text of one file to the objects it claims, or to what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.api.registry import SECRET
from controller.api.schema.errors import FieldError
from controller.store.manifest.manifest import Problem, parse_manifests
from controller.store.objects import ObjectRef

Validate = Callable[[Mapping[str, Any]], Sequence[FieldError]]
Kinds = Mapping[tuple[str, str], Validate]
"""By `apiVersion` and `kind`: what finds the faults of such an object."""

_OUR_GROUPS = (".beamlit.com", ".beamlit.io")  # Of today, and of the first versions.
_MOST_PROBLEMS = 100  # Of one file.
# RFC 1123, as the API server checks names.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
# What only a server sets; a manifest that came out of `kubectl get -o yaml` has them.
_SERVER_FIELDS = frozenset(
    ("creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as its author gives it: no `status`, a namespace always, nothing that only a server sets.

    `line` is where its name is; 0 if it is in no file.
    """

    ref: ObjectRef
    raw: Mapping[str, Any] = field(repr=False)
    line: int


@dataclass(frozen=True, slots=True)
class FileContent:
    """What one file says. With problems, `manifests` are not those of this text but the last good ones.

    `notes` are what a user may want to know and need not change, `line 3: ...`. `text` is what the manifests are
    from, empty if that is not known.
    """

    manifests: tuple[Manifest, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    text: str = field(default="", repr=False, compare=False)


def check_file(file: str, text: str, kinds: Kinds) -> FileContent:
    """Read a file's text; with any problem there are no manifests. All problems are told, up to a number."""
    parsed = parse_manifests(text)
    problems = [Problem(file, one.line, FieldError(one.path, "").dotted, one.message) for one in parsed.faults]
    manifests, notes = [], []
    for document in parsed.documents:
        errors = tuple(_identity_errors(document.raw, kinds))
        validate = None if errors else kinds.get((document.raw["apiVersion"], document.raw["kind"]))
        if validate is not None:
            manifest = _manifest(document.raw, document.line_of(("metadata", "name")))
            errors = tuple(_field_errors(manifest, validate))
            manifests.append(manifest)
            if "status" in document.raw:
                notes.append(f"line {document.line_of(('status',))}: status is not read from files")
        elif not errors:
            notes.append(f"line {document.line_of(())}: {_not_used(document.raw, kinds)}")
        problems += (
            Problem(file, document.line_of(e.path), e.dotted, e.message)
            for e in errors
            if not document.is_unread(e.path)
        )
    return FileContent(() if problems else tuple(manifests), _bounded(problems), tuple(notes), text)


def _not_used(raw: Mapping[str, Any], kinds: Kinds) -> str:
    """Say that nothing here reads a kind; one that is read of another API may be meant."""
    version, kind = raw["apiVersion"], raw["kind"]
    meant = [one for one, name in kinds if name == kind]
    if not meant:
        return f"{kind} is not a kind that is used here"
    return f"{kind} of {version} is not a kind that is used here: {kind} of {', '.join(sorted(meant))} is"


def _bounded(problems: list[Problem]) -> tuple[Problem, ...]:
    """Sort the problems of a file; of more than anybody will read, only the number is told."""
    told, more = sorted(problems)[:_MOST_PROBLEMS], len(problems) - _MOST_PROBLEMS
    if more > 0:
        told.append(Problem(told[-1].file, told[-1].line, "", f"from here on there are {more} more mistakes"))
    return tuple(told)


def named_object(raw: Mapping[str, Any], kinds: Kinds) -> Manifest | tuple[FieldError, ...]:
    """Read an object that a program wrote, not a file, of which only kind and name must be right; or the faults."""
    errors = tuple(_identity_errors(raw, kinds))
    if not errors and (raw["apiVersion"], raw["kind"]) not in kinds:
        errors = (FieldError(("kind",), f"{raw['kind']} of {raw['apiVersion']} is not a kind that is used here"),)
    return errors or _manifest(raw, line=0)


def field_errors(manifest: Manifest, kinds: Kinds) -> tuple[FieldError, ...]:
    """List the faults of an object whose kind and name are right."""
    return tuple(_field_errors(manifest, kinds[manifest.raw["apiVersion"], manifest.raw["kind"]]))


def still_valid(manifest: Manifest, kinds: Kinds) -> bool:
    """Whether a manifest that was good once still is: the rules may have changed with the program."""
    return (manifest.raw["apiVersion"], manifest.raw["kind"]) in kinds and not field_errors(manifest, kinds)


def _identity_errors(raw: Mapping[str, Any], kinds: Kinds) -> Iterator[FieldError]:
    """Faults of what every object has. Somebody else's kind needs a name, and no more is asked."""
    version, kind = raw.get("apiVersion"), raw.get("kind")
    wrong_type = [
        FieldError((name,), "is required" if value is None else "must be a string")
        for name, value in (("apiVersion", version), ("kind", kind))
        if not isinstance(value, str) or not value
    ]
    if wrong_type:
        yield from wrong_type
    elif (version, kind) in kinds:
        yield from _metadata_errors(raw.get("metadata"))
    else:
        yield from _kind_errors(str(version), str(kind), kinds)
        yield from _unnamed_errors(raw.get("metadata"))


def _kind_errors(version: str, kind: str, kinds: Kinds) -> Iterator[FieldError]:
    group = version.rpartition("/")[0]
    ours = group.endswith(_OUR_GROUPS)
    same_kind = [
        known
        for known, name in kinds
        if name == kind
        and (known.rpartition("/")[0] == group or (ours and known.rpartition("/")[0].endswith(_OUR_GROUPS)))
    ]
    if same_kind:
        yield FieldError(("apiVersion",), f"must be {same_kind[0]}, is {version}")
    elif ours:
        same_group = sorted({name for known, name in kinds if known.rpartition("/")[0] == group})
        yield FieldError(
            ("kind",),
            f"must be one of {', '.join(same_group)}, is {kind}"
            if same_group
            else f"{version} {kind} is not known here",
        )


def _unnamed_errors(metadata: object) -> Iterator[FieldError]:
    """Faults of an object of somebody else's kind: without any name it may be the beginning of one of ours."""
    if not isinstance(metadata, Mapping):
        yield from _metadata_errors(metadata)
    elif not (metadata.get("name") or metadata.get("generateName")):
        yield FieldError(("metadata", "name"), "is required")


def _metadata_errors(metadata: object) -> Iterator[FieldError]:
    if not isinstance(metadata, Mapping):
        yield FieldError(("metadata",), "is required" if metadata is None else "must be an object")
        return
    if metadata.get("name") in (None, ""):
        yield FieldError(("metadata", "name"), "is required")
    for field_name, pattern, longest in (("name", _SUBDOMAIN, 253), ("namespace", _LABEL, 63)):
        given = metadata.get(field_name) or None  # As in Go, where what is empty is absent.
        path = ("metadata", field_name)
        if given is not None and not isinstance(given, str):
            yield FieldError(path, "must be a string; quote it")
        elif given is not None and not (len(given) <= longest and pattern.fullmatch(given)):
            dots = " and dots" if pattern is _SUBDOMAIN else ""
            words = f"must be lower case letters, digits and dashes{dots}, at most {longest} characters"
            yield FieldError(path, words)
    for name in ("labels", "annotations"):
        entries = metadata.get(name)
        if entries is not None and not isinstance(entries, Mapping):
            yield FieldError(("metadata", name), "must be an object")
        for key, value in entries.items() if isinstance(entries, Mapping) else ():
            if not isinstance(value, str):
                yield FieldError(("metadata", name, key), "must be a string; quote it")


def _manifest(document: Mapping[str, Any], line: int) -> Manifest:
    given = document["metadata"]
    metadata = {key: value for key, value in given.items() if key not in _SERVER_FIELDS}
    metadata["namespace"] = given.get("namespace") or "default"
    raw = {key: value for key, value in document.items() if key != "status"} | {"metadata": metadata}
    return Manifest(ObjectRef.of(raw), raw, line)


def _field_errors(manifest: Manifest, validate: Validate) -> Iterator[FieldError]:
    for error in validate(manifest.raw):
        # The words of an error may quote the value.
        secret = manifest.ref.kind == SECRET.kind and error.path[:1] in {("data",), ("stringData",)}
        yield FieldError(error.path, "is not valid") if secret else error
