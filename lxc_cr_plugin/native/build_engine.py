# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the engine as a cffi extension in API mode: setup.py names `ffibuilder` of this file.

api.h is read twice, by the C compiler and by cdef(), so a declaration exists once. cdef() takes
plain declarations, hence its text loses the lines that begin with `#`.

LXC_CR_SANITIZE=1 builds with ASan and UBSan. Such an engine must find the sanitizer's run-time
library in the process before anything else, and Python itself leaks on purpose:

    LXC_CR_SANITIZE=1 pip install -e .
    LD_PRELOAD=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 lxc-cr ...
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
ROOT = NATIVE.parent.parent

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wmissing-prototypes",
    "-Wstrict-prototypes",
    "-Wpointer-arith",
    "-Wvla",
    "-Wformat=2",
    "-Wimplicit-fallthrough",
    "-Wswitch-enum",
    "-Wwrite-strings",
]

# cffi's own generated code is compiled by the same command and keeps none of these promises.
GENERATED_CODE = """
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-function-type"
#include "api.h"
"""

CALLBACKS = """
extern "Python" void engine_log(void *context, int level, const char *text);
extern "Python" void engine_progress(void *context, const char *stage, uint64_t done,
                                     uint64_t total);
extern "Python" int engine_seized(void *context, int init_pid);
extern "Python" int engine_taken_over(void *context, int init_pid);
extern "Python" void engine_obstacle(void *context, const struct cr_error *error);
"""


def declarations(header: str) -> str:
    """The text of a header without its preprocessor lines, as cdef() wants it."""
    return "\n".join(line for line in header.splitlines() if not line.startswith("#"))


def compile_args(*, sanitize: bool) -> list[str]:
    """Flags of the C compiler."""
    flags = ["-std=gnu11", "-g", "-fvisibility=hidden", "-pthread", *WARNINGS]
    if sanitize:
        return [*flags, "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
    return [*flags, "-O2"]


def link_args(*, sanitize: bool) -> list[str]:
    """Flags of the linker."""
    return ["-pthread", *(["-fsanitize=address,undefined"] if sanitize else [])]


def sources() -> list[str]:
    """All C files of the engine, relative to the checkout as setuptools demands, in fixed order."""
    return sorted(str(path.relative_to(ROOT)) for path in NATIVE.rglob("*.c") if is_ours(path))


def is_ours(path: Path) -> bool:
    """Whether @path is written by us: cffi leaves its generated _engine.c in reach."""
    return not path.name.startswith("_engine")


def builder() -> FFI:
    """The builder with everything set; nothing is compiled yet."""
    sanitize = os.environ.get("LXC_CR_SANITIZE") == "1"
    ffi = FFI()
    ffi.cdef(declarations((NATIVE / "api.h").read_text()))
    ffi.cdef(CALLBACKS)
    ffi.cdef("extern const char *const engine_stamp;")
    stamp = runpy.run_path(str(NATIVE / "stamp.py"))["stamp"]()
    ffi.set_source(
        "lxc_cr_plugin.native._engine",
        f'{GENERATED_CODE}\nstatic const char *const engine_stamp = "{stamp}";\n',
        sources=sources(),
        include_dirs=[str(NATIVE)],
        depends=sorted(str(path.relative_to(ROOT)) for path in NATIVE.rglob("*.h")),
        libraries=["cbor"],
        extra_compile_args=compile_args(sanitize=sanitize),
        extra_link_args=link_args(sanitize=sanitize),
        define_macros=[("_GNU_SOURCE", None)],
        py_limited_api=True,
    )
    return ffi


ffibuilder = builder()

if __name__ == "__main__":
    os.chdir(ROOT)
    ffibuilder.compile(tmpdir=str(ROOT), verbose=True)
