# SPDX-License-Identifier: LGPL-2.1-or-later
"""Build the C engine; everything else is in setup.cfg (cffi_modules cannot be said there)."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildByAllProcessors(build_ext):
    """Compile the files of the one extension at once; setuptools would do one after the other."""

    def build_extension(self, ext: Extension) -> None:
        """See there."""
        compile_some = self.compiler.compile

        def compile_all(sources: Sequence[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda source: compile_some([source], **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile_all
        super().build_extension(ext)


setup(
    cffi_modules=["lxc_cr_plugin/native/build_engine.py:ffibuilder"],
    cmdclass={"build_ext": BuildByAllProcessors},
)
