"""`beamlit restore`: the way out of a takeover, without a controller."""

from __future__ import annotations

import click

from controller.api.schema.text import one_line, printable
from controller.cli.by_hand import WhileType
from controller.cli.options import (
    CONFIG,
    CONTEXT,
    CONTROLLER_CLASS,
    KUBECONFIG,
    NAMESPACED,
    NAMESPACES,
    is_typed,
    timed,
)
from controller.cli.place import DENIED, NO_ANSWER, NamespacedNameType, NamespaceType

NOT_ALL = 1
CONTROLLER_RUNS = 5


@click.command()
@click.argument("services", metavar="[[NAMESPACE/]SERVICE...]", nargs=-1, type=NamespacedNameType())
@click.option("--all", "everything", is_flag=True, help="Every Service that is taken over, and every finalizer.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--timeout", type=WhileType(), default="2m", show_default=True, help="How long it may take.")
@click.option(
    "--stop-controller",
    is_flag=True,
    help="First scale the Deployments that run `beamlit controller` to 0: one that runs would take over again.",
)
@KUBECONFIG
@CONTEXT
@click.option(
    "-n",
    "--namespace",
    type=NamespaceType(),
    show_default="that of the context, else default",
    help="The namespace of each SERVICE that is named without one.",
)
@CONFIG
@NAMESPACES
@CONTROLLER_CLASS
@click.option("--lease", type=NAMESPACED, help="The Lease of the controller. Default: those that statuses name.")
@timed
def restore(services: tuple[tuple[str | None, str], ...], namespaces: str | None, **options: object) -> None:
    """Give each SERVICE that was taken over back to its pods: as its owner wrote it, to the byte.

    Neither a controller nor custom resources need be there. It does what a controller does when a model is deleted:
    first the selector; then, once Kubernetes has every pod behind the Service again, our EndpointSlices; then the
    shadow Service. No request is lost. The finalizer is taken off models that are being deleted, with --all off all.

    It may be interrupted anywhere, and run again. While a controller runs it does nothing: that would take over again.
    --namespaces and --controller-class, or the --config of the controller, limit --all to what one controller has.

    \b
    Examples:
      beamlit restore --all --dry-run
      beamlit restore --all --stop-controller       before everything is uninstalled
      beamlit restore team/php-apache

    \b
    Exit codes: 0 restored, or nothing was taken over; 1 something is left (the message says what it waits for); 2 wrong
    usage; 3 the API server gives no answer, or it cannot be told where it is; 4 not allowed; 5 a controller runs; 130
    interrupted.
    """
    from controller.programs.restore import (  # noqa: PLC0415
        ConfigurationError,
        ConfigurationFileError,
        ForbiddenError,
        RestoreOptions,
        RestoreOutcome,
        StoreError,
        restored,
    )

    if bool(services) == bool(options["everything"]):
        raise click.UsageError("name the Services, or give --all.")
    if services and (is_typed("namespaces") or is_typed("config")):
        raise click.UsageError("--namespaces and --config are for --all; -n is the namespace of a SERVICE.")
    listed = tuple(name for one in (namespaces or "").split(",") if (name := one.strip()))
    wanted = RestoreOptions(services=services, namespaces=listed, **options)  # type: ignore[arg-type]
    try:
        outcome = restored(wanted, lambda line: click.echo(printable(line)))
    except ConfigurationFileError as error:
        raise click.ClickException(str(error)) from error
    except StoreError as error:
        click.echo(f"beamlit: {one_line(str(error))}", err=True)
        code = NO_ANSWER if isinstance(error, ConfigurationError) or not isinstance(error, ForbiddenError) else DENIED
        raise SystemExit(code) from error
    except KeyboardInterrupt:
        click.echo("beamlit: run it again to go on from here", err=True)
        raise
    codes = {RestoreOutcome.NOT_ALL: NOT_ALL, RestoreOutcome.CONTROLLER_RUNS: CONTROLLER_RUNS}
    raise SystemExit(codes.get(outcome, 0))
