# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random trees of processes: what /proc, kcmp and the tasks say is the same before and after."""

import os

import pytest


def seeds() -> list[str]:
    """Which trees: a few, or CR_SHAPES="s100-199 j3 m0-9"; the letter is what they have more of."""
    words = os.environ.get("CR_SHAPES", "s1-2 j1-2 m1-2 m8").split()
    every = int(os.environ.get("CR_SHAPES_AT_ONCE", "12"))
    all_seeds = []
    for word in words:
        first, _, last = word[1:].partition("-")
        all_seeds += [f"{word[0]}{n}" for n in range(int(first), int(last or first) + 1)]
    return [" ".join(all_seeds[i : i + every]) for i in range(0, len(all_seeds), every)]


STEPS = os.environ.get("CR_SHAPES_STEPS", "60")


@pytest.mark.parametrize("trees", seeds())
def test_random_trees(container, trees):
    victims = [
        container.add_victim("shapes", tree[1:], tree[0], STEPS, status=tree)
        for tree in trees.split()
    ]
    container.start()
    for victim in victims:
        victim.ready()
    container.checkpoint()
    container.checkpoint("--stop")
    container.restart()
    container.checkpoint("--stop")
    container.restart()
    for victim in victims:
        victim.verify()
