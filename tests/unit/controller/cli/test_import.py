"""What is imported when: `beamlit --help` answers at once, and no program loads what only an installation needs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("controller.cli.main", "pydantic"),
        ("controller.cli.main", "httpx"),
        ("controller.cli.main", "controller.api.registry"),
        ("controller.api.registry", "yaml"),
        ("controller.api.registry", "controller.install"),
    ],
)
def test_a_module_is_imported_without_another(module: str, without: str) -> None:
    program = f"import sys, {module}; sys.exit('{without}' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
