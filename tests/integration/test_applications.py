# SPDX-License-Identifier: LGPL-2.1-or-later
"""Things that people run in a busybox container, checkpointed while they are busy."""

import time
from collections import Counter
from pathlib import Path

import pytest

from .container import Container, wait_until

# A signal is sent when the last one has been counted: two that are pending are one.
# Each writes its result to a file when it is done, some seconds of running time later.
SCRIPTS = {
    # A number a line, no line missing: a shell with a job in the background.
    "shell loop": """
        (i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; usleep 10000; done) > numbers &
        wait $!
        cat numbers > result
    """,
    "pipeline": """
        (i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; usleep 10000; done) |
        awk '{ sum += $1; print sum }' | tail -n 1 > result
    """,
    "long pipeline": """
        (i=300; while [ $i -gt 0 ]; do echo "$i line"; i=$((i-1)); usleep 8000; done) |
        sed 's/line/word/' | grep -v nothing | sort -n | cut -d' ' -f1 | tr '\\n' ' ' > result
    """,
    "jobs": """
        for j in 1 2 3 4 5; do
            (i=0; while [ $i -lt 100 ]; do i=$((i+1)); usleep 20000; done; echo "job $j" >> jobs) &
        done
        wait
        sort jobs > result
    """,
    "named pipe": """
        mkfifo fifo
        (i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; usleep 10000; done) > fifo &
        while read line; do last=$line; done < fifo
        echo $last > result
    """,
    "trap": """
        trap 'count=$((count+1)); echo $count > counted' USR1
        count=0 me=$$
        (
            i=0
            while [ $i -lt 50 ]; do
                i=$((i+1))
                kill -USR1 $me
                until [ "$(cat counted 2>/dev/null)" = $i ]; do usleep 5000; done
                usleep 30000
            done
        ) &
        while kill -0 $! 2>/dev/null; do usleep 5000; done
        echo $count > result
    """,
}

RESULTS = {
    "shell loop": "\n".join(str(i) for i in range(1, 301)),
    "pipeline": str(300 * 301 // 2),
    "long pipeline": " ".join(str(i) for i in range(1, 301)),
    "jobs": "\n".join(f"job {j}" for j in range(1, 6)),
    "named pipe": "200",
    "trap": "50",
}


# None has done its work before the last one begins.
TOGETHER = "until [ -e /work/go ]; do usleep 10000; done"

# What runs while they are at work: shells of each script, and programs of all.
SHELLS = {
    "shell loop": 2, "pipeline": 2, "long pipeline": 2, "jobs": 6, "named pipe": 2, "trap": 2,
}  # fmt: skip
OTHERS = ("awk", "tail", "sed", "grep", "sort", "cut", "tr")


def place_of(container: Container, name: str) -> Path:
    """The script's own directory."""
    return container.rootfs / "work" / name.replace(" ", "_")


@pytest.fixture
def busy(container: Container) -> Container:
    """All of them run, each in a directory of its own."""
    (container.rootfs / "work").mkdir()
    for name, text in SCRIPTS.items():
        place = place_of(container, name)
        place.mkdir()
        script = place / f"{place.name}.sh"
        script.write_text(f"#!/bin/sh\ncd /work/{place.name}\n{TOGETHER}\n{text}")
        script.chmod(0o755)
        container.add_program(f"/work/{place.name}/{script.name}")
    container.start()
    # The kernel keeps 15 characters of a name.
    names = {name: f"{place_of(container, name).name}.sh"[:15] for name in SCRIPTS}
    wait_until(lambda: running(container) >= Counter(names.values()), what="the scripts")
    (container.rootfs / "work/go").touch()
    shells = Counter({names[name]: count for name, count in SHELLS.items()})
    wait_until(lambda: running(container) >= shells + Counter(OTHERS), what="their processes")
    return container


def running(container: Container) -> Counter[str]:
    """How many processes there are of each name."""
    return Counter(container.processes.values())


def result_of(container: Container, name: str) -> str:
    file = place_of(container, name) / "result"
    wait_until(
        lambda: file.exists() and file.read_text().endswith(("\n", " ")),
        what=f"result of {name}",
        timeout=120,
    )
    return file.read_text().strip()


def results_of(container: Container) -> dict[str, str]:
    return {name: result_of(container, name) for name in SCRIPTS}


def test_checkpointed_while_busy(busy):
    for _ in range(3):
        busy.checkpoint()
        time.sleep(0.2)
    assert results_of(busy) == RESULTS


def test_restarted_while_busy(busy):
    for _ in range(2):
        busy.checkpoint("--stop")
        busy.restart()
        time.sleep(0.2)
    assert results_of(busy) == RESULTS


def test_console_and_ttys_after_a_restart(container):
    """A getty on tty1 and a shell on the console, as LXC's own template has them."""
    container.lines += [
        "tty1::respawn:/bin/getty -L tty1 115200 vt100",
        "console::askfirst:/bin/sh",
    ]
    container.start()
    wait_until(lambda: "getty" in container.processes.values(), what="getty")
    container.checkpoint("--stop")
    container.restart()
    assert container.attach("hostname").strip() == container.name
    assert "getty" in container.processes.values()
    container.lxc("stop", "-t", "10")
    assert container.state == "STOPPED"


def test_reboot_after_a_restart(container):
    victim = container.add_victim("files")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    container.restart()
    before = container.init_pid
    victim.status.unlink()
    container.lxc("stop", "-r")
    wait_until(lambda: container.state == "RUNNING" and container.init_pid != before, what="reboot")
    victim.ready()
    victim.verify()


def test_image_of_one_moment_restarted_twice(container):
    """An image is not used up."""
    container.add_program("/bin/sleep 1000")
    container.start()
    wait_until(lambda: "sleep" in container.processes.values(), what="sleep")
    container.checkpoint("--stop")
    for _ in range(2):
        container.restart()
        assert "sleep" in container.processes.values()
        container.stop()


def test_buffered_image(container):
    """Restarted from memory, then kept on the disk."""
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    made = container.checkpoint("--stop", "--buffered").result
    assert made["buffered"]
    assert made["path"].startswith("/dev/shm/")
    container.restart()
    victim.verify()
    kept = container.cr("flush", made["image"]).result
    assert not kept["path"].startswith("/dev/shm/")
    container.stop()
    container.cr("inspect", made["image"])
    container.cr("rm", made["image"])
