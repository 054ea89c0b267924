# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ceilings: nothing of ours grows beyond what a reader can hold in mind.

If one of them pinches, split by concept, not by number.
"""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NATIVE = ROOT / "lxc_cr_plugin" / "native"
OURS = ("bin", "lxc_cr_plugin", "tests", "demo", "tools")

FILE_LINES = 600
FUNCTION_LINES = 80
HOOK_LINES = 50
BLOB_BYTES = 256

ARCHITECTURE = re.compile(
    r"^\s*#\s*(?:el)?ifn?(?:def)?\b.*\b(?:__x86_64__|__i386__|__aarch64__|__arm__|__riscv|__amd64__)"
)


def sources(*suffixes: str) -> list[Path]:
    return sorted(
        path
        for directory in OURS
        for path in (ROOT / directory).rglob("*")
        if suffix_of(path) in suffixes and path.name != "_engine.c"
    )


def suffix_of(path: Path) -> str:
    """What a file of ours is: a command has no suffix, and is a link if it has another one's text."""
    is_command = path.parent.name == "bin" and not path.is_symlink()
    return ".py" if is_command else path.suffix


def c_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of each function: clang-format puts its braces into column 0."""
    head, begin = "", None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line == "{":
            begin = number
        elif line.startswith("}") and begin is not None:
            yield head, number - begin + 1
            begin = None
        elif line[:1].isalpha() or line[:1] == "_":
            head = line


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_files():
    lengths = {path: len(path.read_text().splitlines()) for path in sources(".c", ".h", ".py")}
    assert {path: n for path, n in lengths.items() if n > FILE_LINES} == {}


def test_functions():
    too_long = {
        f"{path}: {name}": length
        for suffix, functions in (
            (".c", c_functions),
            (".h", c_functions),
            (".py", python_functions),
        )
        for path in sources(suffix)
        for name, length in functions(path)
        if length > FUNCTION_LINES
    }
    assert too_long == {}


def test_hooks():
    hooks = [path for path in (ROOT / "lxc_cr_plugin/hooks").iterdir() if path.is_file()]
    assert hooks
    assert {p: n for p in hooks if (n := len(p.read_text().splitlines())) > HOOK_LINES} == {}


def test_architectures_are_known_in_one_place_only():
    found = [
        f"{path}: {line}"
        for path in NATIVE.rglob("*.[ch]")
        if path.name != "_engine.c" and "arch" not in path.relative_to(NATIVE).parts
        for line in path.read_text().splitlines()
        if ARCHITECTURE.match(line)
    ]
    assert found == []


def run(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> dict[Path, Path]:
    """Each C file of the engine, compiled as the build does."""
    directory = tmp_path_factory.mktemp("objects")
    made = {
        source: directory / f"{number}-{source.stem}.o"
        for number, source in enumerate(sorted(NATIVE.rglob("*.c")))
        if source.name != "_engine.c"
    }

    def compile_one(source: Path) -> None:
        run("gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-pthread", "-I", NATIVE,
            "-c", source, "-o", made[source])  # fmt: skip

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, made))
    return made


def test_blob(objects):
    """The one piece of ours inside a target fits into a few cache lines and needs no linker."""
    blob = objects[NATIVE / "target" / "blob.c"]
    sections = run("readelf", "--sections", "--wide", blob).splitlines()
    (line,) = (line for line in sections if " crblob " in line)
    size = int(line.split("PROGBITS")[1].split()[2], 16)
    assert 0 < size < BLOB_BYTES
    assert not [line for line in sections if ".relacrblob" in line or ".relcrblob" in line]


def test_no_mutable_globals(objects):
    """Everything that can be written lives on a stack or on the heap."""
    found = []
    for source, compiled in objects.items():
        names = {}
        for line in run("objdump", "--syms", compiled).splitlines():
            words = line.split()
            # "0000 l     O .data.rel.ro 0010 name": constants that hold addresses are writable
            # only until the loader is done with them.
            if " O " in line and re.search(r" (\.t?bss|\.t?data)(?!\.rel\.ro)[\w.]* ", line):
                names[words[-1]] = words[-3]
        found += [
            f"{source.relative_to(ROOT)}: {name} in {section}" for name, section in names.items()
        ]
    assert found == []
