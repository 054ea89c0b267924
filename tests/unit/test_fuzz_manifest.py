# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of the manifest fuzzer; CR_FUZZ_SECONDS makes it longer, CR_FUZZ_SEED another one."""

import os

from tests.fuzz.fuzz_manifest import run


def test_no_manifest_raises_anything_but_image_error():
    seconds = float(os.environ.get("CR_FUZZ_SECONDS", "3"))
    tried, read = run(seconds=seconds, seed=int(os.environ.get("CR_FUZZ_SEED", "1")))
    assert 0 < read < tried
