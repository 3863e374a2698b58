"""The programs that `fork_server` forks: `beamlit` and those of the tests, and what they need to run."""

from __future__ import annotations

import asyncio
import gc
import importlib
from collections.abc import Sequence
from pathlib import Path

from controller.api.contract.route import ReplicaCheck
from controller.cli.main import main
from controller.install import crd
from tests.support.data_plane import model_server
from tests.support.forked import ELECTED, MODEL_SERVER
from tests.support.kube import elected
from tests.support.routes import A, a_remote, a_route_with, over_tls, ready, with_key, with_token
from xds_server.resources.access_log import AccessLog
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.stream.server import reflection

_IMPORTED = (
    "controller.programs.check",
    "controller.programs.controller",
    "controller.programs.gateway",
    "controller.programs.restore",
    "controller.programs.run",
    "controller.programs.status",
    "controller.programs.xds_server",
    # Those that are imported at use by what these import.
    "anyio._backends._asyncio",
    "kubernetes.aio.client.rest",
    "kubernetes.aio.config",
)


def make_ready() -> None:
    """Import what the commands import when they run, and work out what each of them would.

    Nothing of it may start a thread: fork(2) copies none.
    """
    for module in _IMPORTED:
        importlib.import_module(module)
    reflection.described()
    crd.definitions()
    _translate_a_route()
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, threads
    # What is there stays: no later collection looks at it, and its pages are shared.
    gc.collect()
    gc.freeze()


def _translate_a_route() -> None:
    """Have the generated classes of Envoy's API made ready, as each is when it is used first: a third of a start."""
    remotes = (
        a_remote("one.example", name="remote", tls=over_tls(ca="ca", certificate="own"), auth=with_token()),
        a_remote("two.example", name="remote-two", auth=with_key()),
    )
    check = ReplicaCheck(path="/health")
    settings = EnvoySettings(access_log=AccessLog.ALL, shared_port=80, installation="warm")
    for shares in ({"remote": 50}, {"remote": 30, "remote-two": 30}, {}):
        route = a_route_with(*remotes, shares=shares, health_check=check, max_requests_per_replica=8)
        Translator(settings).resources(A, route, ready("10.0.0.1"))


def run(program: str, arguments: Sequence[str], context: object) -> None:
    """Be one of the programs, with these arguments; `context` is the object of the command's context."""
    if program == MODEL_SERVER:
        model_server.main(*arguments)
    elif program == ELECTED:
        asyncio.run(elected.main(*arguments))
    else:
        main.main(list(arguments), program, obj=context)
