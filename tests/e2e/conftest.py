"""The backends of a module's models, at addresses of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from controller.api.timing import EnvoyTiming
from tests.support.beamlit import Start
from tests.support.chat import Chat
from tests.support.data_plane.backends import Backends
from tests.support.forked import Forked
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.tools import audit

INSTALLING = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    """Begin to install what `make audit` runs once its tests are met: it takes longer than a test may, and nothing else
    is done in parallel while tests are collected."""
    config = parent.config
    if file_path.name == "test_audit.py" and not config.option.collectonly and INSTALLING not in config.stash:
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            config.stash[INSTALLING] = audit.begin_to_install()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have it installed before the first test starts, if any needs it."""
    if installing := session.config.stash.get(INSTALLING, None):
        used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
        if "audit_tools" not in used:
            os.killpg(installing.pid, signal.SIGKILL)
        installing.wait()


@pytest.fixture
def audit_tools() -> None:
    """The tools of `make audit`, see `pytest_collection_finish`."""
    assert audit.READY.exists(), "they could not be installed: what pip said stands where the run began"


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with Backends(Network.unused(), tmp_path_factory.mktemp("backends")).running() as backends:
        yield backends


@pytest.fixture
def ends_soon() -> Start:
    """Starts programs that look often whether an Envoy is idle, and wait for nobody to hang up."""
    timing = replace(PATIENT, envoy=EnvoyTiming(first_restart=0.1, drain_looks_every=0.05), shutdown=0.2)
    return partial(Forked, context=timing)


@pytest.fixture
def chat(tmp_path: Path, backends: Backends, ends_soon: Start) -> Chat:
    return Chat(tmp_path, backends, ends_soon)
