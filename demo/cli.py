"""The command line of the demo, and its end: one exit code, no process left."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click

from demo.console import Console
from demo.process import DemoError
from demo.run import Options, run

INTERRUPTED = 130

EPILOG = """\b
Exit codes:
  0    no request failed
  1    some requests failed
  2    could not start, or a process of the demo ended on its own
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  python -m demo
  python -m demo --rate 120                 more load
  python -m demo --seconds 15               a shorter one
  python -m demo --output /tmp/demo.png     the plot elsewhere
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--seconds", type=click.FloatRange(9, 300), default=36.0, show_default=True, help="How long the load lasts."
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 500),
    default=80.0,
    show_default=True,
    help="Mean requests per second; the bursts of the trace are several times that.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("demo/output/demo.png"),
    show_default=True,
    help="Where the plot goes (PNG).",
)
def main(seconds: float, rate: float, output: Path) -> None:
    """Show the whole path on this machine, without Kubernetes.

    Starts three local model servers, a remote one, the control plane and a real Envoy; replays arrivals of a production
    trace, which do not wait for answers; kills every local server with SIGKILL under load and brings them back. Tells
    each second what happened and each change of the decision with its reason.
    """
    sys.exit(asyncio.run(_until_signalled(Options(seconds, rate, output))))


async def _until_signalled(options: Options) -> int:
    """Run the demo; SIGINT and SIGTERM cancel it, and it takes its processes down with it."""
    demo = asyncio.create_task(run(options, Console()))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, demo.cancel)
    try:
        return await demo
    except asyncio.CancelledError:
        click.echo("\ninterrupted; every process of the demo is gone", err=True)
        return INTERRUPTED
    except DemoError as error:
        click.secho(f"\n{error}", fg="red", err=True)
        return 2
