# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of the record fuzzer; CR_FUZZ_SECONDS makes it longer, CR_FUZZ_SEED another one."""

import os

from tests.unit.native_build import RECORD_SOURCES, ROOT, build, run


def test_no_bytes_harm_the_decoder(tmp_path):
    seconds = int(os.environ.get("CR_FUZZ_SECONDS", "5"))
    seed = os.environ.get("CR_FUZZ_SEED", "1")
    program = build(
        tmp_path / "fuzz_record",
        [ROOT / "tests/fuzz/fuzz_record.c", *RECORD_SOURCES],
        packages=["libcbor"],
        options=["-DSTANDALONE"],
    )
    done = run(program, seed, str(seconds), timeout=seconds + 60)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    assert done.stdout.startswith(f"seed {seed}: ".encode())
    print(done.stdout.decode())
