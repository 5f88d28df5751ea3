"""setWebhook, and the deliveries to it: at most `max_connections` at once, repeated until they are taken.

Updates of one chat or person come one after the other, those of others beside them, as Telegram's own server does.
"""

import asyncio
import contextlib
import re
import time
from collections import deque
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from cluster.simulator.telegram.disorder import Disorder
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import bad_request
from cluster.simulator.telegram.updates import Update, Updates

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"
CONNECTIONS = 40
CONNECTIONS_MAX = 100
ANSWER_S_MAX = 60.0
RETRY_S_MAX = 60.0
ATTEMPTS_KEPT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`status` None: no answer came. `under_way`: how many deliveries there were at once when it began, itself too."""

    update_id: int
    at_s: float
    status: int | None
    took_s: float
    under_way: int

    def facts(self) -> dict[str, Any]:
        return asdict(self)


class Webhook:
    """`retry_s` is the first wait after a delivery that failed; it doubles."""

    def __init__(self, updates: Updates, disorder: Disorder, *, retry_s: float = 1.0) -> None:
        self._updates = updates
        self._disorder = disorder
        self._retry_s = retry_s
        self.url = ""
        self.attempts: deque[Attempt] = deque(maxlen=ATTEMPTS_KEPT)
        self._secret = ""
        self._max_connections = CONNECTIONS
        self._last_error: tuple[int, str] | None = None
        self._under_way = 0
        self._sending: asyncio.Task[None] | None = None

    async def switch_on(self, asked: Parameters) -> bool:
        url, secret = asked.text("url"), asked.text("secret_token")
        connections = asked.integer("max_connections", CONNECTIONS)
        if url and not _on_loopback(url):
            raise bad_request("bad webhook: the stand-in delivers to loopback addresses only")
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,256}", secret):
            raise bad_request("secret token contains unallowed characters")
        if not 1 <= connections <= CONNECTIONS_MAX:
            raise bad_request("invalid max_connections specified")
        self._updates.allow(asked.json("allowed_updates"))
        await self._switch(url, secret, connections, drop=asked.boolean("drop_pending_updates"))
        return True

    async def switch_off(self, asked: Parameters) -> bool:
        await self._switch("", "", CONNECTIONS, drop=asked.boolean("drop_pending_updates"))
        return True

    def info(self, _: Parameters) -> dict[str, Any]:
        info: dict[str, Any] = {
            "url": self.url,
            "has_custom_certificate": False,
            "pending_update_count": len(self._updates.pending),
        }
        if self.url:
            info |= {"max_connections": self._max_connections, "ip_address": "127.0.0.1"}
        if self._updates.allowed:
            info["allowed_updates"] = list(self._updates.allowed)
        if self._last_error is not None:
            info["last_error_date"], info["last_error_message"] = self._last_error
        return info

    async def stop(self) -> None:
        task, self._sending = self._sending, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _switch(self, url: str, secret: str, connections: int, *, drop: bool) -> None:
        await self.stop()
        if drop:
            self._updates.drop()
        self.url, self._secret, self._max_connections, self._last_error = url, secret, connections, None
        if url:
            self._sending = asyncio.create_task(self._send_all(), name="telegram-webhook")

    async def _send_all(self) -> None:
        busy_lanes: set[int] = set()
        begun: set[int] = set()
        gate = asyncio.Semaphore(self._max_connections)
        connector = TCPConnector(limit=0)

        async def send(update: Update, in_lane: bool) -> None:
            if not in_lane:
                await asyncio.sleep(self._disorder.setup.hold_s)
            await self._deliver(client, gate, update)
            begun.discard(update.id)
            if in_lane:
                busy_lanes.discard(update.lane)
            self._updates.changes.tell()

        async with (
            ClientSession(connector=connector, timeout=ClientTimeout(total=ANSWER_S_MAX)) as client,
            asyncio.TaskGroup() as deliveries,
        ):
            while True:
                seen = self._updates.changes.number
                for update in self._updates.waiting():
                    if update.id in begun or update.lane in busy_lanes:
                        continue
                    begun.add(update.id)
                    in_lane = not self._disorder.reorders()
                    if in_lane:
                        busy_lanes.add(update.lane)
                    deliveries.create_task(send(update, in_lane))
                await self._updates.changes.wait(seen, 3600.0)

    async def _deliver(self, client: ClientSession, gate: asyncio.Semaphore, update: Update) -> None:
        wait_s = self._retry_s
        copies = 2 if self._disorder.duplicates() else 1
        while True:
            taken = await asyncio.gather(*(self._attempt(client, gate, update) for _ in range(copies)))
            if any(taken):
                self._updates.done(update.id)
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    async def _attempt(self, client: ClientSession, gate: asyncio.Semaphore, update: Update) -> bool:
        headers = {SECRET_HEADER: self._secret} if self._secret else {}
        status: int | None = None
        async with gate:
            self._under_way += 1
            under_way, begun_s, at_s = self._under_way, time.monotonic(), time.time()
            try:
                async with client.post(self.url, json=update.wire, headers=headers, allow_redirects=False) as answer:
                    status = answer.status
                    await answer.read()
                    if not 200 <= status < 300:
                        said = f"Wrong response from the webhook: {status} {answer.reason}"
                        self._last_error = int(time.time()), said
            except (ClientError, TimeoutError) as error:
                said = "Read timeout expired" if isinstance(error, TimeoutError) else "Connection refused"
                self._last_error = int(time.time()), said
            finally:
                self._under_way -= 1
                took_s = time.monotonic() - begun_s
                self.attempts.append(
                    Attempt(update_id=update.id, at_s=at_s, status=status, took_s=took_s, under_way=under_way)
                )
        return status is not None and 200 <= status < 300


def _on_loopback(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
