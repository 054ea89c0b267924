# SPDX-License-Identifier: LGPL-2.1-or-later
"""Threads with a queue, a lock and a condition; each verifies a chain of hashes at the end."""

import hashlib
import queue
import threading
import time

import program

THREADS = 8


class Chain(threading.Thread):
    """Every link is the hash of the one before: one lost or repeated step changes the end."""

    def __init__(self, number, links):
        super().__init__()
        self.number = number
        self.links = links
        self.value = b"%d" % number
        self.length = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            for _ in range(50):
                self.value = hashlib.sha256(self.value).digest()
                self.length += 1
            self.links.put((self.number, self.length))
            time.sleep(0.005)

    def verify(self):
        value = b"%d" % self.number
        for _ in range(self.length):
            value = hashlib.sha256(value).digest()
        assert value == self.value, f"chain {self.number} is broken after {self.length}"


def work():
    links = queue.Queue()
    chains = [Chain(number, links) for number in range(THREADS)]
    lengths = [0] * THREADS
    for chain in chains:
        chain.start()
    program.ready()
    while not program.told_to_go():
        number, length = links.get(timeout=60)
        assert length == lengths[number] + 50, (number, length, lengths[number])
        lengths[number] = length
    for chain in chains:
        chain.over.set()
    for chain in chains:
        chain.join()
        chain.verify()


program.main(work)
