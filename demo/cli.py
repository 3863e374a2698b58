"""The command line of the demo, and its end: one exit code, no process left."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click

from demo.console import Console
from demo.probe import DemoError
from demo.run import Options, run
from tests.support.processes import ProcessEndedError

INTERRUPTED = 130

EPILOG = """\b
Exit codes:
  0    no request failed, and every promise was kept
  1    some requests failed, or a promise was broken
  2    could not start, or a process of the demo ended on its own
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  python -m demo
  python -m demo --short                    half as long
  python -m demo --output /tmp/demo.svg     the plot elsewhere, or as SVG
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--short", is_flag=True, help="Half a minute of load in place of a whole one.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("demo/output/demo.png"),
    show_default=True,
    help="Where the plot goes; its ending says the form (PNG, SVG).",
)
def main(short: bool, output: Path) -> None:
    """Show the whole path on this machine, without Kubernetes.

    Starts three local model servers with four places each, a remote one behind TLS and OAuth2, the control plane and a
    real Envoy; replays a production trace of requests, which do not wait for answers: a calm, a burst beyond what the
    local servers take, the death of all of them, their return, and the death of the remote one while they are full.
    Tells each half second what happened and each change of the decision with its reason.
    """
    sys.exit(asyncio.run(_until_signalled(Options(short, output))))


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
    except (DemoError, ProcessEndedError) as error:
        click.secho(f"\n{error}", fg="red", err=True)
        return 2
