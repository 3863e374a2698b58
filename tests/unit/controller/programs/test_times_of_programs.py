"""The times that a program is given are those that its parts have, whichever they are."""

import asyncio
import gc
import socket
import types
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import fields

from aiohttp import web
from click.testing import CliRunner

from controller.api.timing import (
    CheckTiming,
    EnvoyTiming,
    EventTiming,
    FolderTiming,
    GatewayTiming,
    KubeTiming,
    LeaseTiming,
    Limits,
    ReportTiming,
    StatusTiming,
    StreamTiming,
    TakeoverTiming,
    Timing,
)
from controller.cli.main import main
from controller.programs import controller as controller_program
from controller.programs import run
from controller.programs import xds_server as xds_program
from controller.programs.admin import Admin
from controller.programs.state import StateDirectory
from tests.support.xds_program import ANYWHERE, kubeconfig_of_nobody, xds_options

GIVEN = Timing(
    lease=LeaseTiming(release=0.5),
    writes=Limits(at_once=7),
    statuses=StatusTiming(first_rest=2),
    events=EventTiming(flush=0.5),
    reports=ReportTiming(pause=0.3),
    folder=FolderTiming(quiet=0.2),
    kube=KubeTiming(connect=4),
    streams=StreamTiming(settle=2),
    gateway=GatewayTiming(departed=4),
    checks=CheckTiming(in_doubt=2),
    envoy=EnvoyTiming(readiness_every=0.4),
    takeover=TakeoverTiming(first_rest=0.4),
    shutdown=0.25,
)
OF_COMMANDS = ("shutdown", "status_answer", "status_looked_at_every")
GROUPS = tuple(type(getattr(GIVEN, one.name)) for one in fields(GIVEN) if one.name not in OF_COMMANDS)
# What leads from one part of a program to another, besides the parts. Modules and classes belong to every program.
BETWEEN = (dict, tuple, list, set, types.MethodType, types.CellType, types.CoroutineType, asyncio.Task, web.RouteDef)


def parts_of(program: AbstractAsyncContextManager) -> Collection[object]:
    """What a program that runs is made of: all that can be reached from what it holds, but not through its options."""
    found, left = {}, [program.gen.ag_frame.f_locals]
    while left:
        one = left.pop()
        if id(one) in found or isinstance(one, Timing):
            continue
        found[id(one)] = one
        # Of a function only what it encloses: its globals are everybody's.
        near = one.__closure__ or () if isinstance(one, types.FunctionType) else gc.get_referents(one)
        left += (
            other
            for other in near
            if isinstance(other, (*BETWEEN, types.FunctionType))
            or (type(other).__module__.startswith(("controller.", "xds_server.")) and not isinstance(other, type))
        )
    return found.values()


async def times_of(program: AbstractAsyncContextManager) -> set[object]:
    """The groups of times that its parts have, and how long its admin address has to end."""
    async with program:
        parts = parts_of(program)
        return {one for one in parts if isinstance(one, GROUPS)} | {
            one.shutdown for one in parts if isinstance(one, Admin)
        }


async def test_run(tmp_path):
    (tmp_path / "models").mkdir()
    options = run.Options(
        directory=tmp_path / "models",
        state=StateDirectory(tmp_path / "state"),
        insecure_xds=False,
        with_envoy=False,
        xds_address=ANYWHERE,
        gateway_address="127.0.0.1",
        envoys=1,
        admin_address=ANYWHERE,
        config=None,
        remote_checks=True,
        gateway_port=None,
        access_log="off",
        drain_seconds=0,
        log_level="error",
        log_format="text",
        timing=GIVEN,
    )
    assert await times_of(run._programs(options, asyncio.Event())) == {
        GIVEN.folder,
        GIVEN.writes,
        GIVEN.statuses,
        GIVEN.reports,
        GIVEN.streams,
        GIVEN.gateway,
        GIVEN.checks,
        GIVEN.shutdown,
    }


async def test_xds_server(tmp_path):
    options = xds_options(tmp_path, remote_checks=True, timing=GIVEN)
    assert await times_of(xds_program._programs(options)) == {
        GIVEN.kube,
        GIVEN.reports,
        GIVEN.streams,
        GIVEN.gateway,
        GIVEN.checks,
        GIVEN.shutdown,
    }


async def test_controller(tmp_path):
    options = controller_program.ControllerOptions(
        config=None,
        overrides={"metrics_addr": "0", "probe_addr": "0"},
        kubeconfig=kubeconfig_of_nobody(tmp_path),
        context=None,
        lease=("default", "lease"),
        gateway_service=None,
        xds_service=("default", "xds"),
        xds_replicas=(),
        tls=None,
        log_level="error",
        log_format="text",
        timing=GIVEN,
    )
    assert await times_of(controller_program._programs(options)) == {
        GIVEN.lease,
        GIVEN.writes,
        GIVEN.statuses,
        GIVEN.events,
        GIVEN.reports,
        GIVEN.kube,
        GIVEN.takeover,
        GIVEN.shutdown,
    }


def test_a_command_has_the_times_that_main_was_given():
    """Of a server that says nothing; with the real times a test would wait as long as somebody who looks at it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments = ["status", "--server", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        ended = CliRunner().invoke(main, arguments, obj=Timing(status_answer=0.01))
    assert (ended.exit_code, "timed out" in ended.output) == (3, True)
