"""A benchmark from its start to its end, however it ends: by its goals, by a signal, or as it could not run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterable
from typing import Any

import click

from benchmarks.proxies.envoys import CannotRunError
from controller.gateway.process import NoEnvoyError
from tests.support.processes import ProcessEndedError

INTERRUPTED = 130


async def until_signalled(work: Coroutine[Any, Any, int]) -> int:
    """Run; SIGINT and SIGTERM cancel it, and it takes its processes down with it. Return the exit code."""
    benchmark = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, benchmark.cancel)
    try:
        return await benchmark
    except asyncio.CancelledError:
        click.echo("\ninterrupted; every process of the benchmark is gone", err=True)
        return INTERRUPTED
    except (CannotRunError, NoEnvoyError, ProcessEndedError, OSError) as error:
        click.secho(f"\ncould not run: {error}", fg="red", err=True)
        return 2


def judged(goals: Iterable[tuple[bool, str]]) -> int:
    """Print each goal with whether it is met, as `make bench NAME=all` reads it; return the exit code."""
    code = 0
    for is_met, words in goals:
        click.echo(f"{'met' if is_met else 'missed':<7}{words}")
        code = code if is_met else 1
    return code
