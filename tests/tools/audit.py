"""What is known against the versions that are pinned, and a list of them: `make audit`.

pip-audit asks a source of advisories, cyclonedx-bom writes the list (SBOM). Whether there is a vulnerability, and
whether anybody could say so, are two things: without an answer nothing was checked, and that is said in as many words.

Exit codes: 0 nothing is known, or nobody answered; 1 a vulnerability is known; 2 nobody answered, with `--strict`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, ends_with_me

PINNED = ROOT / "requirements" / "runtime.txt"
READY = ROOT / ".venv" / "audit" / ".ready"
"""There once the two tools are installed: a target of the Makefile."""
PYTHON = READY.parent / "bin" / "python"
"""What has them."""
SBOM = ROOT / "dist" / "sbom.json"
SOURCES = ("osv", "pypi")
"""Who may be asked: OSV, which has what all others have, or the package index itself."""


def begin_to_install() -> subprocess.Popen[bytes]:
    """Install the two tools as `make audit` does, unless they are there. If that fails, there is no `READY`."""
    making = ("make", "--silent", str(READY.relative_to(ROOT)))
    return subprocess.Popen(ends_with_me(making), cwd=ROOT, start_new_session=True)


@dataclass(frozen=True)
class Advisories:
    """What a source says: each vulnerability in a line, of so many packages."""

    source: str
    packages: int
    found: tuple[str, ...]


def advisories_in(source: str, answer: str) -> Advisories | None:
    """Read what pip-audit prints; None if it is no report, since no source answered."""
    try:
        report: dict[str, Any] = json.loads(answer)
        packages = report["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    checked = [one for one in packages if "vulns" in one]
    found = tuple(
        f"{one['name']} {one['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or 'no version'}"
        for one in checked
        for known in one["vulns"]
    )
    return Advisories(source, len(checked), found)


def ask(
    source: str, pinned: Path = PINNED, environment: Mapping[str, str] = os.environ
) -> tuple[Advisories | None, str]:
    """Ask a source of advisories; return what it says or, without an answer, the last words of pip-audit."""
    command = (str(PYTHON), "-m", "pip_audit", "--requirement", str(pinned), "--disable-pip", "--require-hashes")
    how = ("--vulnerability-service", source, "--format", "json", "--progress-spinner", "off", "--timeout", "10")
    done = subprocess.run((*command, *how), capture_output=True, text=True, check=False, env=dict(environment))
    words = done.stderr.strip().splitlines() or ["it said nothing"]
    return advisories_in(source, done.stdout), words[-1]


def outcome(source: str, said: Advisories | None, words: str, *, strict: bool) -> tuple[int, str]:
    """Return the exit code and what to print."""
    if said is None:
        text = f"NOT CHECKED: {source} did not answer, so nothing is known of these versions ({words})"
        return 2 if strict else 0, text
    count = f"{source}: {len(said.found)} known vulnerabilities in {said.packages} packages"
    return 1 if said.found else 0, "\n".join((count, *(f"  {one}" for one in said.found)))


def write_sbom(path: Path = SBOM, pinned: Path = PINNED) -> int:
    """Write the list of what is pinned (CycloneDX, JSON); return how many packages there are."""
    path.parent.mkdir(exist_ok=True)
    command = (str(PYTHON), "-m", "cyclonedx_py", "requirements", str(pinned))
    how = ("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--output-file", str(path))
    subprocess.run((*command, *how), check=True)
    return len(json.loads(path.read_text())["components"])


def main() -> int:
    """Write the list, ask, and say what is known."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail also if no source of advisories answers")
    parser.add_argument("--source", choices=SOURCES, default=SOURCES[0], help="who is asked for advisories")
    options = parser.parse_args()
    print(f"SBOM: {SBOM.relative_to(ROOT)}, {write_sbom()} packages")
    code, text = outcome(options.source, *ask(options.source), strict=options.strict)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
