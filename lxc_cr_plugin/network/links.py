# SPDX-License-Identifier: LGPL-2.1-or-later
"""Network interfaces: what the runtime makes is adjusted, what was made inside is made again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ..errors import HostError, ImageError, Obstacle, RestartError
from . import bridges, netlink, unsaved

State = dict[str, Any]

MEMBERS = {"family": 0, "flags": 0, "change": 0, "ifi_type": 0}

UP = 0x1
# IFF_NOARP, PROMISC, ALLMULTI, MULTICAST, DYNAMIC: what ip link sets besides.
FLAGS = 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000

# What of each kind can be made again inside, and which of its data is set and not only counted.
KINDS: dict[str, tuple[str, ...]] = {
    "bridge": bridges.DATA,
    "dummy": (),
    "ifb": (),
    "macvlan": ("IFLA_MACVLAN_MODE",),
    "veth": (),
    "vlan": ("IFLA_VLAN_ID", "IFLA_VLAN_PROTOCOL"),
}

# What the kernel brings along in every network, as far as its modules are loaded.
FALLBACK = (
    "lo",
    "tunl0",
    "gre0",
    "gretap0",
    "erspan0",
    "sit0",
    "ip6tnl0",
    "ip6gre0",
    "ip_vti0",
    "ip6_vti0",
)


def read(*, of_runtime: list[str]) -> list[State]:
    """All interfaces; @of_runtime are the names of those that the runtime makes."""
    messages = netlink.dump(netlink.LINK)
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    states = {message["index"]: _state(message, names, of_runtime) for message in messages}
    for message in messages:
        link = states[message["index"]]
        master = states.get(message.get_attr("IFLA_MASTER"))
        if "port" in link and master and bridges.has_odd_state(message, link, master):
            link.setdefault("unsaved", []).append("IFLA_BRPORT_STATE")
    return list(states.values())


def _state(message: Any, names: dict[int, str], of_runtime: list[str]) -> State:
    name = message.get_attr("IFLA_IFNAME")
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    # With IFLA_LINK_NETNSID the number is one of another network.
    inside = message.get_attr("IFLA_LINK_NETNSID") is None
    below = message.get_attr("IFLA_LINK")
    master = message.get_attr("IFLA_MASTER")
    port = bridges.port_of(info, names)
    others = unsaved.attributes(message, kind=kind, port=port is not None)
    return {
        "name": name,
        "index": message["index"],
        "kind": kind,
        "runtime": name in of_runtime or name in FALLBACK,
        "address": message.get_attr("IFLA_ADDRESS"),
        "mtu": message.get_attr("IFLA_MTU"),
        "queue": message.get_attr("IFLA_TXQLEN"),
        "group": message.get_attr("IFLA_GROUP"),
        "alias": message.get_attr("IFLA_IFALIAS"),
        "flags": message["flags"] & (UP | FLAGS),
        "below": names.get(below) if inside and below else None,
        "master": names.get(master) if master else None,
        "qdisc": message.get_attr("IFLA_QDISC"),
        "data": {
            key: data.get_attr(key)
            for key in KINDS.get(kind or "", ())
            if data and data.get_attr(key) is not None
        },
        **({} if port is None else {"port": port}),
        **({"unsaved": others} if others else {}),
    }


# What interfaces have by themselves, depending on the kernel's default and on the interface.
DEFAULT_QDISCS = (None, "noop", "noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "sfq", "cake")


def obstacles(links: list[State]) -> Iterator[Obstacle]:
    """Interfaces that a restart could not make again."""
    for link in links:
        name, kind = link["name"], link["kind"]
        if link["qdisc"] not in DEFAULT_QDISCS:
            yield Obstacle(
                kind="unsupported",
                message=f"Network interface '{name}' has the queueing discipline '{link['qdisc']}'",
                hint=f"Not supported yet: `tc qdisc del dev {name} root` removes it",
                object="network_qdisc",
            )
        if "unsaved" in link:
            yield Obstacle(
                kind="unsupported",
                message=f"Network interface '{name}' has another {', '.join(link['unsaved'])} than the default",
                hint="Not supported yet: set the default before the checkpoint",
                object="network_interface",
            )
        if link["runtime"]:
            continue
        if kind not in KINDS:
            yield _obstacle(f"Network interface '{name}' is a {kind or 'device of the host'}")
        elif kind in ("veth", "macvlan", "vlan") and link["below"] is None:
            yield _obstacle(
                f"Network interface '{name}' ({kind}) leads out of the container, and the "
                "container's configuration knows none of that name"
            )


def _obstacle(message: str) -> Obstacle:
    return Obstacle(
        kind="unsupported",
        message=message,
        hint="Not supported: let LXC make it (lxc.net), or remove it with `ip link del`",
        object="network_interface",
    )


def refuse_unknown(links: list[State]) -> None:
    """Raise ImageError for an interface that no checkpoint writes, and no restart may make."""
    for link in links:
        name, kind, data = link["name"], link["kind"], link["data"]
        if not link["runtime"] and kind not in KINDS:
            raise ImageError(f"Network interface '{name}' of the image is a {kind}")
        port = link.get("port") or {}
        for values, known in ((data, KINDS.get(kind or "", ())), (port, bridges.PORT)):
            for key, value in values.items():
                if key not in known or not isinstance(value, int | str):
                    raise ImageError(
                        f"Network interface '{name}' ({kind}) of the image has {key[:100]}"
                    )


class Present(dict[str, State]):
    """The interfaces that there are now, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.read()

    def read(self) -> None:
        """Look again."""
        self.clear()
        self.update({link["name"]: link for link in read(of_runtime=[])})

    def index(self, name: str | None) -> int:
        """The number of the interface @name; 0: there is none."""
        return int(self[name]["index"]) if name and name in self else 0


