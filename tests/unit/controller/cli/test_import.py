"""What is imported when: `beamlit --help` answers at once, and no program loads what only an installation needs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("controller.cli.main", {"pydantic", "httpx", "controller.api.registry"}),
        ("controller.api.registry", {"yaml", "controller.install"}),
        # It takes more than a second, which `beamlit --help` would take longer.
        ("controller.cli.main, controller.store.kube", {"kubernetes"}),
    ],
    ids=["the command line", "the registry", "the command line and the store"],
)
def test_modules_are_imported_without_others(modules: str, without: set[str]) -> None:
    program = f"import sys, {modules}; sys.exit(' '.join({without} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
