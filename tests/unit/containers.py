# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container without a runtime, for tests of what drives one."""

from pathlib import Path

from lxc_cr_plugin.container import RUNNING, STOPPED
from lxc_cr_plugin.errors import ContainerError, RestartError


class FakeStart:
    """A start that has ended already."""

    pidfd = -1

    def __init__(self, *, code):
        self.code = code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return self.code

    def failure(self):
        return RestartError("It did not start")


class FakeContainer:
    """Does what it is told and remembers it."""

    name = "web"
    lxcpath = "/var/lib/lxc"
    directory = Path("/nonexistent/web")
    address = "-n web"
    runtime = "lxc"

    def __init__(self, *, state=RUNNING, exists=True):
        self.now = state
        self.exists = exists
        self.pid = 4711
        self.start_code = 0
        self.events = []

    def defined(self):
        return self.exists

    def state(self):
        return self.now

    def init_pid(self):
        if self.now == STOPPED:
            raise ContainerError("not running")
        return self.pid

    def rootfs(self):
        return "dir:/var/lib/lxc/web/rootfs"

    def config_text(self):
        return "lxc.uts.name = web\n"

    def shares_network(self):
        return True

    def mount_places(self):
        return []

    def resumes(self):
        return False

    def cgroup_hint(self):
        return "lxc.payload.web"

    def nics(self):
        return []

    def start(self, *, hook, sources, settings=(), keep=()):
        self.events.append(("start", hook))
        if self.start_code == 0:
            self.now = RUNNING
        return FakeStart(code=self.start_code)

    def kill(self):
        self.events.append(("kill",))
        self.now = STOPPED

    def wait_for(self, state, *, timeout):
        return self.now == state
