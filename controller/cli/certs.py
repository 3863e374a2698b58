"""`beamlit certs`: certificates for those who have nothing that makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

_SERVICE = "beamlit-xds"


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder: one below it for the authority, and one for each program. Its files are for this user alone.",
)
@click.option(
    "--xds-service",
    metavar="NAMESPACE/NAME",
    default=f"beamlit-system/{_SERVICE}",
    show_default=True,
    help="The Service of the xDS servers: its names are those of their certificate, beside localhost.",
)
@click.option(
    "--server-name", "server_names", multiple=True, help="A further DNS name or IP address of the xDS servers."
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="GRANT",
    help="A further client: gateway/NODE, sidecar/NAMESPACE[/NODE].",
)
@click.option("--days", type=click.IntRange(1, 825), default=90, show_default=True, help="How long certificates hold.")
@click.option(
    "--ca-days", type=click.IntRange(1, 3650), default=1825, show_default=True, help="How long an authority holds."
)
@click.option("--new-ca", is_flag=True, help="Make another authority. It signs from the next run on.")
def certs(out: Path, clients: tuple[str, ...], server_names: tuple[str, ...], **options: object) -> None:
    """Make the certificates by which the programs of a cluster know each other.

    The folder xds-server is for `beamlit xds-server`, gateway for `beamlit envoy`, controller for `beamlit controller`,
    reader for grpcurl; each has ca.crt, tls.crt and tls.key. Guard the folder ca: who has ca.key can be anybody.

    Run it again before --days are over, and give the programs their new files: all certificates are made anew, and
    programs that run use them for their next connection. An authority is replaced in two runs, the first with --new-ca,
    with the new files given to every program in between.

    \b
    Examples:
      beamlit certs --out tls
      kubectl -n beamlit-system create secret generic beamlit-xds-tls --from-file=tls/xds-server
      beamlit certs --out tls --client gateway/edge-1 --server-name xds.example.com

    \b
    Exit codes: 0 written; 1 the folder cannot be used (the message says why); 2 wrong usage.
    """
    from controller.programs.certificates import (  # noqa: PLC0415
        CertificatesError,
        Lifetimes,
        Wanted,
        parse_grants,
        write_certificates,
    )

    namespace, _, name = str(options["xds_service"]).partition("/")
    if not namespace or not name:
        raise click.UsageError("--xds-service is NAMESPACE/NAME.")
    of_service = (f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local", f"{name}.{namespace}", name)
    names = (*of_service, "localhost", "127.0.0.1", "::1", *server_names)
    lifetimes = Lifetimes(timedelta(days=int(str(options["days"]))), timedelta(days=int(str(options["ca_days"]))))
    try:
        grants = parse_grants(dict.fromkeys(("gateway", "controller", "reader", *clients)))
        wanted = Wanted(tuple(dict.fromkeys(names)), grants, lifetimes, bool(options["new_ca"]))
        written = write_certificates(out, wanted, datetime.now(UTC))
    except CertificatesError as error:
        raise click.ClickException(str(error)) from error
    for one in written:
        click.echo(f"{one.folder}: {one.what}")
