"""What every process of a chaos run does that is connected to the instance's Ray (RAY_ADDRESS)."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import ray

from actors.handles import NAMESPACE
from actors.system import RaySystem, connect
from runtime.config import Settings
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.ids import EntityId
from runtime.testing.probes import Increment, Open
from tests.chaos.plan import ACCOUNTS, COUNTERS, OPENING

ASK_S = 10.0
REPEAT_S = 0.2


def join_ray() -> None:
    ray.init(os.environ["RAY_ADDRESS"], namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)


async def connected() -> RaySystem:
    """Waits until the service can be reached."""
    while True:
        try:
            return await connect(Settings.from_environment(os.environ))
        except MasterbuilderError as error:
            print(f"not connected yet: {error}", file=sys.stderr)
            await asyncio.sleep(1.0)


async def open_all(system: RaySystem) -> None:
    """Makes every entity of the plan, once."""
    await asyncio.gather(
        ask_all(system, ACCOUNTS, Open(key="chaos", amount=OPENING)),
        ask_all(system, COUNTERS, Increment(key="chaos", amount=0)),
    )


async def ask_all(system: RaySystem, entities: Sequence[EntityId], message: Any) -> list[Any]:
    """Every entity's answer to the same message, which is repeated until it comes."""

    async def ask(entity: EntityId) -> Any:
        while True:
            try:
                return await system.entities.ask(entity, message, timeout_s=ASK_S)
            except UnavailableError:
                await asyncio.sleep(REPEAT_S)

    return list(await asyncio.gather(*(ask(entity) for entity in entities)))
