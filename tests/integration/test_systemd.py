# SPDX-License-Identifier: LGPL-2.1-or-later
"""The units of config/systemd/, where systemd really boots and shuts down: a Debian container.

In it LXC's tools and lxc-cr only write down that they were called. What `lxc-cr shutdown` does, and
that lxc-autostart resumes, is tested on real containers in test_hooks.py: the engine needs the pid
namespace of the host.
"""

import shutil
from pathlib import Path

import pytest

from lxc_cr_plugin.resources import data_file

from .container import LXC_CR, Container, run, wait_until

RECORDER = """\
#!/bin/sh
echo "${0##*/} $*" >>/status/order
[ "${0##*/}" != lxc-start ] || exec sleep 1000
"""

RECORDED = (
    "usr/bin/lxc-cr",
    "usr/bin/lxc-start",
    "usr/bin/lxc-stop",
    "usr/libexec/lxc/lxc-containers",
)
NOTHING = ("usr/libexec/lxc/lxc-apparmor-load", "usr/libexec/lxc/lxc-net")


def replace(path: Path, text: str) -> None:
    """Not written to: other containers have the same file."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(debian, new_container) -> Container:
    """A container with systemd, LXC's units and ours, one container with a unit of its own."""
    container = new_container(debian)
    container.configure(
        "lxc.init.cmd = /lib/systemd/systemd",
        "lxc.signal.halt = SIGRTMIN+4",
        "lxc.mount.auto =",
        "lxc.mount.auto = cgroup:rw proc:mixed sys:ro",
    )
    for name in RECORDED:
        replace(container.rootfs / name, RECORDER)
    for name in NOTHING:
        replace(container.rootfs / name, "#!/bin/sh\n")
    units = container.rootfs / "etc/systemd/system"
    shutil.copytree(data_file("systemd"), units, dirs_exist_ok=True)
    wants = units / "multi-user.target.wants"
    shutil.rmtree(wants, ignore_errors=True)
    wants.mkdir()
    (wants / "lxc.service").symlink_to("/lib/systemd/system/lxc.service")
    (wants / "lxc@web.service").symlink_to("/lib/systemd/system/lxc@.service")
    (wants / "lxc-cr.service").symlink_to("/etc/systemd/system/lxc-cr.service")
    return container


def order_of(container: Container) -> list[str]:
    file = container.rootfs / "status/order"
    return file.read_text().splitlines() if file.exists() else []


def test_containers_are_saved_before_lxc_stops_them(machine):
    machine.start()
    started = ["lxc-containers start", "lxc-start -F -n web"]
    wait_until(lambda: order_of(machine) == started, what=f"a boot: {order_of(machine)}")
    state = wait_until(
        lambda: (
            (found := machine.attach("systemctl", "is-system-running", check=False).strip())
            not in ("initializing", "starting", "offline", "")
            and found
        ),
        what="the end of the boot",
    )
    assert state == "running", machine.attach("systemctl", "--failed", "--no-pager")
    said = machine.attach("sh", "-c", "systemd-analyze verify --man=no lxc-cr.service 2>&1")
    assert "lxc-cr" not in said
    # our unit alone is no shutdown
    machine.attach("systemctl", "restart", "lxc-cr.service")
    assert order_of(machine) == started
    machine.lxc("stop", "-t", "60")
    assert order_of(machine)[2] == "lxc-cr shutdown"
    assert sorted(order_of(machine)[3:]) == ["lxc-containers stop", "lxc-stop -n web"]


def test_the_unit_has_the_places_of_this_installation():
    unit = run(LXC_CR, "stanza", "--systemd").stdout
    assert f"exec {LXC_CR} shutdown'" in unit
