"""`beamlit check`: whether a cluster is ready for an install, and whether what is installed is well."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from controller.api.timing import Timing
from controller.cli.by_hand import WhileType
from controller.cli.options import CONTEXT, CONTROLLER_CLASS, KUBECONFIG, NAMESPACED, NAMESPACES, is_typed, timed
from controller.cli.place import DENIED, NO_ANSWER, NamespaceType

NOT_WELL = 1


@click.command()
@click.option("--pre", "before", is_flag=True, help="Before an install: can it be done here, and by you?")
@click.option("--wait", is_flag=True, help="Look again until nothing fails. What it waits for goes to standard error.")
@click.option("--timeout", type=WhileType(), default="5m", show_default=True, help="How long --wait waits, at most.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="The form."
)
@KUBECONFIG
@CONTEXT
@click.option(
    "-n",
    "--namespace",
    type=NamespaceType(),
    show_default="that of the Deployments found, else beamlit-system",
    help="Where it is installed.",
)
@NAMESPACES
@CONTROLLER_CLASS
@click.option(
    "--xds-service", type=NAMESPACED, help="The Service of the xDS servers. Default: what the controller has."
)
@click.option("--gateway-service", type=NAMESPACED, help="The Service of the Envoys. Default: the controller's.")
@click.option("--lease", type=NAMESPACED, help="The Lease of the controller. Default: the controller's.")
@click.option("--controller-account", type=NAMESPACED, help="The ServiceAccount of the controller.")
@click.option("--xds-server-account", type=NAMESPACED, help="The ServiceAccount of the xDS server.")
@timed
def check(
    kubeconfig: Path | None, context: str | None, output: str, timeout: timedelta, timing: Timing, **options: object
) -> None:
    """Look whether what is installed in a cluster is well, and say what to do where it is not.

    It looks at the API server, the custom resources, the rights of the programs, the controller, the xDS servers, the
    gateway, and every model with the Services and Secrets that it refers to. It reads, and changes nothing. What you
    have no right to see is `unseen`, which is no failure; no value of a Secret is ever read.

    What is installed is found by the Deployments that run `beamlit`. Where there are none, say where it is with the
    options.

    \b
    Examples:
      beamlit check --pre                       before an install
      beamlit check --wait                      after it: until all is well
      beamlit check -o json | jq '.findings[] | select(.result == "failed")'
      beamlit check -n my-namespace --context production

    \b
    Exit codes: 0 nothing failed; 1 something did (after --timeout, with --wait); 2 wrong usage; 3 the API server gives
    no answer, or it cannot be told where it is; 4 it does not know you.
    """
    from controller.programs.check import (  # noqa: PLC0415
        CheckOptions,
        ConfigurationError,
        checked,
        sought_of,
        stands_on,
    )

    before, wait = bool(options.pop("before")), bool(options.pop("wait"))
    if is_typed("timeout") and not wait:
        raise click.UsageError("--timeout is for --wait.")
    if before and (more := [name for name in options if name != "namespace" and is_typed(name)]):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in more)
        raise click.UsageError(f"{names}: before an install there is none of it; --pre takes -n alone.")
    looks = CheckOptions(timing, kubeconfig, context, before, timeout if wait else None, sought_of(options))
    try:
        report = checked(looks, lambda: datetime.now(UTC), lambda line: click.echo(f"beamlit: {line}", err=True))
    except ConfigurationError as error:
        click.echo(f"beamlit: {error}", err=True)
        raise SystemExit(NO_ANSWER) from error
    click.echo(json.dumps(report.as_object(), indent=2) if output == "json" else report.as_text().rstrip("\n"))
    cause = stands_on(report)
    codes = {None: 0 if report.is_well else NOT_WELL, "credentials": DENIED}
    raise SystemExit(codes.get(cause.check if cause else None, NO_ANSWER))
