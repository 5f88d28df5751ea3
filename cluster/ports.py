"""TCP ports on this machine."""

import os
import random
import socket

RANGE_VARIABLE = "MASTERBUILDER_PORTS"
_RANGE = "20000-31999"


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def port_range() -> range:
    """Where we look for ports: below the range out of which the system serves outgoing connections, so that none of
    those takes one. Instances that start at the same time are given ranges of their own by the environment
    (`MASTERBUILDER_PORTS=20000-21499`), for two could find the same port free.
    """
    first, _, last = os.environ.get(RANGE_VARIABLE, _RANGE).partition("-")
    return range(int(first), int(last) + 1)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different free ports. Another process may take one before it is used: be ready to try again."""
    found: list[int] = []
    ports = port_range()
    for port in random.sample(ports, len(ports)):
        if len(found) == count:
            break
        if is_free(host, port):
            found.append(port)
    return found
