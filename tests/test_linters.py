# SPDX-License-Identifier: LGPL-2.1-or-later
"""The linters, as tests: what they say is what a failing test shows."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
OURS = ("bin", "lxc_cr_plugin", "tests", "demo", "tools", "config", "vagrant", ".ci")


def sources(*suffixes: str) -> list[str]:
    """Our files with one of these suffixes; what cffi generates is not ours."""
    return sorted(
        str(path.relative_to(ROOT))
        for directory in OURS
        for path in (ROOT / directory).rglob("*")
        if path.suffix in suffixes and path.name != "_engine.c" and "results" not in path.parts
    )


def shell_scripts() -> list[str]:
    """Files that begin like a shell script, and what they source."""
    found = {"demo.sh", "test.sh", *sources(".sh")}
    for directory in OURS:
        for path in (ROOT / directory).rglob("*"):
            if path.is_file() and not path.suffix and path.read_bytes().startswith(b"#!/bin/sh"):
                found.add(str(path.relative_to(ROOT)))
    return sorted(found)


def lint(tool: str, *arguments: str) -> str:
    program = shutil.which(tool, path=BIN) or shutil.which(tool)
    if program is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{tool}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_no_python_is_overlooked():
    """The linters know it by its suffix, and what has none by its name."""
    named = {path for path in (ROOT / "bin").iterdir() if not path.is_symlink()}
    assert {str(path.relative_to(ROOT)) for path in named} == {"bin/lxc-cr"}
    looked_at = lint("ruff", "check", "--show-files").splitlines()
    assert named <= {Path(line) for line in looked_at}


def test_ruff_check():
    lint("ruff", "check", ".")


def test_ruff_format():
    lint("ruff", "format", "--check", "--diff", ".")


def test_mypy():
    lint("mypy")


def test_clang_format():
    lint("clang-format", "--dry-run", "-Werror", *sources(".c", ".h"))


def test_shellcheck():
    lint("shellcheck", "--external-sources", *shell_scripts())
