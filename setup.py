# SPDX-License-Identifier: LGPL-2.1-or-later
"""Build the C engine; everything else is in setup.cfg (cffi_modules cannot be said there)."""

from setuptools import setup

setup(cffi_modules=["lxc_cr_plugin/native/build_engine.py:ffibuilder"])
