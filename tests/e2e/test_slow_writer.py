"""Who writes a file of the folder slowly, in place, has it read when it is whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from controller.api.timing import FolderTiming
from tests.support.beamlit import eventually, no_request_fails
from tests.support.chat import Chat
from tests.support.forked import Forked
from tests.support.timing import PATIENT

SLOW = FolderTiming(quiet=1.5, together=2.0, losing=30.0, emptied=30.0, first_list=6.0)
"""What a writer takes for its pauses here, whatever else the machine does meanwhile, is far less.

A part of the file that is at rest for longer is a mistake at most: what it lacks is not believed to be gone.
"""


async def test_a_file_that_is_written_slowly_is_read_when_it_is_whole(tmp_path, backends):
    chat = Chat(tmp_path, backends, partial(Forked, context=replace(PATIENT, folder=SLOW)))
    product = chat.product
    async with product.running("--envoy"):
        await chat.served()
        text = chat.text(override="remote=100")
        async with no_request_fails(chat.port):
            with (product.objects / "chat.yaml").open("w") as file:
                for start in range(0, len(text), 150):
                    file.write(text[start : start + 150])
                    file.flush()
                    await asyncio.sleep(0.02)
            await eventually(lambda: product.split("chat"), "0/100 Override".__eq__)
        assert await product.problems("chat.yaml") == []
