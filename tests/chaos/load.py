"""The load: a process that is connected to the instance's Ray, sends what is planned, and writes down the answers.

`python -m tests.chaos.load DIARY SEED CALLERS` runs until its stdin says `drain`: then it sends nothing new, repeats
what has no answer until it has one, and prints `drained`. Killed and started again, it goes on with the same diary.
"""

import asyncio
import sys
from pathlib import Path

from actors.system import RaySystem
from runtime.errors import ConflictError, OverloadedError, UnavailableError
from tests.chaos.diary import Diary, read
from tests.chaos.joined import ASK_S, REPEAT_S, connected, join_ray, open_all
from tests.chaos.plan import Planned, planned

NEVER_RETURNED_S = 60.0
"""An `ask` that is still out then will never come back: that is a fault of its own."""
PAUSE_S = 0.2


class Load:
    def __init__(self, system: RaySystem, diary: Path, seed: int) -> None:
        told = read(diary)
        self._system = system
        self._diary = Diary(diary)
        self._seed = seed
        self._next = told.next_number
        self._left = list(told.open)
        self._draining = asyncio.Event()

    def drain(self) -> None:
        self._draining.set()

    async def run(self, callers: int) -> None:
        """Until `drain` was called and every message has its answer."""
        await asyncio.gather(*(self._caller() for _ in range(callers)))

    async def _caller(self) -> None:
        while self._left or not self._draining.is_set():
            if self._left:
                number = self._left.pop()
            else:
                number, self._next = self._next, self._next + 1
                self._diary.sent(number)
            await self._carry(planned(self._seed, number))
            await asyncio.sleep(PAUSE_S)

    async def _carry(self, one: Planned) -> None:
        """Repeats one message until somebody says yes or no."""
        while True:
            try:
                async with asyncio.timeout(NEVER_RETURNED_S):
                    await self._system.entities.ask(one.entity, one.message, timeout_s=ASK_S)
            except OverloadedError as error:
                await asyncio.sleep(error.retry_after_s)
            except UnavailableError as error:
                if error.code == "quarantined":
                    self._diary.wrong(one.number, f"{one.entity}: {error}")
                    await asyncio.sleep(1.0)
                await asyncio.sleep(REPEAT_S)
            except ConflictError:
                self._diary.refused(one.number)
                return
            except TimeoutError:
                self._diary.wrong(one.number, f"{one.entity} did not answer in {NEVER_RETURNED_S:g} s")
            except Exception as error:
                self._diary.wrong(one.number, f"{one.entity}: {type(error).__name__}: {error}")
                await asyncio.sleep(1.0)
            else:
                self._diary.acknowledged(one.number)
                return


async def _run(diary: Path, seed: int, callers: int) -> None:
    system = await connected()
    await open_all(system)
    load = Load(system, diary, seed)
    running = asyncio.create_task(load.run(callers))
    if not await asyncio.to_thread(sys.stdin.readline):
        return  # Whoever started us is gone.
    load.drain()
    await running
    print("drained", flush=True)


def main() -> None:
    join_ray()
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))


if __name__ == "__main__":
    main()
