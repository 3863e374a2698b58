"""A program that may have few open files, and more connections than those."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.beamlit import Product, eventually
from tests.support.forked import Forked

SERVING = health_pb2.HealthCheckResponse.SERVING


with_few_files = partial(Forked, limits={resource.RLIMIT_NOFILE: (100, 300)})


async def health(product: Product) -> int | None:
    """What the xDS server says of itself to somebody who connects now."""
    async with grpc.aio.insecure_channel(product.xds) as channel:
        try:
            asked = health_pb2.HealthCheckRequest()
            return (await health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5)).status
        except grpc.aio.AioRpcError:
            return None


async def test_connections_leave_files_for_all_else_and_the_log_says_little(tmp_path):
    product = Product(tmp_path, with_few_files)
    async with product.running():
        await eventually(lambda: health(product), lambda status: status == SERVING)
        assert "process_max_fds 300.0" in (await product.look("/metrics")).text
        before = len(product.log().splitlines())
        host, _, port = product.xds.rpartition(":")
        with ExitStack() as stack:
            for _ in range(500):
                stack.enter_context(socket.create_connection((host, int(port))))
            assert (await product.look("/readyz")).text == "ok\n"  # which takes a file
            # Those that say nothing have five seconds, and then there is room.
            await eventually(lambda: health(product), lambda status: status == SERVING)
        assert len(product.log().splitlines()) - before <= 5
        assert "Traceback" not in product.log()
