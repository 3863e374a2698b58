"""What a document tells its readers to apply, as a test does what they do."""

from __future__ import annotations

import re
from pathlib import Path


def yaml_of(document: Path, word: str) -> str:
    """The YAML of the one block of a document that has this word, as it stands there."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (one for one in blocks if word in one)
    return str(block)
