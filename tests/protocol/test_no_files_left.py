"""A program with as many open files as it may have: who is connected is served, few words are said, and it goes on."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

import grpc
import httpx

from tests.protocol.test_hostile_messages import CHECK
from tests.support.forked import Forked
from tests.support.http import plain_http
from tests.support.network import unused_port
from tests.support.waiting import until
from tests.support.xds_program import kubeconfig_of_nobody

HERE = "127.0.0.1"


def open_files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


async def is_alive(port: int) -> bool:
    async with plain_http(timeout=5) as client:
        try:
            return (await client.get(f"http://{HERE}:{port}/livez")).status_code == 200
        except httpx.TransportError:
            return False


async def test_it_is_survived_and_said_in_a_few_lines(tmp_path: Path):
    xds, admin, log = unused_port(), unused_port(), tmp_path / "log"
    addresses = ("--xds-address", f"{HERE}:{xds}", "--admin-address", f"{HERE}:{admin}")
    server = Forked(("xds-server", "--kubeconfig", kubeconfig_of_nobody(tmp_path), *addresses), log)
    try:
        await until(lambda: is_alive(admin), "it serves")
        async with grpc.aio.insecure_channel(f"{HERE}:{xds}") as channel:
            await channel.unary_unary(CHECK)(b"")
            most = open_files(server.pid) + 40
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
            with contextlib.ExitStack() as opened:
                # More at each address than there is room for, and fewer than it takes of one client.
                for port in (xds, admin) * 45:
                    opened.enter_context(socket.create_connection((HERE, port)))
                await until(lambda: open_files(server.pid) == most, "no file is left")
                await until(lambda: "(ulimit -n)" in log.read_text(), "it says so")
                assert await channel.unary_unary(CHECK)(b"")
            await until(lambda: is_alive(admin), "it takes connections again")
            assert await channel.unary_unary(CHECK)(b"")
        async with grpc.aio.insecure_channel(f"{HERE}:{xds}", [("grpc.use_local_subchannel_pool", 1)]) as another:
            assert await another.unary_unary(CHECK)(b"", wait_for_ready=True)
        assert len(log.read_text().splitlines()) < 60, log.read_text()
    finally:
        assert server.terminate() == 0
