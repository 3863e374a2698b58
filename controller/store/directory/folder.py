"""What the files of the folder say: which of them defines each object, when any number may claim it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from controller.api.timing import FolderTiming
from controller.store.directory.checking import FileContent, Kinds, Manifest, still_valid
from controller.store.manifest.framing import lines_in
from controller.store.manifest.manifest import Problem
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Claim:
    """An object as one file gives it."""

    file: str
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.file}:{self.manifest.line}"


@dataclass(frozen=True, slots=True)
class Definitions:
    """The claim that counts for each object, and a problem for every claim that does not."""

    claims: Mapping[ObjectRef, Claim]
    conflicts: tuple[Problem, ...]


def resolve_claims(files: Mapping[str, FileContent], defined_in: Mapping[ObjectRef, str]) -> Definitions:
    """Let each object be defined by the file that did before; when that claims it no more, by the first by path.

    Within a file the first document counts.
    """
    claims: dict[ObjectRef, list[Claim]] = {}
    for file in sorted(files):
        for manifest in files[file].manifests:
            claims.setdefault(manifest.ref, []).append(Claim(file, manifest))
    winners = {ref: _winner(several, defined_in.get(ref)) for ref, several in claims.items()}
    conflicts = (
        _conflict(claim, winners[ref])
        for ref, several in claims.items()
        for claim in several
        if claim is not winners[ref]
    )
    return Definitions(winners, tuple(conflicts))


def _winner(claims: list[Claim], file: str | None) -> Claim:
    return next((claim for claim in claims if claim.file == file), claims[0])


def _conflict(claim: Claim, winner: Claim) -> Problem:
    message = f"{claim.manifest.ref} is already given in {winner}, which counts"
    return Problem(claim.file, claim.manifest.line, "metadata.name", message)


class Folder:
    """The files whose content was accepted. Begins with those of the last run, as far as they are still valid."""

    def __init__(self, files: Mapping[str, tuple[Manifest, ...]], kinds: Kinds, timing: FolderTiming) -> None:
        self._timing = timing
        self._contents = {
            file: FileContent(tuple(manifest for manifest in manifests if still_valid(manifest, kinds)))
            for file, manifests in files.items()
        }
        self._definitions = Definitions({}, ())

    @property
    def files(self) -> Collection[str]:
        """The files that are known."""
        return self._contents.keys()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files, in the order of files and lines."""
        problems = [problem for content in self._contents.values() for problem in content.problems]
        return tuple(sorted((*problems, *self._definitions.conflicts)))

    @property
    def manifests(self) -> Mapping[str, tuple[Manifest, ...]]:
        """The last good manifests of each file. A copy: it may be written by another thread."""
        return {file: content.manifests for file, content in self._contents.items() if content.manifests}

    def claim(self, ref: ObjectRef) -> Claim | None:
        """Return what defines an object, as of the last time that this was decided; None if no file does."""
        return self._definitions.claims.get(ref)

    def content(self, file: str) -> FileContent:
        """Return what a file says, nothing for one that is not there."""
        return self._contents.get(file, FileContent())

    def quiet_periods(self, contents: Mapping[str, FileContent | None]) -> dict[str, float]:
        """Seconds that each of these new contents (None: the file is gone) must rest before it is accepted.

        One that is the beginning of what it was, or drops an object which no file would give any more, needs more, one
        without any document the most.
        """
        after = self._contents | {file: self._effective(file, content) for file, content in contents.items()}
        left = {manifest.ref for content in after.values() for manifest in content.manifests}
        needed = {}
        for file, content in contents.items():
            before = self.content(file)
            if all(manifest.ref in left for manifest in before.manifests) and not _is_cut(after[file], before):
                needed[file] = self._timing.quiet
            elif content == FileContent():
                needed[file] = self._timing.emptied
            else:
                needed[file] = self._timing.losing
        return needed

    def accept(self, file: str, content: FileContent | None) -> None:
        """Accept a file as it is now. One with problems keeps its last good manifests; None is a file that is gone."""
        if content is None:
            self._contents.pop(file, None)
        else:
            self._contents[file] = self._effective(file, content)

    def define(self) -> Mapping[ObjectRef, Claim]:
        """Decide which file defines each object."""
        before = {ref: claim.file for ref, claim in self._definitions.claims.items()}
        self._definitions = resolve_claims(self._contents, before)
        return self._definitions.claims

    def _effective(self, file: str, content: FileContent | None) -> FileContent:
        if content is None:
            return FileContent()
        before = self.content(file)
        if not content.problems and _is_cut(content, before):
            if _ends_line(before) and not _ends_line(content):
                content = replace(content, problems=(Problem(file, lines_in(content.text) + 1, "", _CUT_SHORT),))
            elif line := _begun_value(content.text):
                content = replace(content, problems=(Problem(file, line, "", _CUT_OFF),))
        if content.problems:
            return replace(content, manifests=before.manifests, text=before.text)
        return content


_CUT_SHORT = (
    "was cut short, or needs a line break at its end: it is the beginning of what it said, and ends amid a line"
)

_CUT_OFF = (
    "was cut short, or needs a value at its end, such as [], {} or null: it is the beginning of what it said, and ends "
    "where a value is to follow"
)

# What a value follows, on its line or below: a key, a dash, and before a text of several lines its style. Where nothing
# follows, YAML has null or an empty text.
_BEGINS_A_VALUE = re.compile(r"(?::|(?:^|\s)-)(?:\s+[&!]\S*)*(?:\s+[|>][-+0-9]*)?$")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_LONGEST_BEGINNING = 300  # Characters: an anchor or a tag may stand between.


def _begun_value(text: str) -> int:
    """Return the last line with anything on it if a value is to follow there, else 0."""
    lines = text.splitlines()
    for number in range(len(lines), 0, -1):
        if words := _COMMENT.sub("", lines[number - 1]).rstrip():
            return number if _BEGINS_A_VALUE.search(words[-_LONGEST_BEGINNING:]) else 0
    return 0


def _is_cut(content: FileContent, before: FileContent) -> bool:
    """Whether a text is the beginning of what the file said before, with less in it."""
    text = content.text.rstrip()
    return bool(text) and before.text.startswith(content.text) and text != before.text.rstrip()


def _ends_line(content: FileContent) -> bool:
    return content.text.endswith(("\n", "\r"))
