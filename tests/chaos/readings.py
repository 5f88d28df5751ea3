"""What stands in every entity of the plan, as one JSON object: `python -m tests.chaos.readings SEED=DIARY ...`.

Reminders and transfers arrive by themselves, so it reads until there is what must be there, or a minute has passed.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.testing.probes import AccountView, Balance, CounterView, Total
from tests.chaos.diary import read
from tests.chaos.joined import ask_all, connected, join_ray
from tests.chaos.plan import ACCOUNTS, COUNTERS, expected

SETTLE_S_MAX = 60.0


async def _read(diaries: Mapping[int, Path]) -> dict[str, Any]:
    system = await connected()
    due = expected({seed: read(diary).accepted for seed, diary in diaries.items()})
    deadline = time.monotonic() + SETTLE_S_MAX
    while True:
        counters: list[CounterView] = await ask_all(system, COUNTERS, Total())
        accounts: list[AccountView] = await ask_all(system, ACCOUNTS, Balance())
        reminded = {entity: view.reminded for entity, view in zip(COUNTERS, counters, strict=True)}
        is_settled = reminded == due.reminded and not any(account.in_flight for account in accounts)
        if is_settled or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    in_flight = {entity: view.in_flight for entity, view in zip(ACCOUNTS, accounts, strict=True) if view.in_flight}
    return {
        "totals": {entity: view.total for entity, view in zip(COUNTERS, counters, strict=True)},
        "reminded": reminded,
        "balances": {entity: view.balance for entity, view in zip(ACCOUNTS, accounts, strict=True)},
        "in_flight": in_flight,
        "mismatches": [str(each) for each in await system.keeper.check()],
    }


def main() -> None:
    diaries = {int(seed): Path(path) for seed, _, path in (given.partition("=") for given in sys.argv[1:])}
    join_ray()
    print(json.dumps(asyncio.run(_read(diaries))))


if __name__ == "__main__":
    main()
