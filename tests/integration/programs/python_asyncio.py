# SPDX-License-Identifier: LGPL-2.1-or-later
"""An event loop: timers in their order, streams, subprocesses that are waited for."""

import asyncio
import os
import time

import program


async def timers(over):
    """A sleep never ends early, whatever stood still in between."""
    while not over.is_set():
        begin = time.monotonic()
        await asyncio.sleep(0.02)
        assert time.monotonic() - begin >= 0.019, "a timer came early"


async def ordered(over):
    """Three timers end in the order of their times."""
    loop = asyncio.get_running_loop()
    while not over.is_set():
        ended = []
        # From one instant: what stands still between two calls must not count.
        begin = loop.time()
        for milliseconds in (30, 10, 20):
            loop.call_at(begin + milliseconds / 1000, ended.append, milliseconds)
        while len(ended) < 3:
            await asyncio.sleep(0.01)
        assert ended == [10, 20, 30], ended


async def subprocesses(over):
    number = 0
    while not over.is_set():
        number += 1
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate(b"line %d\n" % number * 1000)
        assert output == b"line %d\n" % number * 1000, "cat changed its input"
        assert process.returncode == 0, process.returncode
        await asyncio.sleep(0.01)


async def run():
    over = asyncio.Event()
    tasks = [asyncio.create_task(task(over)) for task in (timers, ordered, subprocesses)]
    program.ready()
    try:
        while not program.told_to_go():
            await asyncio.sleep(0.01)
            for task in tasks:
                if task.done():
                    task.result()
        over.set()
        await asyncio.gather(*tasks)
    except BaseException:
        # asyncio.run() would cancel the others and may wait for ever for the end of a pipe.
        program.fail()
        os._exit(1)


program.main(lambda: asyncio.run(run()))
