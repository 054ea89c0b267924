# SPDX-License-Identifier: LGPL-2.1-or-later
"""The units of config/systemd/, where systemd really boots and shuts down: a Debian container."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from lxc_cr_plugin.config import CONTAINER_FILE
from lxc_cr_plugin.pending import LOG, MARK
from lxc_cr_plugin.resources import data_file

from .container import LXC_CR, Container, run, wait_until
from .power import cut
from .test_files import moving, runs_on
from .test_power_cut import forget_run

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


UNITS = ("lxc-cr.service", "lxc-cr-repair.service")


def replace(path: Path, text: str) -> None:
    """Not written to: other containers have the same file."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


# LXC wants every controller that the kernel has; what systemd has not mounted is missing.
MOUNT_CONTROLLERS = """\
#!/bin/sh
mount -o remount,rw /sys/fs/cgroup
for controller in $(sed -n 's/^[1-9][0-9]*:\\([a-z_]*\\):.*/\\1/p' /proc/self/cgroup); do
	place=/sys/fs/cgroup/$controller
	! mountpoint -q "$place" || continue
	rm -rf "$place"
	mkdir "$place"
	mount -t cgroup -o "$controller" cgroup "$place"
done
"""


@pytest.fixture
def machine(debian, new_container) -> Container:
    """A container with systemd and LXC."""
    container = new_container(debian)
    container.configure(
        "lxc.init.cmd = /lib/systemd/systemd",
        "lxc.signal.halt = SIGRTMIN+4",
        "lxc.cap.drop =",  # LXC in it sets clocks of time namespaces
        "lxc.mount.auto =",
        "lxc.mount.auto = cgroup:rw proc:rw sys:rw",
    )
    replace(container.rootfs / "usr/libexec/lxc/lxc-net", "#!/bin/sh\n")
    # LXC's unit would wait for the bridge that is named there.
    replace(container.rootfs / "etc/lxc/default.conf", "lxc.net.0.type = empty\n")
    replace(container.rootfs / "usr/libexec/lxc/lxc-apparmor-load", MOUNT_CONTROLLERS)
    wants = units_of(container) / "multi-user.target.wants"
    shutil.rmtree(wants, ignore_errors=True)
    wants.mkdir()
    enable(container, "lxc.service", "/lib/systemd/system/lxc.service")
    return container


def units_of(machine: Container) -> Path:
    return machine.rootfs / "etc/systemd/system"


def enable(machine: Container, name: str, unit: str) -> None:
    (units_of(machine) / "multi-user.target.wants" / name).symlink_to(unit)


# What tools/sanitize.sh says to each Python; systemd hands nothing on that it is not told to.
HANDED_ON = ("PYTHONPATH", "LXC_CR_SANITIZERS", "ASAN_OPTIONS", "UBSAN_OPTIONS")


def handed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in HANDED_ON if name in os.environ}


def default_environment() -> str:
    """The line for systemd-system.conf(5)."""
    words = (f"{name}={value}" for name, value in handed_on().items())
    quoted = (re.sub(r'["\\]', r"\\\g<0>", word).replace("%", "%%") for word in words)
    return "DefaultEnvironment=" + " ".join(f'"{word}"' for word in quoted)


def order_of(container: Container) -> list[str]:
    file = container.rootfs / "status/order"
    return file.read_text().splitlines() if file.exists() else []


def test_containers_are_saved_before_lxc_stops_them(machine):
    """LXC's tools and lxc-cr only write down that they were called."""
    for name in RECORDED:
        replace(machine.rootfs / name, RECORDER)
    shutil.copytree(data_file("systemd"), units_of(machine), dirs_exist_ok=True)
    enable(machine, "lxc@web.service", "/lib/systemd/system/lxc@.service")
    for unit in UNITS:
        enable(machine, unit, f"/etc/systemd/system/{unit}")
    machine.start()
    started = ["lxc-cr repair", "lxc-containers start", "lxc-start -F -n web"]
    wait_until(lambda: order_of(machine) == started, what=f"a boot: {order_of(machine)}")
    wait_for_boot(machine)
    said = machine.attach("sh", "-c", f"systemd-analyze verify --man=no {' '.join(UNITS)} 2>&1")
    assert "lxc-cr" not in said
    # our unit alone is no shutdown
    machine.attach("systemctl", "restart", "lxc-cr.service")
    assert order_of(machine) == started
    machine.lxc("stop", "-t", "60")
    assert order_of(machine)[3] == "lxc-cr shutdown"
    assert sorted(order_of(machine)[4:]) == ["lxc-containers stop", "lxc-stop -n web"]


