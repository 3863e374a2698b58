"""`beamlit simulate`: what a model would have done in the past."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from controller.programs.simulation.replay import Law

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("-f", "--file", "manifest", type=_FILE, required=True, metavar="FILE", help="The ModelDeployment.")
@click.option("--signal", "history", type=_FILE, required=True, metavar="CSV", help="What was measured, and when.")
@click.option(
    "--law",
    type=click.Choice(["Threshold", "Proportional"]),
    help="In place of behavior.mode. Default: what the object says; Shadow is as Threshold.",
)
@click.option(
    "--window",
    type=click.FloatRange(0, 86400),
    default=0.0,
    metavar="SECONDS",
    help="What is measured is an average over so long, as metrics-server's or rate(x[1m]); a metric's own `window` "
    "goes before it. Default: 0, a number of one moment.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "plot"]), default="table", show_default=True, help="The form."
)
def simulate(manifest: Path, history: Path, law: Law | None, window: float, output: str) -> None:
    """Replay what was measured through the decision, and show when requests would have left and returned.

    The CSV file has a line of titles: `time` (seconds, or 2026-01-01T00:00:00Z), and a column for each metric with its
    name as `beamlit explain` shows it, such as `cpu` or the name of the metric; the values are those that the target
    is compared with, empty if unknown. Optional columns: `local_requests` and `remote_requests` since the line before,
    `ready` replicas, and with `maxRequestsPerReplica` also `Requests`: how many are in flight for each replica, of
    which tells how many leave for want of room. Requests are counted as the controller does, over ten seconds.

    What leaves in the simulation lowers what is measured, in proportion. A queue or a latency falls by more, so
    requests then return later in the simulation than they would.

    \b
    Examples:
      beamlit simulate -f model.yaml --signal monday.csv
      beamlit simulate -f model.yaml --signal monday.csv --law Proportional -o plot
      beamlit simulate -f model.yaml --signal monday.csv -o json | jq .summary

    \b
    Exit codes: 0 shown; 1 a file has a mistake, which is told with its line; 2 wrong usage.
    """
    from controller.programs.simulation.history import SimulationError  # noqa: PLC0415
    from controller.programs.simulation.replay import simulated  # noqa: PLC0415
    from controller.programs.simulation.shown import as_object, as_plot, as_table  # noqa: PLC0415

    try:
        moments = simulated(manifest, history, law, timedelta(seconds=window))
    except SimulationError as error:
        raise click.ClickException(str(error)) from None
    if output == "json":
        click.echo(json.dumps(as_object(moments), indent=2))
    else:
        click.echo(as_plot(moments) if output == "plot" else as_table(moments))
