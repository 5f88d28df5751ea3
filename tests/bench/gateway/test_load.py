"""What the benchmark's load says of a gateway that does its streams no good."""

import asyncio
import json
import time

import pytest

from tests.bench.gateway.load import Load, Seen, run
from tests.bench.gateway.upstream import TOKENS


def token(number: int, sent_s: float) -> bytes:
    delta = {"content": f"{number}@{int(sent_s * 1e9)} "}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


async def seen_of(*writes: bytes) -> Seen:
    """One stream: each of `writes` reaches the load in a read of its own."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"}")
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for data in writes:
            await asyncio.sleep(0.01)
            writer.write(b"%x\r\n" % len(data) + data + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        seen = await run(Load(port=port, headers={}, body="{}", callers=1, seconds=0.001, streamed=True))
    assert asked == 1
    return seen


async def test_stream__that_is_whole_is_said_to_be() -> None:
    now = time.monotonic()
    seen = await seen_of(*(token(number, now + number * 0.01) for number in range(TOKENS)))
    assert (seen.lost, seen.merged, seen.errors, len(seen.token_delay_ms)) == (0, 0, 0, TOKENS)


@pytest.mark.parametrize("left", [[0, 1, 3], [0, 1, 1, 2], [0, 2, 1]])
async def test_stream__with_a_token_lost_doubled_or_out_of_order_is_noticed(left: list[int]) -> None:
    now = time.monotonic()
    numbers = [*left, *range(max(left) + 1, TOKENS)]
    assert (await seen_of(*(token(number, now) for number in numbers))).lost > 0


async def test_tokens__that_were_sent_apart_and_read_together_are_merged() -> None:
    now = time.monotonic()
    each = [token(number, now + number * 0.01) for number in range(TOKENS)]
    assert (await seen_of(each[0] + each[1] + each[2], *each[3:])).merged == 2
    assert (await seen_of(each[0][:20], each[0][20:] + token(1, now + 0.001), *each[2:])).merged == 0


async def test_answer__that_is_an_error_is_no_answer() -> None:
    seen = await seen_of(b'data: {"error": {"message": "x"}}\n\n')
    assert (seen.errors, seen.latency_ms) == (1, [])
