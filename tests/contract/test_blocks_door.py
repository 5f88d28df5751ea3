"""How `blocks` reaches the gateway: beside `test_edit_engines.py`, what answers it takes and where it stops."""

import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from runtime.implementer.blocks_door import REPLY_BYTES_MAX, GatewayDoor, NoReplyError
from runtime.implementer.blocks_prompt import Said
from tests.contract.edit_gateway import TWO, EditGateway, completion, refusal, serving

HELLO = [Said(role="user", text="Hello.")]


@pytest.fixture
async def gateway() -> AsyncIterator[EditGateway]:
    async with serving() as gateway:
        yield gateway


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
    ],
)
async def test_door__refuses_what_is_no_completion(gateway: EditGateway, body: bytes) -> None:
    gateway.replies = [web.Response(body=body)]
    with pytest.raises(NoReplyError) as caught:
        await GatewayDoor().ask(gateway.request(), HELLO)
    assert caught.value.status == 200
    assert len(gateway.bodies) == 1


async def test_door__reads_no_more_than_a_reply_may_have(gateway: EditGateway) -> None:
    gateway.replies = [completion("x" * (REPLY_BYTES_MAX + 1))]
    with pytest.raises(NoReplyError, match="is over"):
        await GatewayDoor().ask(gateway.request(), HELLO)


async def test_door__follows_nobody_elsewhere(gateway: EditGateway) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(gateway.url + "/chat/completions")

    gateway.replies = [away, TWO]
    with pytest.raises(NoReplyError) as caught:
        await GatewayDoor().ask(gateway.request(), HELLO)
    assert caught.value.status == 307


async def test_door__makes_half_a_character_a_question_mark(gateway: EditGateway) -> None:
    gateway.replies = [completion("a \ud800 b")]
    assert (await GatewayDoor().ask(gateway.request(), HELLO)).text == "a ? b"


async def test_door__gives_up_on_a_gateway_that_stays_away(gateway: EditGateway) -> None:
    gateway.replies = [refusal(503, "Restarting.")]
    with pytest.raises(NoReplyError, match="Restarting") as caught:
        await GatewayDoor(retry_delays_s=(0.01, 0.01)).ask(gateway.request(), HELLO)
    assert caught.value.status == 503
    assert len(gateway.bodies) == 3


async def test_door__tells_that_nobody_listens(gateway: EditGateway) -> None:
    begun = time.monotonic()
    with pytest.raises(NoReplyError, match="does not answer") as caught:
        await GatewayDoor(retry_delays_s=(0.05,)).ask(gateway.request(gateway_url="http://127.0.0.1:9/v1"), HELLO)
    assert caught.value.status == 0
    assert time.monotonic() - begun >= 0.05
