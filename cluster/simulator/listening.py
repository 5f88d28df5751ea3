"""How each server of the simulator begins to listen, says where, and ends."""

import asyncio
import errno
import signal

from aiohttp import web

from runtime.errors import BadInputError


async def listen(runner: web.AppRunner, what: str, host: str, port: int) -> None:
    """Raises BadInputError that names `what`, where the address cannot be had; the caller then cleans up."""
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        why = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise BadInputError(
            f"{what} cannot listen on {host}:{port}: {why}.", "Choose another --port; 0 picks a free one."
        ) from error


def root_url(runner: web.AppRunner, host: str) -> str:
    """Only while it listens."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{runner.addresses[0][1]}"


def asked_to_stop() -> asyncio.Event:
    """Set when SIGTERM or SIGINT comes. To be called before anybody can know that the server is there."""
    asked = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, asked.set)
    return asked
