# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pages of docs/ say what the code says."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from lxc_cr_plugin import native
from lxc_cr_plugin.errors import LxcCrError
from tools import image_format

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
NATIVE = ROOT / "lxc_cr_plugin/native"

# Made by `make docs` from the results of the tests.
GENERATED = {"support-matrix.md"}

PAGE_LINES = 120


def page(name: str) -> str:
    return (DOCS / name).read_text()


def test_architecture_is_one_page():
    assert len(page("architecture.md").splitlines()) <= PAGE_LINES


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [
        link
        for link in links
        if link not in GENERATED
        and not link.startswith("https:")
        and not (path.parent / link).exists()
    ]
    assert missing == []


def test_directories_of_the_architecture():
    """The first column of the map: the first path in full, the others beside it."""
    rows = re.findall(r"^\| (`lxc_cr_plugin/.*?|`tests/.*?) \|", page("architecture.md"), re.M)
    assert rows
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        directory = (ROOT / first).parent
        assert [p for p in (ROOT / first, *(directory / o for o in others)) if not p.exists()] == []


class TestImageFormat:
    def test_generated_tables(self):
        old = page("image-format.md")
        hint = "docs/image-format.md is stale: run .venv/bin/python tools/image_format.py"
        assert old == image_format.render(old), hint

    def test_every_kind_is_declared_in_its_source(self):
        assert set(image_format.declarations()) == set(native.kinds())

    @pytest.mark.parametrize(
        ("file", "struct"),
        [
            ("header.c", "header"),
            ("header.c", "required"),
            ("inventory.c", "object_row"),
            ("inventory.c", "holder_row"),
        ],
    )
    def test_what_frames_the_records(self, file, struct):
        """These tables of fields are no kinds, and stand in the page by hand."""
        source = (NATIVE / "image" / file).read_text()
        names = re.findall(rf"FIELD_\w+\(struct {struct}, (\w+),", source)
        assert names
        assert [name for name in names if f"`{name}`" not in page("image-format.md")] == []

    def test_members_of_the_manifest(self):
        schema = json.loads((ROOT / "config/schema/manifest.json").read_text())
        names = [*schema["properties"], *schema["$defs"]["file"]["properties"]]
        for members in schema["properties"].values():
            names += members.get("properties", {})
        assert [name for name in names if f"`{name}`" not in page("image-format.md")] == []

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (-20, "-20"),
            (4096, "4096"),
            (1 << 22, "2^22"),
            ((1 << 32) - 1, "2^32-1"),
            ((1 << 64) - 2, "2^64-2"),
            (0x7FFFFFFFF000, "0x7ffffffff000"),
        ],
    )
    def test_number(self, value, text):
        assert image_format.number(value) == text

    def test_a_page_without_marks_is_not_touched(self):
        with pytest.raises(ValueError, match="lost the marks"):
            image_format.render("nothing")


def test_exit_codes():
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", page("troubleshooting.md"), re.MULTILINE))
    classes = [LxcCrError, *LxcCrError.__subclasses__()]
    assert rows == {str(error.exit_code): error.__name__ for error in classes}


def test_messages_that_are_explained():
    """What the tables of troubleshooting.md quote is still said somewhere."""
    ours = (ROOT / "lxc_cr_plugin").rglob("*")
    files = [p for p in ours if p.suffix in (".c", ".py") and p.name != "_engine.c"]
    files += (ROOT / "lxc_cr_plugin/hooks").iterdir()
    # Literals may be split over lines.
    said = re.sub(r'"\s*f?"', "", "".join(path.read_text() for path in files))
    said += " ".join(os.strerror(n) for n in (errno.ENOSPC, errno.ENOENT, errno.EPERM))
    rows = re.findall(r"^\| (`[^|]*`) \|", page("troubleshooting.md"), re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert quoted
    # What stands for n, m and ... is put in when the message is made; a cause comes after ": ".
    parts = [part for text in quoted for part in re.split(r"\.\.\.|\b[nm]\b|'|: ", text)]
    assert [part for part in parts if part.strip() not in said] == []


def test_rows_about_locks():
    """All rows of docs/locks.md are there, and each names a test that exists."""
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", page("locks.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 61))
    tests = ROOT / "tests"
    known = {file.stem for file in (tests / "integration/victims").glob("*.c")}
    known |= {file.name for file in (tests / "integration").glob("test_*.py")}
    known |= {file.name for file in (tests / "unit/native").glob("*.c")}
    named = {number: re.findall(r"`([^`]+)`", where) for number, where in rows}
    assert [number for number, names in named.items() if not names] == []
    assert {name for names in named.values() for name in names} - known == set()


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """The C files of docs/adding-a-kind.md: victim and kind."""
    return re.findall(r"^```c\n(.*?)^```$", page("adding-a-kind.md"), re.MULTILINE | re.DOTALL)


class TestExample:
    """The kind of docs/adding-a-kind.md is the one in the tree."""

    def test_victim(self, blocks):
        assert blocks[0] == (ROOT / "tests/integration/victims/eventfd.c").read_text()

    def test_kind(self, blocks):
        assert blocks[1] == (NATIVE / "kinds/eventfd.c").read_text()
