"""What an Envoy is sent is valid, and betterproto2 itself would write it so."""

import functools
from pathlib import Path

import pytest
from envoy_data_plane.message_pool import default_message_pool

from tests.golden.runner import result_of
from tests.golden.test_golden import CASES
from tests.support.betterproto import packed_in
from xds_server.resources.encoding import encoded


@functools.cache
def written_alike(type_url: str, body: bytes) -> int:
    """Count a message and those packed in it, each of which is written alike; most are of several cases."""
    kind = default_message_pool.url_to_type.get(type_url)
    if kind is None:  # it is newer than the generated ones
        return 0
    message = kind.parse(body)
    assert encoded(message) == bytes(message)
    return 1 + sum(written_alike(one.type_url, one.value) for one in packed_in(message))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_message_is_valid_and_as_betterproto2_writes_it(case: Path) -> None:
    by_type = (await result_of(case)).snapshot.by_type
    counts = [written_alike(type_url, one.body) for type_url, found in by_type.items() for one in found.values()]
    assert sum(counts) >= sum(map(len, by_type.values()))
