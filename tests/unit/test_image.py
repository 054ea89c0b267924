# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading images: every damage is an ImageError, and records show without knowing their fields."""

import errno
import json
import os

import cbor2
import pytest

from lxc_cr_plugin import image as images
from lxc_cr_plugin import manifest
from lxc_cr_plugin.errors import ImageError
from lxc_cr_plugin.image import (
    Record,
    Records,
    plain,
    read_records,
    required_kinds,
    verify_pages,
    verify_records,
)
from lxc_cr_plugin.listing import image_as_json, image_text, process_tree, rows, table
from lxc_cr_plugin.log import human_size
from lxc_cr_plugin.store import Store
from tests.unit.images import add_image

FILES = ["manifest.json", "objects.cbor", "state.cbor", "pages", "files/5"]


@pytest.fixture
def image(tmp_path):
    return add_image(Store(root=tmp_path / "store", buffer=tmp_path / "buffer"))


def verify(image):
    """What a restart does before it touches anything."""
    made = image.manifest()
    verify_records(image, made)
    verify_pages(image, made)


def test_an_intact_image(image):
    verify(image)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(image, name):
    path = image.path / name
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ImageError):
        verify(image)


@pytest.mark.parametrize("name", FILES)
def test_a_longer_file(image, name):
    with (image.path / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ImageError):
        verify(image)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits(image, name):
    path = image.path / name
    data = path.read_bytes()
    for offset in range(0, len(data), max(1, len(data) // 50)):
        path.write_bytes(
            data[:offset] + bytes([data[offset] ^ (1 << offset % 8)]) + data[offset + 1 :]
        )
        with pytest.raises(ImageError):
            verify(image)
    path.write_bytes(data)
    verify(image)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(image, name):
    (image.path / name).unlink()
    with pytest.raises(ImageError):
        verify(image)


def test_a_disk_that_cannot_be_read(image, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(manifest, "sha256_digest", fail)
    with pytest.raises(ImageError, match="of the image: Input/output") as caught:
        verify_records(image, image.manifest())
    assert "dmesg" in (caught.value.hint or "")


def test_a_file_too_many(image):
    (image.path / "surprise").touch()
    with pytest.raises(ImageError, match="'surprise' is not in the manifest"):
        verify(image)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_that_others_can_write(image, name):
    (image.path / name).chmod(0o622)
    with pytest.raises(ImageError, match="can be written by others"):
        verify(image)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else(image):
    os.chown(image.path / "pages", 1000, -1)
    with pytest.raises(ImageError, match="can be written by others"):
        verify(image)


def test_a_symlink_instead_of_a_file(image):
    (image.path / "pages").rename(image.path.parent / "elsewhere")
    (image.path / "pages").symlink_to("../elsewhere")
    with pytest.raises(ImageError, match="'pages' does not belong"):
        verify(image)


def test_a_manifest_that_forgets_the_memory(image):
    made = image.manifest()
    without = made._replace(files=tuple(file for file in made.files if file.name != "pages"))
    with pytest.raises(ImageError, match="does not list 'pages'"):
        verify_records(image, without)


# -- records ---------------------------------------------------------------------------------------


def test_records(image):
    records = read_records(image.path)
    assert records.header == {"format": "lxc-cr", "requires": [["process"], ["pipe"]]}
    assert [record.kind for record in records.state][:2] == ["process", "thread"]
    assert records.state[3].fields["comm"] == "count\udcff"
    json.dumps(image_as_json(image, image.manifest(), records))


def test_text_for_people(image):
    text = image_text(image, image.manifest(), read_records(image.path))
    assert "  1 'init'\n    7 'count\\udcff'" in text
    assert "  1    0   1       file  /tmp/a\n" in text
    assert "  7    5   2       pipe  'pipe:[\\udcff]'\n" in text
    assert "  7    000000400000-000000402000  r-x  8.0 KiB  /bin/count\n" in text
    assert "web:latest" in text


@pytest.mark.parametrize(
    ("objects", "state"),
    [
        (b"", b"\xa0"),
        (b"\xa0", b"\xa0"),
        (b"\x81\x01", b"\xa0"),
        (b"\x80", b""),
        (b"\x80", b"\x80"),
        (b"\x80", b"\xa0\x01"),
        (b"\x80", b"\xa0\x83\x01\x02\x03"),
        (b"\x80", b"\xa0\xff"),
        (b"\x80", b"\xa0" + b"\x81" * 5000),
        (b"\x80", b"\xa0\x9b" + b"\xff" * 8),
        (b"\x80", b"\xa0\x5b" + b"\xff" * 8),
        (b"\x80", b"\xc0\x61x"),
    ],
)
def test_records_that_are_none(tmp_path, objects, state):
    (tmp_path / "objects.cbor").write_bytes(objects)
    (tmp_path / "state.cbor").write_bytes(state)
    with pytest.raises(ImageError):
        read_records(tmp_path)


@pytest.mark.parametrize(
    "item",
    [
        ["process", 1, {}],
        ["process", 1, {"pid": "x", "comm": 1}],
        ["process", 1, {"pid": 1, "ppid": 1}],
        ["process", 1, {"pid": 1, "ppid": [1]}],
        ["process", 1, {"pid": [1], "ppid": 2}],
        ["thread", 1, {"tid": [1]}],
        ["files", 1, {}],
        ["files", 1, {"descriptors": [3, [1], ["x", 2], [1, 99], [1, 2, 3, 4]]}],
        ["memory", 1, {"vmas": 3}],
        ["memory", 1, {"vmas": [3, {"start": "x"}, {}, {"start": 2, "end": 1, "name": 3}]}],
        ["unheard", 1, {"of": [None, 1.5, cbor2.CBORTag(1000, b"\xff")]}],
    ],
)
def test_unexpected_fields_do_not_matter(image, item):
    (image.path / "state.cbor").write_bytes(cbor2.dumps({}) + cbor2.dumps(item))
    (image.path / "objects.cbor").write_bytes(cbor2.dumps([{}, {"id": []}, {"id": 2, "path": 3}]))
    records = read_records(image.path)
    assert image_text(image, image.manifest(), records)
    json.dumps(image_as_json(image, image.manifest(), records))


def test_processes_that_are_each_others_parents():
    state = [Record("process", n, {"pid": n, "ppid": 3 - n}) for n in (1, 2)]
    assert process_tree(Records([], {}, state)).split() == ["1", "''", "2", "''"]


def test_required_kinds(image):
    assert required_kinds(image.path) == ("process", "pipe")
    (image.path / "state.cbor").write_bytes(cbor2.dumps({"requires": 3}))
    with pytest.raises(ImageError, match="does not say what it requires"):
        required_kinds(image.path)


def test_plain():
    assert plain({b"a": (b"\xff", None, 1)}) == {"a": ["\udcff", None, 1]}


# -- lists -----------------------------------------------------------------------------------------


def test_ls(tmp_path):
    store = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    image = add_image(store, tag="one", content=b"\xff" * (1 << 20))
    add_image(store, container="db", buffered=True, downtime=0)
    found = rows(store.images(), container=None)
    assert {row["container"] for row in found} == {"web", "db"}
    assert [row["container"] for row in rows(store.images(), container="db")] == ["db"]
    text = table(found)
    assert "buffered" in text
    # As the checkpoint has said it, and as inspect does: with the files of the container.
    room = image.room()
    assert room > 1 << 20
    assert next(row for row in found if row["container"] == "web")["size"] == room
    assert human_size(room) in text
    records = read_records(image.path)
    assert human_size(room) in image_text(image, image.manifest(), records)
    assert image_as_json(image, image.manifest(), records)["size"] == room
    json.dumps(found)


def test_ls_shows_damaged_images(tmp_path):
    store = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    (add_image(store).path / manifest.NAME).write_text("{}")
    (row,) = rows(store.images(), container=None)
    assert "damaged" in row
    assert "damaged" in table([row])


def test_ls_of_nothing():
    assert table([]) == "CONTAINER  TAGS  DIGEST  CREATED  SIZE  DOWNTIME"


def test_names_of_the_files():
    assert (images.OBJECTS, images.STATE, images.PAGES) == ("objects.cbor", "state.cbor", "pages")
