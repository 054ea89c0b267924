# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration file: defaults, precedence, and messages that lead to the line."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from lxc_cr_plugin import config
from lxc_cr_plugin.config import Settings
from lxc_cr_plugin.errors import UsageError
from lxc_cr_plugin.resources import data_file


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "none.toml")


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "lxc-cr.toml"
        path.write_text(text)
        return path

    return write


def test_the_packaged_file_shows_the_defaults(file):
    text = data_file("lxc-cr.toml").read_text()
    assert tomllib.loads(text) == {}
    shown = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert shown.keys() == set(Settings._fields)
    assert shown.pop("lxcpath") == "/var/lib/lxc"
    shown["other_mounts"] = tuple(shown["other_mounts"])
    paths = {key for key, value in shown.items() if str(value).startswith("/")}
    assert config.load(file=file("")) == Settings(
        **{key: Path(value) if key in paths else value for key, value in shown.items()}
    )


def test_settings_that_are_added(file):
    path = file('on_failure = "fresh"\nother_mounts = ["/srv"]\n')
    config.add_settings(path, {"other_mounts": ['/data/\u00fc"x'], "clone_network": "keep"})
    found = config.load(file=path)
    assert found.on_failure == "fresh"
    assert found.other_mounts == ('/data/\u00fc"x', "/srv")
    assert found.clone_network == "keep"
    before = path.read_text()
    config.add_settings(path, {})
    assert path.read_text() == before


def test_no_file_is_fine():
    assert config.load() == Settings()


def test_the_system_file_is_read(file, monkeypatch):
    monkeypatch.setattr(config, "SYSTEM_FILE", file('store = "/srv/images"'))
    assert config.load().store == Path("/srv/images")


def test_the_command_line_wins(file, monkeypatch, tmp_path):
    path = file('store = "/srv/images"\nlxcpath = "/srv/lxc"\nrestart_timeout = 5')
    monkeypatch.chdir(tmp_path)
    settings = config.load(file=path, store="relative", lxcpath=None)
    assert settings.store == tmp_path / "relative"
    assert settings.lxcpath == "/srv/lxc"
    assert settings.restart_timeout == 5


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('\nstore = "relative"', "2: store", "does not match"),
        ("restart_timeout = 0", "1: restart_timeout", "minimum"),
        ("restart_timeout = 1.5", "1: restart_timeout", "not of type 'integer'"),
        ("restart_timeout = true", "1: restart_timeout", "not of type 'integer'"),
        ("run_dir = 1", "1: run_dir", "not of type 'string'"),
    ],
)
def test_a_bad_value_is_found_by_line(file, text, line, reason):
    path = file(text)
    with pytest.raises(UsageError, match=reason) as caught:
        config.load(file=path)
    assert f"{path}:{line}: " in str(caught.value)


def test_an_unknown_key(file):
    with pytest.raises(UsageError, match=r"lxc-cr\.toml:2: stoer: .* did you mean 'store'"):
        config.load(file=file('\nstoer = "/x"'))
    with pytest.raises(UsageError, match=r"lxc-cr\.toml:1: web: there is no such setting"):
        config.load(file=file('[web]\nfiles = "none"'))


@pytest.fixture
def container(tmp_path):
    def write(text):
        directory = tmp_path / "web"
        directory.mkdir(exist_ok=True)
        (directory / config.CONTAINER_FILE).write_text(text)
        return directory

    return write


def test_precedence(file, container, tmp_path):
    system = file('files = "none"\nverify = "full"\nrestart_timeout = 5')
    web = container('verify = "quick"\nrestart_timeout = 6')
    settings = config.load(file=system, container=web, restart_timeout=7, lease=None)
    assert (settings.files, settings.verify, settings.restart_timeout) == ("none", "quick", 7)
    assert settings.lease == "remaining"
    assert config.load(file=system, container=tmp_path / "other").verify == "full"


