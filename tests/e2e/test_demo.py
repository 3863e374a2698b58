"""`make demo` as a user sees it, in half the time: no failed request, every promise kept."""

from __future__ import annotations

import pytest

from tests.support.demo import start_demo
from tests.support.processes import processes_of

pytestmark = pytest.mark.timeout(300)


def test_no_request_fails_and_nothing_is_left(tmp_path):
    with start_demo(tmp_path, "--short") as demo:
        output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, output
    assert processes_of(tmp_path) == {}
    lines = output.splitlines()
    (load,) = (line for line in lines if line.startswith("load: "))
    planned, sent = int(load.split()[1]), int(lines[-1].split()[2])
    assert lines[-1] == f"0 of {sent} requests failed"
    # Where servers take long to start, the load goes on meanwhile.
    assert sent >= planned > 700
    assert "SIGKILL to local-1, local-2, local-3 with " in output
    assert "SIGKILL to remote with " in output
    assert "100/0 -> 0/100, LocalDown: " in output
    assert sum(line.startswith("kept ") for line in lines) == 8
    assert "BROKEN" not in output
    assert sum(line.endswith((" Steady", " Overflow")) for line in lines) > 20  # the live view
    # What a newcomer sees first: many leave, and the line says why.
    assert any(line.endswith("100/0 Overflow") for line in lines)
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
