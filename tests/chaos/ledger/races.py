"""Many callers at once on one wallet, who together want a hundred times what it holds.

What is spent never passes the balance, whoever looks whenever; and it comes as near as one hold.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from runtime.config import Secrets, Settings
from runtime.errors import NotEnoughCreditsError
from runtime.ids import CallId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import Adjustment, Balance, Credit, Hold, Meter
from runtime.ledger.purse import Purse
from runtime.ledger.spool import Spool
from runtime.store.store import Store
from tests.bench.figures import figure

CALLERS = 64
WANTED = 100
"""Times the balance, by all of them together."""
PROCESSES = 4
"""As many purses share the wallet."""
HOLD_PARTS = (1, 2, 4)
"""The largest hold of a race is one of these parts of the balance."""
LOOK_EVERY_S = 0.01
CALL_S_MAX = 0.01
PRICE = Price(pricing_id="race", input_udollars_per_mtok=20_000, output_udollars_per_mtok=0)
"""A token costs 3 microcredits: the sizes of holds are multiples of it, the balance is not."""
UCREDITS_PER_TOKEN = 3


@dataclass(slots=True)
class Tally:
    races: int = 0
    holds: int = 0
    refusals: int = 0
    looks: int = 0
    left_parts: list[float] = field(default_factory=list)
    """What was left of each balance, as a part of the race's largest hold."""
    seconds: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


class Races:
    """`run` makes a store in the folder and gives it back."""

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None], wanted: int = WANTED) -> None:
        self._wanted = wanted
        self._settings = Settings(data_dir=folder, initial_free_credits=0)
        self._seed = seed
        self._say = say

    async def run(self, races: int) -> dict[str, Tally]:
        """So many for exact holds, and as many for purses."""
        folder = self._settings.data_dir
        store = Store(self._settings, Secrets.load(folder, {}))
        await store.open()
        tallies = {"exact holds": Tally(), "purses": Tally()}
        for number, (way, tally) in itertools.product(range(races), tallies.items()):
            purses = []
            if way == "purses":
                spools = [Spool(folder, f"race-{number}-{process}") for process in range(PROCESSES)]
                purses = [Purse(store.books, spool, self._settings.tariff, call_s_max=600.0) for spool in spools]
            race = _Race(store, purses, f"{way} {self._seed}/{number}", self._wanted, tally)
            await race.run()
            self._say(f"{way} {number}: {tally.seconds[-1]:.1f} s, {tally.differences[:1]}")
        for tally in tallies.values():
            tally.differences += [f"{wrong.subject}: {wrong.text}" for wrong in await store.check()]
        await store.close()
        return tallies


