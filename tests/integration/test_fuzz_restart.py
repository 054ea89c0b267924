# SPDX-License-Identifier: LGPL-2.1-or-later
"""Restarts from forged images that the reader takes for good ones: their digests are right.

CR_FUZZ_SECONDS has it go on so long, CR_FUZZ_SEED makes it another one.
"""

import os
import random
import time
from collections import Counter

from tests.fuzz.fuzz_image import Mutator, check_apart, read_records

from .container import Container
from .test_damage import Lab, reseal
from .test_fuzz_image import VICTIMS

# Done; refused as unsupported, as a damaged image, by this host; given up in the middle.
ENDS = {0, 4, 6, 7, 10}

# So many unless it is told otherwise: a machine that is faster must not try what nobody has seen.
RESTARTS = 10


def test_no_forged_image_does_harm(container: Container, tmp_path):
    """The engine neither crashes nor hangs, nothing stays behind, and the true image restarts."""
    victims = [container.add_victim(name) for name in VICTIMS]
    container.start()
    for victim in victims:
        victim.ready()
    container.checkpoint("--stop")
    lab = Lab(container, victims[0], tmp_path)
    rng = random.Random(int(os.environ.get("CR_FUZZ_SEED", "1")))
    end = time.monotonic() + float(os.environ.get("CR_FUZZ_SECONDS", "0"))
    codes: Counter[int] = Counter()
    mutator = Mutator(read_records(lab.image / "state.cbor"), rng)
    while time.monotonic() < end or codes.total() < RESTARTS:
        lab.mend()
        records, what = mutator.mutated()
        (lab.image / "state.cbor").write_bytes(b"".join(records))
        if check_apart(lab.image):
            continue  # refused before anything is touched: test_fuzz_image
        reseal(lab, lambda manifest: None)
        lab.since.touch()
        outcome = container.try_cr("restart", container.name)
        assert outcome.code in ENDS, f"{what}: exit code {outcome.code}\n{outcome.text}"
        if outcome.code:
            assert not container.processes, what
            assert lab.since.exists(), f"{what}: files are not as before"
            assert container.state == "STOPPED", what
        container.stop()
        codes[outcome.code] += 1
    print(f"exit codes: {dict(codes)}")
    lab.assert_restarts()
    for victim in victims[1:]:
        victim.verify()
