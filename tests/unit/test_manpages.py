# SPDX-License-Identifier: LGPL-2.1-or-later
"""Manual pages and completions say what the command lines say."""

import os
import subprocess
from pathlib import Path

import pytest
from setuptools.config.setupcfg import read_configuration

from lxc_cr_plugin import commands
from lxc_cr_plugin.config import Settings
from tools import manpages

STALE = "run `make docs` and commit what it writes"


def files_below(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_pages_are_what_would_be_written():
    made, there = manpages.pages(), files_below(manpages.PAGES)
    assert made.keys() == there.keys(), STALE
    assert [name for name, text in made.items() if there[name] != text] == [], STALE


def test_completions_are_what_would_be_written():
    made, there = manpages.completions(), files_below(manpages.COMPLETIONS)
    assert made.keys() == there.keys(), STALE
    assert [name for name, text in made.items() if there[name] != text] == [], STALE


def test_every_command_has_a_page_with_every_option():
    made = manpages.pages()
    names = {f"lxc-cr-{name.rstrip('_')}.1" for name in commands.NAMES}
    assert made.keys() == names | {"lxc-cr.1", "lxc-cr.toml.5", "lxc-checkpoint.1", "lxc-restart.1"}
    for name, parser in manpages.parsers().items():
        for action in parser._actions:
            for option in action.option_strings:
                assert f"\\fB{manpages.escaped(option)}\\fR" in made[f"{name}.1"]
    for setting in Settings._fields:
        assert f"\\fB{setting}\\fR (default: " in made["lxc-cr.toml.5"]


def test_prose_is_of_pages_that_exist():
    pages = {name.rpartition(".")[0] for name in manpages.pages()}
    assert manpages.PROSE.keys() <= pages


@pytest.mark.parametrize("name", sorted(manpages.pages()))
def test_roff(name):
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", manpages.PAGES / name],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "SEE ALSO" in done.stdout


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        (".hidden", r"\&.hidden"),
        ("a\n'b", "a\n\\&'b"),
        (r"back\slash", r"back\eslash"),
        ("--stop", r"\-\-stop"),
    ],
)
def test_what_means_something_to_roff(text, roff):
    assert manpages.escaped(text) == roff


def complete(*words: str, program: str = "lxc-cr", path: str = "") -> list[str]:
    """What bash offers for the last word."""
    function = f"_shtab_{program.replace('-', '_')}"
    script = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        f'{function} "$1" "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, manpages.COMPLETIONS / "bash" / program, program, *words],
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_bash_completes(tmp_path):
    lxc_ls = tmp_path / "lxc-ls"
    lxc_ls.write_text("#!/bin/sh\necho web; echo database\n")
    lxc_ls.chmod(0o755)
    assert complete("ch") == ["checkpoint", "check"]
    assert complete("checkpoint", "--st") == ["--store", "--stop"]
    assert complete("restart", "--files", "") == ["rollback", "keep", "refuse"]
    assert complete("checkpoint", "w", path=str(tmp_path)) == ["web"]
    assert complete("-n", "d", program="lxc-checkpoint", path=str(tmp_path)) == ["database"]


def test_all_of_it_is_installed():
    installed = {
        file
        for _, files in read_configuration(manpages.ROOT / "setup.cfg")["options"]["data_files"]
        for file in files
    }
    for directory in (manpages.PAGES, manpages.COMPLETIONS, manpages.ROOT / "config"):
        for name in files_below(directory):
            assert str((directory / name).relative_to(manpages.ROOT)) in installed
