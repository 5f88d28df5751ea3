"""Who lives where."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ray.actor import ActorHandle

from actors.entity_host import EntityHostActor
from actors.handles import ensure, once
from runtime.config import Settings

HOSTS: Mapping[str, tuple[str, ...]] = {"host-0": ("project", "user"), "index-host-0": ("index",)}
"""Every host with the kinds that live in it. Only one host has journaled kinds, so it has every partition."""
WATCH_EVERY_S = 1.0

log = logging.getLogger(__name__)


class RouterActor:
    """Owns the map of kinds to hosts, makes the hosts, and wakes one that was restarted.

    Asked when a caller has no map yet or its host is gone, never on a message's common path. One runs; a restart
    makes the same map again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts: dict[str, ActorHandle[Any]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def route(self) -> Mapping[str, str]:
        """Kind -> name of the host actor."""
        self.ensure_hosts()
        return {kind: name for name, kinds in HOSTS.items() for kind in kinds}

    def ensure_hosts(self) -> None:
        for name, kinds in HOSTS.items():
            if name not in self._hosts:
                self._hosts[name] = ensure(name, EntityHostActor, self._settings, name, kinds)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._keep_awake())

    async def _keep_awake(self) -> None:
        """A restarted host does nothing before its first message; this is that message."""
        while True:
            for name, host in list(self._hosts.items()):
                try:
                    async with asyncio.timeout(30):
                        await once(host.start.remote, what=name)
                except Exception as error:
                    log.warning("%s did not wake: %s", name, error)
            await asyncio.sleep(WATCH_EVERY_S)
