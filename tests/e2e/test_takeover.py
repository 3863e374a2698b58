"""`beamlit run --envoy` is killed and starts again: what its Envoy and its clients go through."""

from __future__ import annotations

import signal

from tests.support.beamlit import ask, eventually, no_request_fails
from tests.support.network import unused_port


async def test_the_envoy_of_a_killed_run_serves_on_until_the_next_run_takes_it_over(chat):
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        envoy = product.envoy_pid()
        async with no_request_fails(chat.port):
            product.kill()
            assert (await ask(chat.port)).side == "local"
            assert product.envoy_pid() == envoy
            await product.start("--envoy")
            await product.programmed("chat")
            # It does what it is told again.
            chat.save(ready=False)
            await eventually(lambda: ask(chat.port), lambda reply: reply.side == "remote")
        assert product.envoy_pid() == envoy
        assert await product.end(signal.SIGTERM) == 0
        assert product.processes() == {}


async def test_an_envoy_that_looks_for_the_control_plane_elsewhere_is_replaced(chat):
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        envoy = product.envoy_pid()
        product.kill()
        product.xds = f"127.0.0.1:{unused_port()}"
        await product.start("--envoy")

        async def pid() -> int:
            return product.envoy_pid()

        # Until it is stopped, the one before answers, and the status says what was acknowledged before.
        await eventually(pid, lambda pid: pid not in (0, envoy))
        await chat.served()
        assert product.envoy_pid() not in (0, envoy)


async def test_an_object_that_was_removed_meanwhile_is_gone_after_a_restart(chat):
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        product.kill()
        product.remove("chat.yaml")
        await product.start("--envoy")
        await eventually(lambda: product.status("chat"), {}.__eq__)
        await eventually(lambda: ask(chat.port), lambda reply: reply.error == "ConnectError")
