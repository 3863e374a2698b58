"""The definitions may be applied in either way that kubectl has, and in one after the other: it changes nothing."""

from __future__ import annotations

import json

import pytest

from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import FOLDER, knows_field_paths

BY_CLIENT: tuple[str, ...] = ()
BY_SERVER = ("--server-side",)


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
    if not knows_field_paths(bare_api_server):
        pytest.skip("this version takes the definitions with --validate=warn alone, and by the client")
    for way in (first, second, first, second):
        apply_all(bare_api_server, way)
        # Who asks again is not told of a change that there is not.
        assert apply_all(bare_api_server, way) == ({"serverside-applied"} if way else {"unchanged"})
        assert generations(bare_api_server) == {1}