def write(wanted: list[State]) -> None:
    """Make the interfaces what they were, all down but lo; addresses and routes come later.

    Raises RestartError when the runtime has not made one, HostError when this kernel cannot.
    """
    present = Present()
    for name in present.keys() - {link["name"] for link in wanted} - set(FALLBACK):
        _send(name, {"index": present.index(name)}, {}, what=netlink.LINK.delete)
    present.read()
    pending = [link for link in wanted if link["name"] not in present]
    while pending:
        left = [link for link in pending if not _make(present, link, wanted)]
        if len(left) == len(pending):
            raise RestartError(f"Network interface '{left[0]['name']}' has nothing to stand on")
        pending = left
    for link in wanted:
        _adjust(present, link)
    for link in wanted:
        if link["master"] and link["name"] in present:
            master = {"IFLA_MASTER": present.index(link["master"])}
            _send(link["name"], {"index": present.index(link["name"])}, master)
    _adjust_ports(wanted)


def _adjust_ports(wanted: list[State]) -> None:
    """What is set of ports of bridges; another port may be said by name, so all of them are there."""
    present = Present()
    for link in wanted:
        now = present.get(link["name"], {}).get("port")
        if now is not None and "port" in link:
            changed = _differing(link["port"], now)
            if bridges.BACKUP in changed:
                changed[bridges.BACKUP] = present.index(changed[bridges.BACKUP])
            if changed:
                info = [
                    ("IFLA_INFO_SLAVE_KIND", bridges.KIND),
                    ("IFLA_INFO_SLAVE_DATA", {"attrs": list(changed.items())}),
                ]
                index = present.index(link["name"])
                _send(link["name"], {"index": index}, {"IFLA_LINKINFO": {"attrs": info}})


def _differing(wanted: State, present: State) -> State:
    return {key: value for key, value in wanted.items() if value != present.get(key)}


