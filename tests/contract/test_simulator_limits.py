"""Limits, faults and the report, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cluster.simulator.server import Simulator
from cluster.simulator.usage import ServedCall, UsageFile, fingerprint, text_tokens

WIRES = ["openai", "anthropic", "gemini"]
STREAMED = "synthetic tokens=8 piece_tokens=1"


@pytest.fixture
def usage_file(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


@pytest_asyncio.fixture
async def simulator(usage_file: Path) -> AsyncIterator[Simulator]:
    async with Simulator(usage_file=usage_file) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.root_url, timeout=120.0) as http:
        yield http


async def call(
    http: httpx.AsyncClient,
    text: str = "synthetic",
    *,
    wire: str = "openai",
    key: str = "sim-1",
    stream: bool = False,
    timeout_s: float = 30.0,
) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    if wire == "openai":
        body: dict[str, Any] = {"model": "m", "messages": messages, "stream": stream}
        path, headers = "/v1/chat/completions", {"Authorization": f"Bearer {key}"}
    elif wire == "anthropic":
        body = {"model": "m", "messages": messages, "stream": stream, "max_tokens": 1_000}
        path, headers = "/v1/messages", {"x-api-key": key, "anthropic-version": "2023-06-01"}
    else:
        body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path, headers = f"/v1beta/models/m:{method}", {"x-goog-api-key": key}
    return await http.post(path, json=body, headers={**headers, "X-Client-Request-Id": "call-1"}, timeout=timeout_s)


async def order(http: httpx.AsyncClient, **fault: Any) -> int:
    answer = await http.post("/simulator/faults", json=fault)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


async def limit(http: httpx.AsyncClient, **limit: Any) -> None:
    assert (await http.post("/simulator/limits", json=limit)).status_code == 200


async def report(http: httpx.AsyncClient) -> Any:
    return (await http.get("/simulator/report")).json()


def served(usage_file: Path) -> list[ServedCall]:
    return UsageFile(usage_file).calls()


@pytest.mark.parametrize("wire", WIRES)
async def test_call__over_its_limit_is_refused_and_reported(
    http: httpx.AsyncClient, usage_file: Path, wire: str
) -> None:
    await limit(http, key="sim-1", requests_per_minute=2)
    answers = [await call(http, wire=wire) for _ in range(3)]
    other = await call(http, wire=wire, key="sim-2")

    assert [answer.status_code for answer in (*answers, other)] == [200, 200, 429, 200]
    if wire == "gemini":
        assert answers[2].json()["error"]["details"][0]["retryDelay"].startswith(("59.", "60"))
    else:
        assert 58 <= int(answers[2].headers["Retry-After"]) <= 60
    told = await report(http)
    lane = next(each for each in told["lanes"] if each["key"] == fingerprint("sim-1"))
    assert (lane["arrivals"], lane["served"], lane["refused"]) == (3, 2, 1)
    [violation] = lane["violations"]
    assert (violation["measure"], violation["count"], violation["refused"]) == ("requests", 3, True)
    assert violation["call_id"] == "call-1"
    assert (told["violations"], len(served(usage_file))) == (1, 3)
    assert "sim-" not in str(told)


async def test_call__over_a_limit_that_is_only_recorded_is_served(http: httpx.AsyncClient) -> None:
    await limit(http, requests_per_minute=2, enforce="record")

    assert [(await call(http)).status_code for _ in range(4)] == [200] * 4
    assert [each["count"] for each in (await report(http))["lanes"][0]["violations"]] == [3, 4]


async def test_tokens__of_answers_count_from_their_arrival(http: httpx.AsyncClient) -> None:
    prompt = text_tokens("usersynthetic tokens=50")
    await limit(http, tokens_per_minute=prompt + 50 + prompt)
    first, second, third = [await call(http, "synthetic tokens=50") for _ in range(3)]

    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert third.json()["error"]["type"] == "tokens"
    assert first.headers["x-ratelimit-remaining-tokens"] == str(prompt)
    lane = (await report(http))["lanes"][0]
    # The second answer puts its own window in the wrong; the third call was refused.
    assert [(each["measure"], each["refused"]) for each in lane["violations"]] == [("tokens", False), ("tokens", True)]
    assert lane["tokens"] == 2 * (prompt + 50)


async def test_concurrency__counts_calls_under_way(http: httpx.AsyncClient) -> None:
    await limit(http, concurrency=2)
    answers = await asyncio.gather(*(call(http, "synthetic delay_ms=300") for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    assert [(await call(http)).status_code for _ in range(5)] == [200] * 5
    assert (await report(http))["lanes"][0]["in_flight_max"] == 2


async def test_headers__tell_the_limits(http: httpx.AsyncClient) -> None:
    plain = await call(http)
    await limit(http, requests_per_minute=1, tokens_per_minute=1_000)
    refused = await call(http, key="sim-2"), await call(http, key="sim-2")
    claude = await call(http, wire="anthropic", key="sim-3")

    assert "x-ratelimit-limit-requests" not in plain.headers
    assert [each.headers["x-ratelimit-remaining-requests"] for each in refused] == ["0", "0"]
    assert refused[0].headers["x-ratelimit-limit-tokens"] == "1000"
    assert refused[0].headers["x-ratelimit-reset-requests"].endswith("s")
    assert claude.headers["anthropic-ratelimit-requests-limit"] == "1"
    reset = datetime.fromisoformat(claude.headers["anthropic-ratelimit-requests-reset"]) - datetime.now(UTC)
    assert 50 < reset.total_seconds() <= 60


async def test_limits__are_listed_and_cleared(http: httpx.AsyncClient) -> None:
    await limit(http, requests_per_minute=0)
    assert (await call(http)).status_code == 429
    assert (await http.get("/simulator/limits")).json()["limits"][0]["requests_per_minute"] == 0
    await http.delete("/simulator/limits")

    assert (await call(http)).status_code == 200
    assert (await http.post("/simulator/limits", json={"key": "sim-", "concurrency": 1})).status_code == 400
    assert (await http.get("/simulator/report?bucket_s=no")).status_code == 400


async def test_users__are_told_apart(http: httpx.AsyncClient) -> None:
    await asyncio.gather(*(call(http, f"synthetic tokens=10 user={name}") for name in ("ann", "bob", "ann")))

    users = (await report(http))["users"]
    assert {name: user["served"] for name, user in users.items()} == {"ann": 2, "bob": 1}


async def test_retry_after__comes_in_the_form_ordered(http: httpx.AsyncClient) -> None:
    headers = []
    for form in ("seconds", "ms", "date", "none"):
        await order(http, kind="status_429", retry_after_s=2.5, retry_form=form)
        headers.append((await call(http)).headers)

    seconds, ms, date, none = headers
    assert (seconds["Retry-After"], seconds.get("Retry-After-Ms")) == ("3", None)
    assert (ms.get("Retry-After"), ms["Retry-After-Ms"]) == (None, "2500")
    assert 2 < (parsedate_to_datetime(date["Retry-After"]) - datetime.now(UTC)).total_seconds() <= 4
    assert "Retry-After" not in none


@pytest.mark.parametrize("wire", WIRES)
async def test_revoked_key__is_refused_for_ever(http: httpx.AsyncClient, wire: str) -> None:
    assert (await call(http, wire=wire)).status_code == 200
    await order(http, kind="revoke_key", key="sim-1")

    refused = [(await call(http, wire=wire)).status_code for _ in range(3)]
    assert refused == [400 if wire == "gemini" else 401] * 3
    assert (await call(http, wire=wire, key="sim-11")).status_code == 200
    assert (await http.get("/simulator/faults")).json()["waiting"][0]["taken"] == 3


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("after_pieces", [0, 3, 8, 99])
async def test_cut_stream__ends_after_the_pieces_ordered(
    http: httpx.AsyncClient, usage_file: Path, wire: str, after_pieces: int
) -> None:
    await order(http, kind="cut_stream", after_pieces=after_pieces)

    with pytest.raises(httpx.RemoteProtocolError):
        await call(http, STREAMED, wire=wire, stream=True)

    [cut] = served(usage_file)
    assert (cut.complete, cut.completion_tokens) == (False, min(after_pieces, 8))
    assert (await report(http))["lanes"][0]["cut"] == 1


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [False, True])
async def test_malformed_wire__is_no_json_and_counted(
    http: httpx.AsyncClient, usage_file: Path, wire: str, stream: bool
) -> None:
    await order(http, kind="malformed_wire")
    answer = await call(http, STREAMED, wire=wire, stream=stream)

    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
        [httpx.Response(200, text=each).json() for each in events(answer, stream)]
    assert served(usage_file)[0].complete


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [False, True])
async def test_usage__can_be_missing_and_is_counted(
    http: httpx.AsyncClient, usage_file: Path, wire: str, stream: bool
) -> None:
    await order(http, kind="missing_usage")
    answer = await call(http, STREAMED, wire=wire, stream=stream)

    assert answer.status_code == 200
    assert "usage" not in answer.text
    assert served(usage_file)[0].completion_tokens == 8


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [False, True])
async def test_content__can_be_empty(http: httpx.AsyncClient, usage_file: Path, wire: str, stream: bool) -> None:
    await order(http, kind="empty_content")

    assert (await call(http, STREAMED, wire=wire, stream=stream)).status_code == 200
    assert served(usage_file)[0].completion_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after_pieces", [None, 2])
async def test_hang__lasts_until_the_client_goes(
    http: httpx.AsyncClient, usage_file: Path, stream: bool, after_pieces: int | None
) -> None:
    await order(http, kind="hang", **({"after_pieces": after_pieces} if after_pieces else {}))

    with pytest.raises(httpx.ReadTimeout):
        await call(http, STREAMED, stream=stream, timeout_s=0.3)

    for _ in range(500):
        if served(usage_file):
            break
        await asyncio.sleep(0.02)
    [gone] = served(usage_file)
    assert (gone.complete, gone.completion_tokens) == (False, (after_pieces or 0) if stream else 0)


async def test_pieces__can_be_slow(http: httpx.AsyncClient) -> None:
    await order(http, kind="slow_pieces", delay_s=0.05)
    loop = asyncio.get_running_loop()
    before = loop.time()

    await call(http, STREAMED, stream=True)

    assert loop.time() - before >= 8 * 0.05


async def test_faults__by_rate_are_listed_and_cleared(http: httpx.AsyncClient) -> None:
    id = await order(http, kind="status_500", rate=0.5, seed=7, key="sim-1*")
    statuses = [(await call(http, key="sim-12")).status_code for _ in range(40)]
    [told] = (await http.get("/simulator/faults")).json()["waiting"]

    assert (told["id"], told["rate"], told["taken"]) == (id, 0.5, statuses.count(500))
    assert 5 < statuses.count(500) < 35
    assert (await http.delete(f"/simulator/faults?id={id}")).json() == {"waiting": []}
    assert (await http.delete("/simulator/faults?id=x")).status_code == 400


async def test_failed_call__was_an_arrival_but_served_nothing(http: httpx.AsyncClient, usage_file: Path) -> None:
    await order(http, kind="status_503")
    await call(http)

    lane = (await report(http))["lanes"][0]
    assert (lane["arrivals"], lane["failed"], lane["served"]) == (1, 1, 0)
    assert not served(usage_file)


async def test_status__that_was_ordered_tells_the_limits_too(http: httpx.AsyncClient) -> None:
    await limit(http, requests_per_minute=5)
    await order(http, kind="status_500")

    assert (await call(http)).headers["x-ratelimit-remaining-requests"] == "4"


@pytest.mark.parametrize("stream", [False, True])
async def test_answer__that_cannot_be_recorded_is_not_completed(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    await limit(http, concurrency=1)
    monkeypatch.setattr(UsageFile, "record", disk_full)

    with pytest.raises((httpx.RemoteProtocolError, httpx.HTTPStatusError)):
        (await call(http, STREAMED, stream=stream)).raise_for_status()

    monkeypatch.undo()
    assert (await call(http)).status_code == 200
    assert (await report(http))["lanes"][0]["open"] == 0


def disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def events(answer: httpx.Response, stream: bool) -> list[str]:
    lines = answer.text.splitlines()
    datas = [line.removeprefix("data: ") for line in lines if line.startswith("data: ") and "[DONE]" not in line]
    return datas if stream else [answer.text]