class _Race:
    def __init__(self, store: Store, purses: Sequence[Purse], name: str, wanted: int, tally: Tally) -> None:
        self._store = store
        self._purses = purses
        self._name = name
        self._tally = tally
        self._dice = random.Random(name)
        self._user = UserId(name.replace("/", "-").replace(" ", "-"))
        self._balance = self._dice.randrange(10**5, 10**8)
        self._wanted = self._balance * wanted // CALLERS
        self._largest = self._balance // self._dice.choice(HOLD_PARTS)
        self._measure = self._dice.choice(["all", "some"])
        """Of its hold a call uses all, or some."""
        self._taken = 0
        """The least that the ledger must have taken: what is held, and what was charged."""
        self._numbers = itertools.count()

    async def run(self) -> None:
        begun_s = time.monotonic()
        books = self._store.books
        await books.open_wallet(self._user, is_admin=False)
        filled = Adjustment(
            id=str(self._user),
            user=self._user,
            amount_ucredits=self._balance,
            reason="race",
            made_by=UserId("operator"),
        )
        await books.adjust(filled)
        looking = asyncio.create_task(self._look())
        await asyncio.gather(*(self._call(number) for number in range(CALLERS)))
        await self._take_the_rest()
        await asyncio.gather(*(purse.close() for purse in self._purses))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        self._judge_end(await books.balance(self._user))
        self._tally.races += 1
        self._tally.seconds.append(time.monotonic() - begun_s)

    async def _call(self, number: int) -> None:
        """Asks until it has wanted its share; what is refused it wants no more."""
        credit: Credit = self._purses[number % len(self._purses)] if self._purses else self._store.books
        wanted = self._wanted
        while wanted > 0:
            hold = self._hold()
            wanted -= hold.input_tokens_max * UCREDITS_PER_TOKEN
            if await self._held(credit, hold):
                await self._use(credit, hold)

    async def _take_the_rest(self) -> None:
        """Where calls give back what they did not use, somebody asks once more when all is given back."""
        credit: Credit = self._purses[0] if self._purses else self._store.books
        while self._measure == "some" and await self._held(credit, hold := self._hold()):
            await self._use(credit, hold)

    async def _held(self, credit: Credit, hold: Hold) -> bool:
        try:
            await credit.hold(hold)
        except NotEnoughCreditsError:
            self._tally.refusals += 1
            return False
        self._take(hold.input_tokens_max * UCREDITS_PER_TOKEN)
        self._tally.holds += 1
        return True

    async def _use(self, credit: Credit, hold: Hold) -> None:
        await asyncio.sleep(self._dice.uniform(0, CALL_S_MAX))
        tokens = hold.input_tokens_max
        used = tokens if self._measure == "all" else self._dice.randrange(tokens + 1)
        self._take((used - tokens) * UCREDITS_PER_TOKEN)
        await credit.meter(Meter(call=hold.call, input_tokens=used, output_tokens=0, response_time_ms=1, key_id="k"))

    def _take(self, ucredits: int) -> None:
        self._taken += ucredits
        if self._taken > self._balance:
            self._wrong(f"{self._taken} were taken")

    async def _look(self) -> None:
        while True:
            balance = await self._store.books.balance(self._user)
            self._tally.looks += 1
            if not 0 <= balance.held_ucredits <= balance.balance_ucredits <= self._balance:
                self._wrong(f"somebody saw {balance}")
            await asyncio.sleep(LOOK_EVERY_S)

    def _judge_end(self, balance: Balance) -> None:
        spent = self._balance - balance.balance_ucredits
        if spent != self._taken or balance.held_ucredits:
            self._wrong(f"{spent} were spent, {self._taken} were used, {balance.held_ucredits} are held")
        if not self._balance - self._largest <= spent <= self._balance:
            self._wrong(f"{spent} were spent, and the largest hold was {self._largest}")
        self._tally.left_parts.append(balance.balance_ucredits / self._largest)

    def _hold(self) -> Hold:
        return Hold(
            call=CallId(f"{self._user}-{next(self._numbers)}"),
            user=self._user,
            run=None,
            task_type="chat",
            provider="race",
            model="m",
            input_tokens_max=self._dice.randint(1, self._largest // UCREDITS_PER_TOKEN),
            output_tokens_max=0,
            price=PRICE,
        )

    def _wrong(self, text: str) -> None:
        self._tally.differences.append(f"{self._name}: of {self._balance} {text}")


def figures(tallies: dict[str, Tally]) -> list[dict[str, object]]:
    found = []
    for way, tally in tallies.items():
        left = tally.left_parts or [0.0]
        found.append(
            figure(
                "chaos ledger", f"races on one wallet, {CALLERS} callers, {way}", tally.races, "races",
                against=f"{tally.holds} holds, {tally.refusals} refusals, {tally.looks} looks; median "
                f"{median(tally.seconds or [0.0]):.1f} s",
            )
        )  # fmt: skip
        found.append(
            figure(
                "chaos ledger", f"left of the balance, as a part of the largest hold, {way}", round(max(left), 3),
                "holds", against=f"median {median(left):.3f}", target=1, holds=max(left) <= 1,
            )
        )  # fmt: skip
        differences = len(tally.differences)
        found.append(
            figure(
                "chaos ledger", f"races that broke a rule, {way}", differences, "differences", target=0,
                holds=not differences,
            )
        )  # fmt: skip
    return found
