"""X51: a client that pings an idle connection, as Envoy does, keeps it."""

import asyncio

from h2.connection import H2Connection
from h2.events import ConnectionTerminated, PingAckReceived
from prometheus_client import CollectorRegistry

from tests.support.waiting import time_limit
from xds_server.snapshot.snapshot import EMPTY
from xds_server.stream.server.server import XdsServer

PINGS = 8  # without data in between; gRPC's default is to send a client away after the third


async def test_x51_a_client_that_pings_is_not_sent_away():
    server = XdsServer("token", lambda event: None, CollectorRegistry())
    port = await server.start("127.0.0.1:0")
    server.publish(EMPTY, frozenset())
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = H2Connection()
        client.initiate_connection()
        events = []
        for number in range(PINGS):
            client.ping(number.to_bytes(8, "big"))
            writer.write(client.data_to_send())
            async with time_limit():
                while len([one for one in events if isinstance(one, PingAckReceived)]) <= number:
                    data = await reader.read(4096)
                    events += client.receive_data(data)
                    assert data, f"after {number} pings the server sent the client away: {events}"
        writer.close()
    finally:
        await server.stop(0)
    assert not [one for one in events if isinstance(one, ConnectionTerminated)]
    assert len([one for one in events if isinstance(one, PingAckReceived)]) == PINGS
