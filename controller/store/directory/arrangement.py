"""Which file holds each object, when any number of files may claim it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.store.directory.checking import FileContent, Manifest
from controller.store.objects import ObjectRef
from controller.store.problem import Problem


@dataclass(frozen=True, slots=True)
class Claim:
    """An object as one file gives it."""

    file: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The claim that counts for each object, and a problem for every claim that does not."""

    held: Mapping[ObjectRef, Claim]
    conflicts: tuple[Problem, ...]


def arrange(files: Mapping[str, FileContent], holders: Mapping[ObjectRef, str]) -> Arrangement:
    """Give each object to the file that held it (`holders`); when that claims it no more, to the first by path.

    Within a file the first document counts.
    """
    claims: dict[ObjectRef, list[Claim]] = {}
    for file in sorted(files):
        for manifest in files[file].manifests:
            claims.setdefault(manifest.ref, []).append(Claim(file, manifest))
    held = {ref: _winner(several, holders.get(ref)) for ref, several in claims.items()}
    conflicts = (
        _conflict(claim, held[ref]) for ref, several in claims.items() for claim in several if claim is not held[ref]
    )
    return Arrangement(held, tuple(conflicts))


def _winner(claims: list[Claim], holder: str | None) -> Claim:
    return next((claim for claim in claims if claim.file == holder), claims[0])


def _conflict(claim: Claim, winner: Claim) -> Problem:
    message = f"{claim.manifest.ref} is already given in {winner.file}:{winner.manifest.line}, which counts"
    return Problem(claim.file, claim.manifest.line, "metadata.name", message)
