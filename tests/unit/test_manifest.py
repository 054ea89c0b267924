# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manifest: what is written is read, and anything else is an ImageError."""

import json

import pytest
import xxhash

from lxc_cr_plugin import manifest
from lxc_cr_plugin.errors import ImageError
from tests.unit.images import make_manifest, write_files


@pytest.fixture
def made(tmp_path):
    write_files(tmp_path)
    return make_manifest(tmp_path)


def changed(made, change):
    """The bytes of @made after @change, a function on its members."""
    members = json.loads(made.encode())
    change(members)
    return json.dumps(members).encode()


def test_round_trip(made):
    assert manifest.decode(made.encode()) == made


def test_the_digest_is_that_of_the_bytes(made, tmp_path):
    data = made.encode()
    (tmp_path / manifest.NAME).write_bytes(data)
    assert manifest.load(tmp_path, digest=manifest.digest_of(data)) == made
    with pytest.raises(ImageError, match="not the one that the image is named after"):
        manifest.load(tmp_path, digest="0" * 64)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        manifest.load(tmp_path, digest="0" * 64)


def test_names_that_are_no_utf8_survive(made):
    odd = made._replace(container={**made.container, "config": "lxc.x = \udcff"})
    assert manifest.decode(odd.encode()) == odd


def test_files_are_listed_with_digests(made):
    files = {file.name: file for file in made.files}
    assert sorted(files) == ["files/5", "objects.cbor", "pages", "state.cbor"]
    assert files["pages"].xxh3 == (xxhash.xxh3_128_hexdigest(b"\x07" * 8192),)
    assert files["files/5"].size == 16
    assert len(files["files/5"].sha256) == 64
    assert made.size() == sum(file.size for file in made.files)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 12288])
def test_every_piece_of_pages_has_its_digest(tmp_path, monkeypatch, size):
    monkeypatch.setattr(manifest, "PIECE", 4096)
    data = bytes(n % 251 for n in range(size))
    (tmp_path / "pages").write_bytes(data)
    wanted = [
        xxhash.xxh3_128_hexdigest(data[begin : begin + 4096]) for begin in range(0, size, 4096)
    ]
    assert manifest.xxh3_digests(tmp_path / "pages") == tuple(wanted)


def test_requires(made):
    made.check_requires(known=["pipe", "eventfd", "process"])
    with pytest.raises(ImageError, match="needs feature 'pipe', which this version lacks") as error:
        made.check_requires(known=["process"])
    assert "lxc-cr 0.1.0" in error.value.hint
    with pytest.raises(ImageError, match="the features 'process', 'pipe'"):
        made.check_requires(known=[])


def test_a_newer_format(made):
    with pytest.raises(ImageError, match="has format 2, this version reads format 1"):
        manifest.decode(changed(made, lambda m: m.update(format=2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("clocks"), "'clocks' is a required property"),
        (lambda m: m.update(extra=1), "'extra' was unexpected"),
        (lambda m: m.update(parent="x"), "parent"),
        (lambda m: m.update(format=True), "format"),
        (lambda m: m.update(created="yesterday"), "created"),
        (lambda m: m.update(requires=["Bad Name"]), "requires"),
        (lambda m: m["clocks"].update(realtime=-1), "clocks.realtime"),
        (lambda m: m["clocks"].update(realtime=2**64), "clocks.realtime"),
        (lambda m: m["clocks"].update(realtime="1"), "clocks.realtime"),
        (lambda m: m["container"].update(name="../x"), "container.name"),
        (lambda m: m["container"].update(runtime="vm"), "container.runtime"),
        (lambda m: m["files"][0].update(name="../../etc/passwd"), r"files\[0\].name"),
        (lambda m: m["files"][0].update(name="files/../x"), r"files\[0\].name"),
        (lambda m: m["files"][0].update(sha256="0"), r"files\[0\].sha256"),
        (lambda m: m["files"][0].pop("sha256"), "needs sha256 or xxh3"),
        (lambda m: m["files"][0].update(xxh3=[]), "needs sha256 or xxh3"),
        (lambda m: m["files"].append(m["files"][0]), "listed twice"),
        (lambda m: m["files"][2].update(xxh3=["0" * 32] * 2), "one digest per 64 MiB"),
        (lambda m: m.update(files={}), "files"),
    ],
)
def test_what_is_not_valid(made, change, message):
    with pytest.raises(ImageError, match=message):
        manifest.decode(changed(made, change))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"format": 1.0}',
        b'{"format": NaN}',
        b'{"format": 1, "format": 1}',
        b'{"format": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b" " * (manifest.LARGEST + 1),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_manifest(data):
    with pytest.raises(ImageError):
        manifest.decode(data)


def test_writing_an_invalid_manifest_fails(made):
    with pytest.raises(ImageError, match="clocks"):
        made._replace(clocks={}).encode()


def test_only_plain_files_belong_into_an_image(tmp_path):
    write_files(tmp_path)
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ImageError, match="'link' does not belong"):
        manifest.file_names(tmp_path)


def test_directories_do_not_nest(tmp_path):
    write_files(tmp_path)
    (tmp_path / "files" / "deep").mkdir()
    with pytest.raises(ImageError, match="'files/deep' does not belong"):
        manifest.file_names(tmp_path)
