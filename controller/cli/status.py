"""`beamlit status`: what `kubectl get modeldeployment` shows, without Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import httpx
import yaml

from controller.api.timing import REAL

NOT_FOUND = 1
NO_ANSWER = 3

_NONE = "<none>"
_HEADINGS = ("NAMESPACE", "NAME", "MODEL", "READY", "LOCAL", "SPLIT", "REASON", "AGE")


def show(server: str, wanted: tuple[str, str] | None, output: str, longest: float = REAL.status_answer) -> int:
    """Print the models that `server` knows, or the one that is wanted; return the exit code.

    Problems in the watched files go to standard error. The answer is waited for `longest` seconds.
    """
    try:
        answer = httpx.get(f"{server.rstrip('/')}/status", timeout=longest, trust_env=False)
        answer.raise_for_status()
        report = answer.json()
        problems, items = report["problems"], report["items"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        click.echo(f"beamlit: {server} does not answer as `beamlit run` does: {error}", err=True)
        return NO_ANSWER
    except (KeyError, TypeError):
        click.echo(f"beamlit: {server} does not answer as `beamlit run` does: it is another program", err=True)
        return NO_ANSWER
    for problem in problems:
        click.echo(f"beamlit: {problem}", err=True)
    models = [one for one in items if wanted in (None, (one["metadata"]["namespace"], one["metadata"]["name"]))]
    if wanted and not models:
        click.echo(f"beamlit: there is no ModelDeployment {'/'.join(wanted)}", err=True)
        return NOT_FOUND
    click.echo(_rendered(models, output), nl=False)
    return 0


def _rendered(models: list[dict[str, Any]], output: str) -> str:
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
        f"{local['ready']}/{local['total']}" if local else _NONE,
        f"{split['local']}/{split['remote']}" if split else _NONE,
        split["reason"] if split else _NONE,
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
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip() + "\n" for one in rows
    )
