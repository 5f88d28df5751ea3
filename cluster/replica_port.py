"""Keeps the port that every Serve replica opens for its peers off the outer network.

Ray Serve 2.60 binds it to `[::]`, whatever the node's address is, and unpickles what arrives on it: without this,
whoever reaches the machine could run code in it.
"""

from collections.abc import Callable
from typing import Any


def bind_to_node_address() -> None:
    """Runs in every Ray worker before its first task. Changes where gRPC servers of that process may listen."""
    from ray import util
    from ray._common import tls_utils

    node_address: Callable[[], str] = util.get_node_ip_address
    bind: Callable[[Any, str], int] = tls_utils.add_port_to_grpc_server

    def bind_to_node(server: Any, address: str) -> int:
        host, _, port = address.rpartition(":")
        return bind(server, f"{node_address()}:{port}" if host == "[::]" else address)

    tls_utils.add_port_to_grpc_server = bind_to_node
