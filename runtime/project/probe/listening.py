"""Who listens in this network namespace. Source: proc_net_tcp.rst of the kernel."""

import socket
import struct
from pathlib import Path
from typing import NamedTuple

_LISTEN = "0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


class Address(NamedTuple):
    """Where a connection can be made: a wildcard is told as the loopback of its family."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listening() -> set[Address]:
    return {address for table in _TABLES for address in _addresses(table)}


def parse(table: str) -> set[Address]:
    """The listening rows of a table, its heading apart."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {_address(row[1]) for row in rows if len(row) > 3 and row[3] == _LISTEN}


def _addresses(table: Path) -> set[Address]:
    try:
        return parse(table.read_text())
    except OSError:
        return set()


def _address(text: str) -> Address:
    """`0100007F:1F90` is 127.0.0.1:8080: words of 32 bits in the machine's order, the port in the network's."""
    digits, port = text.split(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    host = socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port, 16))
