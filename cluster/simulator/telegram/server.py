"""The server: the Bot API and the control side on one loopback address."""

import asyncio
import time
from collections.abc import Callable
from ipaddress import ip_address

from aiohttp import web

from cluster.simulator.listening import asked_to_stop, listen, root_url
from cluster.simulator.telegram.control import Control, control_errors
from cluster.simulator.telegram.parameters import BODY_BYTES_MAX
from cluster.simulator.telegram.payments import PRE_CHECKOUT_S
from cluster.simulator.telegram.standin import StandIn
from runtime.errors import BadInputError

TOKEN = "7000000001:stand-in-token-that-opens-nothing"
_BODY_OF_CONTROL = BODY_BYTES_MAX * 4 // 3 + (1 << 20)


def run(host: str, port: int, token: str) -> None:
    """Serves until SIGTERM or SIGINT; prints one line with its address when ready. Port 0 picks a free one.

    Raises BadInputError when the port is taken, the address is not on loopback, or the token is none.
    """
    asyncio.run(_run(host, port, token))


class TelegramStandIn:
    """The server inside a running event loop: `async with TelegramStandIn() as telegram`.

    `clock`, `pre_checkout_s`, `retry_s` and `privacy` as `StandIn` has them. Raises BadInputError as `run` does.
    """

    def __init__(
        self,
        *,
        token: str = TOKEN,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        privacy: bool = True,
        pre_checkout_s: float = PRE_CHECKOUT_S,
        retry_s: float = 1.0,
    ) -> None:
        _check(host, token)
        self.token = token
        self._host = host
        self._port = port
        self._standin = StandIn(token, clock=clock, privacy=privacy, pre_checkout_s=pre_checkout_s, retry_s=retry_s)
        application = web.Application(client_max_size=_BODY_OF_CONTROL, middlewares=[control_errors])
        self._standin.add_to(application)
        Control(self._standin).add_to(application)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    @property
    def root_url(self) -> str:
        """Only while it is started; `StandInClient` wants it."""
        return root_url(self._runner, self._host)

    @property
    def base_url(self) -> str:
        """As python-telegram-bot wants it: the token follows."""
        return f"{self.root_url}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.root_url}/file/bot"

    async def __aenter__(self) -> "TelegramStandIn":
        try:
            await listen(self._runner, "The stand-in for Telegram", self._host, self._port)
        except BadInputError:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._standin.webhook.stop()
        await self._runner.cleanup()


def _check(host: str, token: str) -> None:
    number, _, secret = token.partition(":")
    if not number.isdecimal() or not secret:
        raise BadInputError(f"{token!r} is no bot token.", "Give one like 123456:anything.")
    try:
        on_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        on_loopback = False
    if not on_loopback:
        raise BadInputError(f"{host} is not on loopback.", "The stand-in obeys whoever reaches it: use 127.0.0.1.")


async def _run(host: str, port: int, token: str) -> None:
    stop = asked_to_stop()
    async with TelegramStandIn(token=token, host=host, port=port) as telegram:
        print(f"Telegram stand-in ready: {telegram.root_url}", flush=True)
        await stop.wait()
