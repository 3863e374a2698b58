from __future__ import annotations

import subprocess
import sys


def test_the_client_library_is_not_imported_by_the_store_nor_by_the_command_line() -> None:
    """It takes more than a second, which `beamlit --help` would take longer."""
    program = "import sys, controller.cli.main, controller.store.kube; sys.exit('kubernetes' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
