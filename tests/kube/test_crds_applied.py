"""The definitions may be applied in either way that kubectl has, and in one after the other: it changes nothing."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import FOLDER, knows_field_paths

BY_CLIENT: tuple[str, ...] = ()
BY_SERVER = ("--server-side",)
PASSING_OVER = ("--validate=warn",)
"""By the client, what the API server does not know left out: the only way into Kubernetes 1.27."""


def apply_all(cluster: ApiServer, way: tuple[str, ...]) -> set[str]:
    """Apply them all, without force; say what became of them, in kubectl's words."""
    said = cluster.kubectl("apply", *way, f"--filename={FOLDER}").stdout.splitlines()
    return {line.partition(" ")[2] for line in said}


def generations(cluster: ApiServer) -> set[int]:
    """How often each was changed."""
    listed = json.loads(cluster.kubectl("get", f"--filename={FOLDER}", "--output=json").stdout)
    return {one["metadata"]["generation"] for one in listed["items"]}


@pytest.mark.parametrize(
    ("first", "second"), [(BY_CLIENT, BY_SERVER), (BY_SERVER, BY_CLIENT)], ids=["client", "server"]
)
def test_either_way_may_follow_the_other(
    bare_api_server: ApiServer, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    known = knows_field_paths(bare_api_server)
    if not known:
        for way in (first, second, (*BY_SERVER, *PASSING_OVER)):
            with pytest.raises(subprocess.CalledProcessError) as refused:
                apply_all(bare_api_server, way)
            assert "fieldPath" in refused.value.stderr
    for way in (first, second, first, second) if known else (PASSING_OVER, PASSING_OVER):
        apply_all(bare_api_server, way)
        # Who asks again is not told of a change that there is not, but for what is passed over each time.
        unchanged = {"unchanged"} if known else {"configured", "unchanged"}
        assert apply_all(bare_api_server, way) == ({"serverside-applied"} if way == BY_SERVER else unchanged)
        assert generations(bare_api_server) == {1}
