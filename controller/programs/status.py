"""Asking a `beamlit run` for its models: the client of `/status` at its admin address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx


class NoStatusError(Exception):
    """Nothing answers at the address, or not as `beamlit run` does; the message says which address and why."""


@dataclass(frozen=True, slots=True)
class ModelStatuses:
    """Every ModelDeployment as the store has it, and the problems in the watched files.

    By NAMESPACE/NAME, `files` says where each is defined, and `traffic` how many requests Envoys sent for it lately;
    `envoys` are reports on their routes. A server of an older version says none of it.
    """

    models: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    files: Mapping[str, str | None] = field(default_factory=dict)
    envoys: Sequence[Mapping[str, Any]] = ()
    traffic: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def fetch_status(server: str, timeout: float) -> ModelStatuses:
    """Ask the server at this URL; wait `timeout` seconds for its answer. Raises NoStatusError."""
    unlike = f"{server} does not answer as `beamlit run` does"
    try:
        # The server is near: a proxy of the environment is not for it.
        answer = httpx.get(f"{server.rstrip('/')}/status", timeout=timeout, trust_env=False)
        answer.raise_for_status()
        report = answer.json()
        return ModelStatuses(
            models=report["items"],
            problems=report["problems"],
            files=report.get("files", {}),
            envoys=report.get("envoys", ()),
            traffic=report.get("traffic", {}),
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoStatusError(f"{unlike}: {error}") from error
    except (KeyError, TypeError) as error:
        raise NoStatusError(f"{unlike}: it is another program") from error
