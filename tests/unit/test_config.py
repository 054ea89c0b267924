# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration file: defaults, precedence, and messages that lead to the line."""

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
    paths = {key for key, value in shown.items() if str(value).startswith("/")}
    assert config.load(file=file("")) == Settings(
        **{key: Path(value) if key in paths else value for key, value in shown.items()}
    )


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
    with pytest.raises(UsageError, match="'stoer' was unexpected"):
        config.load(file=file('stoer = "/x"'))


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
