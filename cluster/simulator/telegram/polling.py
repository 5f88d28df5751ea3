"""getUpdates: one poll at a time, and what is asked for with a later offset is confirmed."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.simulator.telegram.disorder import Disorder
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import TelegramRefusal
from cluster.simulator.telegram.updates import Updates
from cluster.simulator.telegram.webhook import Webhook

LIMIT_MAX = 100
TIMEOUT_S_MAX = 50
_WEBHOOK_ACTIVE = "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
_OTHER_POLL = "terminated by other getUpdates request; make sure that only one bot instance is running"


class Polling:
    def __init__(self, updates: Updates, webhook: Webhook, disorder: Disorder) -> None:
        self._updates = updates
        self._webhook = webhook
        self._disorder = disorder
        self._terminated: asyncio.Event | None = None
        """Of the poll that waits."""

    async def get_updates(self, asked: Parameters) -> Sequence[Mapping[str, Any]]:
        offset, limit = asked.integer("offset", 0), asked.integer("limit", LIMIT_MAX)
        timeout_s = min(max(asked.integer("timeout", 0), 0), TIMEOUT_S_MAX)
        allowed = asked.json("allowed_updates")
        if self._webhook.url:
            raise TelegramRefusal(409, _WEBHOOK_ACTIVE)
        if self._terminated is not None:
            self._terminated.set()
        self._terminated = mine = asyncio.Event()
        try:
            self._updates.allow(allowed)
            if offset < 0:
                self._updates.keep_last(-offset)
            else:
                self._updates.confirm_before(offset)
            await self._wait(mine, timeout_s)
            return self._batch(min(max(limit, 1), LIMIT_MAX))
        finally:
            if self._terminated is mine:
                self._terminated = None

    async def _wait(self, terminated: asyncio.Event, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        ended = asyncio.ensure_future(terminated.wait())
        try:
            while not self._updates.pending and (left_s := ends_at_s - loop.time()) > 0:
                changed = asyncio.ensure_future(self._updates.changes.wait(self._updates.changes.number, left_s))
                await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if terminated.is_set():
                    break
        finally:
            ended.cancel()
        if terminated.is_set():
            raise TelegramRefusal(409, _OTHER_POLL)

    def _batch(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """With disorder an update may come twice, and after the one that follows it."""
        batch: list[Mapping[str, Any]] = []
        held: Mapping[str, Any] | None = None
        for update in self._updates.waiting()[:limit]:
            if held is None and self._disorder.reorders():
                held = update.wire
                continue
            batch += [update.wire] * (2 if self._disorder.duplicates() else 1)
            if held is not None:
                batch.append(held)
                held = None
        return batch if held is None else [*batch, held]
