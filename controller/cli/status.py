"""`beamlit status`: what `kubectl get modeldeployment` shows, without Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import yaml

from controller.api.schema.text import one_line, printable
from controller.api.timing import REAL, Timing
from controller.cli.options import timed
from controller.cli.place import (
    NO_ANSWER,
    NOT_FOUND,
    NamespacedNameType,
    NamespaceType,
    ServerType,
    in_one_namespace,
)

IN_A_CLUSTER = """\
beamlit: `beamlit status` shows the models of a `beamlit run`. Those of a cluster are shown by
beamlit:   kubectl get modeldeployments --all-namespaces"""

_NONE = "<none>"
_HEADINGS = ("NAMESPACE", "NAME", "MODEL", "READY", "PORT", "LOCAL", "SPLIT", "REASON", "AGE")


@click.command()
@click.argument("name", metavar="[[NAMESPACE/]NAME]", type=NamespacedNameType(), required=False)
@click.option(
    "-n",
    "--namespace",
    type=NamespaceType(),
    show_default="default, for a NAME; else all of them",
    help="The namespace of a NAME without one; without a NAME, only its models.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="The form."
)
@click.option(
    "--server",
    type=ServerType(),
    envvar="BEAMLIT_SERVER",
    default="http://127.0.0.1:19000",
    show_default=True,
    help="The admin address of `beamlit run`.",
)
@timed
def status(
    name: tuple[str | None, str] | None, namespace: str | None, output: str, server: str, timing: Timing
) -> None:
    """Show every model of a `beamlit run`, or the one called NAME: where its requests go, and why.

    In a cluster, kubectl shows the same: kubectl get modeldeployments --all-namespaces.

    \b
    Examples:
      beamlit status
      beamlit status -n team
      beamlit status php-apache -o yaml
      beamlit status -o json | jq '.[].status.split'

    \b
    Exit codes: 0 shown; 1 no such model; 2 wrong usage; 3 the server does not answer.
    """
    wanted = (namespace, "") if namespace else None
    if name:
        place, only = in_one_namespace(name, namespace)
        wanted = (place or "default", only)
    raise SystemExit(show(server, wanted, output, timing.status_answer))


def show(server: str, wanted: tuple[str, str] | None, output: str, longest: float = REAL.status_answer) -> int:
    """Print the models that `server` knows, or the one that is wanted; return the exit code.

    What is wanted is a namespace and a name; an empty name stands for all models there. Problems in the watched files
    go to standard error. The answer is waited for `longest` seconds.
    """
    from controller.programs.status import NoStatusError, fetch_status  # noqa: PLC0415

    try:
        found = fetch_status(server, longest)
    except NoStatusError as error:
        click.echo(f"beamlit: {one_line(str(error))}\n{IN_A_CLUSTER}", err=True)
        return NO_ANSWER
    for problem in found.problems:
        click.echo(f"beamlit: {one_line(str(problem))}", err=True)
    models = [one for one in found.models if _is_wanted(one["metadata"], wanted)]
    if wanted and wanted[1] and not models:
        click.echo(f"beamlit: there is no ModelDeployment {'/'.join(wanted)}", err=True)
        return NOT_FOUND
    click.echo(_rendered(models, output), nl=False)
    return 0


def _is_wanted(metadata: Mapping[str, Any], wanted: tuple[str, str] | None) -> bool:
    return wanted is None or (metadata["namespace"] == wanted[0] and wanted[1] in ("", metadata["name"]))


def _rendered(models: Sequence[Mapping[str, Any]], output: str) -> str:
    match output:
        case "json":
            return json.dumps(models, indent=2) + "\n"
        case "yaml":
            return str(yaml.safe_dump(models, sort_keys=False))
        case _:
            return table([_HEADINGS, *(row(one, datetime.now(UTC)) for one in models)])


def row(model: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    """Render the columns of one model."""
    metadata, status = model["metadata"], model.get("status", {})
    ready = next((one["status"] for one in status.get("conditions", ()) if one["type"] == "Ready"), "Unknown")
    local, split = status.get("local"), status.get("split")
    return (
        metadata["namespace"],
        metadata["name"],
        model["spec"]["model"],
        ready,
        str(status.get("servingPort", _NONE)),
        f"{local['ready']}/{local['total']}" if local else _NONE,
        f"{split['local']}/{split['remote']}" if split else _NONE,
        status.get("reason", _NONE),
        age(now - datetime.fromisoformat(metadata["creationTimestamp"])),
    )


def age(duration: timedelta) -> str:
    """Write an age as kubectl does: the largest unit, and the next one while that says something."""
    seconds = max(int(duration.total_seconds()), 0)
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m{seconds % 60}s" if seconds % 60 else f"{seconds // 60}m"
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    if seconds < 48 * 3600:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Align columns as kubectl does: three spaces between them."""
    rows = [tuple(map(printable, one)) for one in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip() + "\n" for one in rows
    )
