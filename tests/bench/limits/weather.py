"""What befalls the keys while they are measured: they are told to rest, and some are revoked."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.bench.limits.plan import Key, Rest, Revocation

LOOK_EVERY_S = 0.1
STRIKES_WITHIN_S = 10.0
"""A 429 that no call has got by then is taken back: the key rests already, or is gone."""


@dataclass(slots=True)
class Sky:
    """What really happened. Moments are Unix times."""

    rests: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Key -> from when to when it was told to rest."""
    revoked_at: dict[str, float] = field(default_factory=dict)


class Weather:
    def __init__(self, http: aiohttp.ClientSession, simulator_url: str) -> None:
        self._http = http
        self._url = f"{simulator_url}/simulator/faults"
        self.sky = Sky()

    async def blow(self, rests: Sequence[Rest], revocations: Sequence[Revocation]) -> None:
        """From now on; returns after the last. Times are seconds from now."""
        began = time.monotonic()
        await asyncio.gather(
            *(self._rest(rest, began + rest.at_s) for rest in rests),
            *(self._revoke(revocation.key, began + revocation.at_s) for revocation in revocations),
        )

    async def _rest(self, rest: Rest, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        order = {
            "kind": "status_429",
            "key": rest.key.key,
            "count": 1,
            "retry_after_s": rest.rest_s,
            "retry_form": rest.form,
        }
        async with self._http.post(self._url, json=order) as answer:
            number = (await answer.json())["id"]
        give_up = time.monotonic() + STRIKES_WITHIN_S
        while time.monotonic() < give_up:
            await asyncio.sleep(LOOK_EVERY_S)
            async with self._http.get(self._url) as answer:
                waiting = (await answer.json())["waiting"]
            if all(each["id"] != number for each in waiting):
                struck_at = time.time()
                self.sky.rests.setdefault(rest.key.key, []).append((struck_at, struck_at + rest.rest_s))
                return
        async with self._http.delete(self._url, params={"id": str(number)}):
            return

    async def _revoke(self, key: Key, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        async with self._http.post(self._url, json={"kind": "revoke_key", "key": key.key}) as answer:
            answer.raise_for_status()
        self.sky.revoked_at[key.key] = time.time()
