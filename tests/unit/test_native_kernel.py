# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the BPF iterators say of tasks, VMAs and files, checked by C programs that set up known state."""

import os

import pytest

from tests.unit.native_build import BASE_SOURCES, NATIVE, ROOT, build, run

KERNEL_SOURCES = tuple(
    NATIVE / f"kernel/{name}.c"
    for name in [
        "bpf",
        "bpf_program",
        "btf",
        "fields",
        "files",
        "open_file",
        "peek",
        "tasks",
        "vmas",
    ]
)


@pytest.mark.skipif(os.geteuid() != 0, reason="BPF iterators are for root")
@pytest.mark.parametrize(
    "name", ["kernel_files", "kernel_refused", "kernel_status", "kernel_tasks", "kernel_vmas"]
)
def test_iterators_check_themselves(tmp_path, name):
    program = build(
        tmp_path / name,
        [ROOT / f"tests/unit/native/{name}.c", *KERNEL_SOURCES, *BASE_SOURCES],
        options=["-pthread"],
    )
    # once more as where lockdown forbids the usual way
    for environment in ({}, {"WITHOUT_PROBES": "1"}):
        done = run(program, **environment)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        assert b" passed, 0 failed" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="the sysctl is for root")
def test_time_of_a_lease_break(tmp_path):
    """Exact to milliseconds, and put back even if we are killed."""
    program = build(
        tmp_path / "lease_break_time",
        [
            ROOT / "tests/unit/native/lease_break_time.c",
            NATIVE / "kinds/lease_break_time.c",
            NATIVE / "steps.c",
            *(NATIVE / "kernel" / name for name in ("bpf_program.c", "btf.c", "locks.c", "peek.c")),
            *BASE_SOURCES,
        ],
        options=["-pthread", "-Wl,--wrap=open,--wrap=pwrite"],
    )
    done = run(program)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed, 0 failed" in done.stdout
