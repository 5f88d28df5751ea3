"""TCP ports on this machine."""

import random
import socket

_RANGE = range(20_000, 32_000)


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


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different free ports. Another process may take one before it is used: be ready to try again.

    Taken from below the range out of which the system serves outgoing connections, so that none of those takes one.
    """
    found: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if len(found) == count:
            break
        if is_free(host, port):
            found.append(port)
    return found
