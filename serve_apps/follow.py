"""A project's events as server-sent events: numbered, so that a client that comes back misses nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from runtime.entity.journal import EventRecord
from runtime.entity.port import Entities
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.ids import project_entity
from runtime.project.messages import Describe, ProjectView
from serve_apps.answers import error_body
from serve_apps.project_json import progress_json

HEARTBEAT_S = 15.0
OUTAGES_MAX = 12
OUTAGE_PAUSE_S = 5.0
INTERNAL = "step."
FINISHED = "project.finished"


async def follow(
    entities: Entities, view: ProjectView, after_seq: int, request_id: str, outage_pause_s: float = OUTAGE_PAUSE_S
) -> AsyncGenerator[bytes, None]:
    """Every public event numbered above `after_seq`, as it comes; `end` once the project is over and all were sent.

    Where nothing happens for 15 s, a `progress` tells what is done meanwhile: it is no event of the journal, and its
    number is the last event's, so that whoever comes back with it misses nothing. While the project's host is being
    replaced it waits, up to a minute; then an `error` event tells the client to come back.
    """
    over = view.status.terminal
    outages = 0
    clock = asyncio.get_running_loop().time
    told_s = clock()
    yield b": events follow\n\n"
    while True:
        try:
            wait_s = 0.0 if over else max(0.0, told_s + HEARTBEAT_S - clock())
            records = await entities.events(project_entity(view.id), after_seq, wait_s)
        except UnavailableError as error:
            outages += 1
            if outages > OUTAGES_MAX:
                yield _event("error", error_body(error, request_id))
                return
            yield b": waiting\n\n"
            await asyncio.sleep(outage_pause_s)
            continue
        except MasterbuilderError as error:
            yield _event("error", error_body(error, request_id))
            return
        outages = 0
        for record in records:
            after_seq = record.seq
            over = over or record.type == FINISHED
            if not record.type.startswith(INTERNAL):
                yield _event(record.type, _public(record), record.seq)
                told_s = clock()
        if not records and over:
            yield _event("end", {"last_seq": after_seq})
            return
        if not over and (not records or clock() - told_s >= HEARTBEAT_S):
            told_s = clock()
            yield await _progress(entities, view, after_seq)


async def _progress(entities: Entities, view: ProjectView, after_seq: int) -> bytes:
    """A comment where the project does not answer now: the connection is alive all the same."""
    try:
        now: ProjectView = await entities.ask(project_entity(view.id), Describe())
    except MasterbuilderError:
        return b": alive\n\n"
    told = {"seq": after_seq, "type": "progress", "at": datetime.now(UTC).isoformat(), "data": progress_json(now)}
    return _event("progress", told)


def _public(record: EventRecord) -> dict[str, object]:
    return {"seq": record.seq, "type": record.type, "at": record.at.isoformat(), "data": dict(record.data)}


def _event(name: str, data: dict[str, object], seq: int | None = None) -> bytes:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
