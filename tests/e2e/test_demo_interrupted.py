"""A demo that is interrupted, whatever it is doing, leaves no process and no file."""

from __future__ import annotations

import signal

import pytest

from tests.support.demo import read_until, start_demo
from tests.support.processes import processes_of

PATIENCE = 200
"""Seconds."""


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "start: three"),
        (signal.SIGINT, "start: beamlit run"),
        (signal.SIGINT, "SIGKILL to"),
        (signal.SIGTERM, "load:"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path, number, moment):
    with start_demo(tmp_path, "--short") as demo:
        read_until(demo, moment)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert processes_of(tmp_path) == {}
    assert list(tmp_path.glob("beamlit-demo-*")) == []
