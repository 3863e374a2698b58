"""Reads the files that have settled. Blocks, and parses: for a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from controller.store.directory.checking import FileContent, Kinds, check_file
from controller.store.directory.files import Stamp, UnreadableFileError, read_file
from controller.store.problem import Problem


def read_files(directory: Path, stamps: Mapping[str, Stamp | None], kinds: Kinds) -> dict[str, FileContent | None]:
    """What each file says, None for one that is gone (no stamp). Files that changed meanwhile are left out."""
    contents: dict[str, FileContent | None] = {}
    for file, stamp in sorted(stamps.items()):
        if stamp is None:
            contents[file] = None
            continue
        try:
            text = read_file(directory / file, stamp)
        except UnreadableFileError as error:
            contents[file] = FileContent(problems=(Problem(file, error.line, "", error.message),))
            continue
        if text is not None:
            contents[file] = check_file(file, text, kinds)
    return contents
