# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings: the command line over the configuration file over the defaults below.

The file is the one given with --config, else /etc/lxc-cr.toml if it exists. config/lxc-cr.toml
holds the same defaults in comments, to copy from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UsageError, os_message
from .schema import violations

SYSTEM_FILE = Path("/etc/lxc-cr.toml")


class Settings(NamedTuple):
    """Where things lie, how long to wait (seconds), how much of a deleted file to save (MiB).

    `lxcpath` None is LXC's own default, a limit of 0 none at all.
    """

    store: Path = Path("/var/lib/lxc-cr")
    buffer_dir: Path = Path("/dev/shm/lxc-cr")
    run_dir: Path = Path("/run/lxc-cr")
    lxcpath: str | None = None
    files: str = "snapshot"
    restart_timeout: int = 60
    deleted_file_limit: int = 256


def load(*, file: Path | None = None, **over: Any) -> Settings:
    """The settings of @file, or of the system's file, with those members of @over that are set.

    Raises UsageError, naming file, line and key.
    """
    values: dict[str, Any] = {}
    if file or SYSTEM_FILE.exists():
        values = read(file or SYSTEM_FILE)
    values.update((key, value) for key, value in over.items() if value is not None)
    for key in ("store", "buffer_dir", "run_dir"):
        if key in values:
            values[key] = Path(values[key]).absolute()
    return Settings(**values)


def read(file: Path) -> dict[str, Any]:
    """The validated content of a configuration file; raises UsageError."""
    import tomllib

    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"Failed to read '{file}': {os_message(error)}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is not UTF-8: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"'{file}' is not TOML: {error}") from error
    found = violations(values, schema="config.json")
    if found:
        lines = [
            f"{_place(file, text, violation.path)}: {violation.message}" for violation in found
        ]
        raise UsageError(
            "\n".join(lines), hint="The file config/lxc-cr.toml of lxc-cr explains every setting"
        )
    return values


def _place(file: Path, text: str, key: str) -> str:
    """FILE:LINE: KEY, as far as they are known."""
    for number, line in enumerate(text.splitlines(), start=1):
        if key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f"{file}:{number}: {key}"
    return f"{file}: {key}" if key else str(file)
