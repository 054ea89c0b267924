# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a checkout to what is installed: what has changed is installed again, and nothing else."""

import subprocess
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[2] / "tools/bootstrap.sh"

PIP = """\
#!/bin/sh
echo "$*" >>"${0%/*}/pip-was-called"
"""


@pytest.fixture
def root(tmp_path):
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "bin/lxc-cr"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as it was\n")
    (tmp_path / "lxc_cr_plugin/native").mkdir(parents=True)
    pip = tmp_path / ".venv/bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text(PIP)
    pip.chmod(0o755)
    return tmp_path


def installs(root):
    """How often pip has been called, with this time."""
    command = '. "$0" && cr_install_project demo'
    environment = {"CR_ROOT": str(root), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(["sh", "-c", command, BOOTSTRAP], env=environment, check=True)
    return len((root / ".venv/bin/pip-was-called").read_text().splitlines())


@pytest.mark.parametrize("name", ["setup.cfg", "setup.py", "pyproject.toml", "bin/lxc-cr"])
def test_what_has_changed_is_installed_again(name, root):
    assert installs(root) == 1
    assert installs(root) == 1
    (root / name).write_text("something else\n")
    assert installs(root) == 2
