"""One run: many calls with faults, random kill -9 of what carries them, and then everybody's books side by side."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from cluster.client import Client
from cluster.token_commands import IssuedToken
from runtime.config import Settings
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.ids import LOCAL_ADMIN
from runtime.ledger.money import UCREDITS_PER_CREDIT
from tests.bench.figures import figure as make_figure
from tests.chaos.calls.books import read_books, read_usage_file
from tests.chaos.calls.load import Orders, read_diary
from tests.chaos.calls.plan import BUDGET_PER_CALL, CREDITS_PER_CALL, FAULTS, KEYS_PER_PROVIDER, STINTED, USERS
from tests.chaos.calls.verdict import CHARGED, UNKNOWN, Record, differences
from tests.chaos.killer import Kill, Killer
from tests.e2e.live import Live

ROOT = Path(__file__).parents[3]

CALLERS = 48
KINDS = ("gateway", "key-pool", "ledger", "gateway")
"""What is killed: one after the other at first, so that a short run has them all, and then by chance."""
CALLS_PER_KILL = 4_000
KILLS_MIN = 3
SETTLE_S_MAX = 60.0
"""Everything that was under way is in the ledger, and no credit is held, so long after the last call."""
STALLED_S_MAX = 180.0
DIFFERENCES_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    figures: Sequence[dict[str, object]]
    differences: Sequence[str]
    """Empty when everything holds."""


class CallChaos:
    def __init__(self, *, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._live = Live.in_folder(folder)
        self._seed = seed
        self._say = say

    def run(self, calls: int, kills: int | None = None, callers: int = CALLERS) -> Outcome:
        """Everything it starts is stopped when it returns."""
        wanted = max(KILLS_MIN, calls // CALLS_PER_KILL) if kills is None else kills
        try:
            return self._run(calls, wanted, callers)
        finally:
            self._live.close()
            assert self._live.left() == []

    def _run(self, calls: int, wanted_kills: int, callers: int) -> Outcome:
        credits = max(2, int(calls * CREDITS_PER_CALL))
        own = {"INITIAL_FREE_CREDITS": str(credits), "KEY_WAIT_SECONDS": "10", "KEY_COOLDOWN_SECONDS": "0.2"}
        own |= {"RATE_LIMIT_PER_MINUTE": "1000000"}
        self._live = replace(self._live, environment={**self._live.environment, **own})
        simulator = self._live.start_simulator()["OPENAI_BASE_URL"]
        up = self._live.run("up", **_providers(simulator))
        if up.returncode != 0:
            raise UnavailableError(f"The service did not start: {up.stderr}")
        budget = max(1, int(calls * BUDGET_PER_CALL))
        tokens = {user: self._token(user, user) for user in (LOCAL_ADMIN, *USERS) if user != STINTED}
        # A token with a budget opens no door but the models', so it cannot look into the wallet.
        wallets = {**tokens, STINTED: self._token(STINTED, f"wallet of {STINTED}")}
        tokens[STINTED] = self._token(STINTED, STINTED, budget_credits=str(budget))
        asyncio.run(_order_faults(simulator.removesuffix("/v1"), self._seed))
        self._say(f"seed {self._seed}: {calls} calls, {wanted_kills} kills")
        began = time.monotonic()
        killed = self._carry(Orders(
            url=self._live.url, seed=self._seed, calls=calls, callers=callers, tokens=tokens, diary=str(self._diary),
        ), wanted_kills)  # fmt: skip
        took_s = time.monotonic() - began
        found = self._settled(wallets)
        found += [f"while it ran: {mismatch}" for mismatch in self._live.client.check().mismatches]
        down = self._live.run("down")
        if down.returncode != 0:
            found.append(f"down: {down.stderr}")
        settings = Settings.from_environment(self._live.environment)
        record = Record(
            diary=read_diary(self._diary),
            served=read_usage_file(self._live.usage_file),
            books=read_books(settings, list(tokens)),
            kills=killed,
            granted_ucredits=credits * UCREDITS_PER_CREDIT,
            budgets_ucredits={STINTED: budget * UCREDITS_PER_CREDIT},
            tariff=settings.tariff,
        )
        found += differences(record)
        return Outcome(figures=self._figures(record, found, took_s), differences=found)

    @property
    def _diary(self) -> Path:
        return self._live.folder / "calls"

    @property
    def _kills(self) -> Path:
        return self._live.folder / "kills"

    def _token(self, user: str, label: str, **terms: str) -> str:
        issued = self._live.client.ask(IssuedToken, "POST", "tokens", {"user": user, "label": label, **terms})
        return issued.token

    def _carry(self, orders: Orders, wanted: int) -> Sequence[Kill]:
        """Kills whenever a drawn number of calls is over, until all are. Raises UnavailableError when they stall."""
        dice = random.Random(f"kill calls {self._seed}")
        moments = sorted(dice.randint(orders.calls // 20, orders.calls * 19 // 20) for _ in range(wanted))
        if wanted <= len(KINDS):
            moments = [orders.calls * (number + 1) // (wanted + 1) for number in range(wanted)]
        kinds = [*KINDS, *(dice.choice(KINDS) for _ in range(wanted))][:wanted]
        killers = {kind: Killer(self._live.instance, self._seed, (kind,)) for kind in set(KINDS)}
        killed: list[Kill] = []
        with (self._live.folder / "load.log").open("w") as log:
            load = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.calls.load"], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._live.environment,
            )  # fmt: skip
        try:
            assert load.stdin is not None
            assert load.stdout is not None
            with load.stdin as pipe:
                pipe.write(orders.as_json())
            over, moved_at = 0, time.monotonic()
            for line in load.stdout:
                if int(line) != over:
                    over, moved_at = int(line), time.monotonic()
                elif time.monotonic() > moved_at + STALLED_S_MAX:
                    raise UnavailableError(f"Seed {self._seed}: nothing goes on after {over} calls.")
                if len(killed) < wanted and over >= moments[len(killed)]:
                    # Of a kind that is just being started again there is none: it waits for its turn.
                    killed += killers[kinds[len(killed)]].strike()[: wanted - len(killed)]
                    self._kills.write_text("".join(f"{kill.at:.3f} {kill.kind} {kill.pid}\n" for kill in killed))
            if load.wait() != 0:
                raise UnavailableError(f"Seed {self._seed}: the load fell.", f"See {log.name}.")
        finally:
            if load.poll() is None:
                load.kill()
                load.wait()
        return killed

    def _settled(self, wallets: Mapping[str, str]) -> list[str]:
        """Waits until nothing is held for anybody. `wallets`: user -> a token that shows his wallet."""
        deadline = time.monotonic() + SETTLE_S_MAX
        held: Mapping[str, int] = {}
        while time.monotonic() < deadline:
            held = {user: amount for user, token in wallets.items() if (amount := self._held(token))}
            if not held:
                return []
            time.sleep(0.5)
        return [f"{SETTLE_S_MAX:g} s after the last call these are held: {dict(held)}"]

    def _held(self, token: str) -> int:
        """-1 where nobody tells."""
        client = Client(self._live.url, token)
        try:
            return client.me().held_ucredits
        except MasterbuilderError:
            return -1
        finally:
            client.close()

    def _figures(self, record: Record, found: Sequence[str], took_s: float) -> list[dict[str, object]]:
        kinds = Counter(kill.kind for kill in record.kills)
        ends = Counter(f"{entry.kind} {entry.code}".strip() for entry in record.diary)
        calls = sum(count for end, count in ends.items() if not end.startswith("unreachable"))
        charged, unknown = record.of_outcome(*CHARGED), record.of_outcome(UNKNOWN)
        estimated = record.of_outcome("estimated")
        untold = sum(entry.kind == "answered" and entry.usage is None for entry in record.diary)
        in_flight = len(record.cut_off)
        just_left = sum(entry.kind == "left" and entry.number in record.cut_off for entry in record.diary)
        lost_pusd = sum(call.cost_pusd for call in unknown)
        below_zero = sum(min(each.balance_ucredits, each.free_ucredits) < 0 for each in record.books.balances.values())
        empty = sum(code == "not_enough_credits" for code in (entry.code for entry in record.diary))
        return [
            self._figure("calls", calls, "calls", f"{_listed(ends)}; {calls / took_s:.0f}/s"),
            self._figure("kills", len(record.kills), "processes", _listed(kinds)),
            self._figure(
                "calls settled and charged", len(charged), "calls",
                f"{sum(map(len, record.served.values()))} served by the simulator, "
                f"{len(record.of_outcome('provider_failed'))} failed there and were not charged, "
                f"{len(record.forgiven())} charged in part",
                target=calls // 2, holds=len(charged) >= calls // 2,
            ),
            self._figure(
                "calls unsettled", len(unknown), "calls",
                f"{in_flight} in flight at the kills, {just_left} of them just left by their client", target=in_flight,
                holds=len(unknown) <= in_flight,
            ),
            self._figure("estimated loss of these", round(lost_pusd / 1e12, 6), "USD"),
            self._figure(
                "calls charged by a flagged estimate", len(estimated), "calls",
                f"{ends['left']} were left by their client, {untold} were answered without usage",
            ),
            self._figure(
                "wallets below zero", below_zero, "wallets", f"{empty} calls met an empty one", target=0,
                holds=not below_zero,
            ),
            self._figure("differences between the books", len(found), "differences", target=0, holds=not found),
        ]  # fmt: skip

    def _figure(
        self, name: str, value: float, unit: str, against: str = "", *, target: float | None = None, holds: bool = True
    ) -> dict[str, object]:
        return {
            **make_figure("chaos-calls", name, value, unit, against=against, target=target, holds=holds),
            "seed": self._seed,
        }


async def _order_faults(simulator: str, seed: int) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        for number, fault in enumerate(FAULTS):
            async with http.post(f"{simulator}/simulator/faults", json={**fault, "seed": seed + number}):
                pass


def _providers(simulator: str) -> dict[str, str]:
    """The variables of three providers, each at the simulator in its own wire."""
    root = simulator.removesuffix("/v1")
    urls = {"XAI": simulator, "ANTHROPIC": root, "GEMINI": root}
    keys = [{"key": f"sim-chaos-{number}", "active": True} for number in range(KEYS_PER_PROVIDER)]
    return {
        **{f"{name}_BASE_URL": url for name, url in urls.items()},
        **{f"{name}_API_KEYS_JSON": json.dumps(keys) for name in ("XAI", "ANTHROPIC", "GOOGLE")},
    }


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
