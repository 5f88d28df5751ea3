"""The real model door over calls that never end; each leaves a file when it begins and one when it is let go."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from runtime.ids import UserId
from runtime.ledger.port import Identity
from runtime.providers.calls import OnCut
from runtime.providers.forward import Forwarded
from runtime.providers.order import CallOrder
from runtime.providers.splice import Spliced
from serve_apps.gateway_routes import create_app
from tests.uncounted import Uncounted


class Calls:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def forward(self, order: CallOrder, asked: Spliced, on_cut: OnCut) -> Forwarded:
        with self._noted(asked.model):
            await asyncio.Event().wait()
        raise AssertionError

    async def forward_stream(self, order: CallOrder, asked: Spliced, on_cut: OnCut) -> AsyncGenerator[bytes, None]:
        with self._noted(asked.model):
            yield b"data: {}\n\n"
            await asyncio.Event().wait()

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        (self._folder / f"{name}.begun").touch()
        try:
            yield
        finally:
            (self._folder / f"{name}.let-go").touch()


class Ledger:
    async def authenticate(self, token_sha256: str) -> Identity:
        return Identity(user=UserId("ann"), is_admin=False, kind="user")


class Door:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        system: Any = SimpleNamespace(calls=Calls(self._folder), ledger=Ledger(), entities=Uncounted())
        return create_app(system, under_serve=True)


def build(args: dict[str, Any]) -> serve.Application:
    deployment = serve.deployment(name="door", max_ongoing_requests=100)
    return deployment(serve.ingress()(Door)).bind(args["folder"])
