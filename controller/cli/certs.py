"""`beamlit certs`: certificates for those who have nothing that makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.options import CONTEXT, HOST_PORT, KUBECONFIG, LOG_FORMAT, LOG_LEVEL, NAMESPACED, timed

if TYPE_CHECKING:
    from controller.programs.certificates import Wanted, Written

_SERVICE = "beamlit-xds"


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder: one below it for the authority, and one for each program. Its files are for this user alone.",
)
@click.option(
    "--secrets",
    type=NAMESPACED,
    metavar="NAMESPACE/PREFIX",
    help="Secrets in place of a folder: PREFIX-ca for the authority, PREFIX-gateway-tls and so on for the programs.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="With --secrets: make what is missing, renew what is due, and go on doing so.",
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
@click.option(
    "--admin-address",
    type=HOST_PORT,
    default="127.0.0.1:8081",
    show_default=True,
    help="With --keep: health, and metrics, which say when certificates end.",
)
@KUBECONFIG
@CONTEXT
@LOG_LEVEL
@LOG_FORMAT
@timed
def certs(
    out: Path | None,
    secrets: tuple[str, str] | None,
    clients: tuple[str, ...],
    server_names: tuple[str, ...],
    **options: Any,
) -> None:
    """Make the certificates by which the programs of a cluster know each other.

    The folder xds-server is for `beamlit xds-server`, gateway for `beamlit envoy`, controller for `beamlit controller`,
    reader for grpcurl; each has ca.crt, tls.crt and tls.key. Guard the folder ca: who has ca.key can be anybody.

    Run it again before --days are over, and give the programs their new files: all certificates are made anew, and
    programs that run use them for their next connection. An authority is replaced in two runs, the first with --new-ca,
    with the new files given to every program in between.

    With --secrets they are Secrets of a cluster, as pods mount them. With --keep nothing has to be run again: what has
    a third of its days left is renewed, and an authority is replaced in time, in two steps with a day in between.

    \b
    Examples:
      beamlit certs --out tls
      kubectl -n beamlit-system create secret generic beamlit-xds-tls --from-file=tls/xds-server
      beamlit certs --out tls --client gateway/edge-1 --server-name xds.example.com
      beamlit certs --secrets beamlit-system/beamlit

    \b
    Exit codes: 0 written, or stopped by a signal; 1 the folder or the Secrets cannot be used (the message says why); 2
    wrong usage.
    """
    from controller.programs.certificates import (  # noqa: PLC0415
        CertificatesError,
        Lifetimes,
        Wanted,
        parse_grants,
        write_certificates,
    )

    if (out is None) == (secrets is None):
        raise click.UsageError("give one of --out and --secrets.")
    if options["keep"] and (secrets is None or options["new_ca"]):
        raise click.UsageError("--keep is for --secrets, and replaces the authority by itself.")
    if options["keep"] and options["ca_days"] < 2 * options["days"]:
        raise click.UsageError("--ca-days is at least twice --days, so that an authority can be replaced in time.")
    namespace, _, name = str(options["xds_service"]).partition("/")
    if not namespace or not name:
        raise click.UsageError("--xds-service is NAMESPACE/NAME.")
    of_service = (f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local", f"{name}.{namespace}", name)
    names = (*of_service, "localhost", "127.0.0.1", "::1", *server_names)
    lifetimes = Lifetimes(timedelta(days=options["days"]), timedelta(days=options["ca_days"]))
    try:
        grants = parse_grants(dict.fromkeys(("gateway", "controller", "reader", *clients)))
        wanted = Wanted(tuple(dict.fromkeys(names)), grants, lifetimes, options["new_ca"])
        written = write_certificates(out, wanted, datetime.now(UTC)) if out else _in_cluster(secrets, wanted, options)
    except CertificatesError as error:
        raise click.ClickException(str(error)) from error
    for one in written:
        click.echo(f"{one.folder}: {one.what}")


def _in_cluster(place: tuple[str, str] | None, wanted: Wanted, options: dict[str, Any]) -> tuple[Written, ...]:
    from controller.programs.certificate_secrets import SecretsOptions, serve  # noqa: PLC0415

    assert place
    names = ("keep", "admin_address", "kubeconfig", "context", "log_level", "log_format", "timing")
    return serve(SecretsOptions(place, wanted, **{name: options[name] for name in names}))
