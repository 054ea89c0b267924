# SPDX-License-Identifier: LGPL-2.1-or-later
"""The network of a container as it was: taken at a checkpoint, put back at a restart.

    IMAGE/network.json    interfaces, addresses, routes, rules, neighbours, settings, packet filter

LXC makes the interfaces that its configuration names; everything else is put back before a process of
the container runs: from its hook, when the network namespace stands and init waits. pyroute2 takes a
fifth of a second to import, so it is imported where it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HostError, ImageError, LxcCrError, Obstacle, UnsupportedError
from ..schema import violations

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..native.setting_writes import SettingWrites
    from ..store import Image
    from .ears import Ears
    from .sysctl import Settings

NAME = "network.json"

# What a reader of an image with a network must know.
FEATURE = "network"

State = dict[str, Any]


class Nic(NamedTuple):
    """An interface that the runtime makes: entry @number of its configuration."""

    number: int
    type: str
    name: str
    link: str = ""
    address: str = ""
    pair: str = ""  # the name of its other end, on the host
    static: tuple[str, ...] = ()  # members that give it addresses and gateways

    def key(self, member: str) -> str:
        """The key of @member in the runtime's configuration."""
        return f"lxc.net.{self.number}.{member}"


# Types of interfaces that get a random address unless the configuration says one.
RANDOM_ADDRESS = ("veth", "macvlan")


class Watch:
    """The network of process @pid: taken beforehand, and again under the stop if it has changed."""

    def __init__(self, pid: int, nics: Iterable[Nic]) -> None:
        from .namespace import Namespace

        import_tools()
        self._pid = pid
        self._nics = [nic.name for nic in nics]
        self._settings: Settings | None = None
        self._writes: SettingWrites | None = None
        self._written: int | None = None
        self._owners: Any = None
        self._ears: Ears | None = None
        self._state: State = {}
        with ExitStack() as undo:
            self._namespace = undo.enter_context(Namespace(pid))
            self._namespace.call(self._prepare)
            self._scope = undo.pop_all()

    def close(self) -> None:
        """Leave the namespace."""
        self._scope.close()
        if self._ears:
            self._ears.close()
        if self._settings:
            self._settings.close()
        if self._writes:
            self._writes.close()

    def _prepare(self) -> None:
        from .ears import Ears

        self._ears = Ears()
        self._state = self._read()

    def _read(self) -> State:
        from . import links, nft, routing, sysctl

        found = links.read(of_runtime=self._nics)
        # To open hundreds of settings again takes longer than everything else.
        owners = sysctl.modules(), sorted((link["index"], link["name"]) for link in found)
        if not self._settings or owners != self._owners:
            if self._settings:
                self._settings.close()
            self._settings, self._owners = sysctl.Settings(sysctl.paths()), owners
        self._settings.take()
        rest = routing.read({link["index"]: link["name"] for link in found})
        return {
            "links": found,
            **rest,
            "filter": nft.read(),
        }

    def rehearse(self) -> None:
        """Take again what has changed, so that `freeze` has less to do; all tasks run."""
        from . import sysctl

        self._writes = self._writes or sysctl.count_writes(self._pid)
        self._written = None
        self._renew()

    def freeze(self) -> None:
        """Make it the state of this instant; all tasks stand. UnsupportedError for what has come since."""
        if self._renew():
            found = self._found()
            if found:
                raise UnsupportedError(
                    found[0].message,
                    hint=found[0].hint,
                    object=found[0].object,
                    obstacles=tuple(found),
                )

    def _renew(self) -> bool:
        """Whether more has changed than values of settings and what packets change."""
        from . import nft

        if not self._ears or not self._settings:
            return False
        if self._ears.heard(neighbours=bool(self._state["neighbours"])):
            self._state = self._namespace.call(self._read)
            return True
        if self._may_be_written():
            self._take_settings(self._settings)
        if nft.is_lively(self._state["filter"]):
            self._state["filter"] = self._namespace.call(nft.read)
        return False

    def _may_be_written(self) -> bool:
        """Whether somebody may have written a setting since this said so last.

        What else changes one is heard of, but for parameters of neighbour tables that are set by netlink:
        those of the rehearsal have to do.
        """
        written = self._writes.count() if self._writes else None
        if written is not None and written == self._written:
            return False
        self._written = written
        return True

    def _take_settings(self, settings: Settings) -> None:
        # What is open is of the namespace for whoever reads it: to wake somebody there takes longer.
        if settings.are_of_reader:
            self._namespace.call(settings.take)
        else:
            settings.take()

    def obstacles(self) -> list[Obstacle]:
        """What a restart could not put back."""
        from . import nft

        return [
            *self._found(),
            *self._namespace.call(_legacy_tables),
            *self._namespace.call(lambda: list(nft.obstacles(self._state["filter"]))),
        ]

    def _found(self) -> list[Obstacle]:
        from . import links, routing

        return [*links.obstacles(self._state["links"]), *routing.obstacles(self._state)]

    def write(self, directory: Path) -> None:
        """Make it part of the image in @directory.

        Raises HostError or ImageError when the packet filter has become one that cannot come back.
        """
        from . import nft

        self._namespace.call(lambda: nft.check(self._state["filter"]))
        settings = self._settings.values() if self._settings else {}
        state = {"format": 1, **self._state, "settings": settings}
        text = json.dumps(state, indent=1, sort_keys=True)
        (directory / NAME).write_text(text + "\n")


