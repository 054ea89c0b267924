# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pool of processes (pipes, semaphores in shared memory) and a manager-free shared counter."""

import multiprocessing
import time

import program

WORKERS = 3


def square(number):
    time.sleep(0.002)
    return number, number * number


def count(counter, barrier, over):
    barrier.wait()
    while not over.is_set():
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.003)


def numbers():
    number = 0
    while not program.told_to_go():
        yield number
        number += 1
        time.sleep(0.001)


def work():
    context = multiprocessing.get_context("fork")
    counter, over = context.Value("q", 0), context.Event()
    barrier = context.Barrier(WORKERS + 1)
    counters = [
        context.Process(target=count, args=(counter, barrier, over)) for _ in range(WORKERS)
    ]
    for process in counters:
        process.start()
    barrier.wait()
    with context.Pool(WORKERS) as pool:
        program.ready()
        expected = 0
        for number, squared in pool.imap(square, numbers()):
            assert (number, squared) == (expected, expected * expected), (number, expected)
            expected += 1
    assert expected > 0
    over.set()
    for process in counters:
        process.join()
        assert process.exitcode == 0, process.exitcode
    assert counter.value > 0


program.main(work)
