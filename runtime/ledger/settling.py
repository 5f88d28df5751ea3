"""Bringing calls that are over to the ledger, whole or, where it refuses some, without those."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runtime.errors import MasterbuilderError, RefusedError
from runtime.ledger.port import EscrowId, Ledger, Settlement
from runtime.ledger.spool import Orphan, find_orphans

log = logging.getLogger(__name__)

BATCH_CALLS_MAX = 500


async def settle_what_can(ledger: Ledger, settlement: Settlement) -> Sequence[EscrowId]:
    """`Ledger.settle`; a batch that is refused goes in halves, until only the guilty call is left out and logged.

    Repeating it makes the same halves. Raises UnavailableError.
    """
    try:
        return await ledger.settle(settlement)
    except RefusedError as refusal:
        calls = settlement.calls
        if len(calls) <= 1:
            log.error("the ledger refuses the settlement %s: %s", settlement.batch, refusal)
            return await ledger.settle(replace(settlement, calls=())) if calls else ()
        half = len(calls) // 2
        first = replace(settlement, batch=f"{settlement.batch}/1", calls=calls[:half], returns=(), process_ended=False)
        await settle_what_can(ledger, first)
        return await settle_what_can(ledger, replace(settlement, batch=f"{settlement.batch}/2", calls=calls[half:]))


async def settle_orphans(data_dir: Path, ledger: Ledger) -> int:
    """Settles what dead processes of this node left: known calls are charged, unknown ones are losses; how many.

    What cannot be settled now stays for the next time. Raises the ledger's UnavailableError.
    """
    orphans = await asyncio.to_thread(find_orphans, data_dir)
    count = 0
    try:
        for orphan in orphans:
            count += await _settle(orphan, ledger)
            await asyncio.to_thread(orphan.delete)
    except MasterbuilderError:
        log.warning("calls of dead processes are not settled yet")
        raise
    finally:
        for orphan in orphans:
            orphan.let_go()
    return count


async def _settle(orphan: Orphan, ledger: Ledger) -> int:
    files = await asyncio.to_thread(lambda: list(orphan.calls()))
    for name, calls in files:
        for start in range(0, len(calls), BATCH_CALLS_MAX):
            part = tuple(calls[start : start + BATCH_CALLS_MAX])
            await settle_what_can(ledger, Settlement(batch=f"{name}/{start}", process=orphan.process, calls=part))
    await ledger.settle(Settlement(batch=f"{orphan.process}/end", process=orphan.process, process_ended=True))
    return sum(len(calls) for _, calls in files)
