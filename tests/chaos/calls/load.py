"""The load: a process of its own that makes the planned calls and writes down how each ended.

`python -m tests.chaos.calls.load` reads an `Orders` as JSON from stdin. It prints how many calls are over, four times a
second, and ends when all are. The diary gets one JSON line a call: `[number, kind, began_at, ended_at, status, code,
input tokens, output tokens]`, the tokens as the client was told, else null.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from tests.bench.caller import Caller, End
from tests.chaos.calls.plan import planned

TELL_EVERY_S = 0.25
PAUSE_S = 0.25
"""After a call that nobody could take; it does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    url: str
    seed: int
    calls: int
    callers: int
    tokens: Mapping[str, str]
    diary: str

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the diary."""

    number: int
    kind: str
    began_at: float
    ended_at: float
    status: int
    code: str
    usage: tuple[int, int] | None


class Load:
    """Made inside its event loop."""

    def __init__(self, orders: Orders, diary: TextIO) -> None:
        self._orders = orders
        self._diary = diary
        self._caller = Caller(orders.url)
        self._next = 0
        self._open = 0
        self.over = 0

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell())
        await asyncio.gather(*(self._make_calls() for _ in range(self._orders.callers)))
        telling.cancel()
        await self._caller.close()

    async def _make_calls(self) -> None:
        while self.over + self._open < self._orders.calls:
            number, self._next = self._next, self._next + 1
            self._open += 1
            end = await self._caller.call(planned(self._orders.seed, number, self._orders.tokens).ask)
            self._open -= 1
            self._diary.write(json.dumps(_line(number, end)) + "\n")
            self.over += end.kind != "unreachable"
            if end.kind == "unreachable" or end.status in (429, 503):
                await asyncio.sleep(PAUSE_S)

    async def _tell(self) -> None:
        while True:
            print(self.over, flush=True)
            await asyncio.sleep(TELL_EVERY_S)


def read_diary(path: Path) -> Sequence[Entry]:
    entries = []
    for line in path.read_text().splitlines():
        number, kind, began_at, ended_at, status, code, told_in, told_out = json.loads(line)
        usage = None if told_in is None else (told_in, told_out)
        entries.append(
            Entry(number=number, kind=kind, began_at=began_at, ended_at=ended_at, status=status, code=code, usage=usage)
        )
    return entries


def _line(number: int, end: End) -> list[object]:
    told = end.told if end.kind == "wrong" else end.code
    return [number, end.kind, end.began_at, end.ended_at, end.status, told, *(end.usage or (None, None))]


async def _run(orders: Orders, diary: TextIO) -> None:
    await Load(orders, diary).run()


def main() -> None:
    orders = Orders(**json.loads(sys.stdin.read()))
    with Path(orders.diary).open("w") as diary:
        asyncio.run(_run(orders, diary))


if __name__ == "__main__":
    main()