def _legacy_tables() -> list[Obstacle]:
    """Tables of iptables-legacy, arptables or ebtables, which nftables does not show."""
    found = []
    for family in ("ip", "ip6", "arp"):
        with suppress(OSError):  # a kernel without them
            names = Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split()
            found += [f"{family} {name}" for name in names]
    return [
        Obstacle(
            kind="unsupported",
            message=f"The container has the table '{name}' of iptables-legacy",
            hint="Not supported: use iptables-nft, or remove it and its module",
            object="legacy_table",
        )
        for name in found
    ]


def load(image: Image, manifest: Manifest) -> State | None:
    """The network of @image, None when it has none; raises ImageError for anything odd."""
    if not any(file.name == NAME for file in manifest.files):
        return None
    try:
        state = json.loads((image.path / NAME).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"'{NAME}' cannot be read: {error}") from error
    found = violations(state, schema="network.json")
    if found:
        where = found[0].path or "the top level"
        raise ImageError(f"'{NAME}' is not valid: {where}: {found[0].message[:500]}")
    refuse_unknown(state)
    return dict(state)


def refuse_unknown(state: State) -> None:
    """Raise ImageError for anything in @state that no checkpoint writes.

    An attribute that is passed on unseen might lead out of the container's network: the other end
    of a pair, say, can be made in any other.
    """
    from . import links, nft, routing

    links.refuse_unknown(state["links"])
    routing.refuse_unknown(state)
    nft.refuse_commands(state["filter"])


def settings_of(
    state: State | None, nics: Iterable[Nic], bridges: Mapping[str, str]
) -> list[tuple[str, str]]:
    """What the runtime's configuration is to say for one start: old addresses, other bridges.

    @bridges: by the name of an interface or of its bridge, the bridge to use instead.
    """
    links = {link["name"]: link for link in state["links"]} if state else {}
    settings = []
    for nic in nics:
        link = links.get(nic.name)
        if link and link["address"] and nic.type in RANDOM_ADDRESS and not nic.address:
            settings.append((nic.key("hwaddr"), link["address"]))
        bridge = bridges.get(nic.name) or bridges.get(nic.link)
        if bridge:
            settings.append((nic.key("link"), bridge))
    return settings


def forget_identity(state: State, *, addresses: bool) -> None:
    """Let interfaces that lead out have the MAC addresses that they get, and what follows from them.

    Without @addresses they lose all others too, and the routes over them; what is inside keeps its own.
    """
    from . import routing

    names = _outward(state["links"])
    for link in state["links"]:
        if link["name"] in names:
            link["address"] = None
    routing.forget_addresses(state, names, all_of_them=not addresses)


def _outward(links: Sequence[State]) -> set[str]:
    """Names of interfaces that others outside see: the runtime's, what stands on them, their bridges."""
    names = {link["name"] for link in links if link["runtime"] and link["kind"] in RANDOM_ADDRESS}
    before = 0
    while len(names) > before:
        before = len(names)
        names |= {link["master"] for link in links if link["master"] and link["name"] in names}
        names |= {
            link["name"]
            for link in links
            if link["kind"] in ("macvlan", "vlan") and link["below"] in names
        }
    return names


def put_back(pid: int, state: State) -> None:
    """Make the network of process @pid what it was; nothing of the container runs yet.

    Raises HostError or RestartError, and the restart fails.
    """

    from .namespace import Namespace

    with Namespace(pid) as namespace:
        namespace.call(lambda: _put_back(state))


def _put_back(state: State) -> None:
    from . import links, nft, routing, sysctl

    try:
        links.write(state["links"])
        # No search for duplicates of addresses that were in use a moment ago: it takes a second.
        settings = state["settings"]
        unsearched = {name: "0" for name in settings if name.endswith("/accept_dad")}
        sysctl.write({**settings, **unsearched})
        links.bring_up(state["links"])
        numbers = {link["name"]: link["index"] for link in links.read(of_runtime=[])}
        fresh = {link["name"] for link in state["links"] if link["address"] is None}
        routing.write_addresses(state["addresses"], numbers, fresh=fresh)
        routing.write_rest(state, numbers)
        sysctl.write({name: settings[name] for name in unsearched})
        nft.write(state["filter"])
    except LxcCrError:
        raise
    except Exception as error:
        # What pyroute2 cannot encode gives any.
        raise HostError(f"The network of the image cannot be put back: {error!r}") from error


def import_tools() -> None:
    """Import what `put_back` needs, so that it need not be done while the container waits."""
    from . import links, nft, routing, sysctl  # noqa: F401
    from .netlink import classes

    classes()
