"""Who may ask at the admin address."""

import httpx
import pytest

from controller.gateway.bootstrap import HostPort
from controller.programs.admin import Admin, process_registry
from controller.programs.metrics_page import ProgramRegistry


async def answer(bound: str, asked: str) -> httpx.Response:
    """What somebody gets who asks the port of an admin address for this name."""
    admin = Admin(not_ready=lambda: None, metrics=ProgramRegistry())
    async with (
        admin.served("--admin-address", HostPort(bound, 0)) as port,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        return await client.get(f"http://127.0.0.1:{port}/livez", headers={"Host": asked.format(port=port)})


@pytest.mark.parametrize("asked", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LOCALHOST", "127.0.0.2"])
async def test_on_the_loopback_interface_whoever_asks_for_this_host_is_answered(asked):
    assert (await answer("127.0.0.1", asked)).text == "ok\n"


@pytest.mark.parametrize("asked", ["evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "[", ""])
async def test_a_page_of_the_web_whose_name_resolves_to_this_host_reads_nothing(asked):
    refused = await answer("127.0.0.1", asked)
    assert (refused.status_code, refused.text.partition(":")[0]) == (403, "this address is for programs of this host")


async def test_where_others_may_ask_they_use_any_name():
    assert (await answer("0.0.0.0", "xds-server.beamlit.svc")).text == "ok\n"


async def test_the_metrics_are_answered_whole_and_their_head_without_them():
    admin = Admin(not_ready=lambda: None, metrics=process_registry("x"))
    async with (
        admin.served("--admin-address", HostPort("127.0.0.1", 0)) as port,
        httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client,
    ):
        head, whole = await client.head("/metrics"), await client.get("/metrics")
    assert (head.text, head.headers["Content-Type"]) == ("", whole.headers["Content-Type"])
    assert len(whole.content) == int(whole.headers["Content-Length"])
    assert whole.text.endswith("\n")
    assert 'beamlit_build_info{program="x"' in whole.text
