# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors, log and pools of the engine, checked by a C program, with and without memory."""

from tests.unit.native_build import BASE_SOURCES, NATIVE, ROOT, build, run

WRAPPED = ("malloc", "calloc", "mmap", "munmap", "vasprintf", "asprintf")


def test_basics_check_themselves(tmp_path):
    program = build(
        tmp_path / "basics",
        [ROOT / "tests/unit/native/basics.c", *BASE_SOURCES],
        options=["-Wl," + ",".join(f"--wrap={name}" for name in WRAPPED)],
    )
    done = run(program)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed, 0 failed" in done.stdout


def test_a_stop_that_is_given_up(tmp_path):
    names = ("cgroup", "freezer", "reaper", "seize", "stop", "task")
    sources = ("hash.c", "proc.c", *(f"target/{name}.c" for name in names))
    program = build(
        tmp_path / "stop",
        [ROOT / "tests/unit/native/stop.c", *(NATIVE / name for name in sources), *BASE_SOURCES],
        options=["-pthread", "-Wl,--wrap=ptrace"],
    )
    done = run(program, tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed, 0 failed" in done.stdout


def test_a_process_that_has_no_vdso_yet(tmp_path):
    program = build(
        tmp_path / "memory_special",
        [
            ROOT / "tests/unit/native/memory_special.c",
            NATIVE / "kinds/memory_special.c",
            NATIVE / "proc.c",
            *BASE_SOURCES,
        ],
    )
    done = run(program, tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed, 0 failed" in done.stdout