def wait_for_boot(machine: Container) -> None:
    def state() -> str:
        return machine.attach("systemctl", "is-system-running", check=False).strip()

    wait_until(
        lambda: state() not in ("initializing", "starting", "offline", ""), what="the boot's end"
    )
    assert state() == "running", machine.attach("journalctl", "-b", "-u", "lxc*", "--no-pager")


def test_what_was_saved_resumes_at_boot(machine, new_container, laboratory, stanza):
    """Saved on this host, resumed by lxc-autostart where systemd boots.

    Another one, which a rollback had ended when the power failed, goes on as well.

    It is not saved there, which is refused: the engine knows processes by the numbers of the host.
    """
    container, other = new_container(), new_container()
    # Before the cut: a file that both have would be a changed one.
    victim, rolled_back = container.add_victim("ledger"), other.add_victim("ledger")
    other.start()
    rolled_back.ready()
    other.checkpoint()
    runs_on(rolled_back)
    ahead = moving(rolled_back)
    cut(other, "rollback", other.name, at="files:brought")
    container.configure(f"lxc.include = {stanza}", "lxc.start.auto = 1")
    (container.directory / CONTAINER_FILE).write_text('at_shutdown = "checkpoint"\n')
    container.start()
    victim.ready()
    # which also puts back files, but starts nothing at such a moment
    assert container.cr("shutdown").result["containers"] == [container.name]
    forget_run(container)
    assert other.state == "STOPPED"
    enable(machine, "lxc-cr-repair.service", "/etc/systemd/system/lxc-cr-repair.service")
    unit = run(LXC_CR, "stanza", "--systemd", "boot").stdout
    replace(units_of(machine) / "lxc-cr-repair.service", unit)
    # The same directories, and the same program, as here.
    for place in (laboratory.path, Path(sys.prefix), data_file(".").parent):
        target = str(place).lstrip("/")
        machine.configure(f"lxc.mount.entry = {place} {target} none bind,create=dir 0 0")
    defaults = units_of(machine).parent / "system.conf.d"
    defaults.mkdir(exist_ok=True)
    (defaults / "environment.conf").write_text(f"[Manager]\n{default_environment()}\n")
    replace(machine.rootfs / "etc/lxc-cr.toml", laboratory.config.read_text())
    replace(machine.rootfs / "etc/lxc/lxc.conf", f"lxc.lxcpath = {laboratory.lxcpath}\n")
    machine.start()
    try:
        wait_until(lambda: not (container.directory / MARK).exists(), what="a resumed container")
    except TimeoutError as error:
        error.add_note(machine.attach("journalctl", "-u", "lxc", "--no-pager", check=False))
        raise
    wait_for_boot(machine)
    runs_on(victim)
    assert "runs again" in (container.directory / LOG).read_text()
    words = ("lxc-info", "-P", str(laboratory.lxcpath), "-n", container.name, "-s", "-H")
    assert machine.attach(*words) == "RUNNING\n"
    victim.verify()
    assert machine.attach(*words[:4], other.name, "-s", "-H") == "RUNNING\n"
    assert not (other.directory / MARK).exists()
    runs_on(rolled_back)
    assert moving(rolled_back) > ahead
    rolled_back.verify()
    words = [f"{name}={value}" for name, value in handed_on().items()]
    said = machine.attach(
        "env", *words, str(LXC_CR), "--json", "checkpoint", container.name, check=False
    )
    assert '"exit_code": 7' in said
    assert "Run lxc-cr on the host" in said


def test_the_units_have_the_places_of_this_installation():
    assert f"exec {LXC_CR} shutdown'" in run(LXC_CR, "stanza", "--systemd").stdout
    assert f"ExecStart={LXC_CR} repair\n" in run(LXC_CR, "stanza", "--systemd", "boot").stdout
