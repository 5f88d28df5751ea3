"""The model provider of tests and demos: speaks the wires of three providers over HTTP and plays written scenarios.

A reply depends on the request alone; only `id` and `created` differ between two equal ones. What was served is in the
usage file, written before the last part of the answer leaves, so that no client knows more than the file.
"""

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from cluster.simulator.doors import Doors
from cluster.simulator.listening import asked_to_stop, listen, root_url
from cluster.simulator.payments import PaymentSetup
from cluster.simulator.scenario import SCENARIOS
from cluster.simulator.usage import UsageFile
from runtime.errors import BadInputError


def run(host: str, port: int, usage_file: Path, latency_ms: int, payments: PaymentSetup | None = None) -> None:
    """Serves until SIGTERM or SIGINT; prints one line with its base URL when ready. Port 0 picks a free one.

    With `payments` it also plays a payment provider. Raises BadInputError when the port is taken or the usage file
    cannot be written.
    """
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        runner.run(_run(host, port, usage_file, latency_ms, payments))


class Simulator:
    """The server inside a running event loop: `async with Simulator(usage_file=...) as simulator`.

    Raises BadInputError as `run` does.
    """

    def __init__(
        self,
        *,
        usage_file: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        latency_ms: int = 0,
        payments: PaymentSetup | None = None,
        scenarios: Path = SCENARIOS,
    ) -> None:
        self._host = host
        self._port = port
        self._usage = UsageFile(usage_file)
        doors = Doors(self._usage, latency_s=latency_ms / 1000, payments=payments, scenarios=scenarios)
        self._runner = web.AppRunner(doors.application(), access_log=None, shutdown_timeout=1.0)

    @property
    def base_url(self) -> str:
        """With `/v1`, as OPENAI_BASE_URL wants it. Only while it is started."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """As ANTHROPIC_BASE_URL and GEMINI_BASE_URL want it."""
        return root_url(self._runner, self._host)

    async def __aenter__(self) -> "Simulator":
        try:
            await listen(self._runner, "The simulator", self._host, self._port)
        except BadInputError:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        self._usage.close()


async def _run(host: str, port: int, usage_file: Path, latency_ms: int, payments: PaymentSetup | None) -> None:
    stop = asked_to_stop()
    server = Simulator(usage_file=usage_file, host=host, port=port, latency_ms=latency_ms, payments=payments)
    async with server as simulator:
        print(f"Simulator ready: {simulator.base_url}", flush=True)
        await stop.wait()


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: it saves a third of a call's time."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory
