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
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HostError, ImageError, LxcCrError, Obstacle, UnsupportedError
from ..schema import violations

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..native.setting_writes import SettingWrites
    from ..store import Image

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
    """The network of process @pid: taken beforehand, and again under the stop if it has changed.

    `uncounted` tells why nobody knows whether settings were written; they are always read again then.
    close() it.
    """

    def __init__(self, pid: int, nics: Iterable[Nic]) -> None:
        from . import sysctl
        from .ears import Ears
        from .namespace import Namespace

        import_tools()
        self._nics = [nic.name for nic in nics]
        self._owners: Any = None
        self._age = 0.0
        with ExitStack() as undo:
            # First of all, see `_may_be_written`.
            self._writes, self.uncounted = _count_writes(pid)
            if self._writes:
                undo.callback(self._writes.close)
            self._settings = sysctl.Settings(())
            # Later than the end of the thread, which may be at them when we are interrupted.
            undo.callback(lambda: self._settings.close())
            self._namespace = undo.enter_context(Namespace(pid))
            self._ears = undo.enter_context(closing(self._namespace.call(Ears)))
            self._state = self._namespace.call(self._read)
            self._scope = undo.pop_all()

    def close(self) -> None:
        """Leave the namespace."""
        self._scope.close()

    def _read(self) -> State:
        from . import links, nft, routing, sysctl

        self._read_at = monotonic()
        found = links.read(of_runtime=self._nics)
        # To open hundreds of settings again takes longer than everything else.
        owners = sysctl.modules(), sorted((link["index"], link["name"]) for link in found)
        if owners != self._owners:
            self._settings.close()
            self._settings, self._owners = sysctl.Settings(sysctl.paths()), owners
        self._settings.take()
        rest = routing.read(
            {link["index"]: link["name"] for link in found}, own=_mac_addresses(found)
        )
        return {
            "links": found,
            **rest,
            "filter": nft.read(),
        }

    def rehearse(self) -> None:
        """Take it again, so that `freeze` has less to do; all tasks run.

        Raises UnsupportedError for what has come since.
        """
        heard = self._renew(written=True)
        _refuse(self.obstacles() if heard else self._unheard())

    def freeze(self) -> None:
        """Make it the state of this instant; all tasks stand. UnsupportedError for what has come since."""
        heard = self._renew(written=self._may_be_written())
        self._age = monotonic() - self._read_at
        if heard:
            _refuse(self._found())

    def _renew(self, *, written: bool) -> bool:
        """Whether more has changed than values of settings and what packets change."""
        from . import nft

        # One that was set may have become one that is not.
        was_set = bool(self._state["neighbours"] or self._state.get("forwarding"))
        if self._ears.heard(neighbours=was_set):
            self._state = self._namespace.call(self._read)
            return True
        self._take_settings(written=written)
        if nft.is_lively(self._state["filter"]):
            self._state["filter"] = self._namespace.call(nft.read)
        return False

    def _may_be_written(self) -> bool:
        """Whether the rehearsal may have read a setting before somebody changed it.

        A write is counted before it has any effect, so one that was counted before the rehearsal may have
        had it afterwards: it does not help to compare the numbers of then and now. Nobody has begun
        to write since the first look, or all are read again. Not counted are those who had begun by
        then, and would have to be at it still when the rehearsal reads. What netlink sets of neighbour
        tables and of connection tracking, of which nobody tells, is as of the rehearsal.
        """
        return self._writes is None or self._writes.count() > 0

    def _take_settings(self, *, written: bool) -> None:
        settings = self._settings
        if not written:
            settings.take_advertised()
        elif settings.are_of_reader:
            self._namespace.call(settings.take)
        else:
            # What is open is of the namespace for whoever reads it: to wake somebody there takes longer.
            settings.take()

    def obstacles(self) -> list[Obstacle]:
        """What a restart could not put back."""
        from . import nft

        return [
            *self._found(),
            *self._unheard(),
            *self._namespace.call(lambda: list(nft.obstacles(self._state["filter"]))),
        ]

    def _unheard(self) -> list[Obstacle]:
        """Obstacles that are not looked for under the stop: nobody tells of them, or nobody listens."""
        from . import bridges

        found = self._state["links"]
        return self._namespace.call(lambda: [*_legacy_tables(), *bridges.obstacles(found)])

    def _found(self) -> list[Obstacle]:
        from . import links, routing

        return [*links.obstacles(self._state["links"]), *routing.obstacles(self._state)]

    def write(self, directory: Path) -> None:
        """Make it part of the image in @directory.

        Raises HostError or ImageError when the packet filter has become one that cannot come back.
        """
        from . import nft, routing

        self._namespace.call(lambda: nft.check(self._state["filter"]))
        state = routing.grow_older(self._state, seconds=int(self._age))
        state |= {"format": 1, "settings": self._settings.values()}
        text = json.dumps(state, indent=1, sort_keys=True)
        (directory / NAME).write_text(text + "\n")


def _count_writes(pid: int) -> tuple[SettingWrites | None, str]:
    """Counts who writes settings; None, and the reason, where nobody can."""
    from . import sysctl

    try:
        return sysctl.count_writes(pid), ""
    except HostError as error:
        return None, f"{error} ({error.hint})" if error.hint else str(error)


def _refuse(found: list[Obstacle]) -> None:
    """Raise UnsupportedError when there is an obstacle in @found."""
    if found:
        first = found[0]
        raise UnsupportedError(
            first.message, hint=first.hint, object=first.object, obstacles=tuple(found)
        )


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
        present = links.read(of_runtime=[])
        numbers = {link["name"]: link["index"] for link in present}
        fresh = {link["name"] for link in state["links"] if link["address"] is None}
        routing.write_addresses(state["addresses"], numbers, fresh=fresh)
        routing.write_rest(state, numbers, own=_mac_addresses(present))
        sysctl.write({name: settings[name] for name in unsearched})
        nft.write(state["filter"])
    except LxcCrError:
        raise
    except Exception as error:
        # What pyroute2 cannot encode gives any.
        raise HostError(f"The network of the image cannot be put back: {error!r}") from error


def _mac_addresses(links: Iterable[State]) -> dict[int, str | None]:
    return {link["index"]: link["address"] for link in links}


def import_tools() -> None:
    """Import what `put_back` needs, so that it need not be done while the container waits."""
    from . import links, nft, routing, sysctl  # noqa: F401
    from .netlink import classes

    classes()
