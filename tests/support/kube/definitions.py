"""Taking custom resource definitions away from an API server, with all objects of them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import httpx

from tests.support.kube.cluster import Cluster
from tests.support.waiting import Deadline

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_WITHIN = 60.0
"""Seconds; it takes a tenth of one, and five where there are objects."""
_TOUCHED_EVERY = 2.0
"""Seconds."""


def delete_definitions(cluster: Cluster, names: Iterable[str]) -> None:
    """Delete those of them that there are, and wait until they are gone.

    What deletes their objects in the API server may lose its place: when it fails, because the storage of the kind is
    not there yet, and at its next try meets a copy of the definition that is too old, it counts on a change to call it
    again, and passes over the only change that comes, its own. It would look again hours later. So who waits touches
    what remains. `kubectl delete` would wait in vain.
    """
    with cluster.client() as client:
        remaining = {name for name in names if _is_there(client.delete(f"{DEFINITIONS}/{name}"))}
        deadline, touched = Deadline(time.monotonic(), _WITHIN), time.monotonic()
        while remaining := {name for name in remaining if _is_there(client.get(f"{DEFINITIONS}/{name}"))}:
            now = time.monotonic()
            assert not deadline.has_passed(now), f"not deleted within {_WITHIN} s: {', '.join(sorted(remaining))}"
            if now >= touched + _TOUCHED_EVERY:
                touched = now
                for name in remaining:
                    _touch(client, name, str(now))
            time.sleep(0.05)


def _is_there(answer: httpx.Response) -> bool:
    """Whether there is such a definition; what else an answer may say is raised."""
    if answer.status_code == httpx.codes.NOT_FOUND:
        return False
    answer.raise_for_status()
    return True


def _touch(client: httpx.Client, name: str, now: str) -> None:
    _is_there(
        client.patch(
            f"{DEFINITIONS}/{name}",
            headers={"Content-Type": "application/merge-patch+json"},
            json={"metadata": {"annotations": {"tests/touched": now}}},
        )
    )
