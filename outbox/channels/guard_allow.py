"""The operator's own hosts and networks, which the guard lets pass (`OUTBOX_WEBHOOK_ALLOW`)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import msgspec

from outbox.errors import ConfigError

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


class AllowList(msgspec.Struct, frozen=True):
    """What is open. A port of None stands for every port but the closed ones."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[IPv4Network | IPv6Network, int | None], ...] = ()

    def opens_host(self, host: str, port: int) -> bool:
        """Tell whether the name itself is open, wherever it leads."""
        name = host.rstrip(".").lower()
        return (name, None) in self.hosts or (name, port) in self.hosts

    def opens_address(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Tell whether the address lies in an open network."""
        return any(
            address in network and (only is None or only == port)
            for network, only in self.networks
        )

    def opens_port(self, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
        """Tell whether this very port is named with the host or address."""
        if (host.rstrip(".").lower(), port) in self.hosts:
            return True
        return address is not None and any(
            address in network and only == port for network, only in self.networks
        )


def parse_allow(text: str) -> AllowList:
    """Return what a list of hosts, `host:port`, addresses and CIDR networks opens.

    Entries are separated by commas or spaces; an IPv6 address with a port is in brackets.
    Raises ConfigError for an entry that is none of these.
    """
    hosts: set[tuple[str, int | None]] = set()
    networks: list[tuple[IPv4Network | IPv6Network, int | None]] = []
    for entry in re.split(r"[,\s]+", text.strip()):
        if not entry:
            continue
        host, port = _split(entry)
        try:
            networks.append((ip_network(host), port))
        except ValueError:
            if not _NAME.match(host.lower()) or _looks_numeric(host):
                raise ConfigError(
                    f"OUTBOX_WEBHOOK_ALLOW: {entry!r} is no host, host:port, address or network"
                ) from None
            hosts.add((host.lower(), port))
    return AllowList(frozenset(hosts), tuple(networks))


def _split(entry: str) -> tuple[str, int | None]:
    """Return host (or network) and port of one entry."""
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?", entry)
    if bracketed:
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    host, colon, port = entry.partition(":")
    if colon and ":" not in port and port.isdigit() and 0 < int(port) < 65_536:
        return host, int(port)
    return entry, None


def _looks_numeric(host: str) -> bool:
    return host.rpartition(".")[2].isdigit() or "/" in host
