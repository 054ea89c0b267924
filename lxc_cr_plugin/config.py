# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings: the command line over the container's file over the system's file over the defaults below.

The system's file is the one given with --config, else that of $LXC_CR_CONFIG, else
/etc/lxc-cr.toml if it exists. A container's file is lxc-cr.toml beside its configuration; it holds
policies, not the places that all containers of a host share. config/lxc-cr.toml holds the same
defaults in comments, to copy from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UsageError, os_message
from .schema import violations
from .trusted import Untrusted, read_trusted, write_durably

SYSTEM_FILE = Path("/etc/lxc-cr.toml")
FILE_VARIABLE = "LXC_CR_CONFIG"
CONTAINER_FILE = "lxc-cr.toml"

# What holds for the whole host: whoever repairs or lists knows no container.
PLACES = ("store", "buffer_dir", "run_dir", "lxcpath")

# Values of policies that code asks for; those of `files` and `restart_files` are in snapshot/.
FAIL, FRESH = "fail", "fresh"
REFUSE, IGNORE = "refuse", "ignore"
CHECKPOINT = "checkpoint"
DROP, FLUSH = "drop", "flush"
FOLLOW = "follow"
REMOVE = "remove"
KEEP = "keep"

# The tag of what `lxc-cr shutdown` makes.
SHUTDOWN_TAG = "shutdown"


class Settings(NamedTuple):
    """Where things lie, how long to wait (seconds), how much of a deleted file to save (MiB), policies.

    `lxcpath` None is LXC's own default, a limit of 0 none at all. docs/hooks.md explains the policies.
    """

    store: Path = Path("/var/lib/lxc-cr")
    buffer_dir: Path = Path("/dev/shm/lxc-cr")
    run_dir: Path = Path("/run/lxc-cr")
    lxcpath: str | None = None
    files: str = "snapshot"
    restart_timeout: int = 60
    deleted_file_limit: int = 256
    attached: str = REFUSE
    restart_files: str = "rollback"
    verify: str = "quick"
    lease: str = "remaining"
    outside_locks: str = REFUSE
    time: str = "continue"
    other_mounts: tuple[str, ...] = ()
    clone_network: str = FRESH
    resume_at_start: bool = False
    on_failure: str = FAIL
    on_stop: str = "keep"
    on_clone: str = DROP
    on_destroy: str = "keep"
    at_shutdown: str = "stop"

    def accepted_sources(self) -> dict[str, str | None]:
        """Places at which a restart accepts whatever the configuration mounts there now."""
        return dict.fromkeys(self.other_mounts)


def load(*, file: Path | None = None, container: Path | None = None, **over: Any) -> Settings:
    """The settings of @file, or of the system's file, with those members of @over that are set.

    @container is the directory of a container, whose own file comes between the two. Raises
    UsageError, naming file, line and key.
    """
    values: dict[str, Any] = {}
    system = file or system_file()
    if system:
        values = read(system)
    if container and os.path.lexists(container / CONTAINER_FILE):
        values |= read(container / CONTAINER_FILE, places=False)
    for option, key in (("-P", "lxcpath"), ("--store", "store")):
        refuse_empty(option, over.get(key))
    values |= {key: value for key, value in over.items() if value is not None}
    for key in ("store", "buffer_dir", "run_dir"):
        if key in values:
            values[key] = Path(values[key]).absolute()
    if values.get("lxcpath"):
        values["lxcpath"] = one_spelling(values["lxcpath"])
    if "other_mounts" in values:
        values["other_mounts"] = tuple(values["other_mounts"])
    return Settings(**values)


def one_spelling(lxcpath: str) -> str:
    """The absolute path of @lxcpath, without `..`: LXC's socket and our locks are called by it.

    Symbolic links stay: LXC goes by what is written. Raises UsageError where a `..` behind one
    leads elsewhere than it reads.
    """
    path = os.path.abspath(lxcpath)  # noqa: PTH100
    meant = os.path.realpath(lxcpath)
    if os.path.realpath(path) != meant:
        raise UsageError(
            f"The lxcpath '{lxcpath}' has '..' behind a symbolic link, which leads to '{meant}' and "
            f"reads like '{path}'",
            hint=f"Write '{meant}', if that is meant",
        )
    return path


def refuse_empty(option: str, given: object) -> None:
    """Raise UsageError for a place of the command line that is "", as of a variable that is not set.

    It would be taken for the default, or for the working directory.
    """
    if given == "":
        raise UsageError(
            f"{option} was given an empty path",
            hint="Name a directory, or leave the option out; in a script, look whether the variable "
            "is set",
        )


def add_settings(file: Path, values: Mapping[str, Any]) -> None:
    """Add @values to the configuration file of a container; lists grow. Raises UsageError, OSError."""
    if not values:
        return
    before = read(file, places=False) if file.exists() else {}
    lists = {
        key: sorted({*before.get(key, ()), *value})
        for key, value in values.items()
        if isinstance(value, list)
    }
    # Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
    text = "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in {**before, **values, **lists}.items()
    )
    write_durably(file, text.encode())


def system_file() -> Path | None:
    """The file that holds for the whole host, None when there is none."""
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


def read(file: Path, *, places: bool = True) -> dict[str, Any]:
    """The validated content of a configuration file; raises UsageError.

    Without @places it is a container's, which has no say in PLACES.
    """
    import tomllib

    try:
        text = read_trusted(file).decode()
        values = tomllib.loads(text)
    except Untrusted as error:
        raise UsageError(
            f"'{file}' {error}", hint=f"chown root {file}; chmod go-w {file}"
        ) from error
    except OSError as error:
        raise UsageError(f"Failed to read '{file}': {os_message(error)}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is not UTF-8: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"'{file}' is not TOML: {error}") from error
    found = mistakes(values, places=places)
    if found:
        raise UsageError(
            "; ".join(f"{_place(file, text, key)}: {reason}" for key, reason in found),
            hint="The file config/lxc-cr.toml of lxc-cr explains every setting",
        )
    return values


def mistakes(values: dict[str, Any], *, places: bool) -> list[tuple[str, str]]:
    """Keys and what is wrong with each."""
    found = []
    known = set(Settings._fields) - (set() if places else set(PLACES))
    for key in values.keys() - known:
        if key in PLACES:
            found.append((key, f"holds for the whole host: it belongs into {SYSTEM_FILE}"))
        else:
            import difflib

            similar = difflib.get_close_matches(key, known, n=1)
            guess = f", did you mean '{similar[0]}'?" if similar else ""
            found.append((key, f"there is no such setting{guess}"))
    known_values = {key: value for key, value in values.items() if key in known}
    found += [
        (found.path, found.message) for found in violations(known_values, schema="config.json")
    ]
    return sorted(found)


def _place(file: Path, text: str, key: str) -> str:
    """FILE:LINE: KEY, as far as they are known."""
    name = re.escape(key)
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(rf"\s*\[*\s*[\"']?{name}[\"']?\s*[=.\]]", line):
            return f"{file}:{number}: {key}"
    return f"{file}: {key}"
