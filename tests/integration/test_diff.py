# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `lxc-cr diff` finds between two images of a container that has gone on meanwhile."""

import subprocess
from pathlib import Path

import pytest

from .container import LXC_CR, run

PROGRAM = Path(__file__).parent / "programs/changes.c"


@pytest.fixture
def changed(laboratory, container):
    """A container with an image :old, an image :new, and what has changed in between."""
    program = container.add_program_as_victim(laboratory.compile(PROGRAM))
    container.start()
    program.ready()
    container.attach(
        "sh", "-c", "cd /root; echo 1 >same; echo 1 >content; echo 1 >mode; echo 1 >gone"
    )
    container.checkpoint("--image", f"{container.name}:old")
    container.attach("sh", "-c", "cd /root; echo 2 >content; chmod 600 mode; rm gone; mkdir new")
    run(
        "nsenter", f"--net=/proc/{container.init_pid}/ns/net",
        "ip", "address", "add", "10.1.1.1/32", "dev", "lo",
    )  # fmt: skip
    program.go()
    program.wait_for("ok")
    container.checkpoint("--image", f"{container.name}:new")
    return container


def references(container) -> tuple[str, str]:
    return f"{container.name}:old", f"{container.name}:new"


def test_what_has_changed(changed):
    found = changed.cr("diff", *references(changed)).result
    (pid,) = (item["pid"] for item in found["processes"]["changed"] if item["comm"] == "changes")
    assert [item["comm"] for item in found["processes"]["gone"]] == ["changes"]
    assert [item["comm"] for item in found["processes"]["came"]] == ["changes"]
    (program,) = found["processes"]["changed"]
    assert program["changes"]["fs.umask"] == [0o22, 0o123]

    descriptors = {
        word: {item["fd"]: item for item in items if item["pid"] == pid}
        for word, items in found["descriptors"].items()
    }
    assert not descriptors["gone"]
    assert descriptors["changed"][4]["changes"] == {
        "file": ["regular /etc/group", "directory /etc"]
    }
    assert descriptors["came"][9]["path"] == "/etc"
    assert descriptors["changed"][3]["changes"] == {"position": [0, 7]}

    memory = {
        word: {item["start"]: item for item in items if item["pid"] == pid}
        for word, items in found["memory"].items()
    }
    assert 0x30000000 in memory["gone"]
    assert 0x40000000 in memory["came"]
    assert memory["changed"][0x10000000]["changes"] == {"pages": 4}
    assert memory["changed"][0x20000000]["changes"] == {"pages": 1}

    files = {
        word: {item["path"]: item.get("changes") for item in items}
        for word, items in found["files"].items()
    }
    assert "/root/gone" in files["gone"]
    assert "/root/new" in files["came"]
    assert files["changed"]["/root/content"] == ["content"]
    assert files["changed"]["/root/mode"] == ["attributes"]
    assert "/root/same" not in files["changed"]

    assert [row["attributes"]["IFA_LOCAL"] for row in found["network"]["addresses"]["came"]] == [
        "10.1.1.1"
    ]


def test_for_people(changed):
    command = [word for word in changed.command("diff", *references(changed)) if word != "--json"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert command[0] == str(LXC_CR)
    for line in (
        "  ~ '/root/content': content",
        "  - '/root/gone'",
        "  + '/root/new'",
        "fs.umask 18 → 83",
        "4 pages changed",
    ):
        assert line in text


def test_an_image_and_itself(container):
    container.start()
    container.checkpoint()
    found = container.cr("diff", container.name, container.name).result
    sections = [found[name] for name in ("processes", "descriptors", "memory", "files")]
    assert not any(items for section in sections for items in section.values())
    assert not found["network"]