def _send(name: str, members: State, attributes: State, *, what: int = netlink.LINK.new) -> None:
    """Change (or delete) the interface @name; raises HostError."""
    number = netlink.send(netlink.LINK, {**MEMBERS, **members}, attributes, what=what)
    if number:
        raise HostError(
            f"Failed to set up network interface '{name}': {os.strerror(number)}", errno=number
        )


def _make(present: Present, link: State, wanted: list[State]) -> bool:
    """Make @link; False when what it stands on is not there yet, True when it is there."""
    name, kind = link["name"], link["kind"]
    if name in present:
        return True  # the other end of a pair that was made
    if link["runtime"]:
        if name in FALLBACK:
            return True
        raise RestartError(
            f"LXC has made no network interface '{name}'",
            hint="Let the container's lxc.net say what it said at the checkpoint",
        )
    below = present.index(link["below"])
    if kind in ("macvlan", "vlan") and not below:
        return False
    peer = next((one for one in wanted if one["name"] == link["below"]), None)
    # The old number, unless one of the runtime's interfaces has it now.
    number = _create(link, peer, below, numbered=True) and _create(
        link, peer, below, numbered=False
    )
    if number:
        raise HostError(
            f"Failed to make network interface '{name}' ({kind}): {os.strerror(number)}",
            hint="The kernel lacks a module, perhaps",
            errno=number,
        )
    present.read()
    return True


def _create(link: State, peer: State | None, below: int, *, numbered: bool) -> int:
    """Make @link, with its number or any; the errno, 0 for success."""
    # Bridges have much that is as it is by itself: `_adjust` says what is not.
    data: dict[str, Any] = {} if link["kind"] == bridges.KIND else dict(link["data"])
    attributes: dict[str, Any] = {"IFLA_IFNAME": link["name"]}
    if link["address"]:
        attributes["IFLA_ADDRESS"] = link["address"]  # an ifb takes none later
    if link["kind"] == "veth" and peer:
        data["VETH_INFO_PEER"] = {
            **MEMBERS,
            "index": peer["index"] if numbered else 0,
            "attrs": [("IFLA_IFNAME", peer["name"])],
        }
    elif below:
        attributes["IFLA_LINK"] = below
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", link["kind"])]
    if data:  # pyroute2 has no table of data for a kind without any
        info.append(("IFLA_INFO_DATA", {"attrs": list(data.items())}))
    attributes["IFLA_LINKINFO"] = {"attrs": info}
    members = {**MEMBERS, "index": link["index"] if numbered else 0}
    return netlink.send(netlink.LINK, members, attributes, what=netlink.LINK.new, flags=netlink.NEW)


def _adjust(present: Present, link: State) -> None:
    """Everything but being up and having a master."""
    name = link["name"]
    if name not in present:
        return
    now = present[name]
    members: State = {"index": now["index"]}
    attributes = {
        attribute: link[key]
        for key, attribute in (
            ("address", "IFLA_ADDRESS"),
            ("mtu", "IFLA_MTU"),
            ("queue", "IFLA_TXQLEN"),
            ("group", "IFLA_GROUP"),
        )
        if link[key] is not None and link[key] != now[key]
    }
    if link["alias"] != now["alias"]:
        attributes["IFLA_IFALIAS"] = link["alias"] or ""
    if (link["flags"] ^ now["flags"]) & FLAGS:
        members |= {"flags": link["flags"] & FLAGS, "change": FLAGS}
    data = _differing(link["data"], now["data"]) if link["kind"] == bridges.KIND else {}
    if data:
        info = [("IFLA_INFO_KIND", bridges.KIND), ("IFLA_INFO_DATA", {"attrs": list(data.items())})]
        attributes["IFLA_LINKINFO"] = {"attrs": info}
    if attributes or "flags" in members:
        _send(name, members, attributes)


def bring_up(wanted: list[State]) -> None:
    """Up or down, as each was."""
    present = Present()
    for link in wanted:
        index = present.index(link["name"])
        if index:
            _send(link["name"], {"index": index, "flags": link["flags"] & UP, "change": UP}, {})
