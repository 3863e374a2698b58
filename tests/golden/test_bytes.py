"""What an Envoy is sent is valid, and betterproto2 itself would write it so."""

from pathlib import Path

import pytest

from tests.golden.runner import result_of
from tests.golden.test_golden import CASES
from tests.support.betterproto import messages_in
from xds_server.resources.encoding import encoded


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_message_is_valid_and_as_betterproto2_writes_it(case: Path) -> None:
    snapshot = (await result_of(case)).snapshot
    messages = [
        message
        for type_url, resources in snapshot.by_type.items()
        for one in resources.values()
        for message in messages_in(type_url, one.body)
    ]
    assert len(messages) >= sum(map(len, snapshot.by_type.values()))
    for message in messages:
        assert encoded(message) == bytes(message)
