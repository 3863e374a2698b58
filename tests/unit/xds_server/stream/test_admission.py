"""Whose turn it is, and who has to leave so that others may come."""

import asyncio
import itertools

import pytest

from tests.support.waiting import PATIENCE
from xds_server.stream.admission import (
    STREAMS_OF_AN_ADDRESS,
    STREAMS_OF_STRANGERS,
    ClientAdmission,
    SilentError,
    TooManyStreamsError,
)


async def never():
    await asyncio.Event().wait()


async def test_of_too_many_streams_that_say_nothing_the_one_that_waited_longest_ends():
    admission, said = ClientAdmission("token", most_silent=2), asyncio.Event()

    async def says_something_at_last():
        await said.wait()
        return "hello"

    first = asyncio.create_task(admission.first_word(never, PATIENCE))
    await asyncio.sleep(0)
    second = asyncio.create_task(admission.first_word(says_something_at_last, PATIENCE))
    await asyncio.sleep(0)
    third = asyncio.create_task(admission.first_word(never, PATIENCE))
    with pytest.raises(SilentError, match="while 2 others came"):
        await first
    said.set()
    assert await second == "hello"
    assert await admission.first_word(says_something_at_last, PATIENCE) == "hello"
    assert not third.done()
    third.cancel()


async def test_a_stream_that_says_nothing_for_too_long_ends():
    with pytest.raises(SilentError, match=r"nothing for 0\.01 s"):
        await ClientAdmission("token").first_word(never, 0.01)


async def test_large_answers_are_packed_for_a_few_strangers_at_a_time_and_for_all_others_at_once():
    admission, enough = ClientAdmission("token"), asyncio.Event()
    inside = dict.fromkeys(("member", "small", "large"), 0)

    async def answer(kind, trusted, size):
        async with admission.room_for(trusted, size):
            inside[kind] += 1
            await enough.wait()
        inside[kind] -= 1

    kinds = (("member", True, 1 << 30), ("small", False, 1000), ("large", False, 1 << 20))
    answers = [asyncio.create_task(answer(*kind)) for kind, _ in itertools.product(kinds, range(10))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert inside == {"member": 10, "small": 10, "large": 4}
    enough.set()
    await asyncio.gather(*answers)
    assert not any(inside.values())


async def test_what_asks_without_saying_who_it_is_counts_as_a_stream_of_its_address():
    admission = ClientAdmission("token")
    for number in range(STREAMS_OF_AN_ADDRESS - 1):
        admission.enter(f"ipv4:10.0.0.1:{number}")
    with admission.visit("ipv4:10.0.0.1:999"), pytest.raises(TooManyStreamsError):
        admission.enter("ipv4:10.0.0.1:1000")
    admission.enter("ipv4:10.0.0.1:1000")


def test_strangers_of_many_addresses_share_what_streams_there_are():
    admission = ClientAdmission("token")
    peers = [f"ipv4:10.0.0.{number % 250}:{number}" for number in range(STREAMS_OF_STRANGERS)]
    for peer in peers:
        admission.enter(peer)
    with pytest.raises(TooManyStreamsError, match=f"may have {STREAMS_OF_STRANGERS} streams together"):
        admission.enter("ipv4:10.0.1.1:1")
    admission.leave(peers[0])
    admission.enter("ipv4:10.0.1.1:1")


def test_who_does_not_count_is_told_while_they_come_and_others_change_nothing_for_a_minute():
    admission = ClientAdmission("token")
    told = []
    for now, peer, why in (
        (0, "ipv4:10.0.0.7:4711", "one"),
        (1, "ipv6:[::ffff:10.0.0.9]:1", "another"),
        (50, "ipv4:10.0.0.7:4712", "one more"),
        (100, "ipv4:10.0.0.9:1", "another"),
        (105, "ipv4:10.0.0.7:4713", "one\nmore"),
    ):
        admission.note_refusal(peer, why, now)
        told.append(admission.refused(now))
    first = "the client at 10.0.0.7 is no Envoy of ours: one"
    assert told == [first] * 4 + [f"{first} more"]
    assert admission.refused(165) == told[-1]
    assert admission.refused(166) == ""
    admission.note_refusal("unix:", "x" * 10_000, 226)
    assert 0 < len(admission.refused(226)) < 400


def test_strangers_who_come_and_go_change_what_is_told_once_a_minute_at_the_most():
    admission, told, changes = ClientAdmission("token"), "", []
    for now in range(1000):
        if now % 65 == 0:
            admission.note_refusal(f"ipv4:10.0.0.{now % 3}:1", "why", now)
        before, told = told, admission.refused(now)
        if told != before:
            changes.append(now)
    assert len(changes) > 3
    assert all(later - earlier > 60 for earlier, later in itertools.pairwise(changes))