def test_a_container_has_no_say_in_places(container):
    directory = container('on_stop = "drop"\nstore = "/tmp/mine"')
    with pytest.raises(UsageError, match=r"web/lxc-cr\.toml:2: store: holds for the whole host"):
        config.load(container=directory)


@pytest.mark.parametrize(
    "text",
    ['lease = "+x"', "resume_at_start = 1", 'on_failure = "ignore"', 'at_shutdown = ""'],
)
def test_bad_policies(text, container):
    directory = container(text)
    with pytest.raises(UsageError, match=rf"lxc-cr\.toml:1: {text.split()[0]}: "):
        config.load(container=directory)


@pytest.mark.parametrize("text", ['lease = "+1.5"', 'lease = "holder"', "resume_at_start = true"])
def test_good_policies(text, container):
    assert config.load(container=container(text)) != Settings()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o664), "can be written by others than root"),
        (lambda path: path.chmod(0o646), "can be written by others than root"),
        (lambda path: os.chown(path, 1000, 0), "does not belong to root"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is not a plain file"),
        (lambda path: path.write_bytes(b"#" * (2 << 20)), "is larger than"),
    ],
)
def test_a_file_of_somebody_else(spoil, reason, file, container):
    """Settings say where code comes from that root runs."""
    for path, options in (
        (file(""), lambda path: {"file": path}),
        (container("") / config.CONTAINER_FILE, lambda path: {"container": path.parent}),
    ):
        config.load(**options(path))
        spoil(path)
        with pytest.raises(UsageError, match=reason):
            config.load(**options(path))


def test_a_dangling_link_is_no_missing_file(container):
    directory = container("")
    (directory / config.CONTAINER_FILE).unlink()
    (directory / config.CONTAINER_FILE).symlink_to("nowhere")
    with pytest.raises(UsageError, match="No such file"):
        config.load(container=directory)


def test_the_environment_names_the_file(file, monkeypatch, tmp_path):
    monkeypatch.setenv(config.FILE_VARIABLE, str(file("restart_timeout = 9")))
    assert config.load().restart_timeout == 9
    other = tmp_path / "other.toml"
    other.write_text("restart_timeout = 8")
    assert config.load(file=other).restart_timeout == 8


def test_not_toml(file):
    with pytest.raises(UsageError, match=r"not TOML: .*line 2"):
        config.load(file=file("\nstore = \n"))


def test_not_utf8(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        config.load(file=tmp_path / "x")


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        config.load(file=tmp_path / "missing")


def test_places_where_another_mount_is_accepted(file):
    found = config.load(file=file('other_mounts = ["/srv", "/data"]'))
    assert found.accepted_sources() == {"/srv": None, "/data": None}
    with pytest.raises(UsageError, match="other_mounts"):
        config.load(file=file('other_mounts = ["srv"]'))


def test_one_spelling_of_the_lxcpath(tmp_path, monkeypatch):
    """LXC's command socket and our locks have their names from it."""
    (tmp_path / "lxc").mkdir()
    monkeypatch.chdir(tmp_path / "lxc")
    file = tmp_path / "empty.toml"
    file.touch()
    for spelled in (".", "../lxc", f"{tmp_path}/lxc/", f"{tmp_path}/other/../lxc"):
        assert config.load(file=file, lxcpath=spelled).lxcpath == f"{tmp_path}/lxc"


def test_an_lxcpath_that_reads_like_another(file, tmp_path):
    """The kernel goes up from where a symbolic link leads, the text from where it lies."""
    (tmp_path / "elsewhere" / "lxc").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/lxc")
    (tmp_path / "same").symlink_to("elsewhere")
    settings = file("")
    with pytest.raises(UsageError, match="behind a symbolic link"):
        config.load(file=settings, lxcpath=f"{tmp_path}/link/../lxc")
    for spelled in ("link", "same/../link", "same/lxc"):
        path = config.load(file=settings, lxcpath=f"{tmp_path}/{spelled}").lxcpath
        assert path == f"{tmp_path}/{spelled.removeprefix('same/../')}"
