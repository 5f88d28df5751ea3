"""Listening sockets, as the kernel writes them down on a little-endian machine."""

import sys

import pytest

from runtime.project.probe.listening import Address, parse

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="the rows were written by a little-endian machine")

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


def test_parse__tells_where_a_connection_can_be_made() -> None:
    assert parse(TCP) == {Address("127.0.0.1", 8080), Address("127.0.0.1", 80)}
    assert parse(TCP6) == {Address("::1", 8081), Address("::1", 8082)}
    assert str(Address("::1", 8081)) == "[::1]:8081"
    assert parse("") == set()
