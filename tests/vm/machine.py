# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine with a kernel of Debian's and this checkout in it.

QEMU translates instructions (TCG) unless told otherwise: the kernel boots in half a minute, programs
run 10 to 25 times slower. The disk of a suite is made once and kept in the user's cache directory; a
checkout has a copy of its own, and what a running machine writes is lost when it ends.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
GUEST_CHECKOUT = "/root/lxc-cr"  # as in image.sh

SUITES = {"bookworm": "6.1", "trixie": "6.12"}  # and their kernels

# Seconds. Making a disk takes two minutes on a quiet machine, booting half a minute.
DISK_TIMEOUT, BOOT_TIMEOUT = 1500, 300

MEMORY = "3G"

# 6.12 does not boot with QEMU 7.2's translation of cmpxchg16b.
PROCESSORS = {"tcg": "max,cx16=off", "kvm": "host"}


def cache() -> Path:
    """Where disks are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "lxc-cr" / "vm"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else makes or uses what lies at @path meanwhile."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def image(*arguments: object) -> None:
    """Run image.sh; its progress goes to stderr."""
    # PID namespace: when the script is killed, nothing that it has started goes on.
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    subprocess.run(
        [*words, HERE / "image.sh", *(str(word) for word in arguments)],
        check=True, timeout=DISK_TIMEOUT, stdin=subprocess.DEVNULL, stdout=sys.stderr,
    )  # fmt: skip


def make_base(suite: str) -> Path:
    """The disk of a suite as all checkouts begin with, made if it is not there."""
    key = cache() / "key"
    recipe = (HERE / "image.sh").read_bytes() + (CHECKOUT / "tools/bootstrap.sh").read_bytes()
    base = cache() / f"{suite}-{hashlib.sha256(recipe).hexdigest()[:12]}.img"
    with locked(cache() / suite):
        if not key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        if not base.exists():
            image("base", suite, base)
    return base


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(kw_only=True)
class Machine:
    """A machine that runs."""

    process: subprocess.Popen[bytes]
    port: int
    console: Path

    def ssh(self, command: str) -> list[str]:
        """The words that run a shell command in it."""
        return [
            "ssh", "-q", "-i", str(cache() / "key"), "-p", str(self.port), "-o", "ConnectTimeout=10",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "ServerAliveInterval=30", "root@127.0.0.1", command,
        ]  # fmt: skip

    def run(self, command: str, *, timeout: float, **options) -> subprocess.CompletedProcess:
        """Run a shell command in the checkout inside.

        subprocess.TimeoutExpired if it takes longer; 255 is ssh's own exit status.
        """
        command = f"cd {GUEST_CHECKOUT} && {{ {command}\n}}"
        return subprocess.run(
            self.ssh(command), check=False, timeout=timeout, stdin=subprocess.DEVNULL, **options
        )

    def reboot(self) -> None:
        """Shut it down as systemd does it, and have it boot again; its disk stays as it is."""
        before = self.wait_for_ssh()
        self.run("systemctl reboot", timeout=60, capture_output=True)
        self.wait_for_ssh(other_than=before)

    def wait_for_ssh(self, *, other_than: str = "") -> str:
        """Until it can be reached, in another boot than the one named; gives the id of this boot.

        TimeoutError with the end of its console.
        """
        deadline = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                done = self.run(
                    "cat /proc/sys/kernel/random/boot_id",
                    timeout=30,
                    capture_output=True,
                    text=True,
                )
            except subprocess.TimeoutExpired:
                continue
            if done.returncode == 0 and done.stdout != other_than:
                return str(done.stdout)
            time.sleep(1)
        tail = "\n".join(self.console.read_text(errors="replace").splitlines()[-30:])
        raise TimeoutError(f"The virtual machine does not come up. Its console says:\n{tail}")


@contextlib.contextmanager
def boot(suite: str, *, accelerator: str = "tcg", processors: int = 2) -> Iterator[Machine]:
    """A machine of a suite with this checkout installed, gone at the end, also at a SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    base = make_base(suite)
    place = hashlib.sha256(bytes(CHECKOUT)).hexdigest()[:12]
    disk = base.with_name(f"{base.stem}-{place}.img")
    with locked(disk):
        if not disk.exists():
            new = disk.with_suffix(".new")
            subprocess.run(["cp", "--sparse=always", base, new], check=True)
            new.rename(disk)
        image("install", disk)
        with start(base, disk, accelerator, processors) as machine:
            machine.wait_for_ssh()
            yield machine


@contextlib.contextmanager
def start(base: Path, disk: Path, accelerator: str, processors: int) -> Iterator[Machine]:
    """QEMU; on its way out it gets no chance to write anything."""
    if shutil.which("qemu-system-x86_64") is None:
        raise FileNotFoundError("qemu-system-x86_64: apt-get install qemu-system-x86")
    port = free_port()
    console = disk.with_suffix(".console")
    process = subprocess.Popen(
        [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35",
            "-accel", accelerator, "-cpu", PROCESSORS[accelerator], "-smp", str(processors),
            "-m", MEMORY, "-serial", f"file:{console}",
            "-kernel", f"{base}.vmlinuz", "-initrd", f"{base}.initrd",
            "-append", "root=/dev/vda rw console=ttyS0 quiet",
            "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,snapshot=on",
            "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
        ],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Machine(process=process, port=port, console=console)
    finally:
        process.kill()
        process.wait()
