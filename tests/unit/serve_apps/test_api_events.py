import asyncio
import json
from dataclasses import replace

import pytest

from runtime.errors import UnavailableError
from runtime.project.messages import Status
from serve_apps.follow import OUTAGES_MAX, follow


def parsed(text: str) -> list[dict[str, str]]:
    """Events as a browser reads them; comments are dropped."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


async def read_all(door, names, **params) -> list[dict[str, str]]:
    response = await door.get(f"/api/v1/projects/{names.project}/events", **params)
    assert response.headers["content-type"].startswith("text/event-stream")
    return parsed(response.text)


@pytest.fixture
def finished(system, names):
    """A project with five events, one of them internal, that is over."""
    for kind in ("project.status", "step.started", "task.started", "package.ready", "project.finished"):
        system.entities.append(kind, {"text": f"line\nof {kind}"})
    system.entities.views[names.project] = replace(system.entities.views[names.project], status=Status.COMPLETED)


async def test_events__are_numbered_and_end_when_the_project_is_over(door, names, finished):
    events = await read_all(door, names)
    assert [event["event"] for event in events] == [
        "project.status", "task.started", "package.ready", "project.finished", "end",
    ]  # fmt: skip
    assert [event.get("id") for event in events] == ["1", "3", "4", "5", None]
    assert json.loads(events[0]["data"]) == {
        "seq": 1,
        "type": "project.status",
        "at": "2026-11-21T12:00:00+00:00",
        "data": {"text": "line\nof project.status"},
    }


async def test_events__continue_after_the_number_the_client_has(door, names, finished):
    by_query = await read_all(door, names, params={"after": 3})
    by_header = await read_all(door, names, params={"after": 0}, headers={"last-event-id": "3"})
    assert by_query == by_header
    assert [event.get("id") for event in by_query] == ["4", "5", None]
    assert [event["event"] for event in await read_all(door, names, params={"after": 5})] == ["end"]


async def test_events__read_in_any_two_parts_are_the_whole(door, names, finished):
    whole = await read_all(door, names)
    for at in range(6):
        first = [event for event in whole if int(event.get("id", 99)) <= at]
        assert first + await read_all(door, names, params={"after": at}) == whole


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "6", "9" * 40, "\u0661"])
async def test_events__after_no_such_number_is_refused(door, names, finished, after):
    response = await door.get(f"/api/v1/projects/{names.project}/events", params={"after": after})
    assert response.status_code == 400
    assert "from 0 to 5" in response.json()["error"]["message"]


async def test_events__that_come_later_are_sent_as_they_come(system, names):
    view = replace(system.entities.views[names.project], last_seq=0)
    stream = follow(system.entities, view, 0, "r")
    assert (await anext(stream)).startswith(b":")
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    system.entities.append("project.status")
    assert b"id: 1\nevent: project.status\n" in await waiting
    system.entities.append("project.finished")
    assert b"project.finished" in await anext(stream)
    assert b"event: end\n" in await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_silence__is_filled_with_what_is_done_and_costs_under_the_last_number(system, names):
    system.entities.wait_s_max = 0
    stream = follow(system.entities, system.entities.views[names.project], 3, "r")
    told = [await anext(stream) for _ in range(3)][1:]
    for event in parsed(b"".join(told).decode()):
        assert "id" not in event
        progress = json.loads(event["data"])
        assert (event["event"], progress["seq"]) == ("progress", 3)
        assert (
            progress["data"].items()
            >= {"status": "implementing", "done": 1, "total": 2, "quote_credits": "12.34"}.items()
        )
    system.entities.quarantined.add(f"project:{names.project}")
    assert await anext(stream) == b": alive\n\n"
    await stream.aclose()


async def test_events__go_on_after_the_host_was_replaced(system, names, finished):
    system.entities.raises = [UnavailableError("moving"), UnavailableError("moving")]
    sent = [item async for item in follow(system.entities, system.entities.views[names.project], 0, "r", 0.0)]
    events = parsed(b"".join(sent).decode())
    assert [event.get("id") for event in events] == ["1", "3", "4", "5", None]


async def test_events__of_a_host_that_stays_away_end_with_an_error_that_says_so(system, names):
    system.entities.raises = [UnavailableError("The host is away.", "Come back.")] * (OUTAGES_MAX + 1)
    sent = [item async for item in follow(system.entities, system.entities.views[names.project], 0, "r-1", 0.0)]
    (event,) = parsed(b"".join(sent).decode())
    assert event["event"] == "error"
    error = json.loads(event["data"])["error"]
    assert (error["code"], error["request_id"]) == ("unavailable", "r-1")


async def test_follower__that_goes_away_stops_waiting(system, names):
    system.entities.wait_s_max = 60
    stream = follow(system.entities, system.entities.views[names.project], 3, "r")
    await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
