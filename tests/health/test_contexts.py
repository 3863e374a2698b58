"""What checks speak TLS with is made once, in a thread, and is kept with a bound."""

import asyncio
import errno
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydantic import SecretStr

from controller.api.timing import CheckTiming
from tests.health.checked import LOOPBACK, backend, trusting
from tests.support.called import counting_calls
from tests.support.checked_servers import Authority, Talker, answer, connector_by
from xds_server.health.backend import Trust
from xds_server.health.contexts import TlsContexts
from xds_server.health.outcome import CheckError
from xds_server.health.probe import BackendProbe

READERS = ("load_verify_locations", "load_default_certs", "set_default_verify_paths", "load_cert_chain")


class Threads(ThreadPoolExecutor):
    """Counts what is done in threads."""

    def __init__(self):
        super().__init__(1)
        self.count = 0

    def submit(self, *arguments, **named):
        self.count += 1
        return super().submit(*arguments, **named)


@pytest.fixture
async def threads():
    """The threads of this loop."""
    with Threads() as made:
        asyncio.get_running_loop().set_default_executor(made)
        yield made


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.mark.parametrize("of_the_system", [False, True])
async def test_certificates_are_read_in_no_step_of_the_loop_and_once_for_all_checks(authority, threads, of_the_system):
    asking = Talker(answer(200))
    trust = trusting(authority, authority.client())
    if of_the_system:
        trust = replace(trust, authorities=None)
    async with asking.listening(tls=authority.server("models.test")) as port:
        connector = connector_by(LOOPBACK)
        probe = BackendProbe(backend(port, "/healthz", trust), connector)
        with counting_calls() as names:
            outcomes = [await probe.check() for _ in range(3)]
        assert [names[one] for one in READERS] == [0, 0, 0, 0]
        assert threads.count == 1
        assert [one.healthy for one in outcomes] == [not of_the_system] * 3
        # Another backend that trusts the same.
        other = BackendProbe(backend(port, "/other", trust), connector)
        assert (await other.check()).healthy is not of_the_system
        assert threads.count == 1


async def test_a_key_of_another_certificate_is_found_once(authority, threads):
    trust, contexts = trusting(authority, authority.client(with_key_of=Authority())), TlsContexts()
    for _ in range(3):
        with pytest.raises(CheckError, match="do not belong together"):
            await contexts.context_for(trust)
    assert threads.count == 1


async def test_authorities_that_cannot_be_read_are_told_and_read_once(threads):
    nothing = Trust("models.test", SecretStr("-----BEGIN CERTIFICATE-----"))
    probe = BackendProbe(backend(1, "/healthz", nothing), connector_by(LOOPBACK))
    for _ in range(3):
        told = await probe.check()
        assert (told.healthy, told.reason) == (False, "AuthoritiesNotUsable")
    assert threads.count == 1


async def test_what_is_trusted_and_what_is_shown_make_a_context_and_no_name_does(authority):
    contexts, mine = TlsContexts(), authority.client()
    trusts = [trusting(authority), trusting(Authority()), trusting(authority, mine), Trust("models.test")]
    made = [await contexts.context_for(one) for one in trusts]
    assert len({id(one) for one in made}) == 4
    assert [await contexts.context_for(one) for one in trusts] == made
    assert await contexts.context_for(trusting(authority, mine, "other.test")) is made[2]


async def test_those_that_were_used_last_are_kept(authority):
    contexts = TlsContexts(kept=2)
    first, second, third = trusting(authority), trusting(Authority()), trusting(Authority())
    kept = await contexts.context_for(first)
    gone = await contexts.context_for(second)
    assert await contexts.context_for(first) is kept
    await contexts.context_for(third)
    assert await contexts.context_for(first) is kept
    assert await contexts.context_for(second) is not gone


async def test_many_who_ask_at_once_have_one_made_also_if_the_first_does_not_wait(authority, threads):
    contexts, trust = TlsContexts(), trusting(authority)
    asking = [asyncio.create_task(contexts.context_for(trust)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    made = await asyncio.gather(*asking[1:])
    assert (len(set(map(id, made))), threads.count) == (1, 1)


async def test_who_waits_for_one_in_vain_learns_nothing_of_the_server_and_leaves_its_turn(authority, threads):
    """A check that takes long keeps others from being made."""
    timing = CheckTiming(connect=600.0, longest=0.05)
    probe = BackendProbe(backend(1, "/healthz", trusting(authority)), connector_by(LOOPBACK, timing))
    free = threading.Event()
    threads.submit(free.wait)
    try:
        assert await probe.check() is None
    finally:
        free.set()


class NoFiles(ThreadPoolExecutor):
    """Does everything in vain: the process has too many open files."""

    def submit(self, *arguments, **named):
        failed = Future()
        failed.set_exception(OSError(errno.EMFILE, "Too many open files"))
        return failed


async def test_that_none_can_be_made_is_no_fault_of_the_server(authority):
    asyncio.get_running_loop().set_default_executor(NoFiles(1))
    trust = trusting(authority)
    async with Talker(answer(200)).listening(tls=authority.server("models.test")) as port:
        with pytest.raises(OSError, match="Too many open files"):
            async with connector_by(LOOPBACK).connect(backend(port).address, trust, math.inf, ()):
                pass
