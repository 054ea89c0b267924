# SPDX-License-Identifier: LGPL-2.1-or-later
"""lxc-cr without its imports: each command is a fork of a process that has everything loaded.

To load Python and all modules takes a third of a checkpoint of a small container, and the tests run
more than a thousand commands. A fork has done nothing but that: environment, arguments and descriptors
are those of a command by itself. What is started or killed at any moment (`Container.spawn`), by LXC's
hooks, or as lxc-checkpoint is a program of its own all the same; with CR_EXECUTE=1 all commands are.
"""

import array
import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# As a program of its own would be called.
COMM = "lxc-cr"

LONGEST = 1 << 20


class Preloaded:
    """The process that commands are forked from, for a `with` block."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid

    def __enter__(self) -> "Preloaded":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait(timeout=60)

    def run(
        self, command: list[str], *, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run @command, of which the first word is lxc-cr, to its end."""
        with (
            Path(os.devnull).open() as nothing,
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            request = {"command": command, "environment": environment, "directory": str(Path.cwd())}
            data = json.dumps(request).encode()
            files = [file.fileno() for file in (nothing, stdout, stderr)]
            socket.send_fds(self._socket, [data], files)
            pid = self._answer(timeout)
            try:
                code = self._answer(timeout)
            except BaseException as error:  # it has taken too long, or the tests are told to end
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self._answer(timeout)
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(command, timeout) from None
                raise
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(command, code, *texts)

    def _answer(self, timeout: float) -> int:
        self._socket.settimeout(timeout)
        data = self._socket.recv(array.array("q").itemsize)
        assert data, "the process that commands are forked from has ended"
        return int.from_bytes(data, sys.byteorder, signed=True)


def load() -> None:
    """Import everything that a command may need, as far as that is no state of its own."""
    import lxc_cr_plugin
    from lxc_cr_plugin import network

    for module in pkgutil.walk_packages(lxc_cr_plugin.__path__, "lxc_cr_plugin."):
        if not module.name.endswith("build_engine"):
            importlib.import_module(module.name)
    network.import_tools()
    for name in ("cbor2", "tomllib", "xxhash"):
        importlib.import_module(name)


def serve(requests: socket.socket) -> None:
    """Fork a command for each request, answer with its pid and with its exit code, until the end."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, LONGEST, 3)
        if not data:
            return
        pid = os.fork()
        if pid == 0:
            become(json.loads(data), files)
        for file in files:
            os.close(file)
        answer(requests, pid)
        answer(requests, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def answer(requests: socket.socket, number: int) -> None:
    requests.sendall(number.to_bytes(array.array("q").itemsize, sys.byteorder, signed=True))


def become(request: dict, files: list[int]) -> None:
    """Be that command; does not return."""
    from lxc_cr_plugin.__main__ import main

    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, file in enumerate(files):
            os.dup2(file, target)
        os.closerange(3, 2**31 - 1)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        sys.argv = request["command"]
        main()
    except SystemExit as end:  # argparse's, of a command line that is wrong
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import gc

    Path("/proc/self/comm").write_text(COMM)
    # Control-C is for the tests, and for the command that runs; they need us once more afterwards.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load()
    # What is here to stay need be neither looked at again, nor copied because of that.
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
