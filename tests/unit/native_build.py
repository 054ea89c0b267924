# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compile small C programs out of the engine's sources, with the warnings and checks that we ask for."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "lxc_cr_plugin" / "native"

WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wmissing-prototypes",
    "-Wstrict-prototypes",
    "-Wvla",
    "-Wformat=2",
    "-Wimplicit-fallthrough",
    "-Wwrite-strings",
    "-Werror",
)
# Any finding ends the program: a test that only prints it would pass.
SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)

BASE_SOURCES = tuple(
    NATIVE / name
    for name in ("error.c", "log.c", "obstacles.c", "parallel.c", "pool.c", "image/cpu.c")
)
RECORD_SOURCES = (*BASE_SOURCES, *sorted((NATIVE / "image").glob("record*.c")))


def pkg_config(package: str) -> list[str]:
    """Return the compiler and linker options of a system library."""
    command = ["pkg-config", "--cflags", "--libs", package]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def build(
    program: Path,
    sources: Sequence[Path],
    *,
    packages: Sequence[str] = (),
    options: Sequence[str] = (),
    sanitize: bool = True,
) -> Path:
    """Compile and link sources into program; raises AssertionError with the compiler's words."""
    command = [
        os.environ.get("CC", "gcc"),
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-g",
        "-O1",
        "-U_FORTIFY_SOURCE",
        *WARNINGS,
    ]
    command += SANITIZERS if sanitize else ()
    command += [f"-I{NATIVE}", *options, "-o", str(program), *map(str, sources)]
    for package in packages:
        command += pkg_config(package)
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    return program


def run(
    program: Path, *arguments: str, data: bytes = b"", timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that build() made; returns it with what it printed, whatever its exit code."""
    return subprocess.run(
        [program, *arguments],
        input=data,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=timeout,
    )
