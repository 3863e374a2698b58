"""The body of a server-side apply, which the API server reads as YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# What YAML does not take as it is, or takes for the end of a line (YAML 1.1, sections 4.1.1 and 4.2.2).
_NOT_AS_IT_IS = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def applied(body: Mapping[str, Any]) -> bytes:
    """Write an object as JSON that is YAML too.

    JSON's usual way to write what lies beyond U+FFFF, as two escapes, is an error in YAML: it is written as it is.
    """
    text = json.dumps(body, ensure_ascii=False)
    return _NOT_AS_IT_IS.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
