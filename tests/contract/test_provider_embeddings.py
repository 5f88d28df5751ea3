"""Indexes by a provider's model, when the provider, the money or the process fails: through the real SDK and ledger."""

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runtime.documents.messages import DeleteDocument
from runtime.ids import EVERYBODY, LOCAL_ADMIN, ProjectId, index_entity, library_entity
from runtime.index import provider_embedder, shard_entity
from runtime.index.messages import FetchIndex
from runtime.index.saved import index_from_bytes
from tests.contract.embedding_world import ANN, BOB, SMALL, EmbeddingWorld, embedding_world
from tests.unit.index.test_shard import CountingEmbedder

SHOP, OTHER = ProjectId("6f1c0000-0000-0000-0000-000000000001"), ProjectId("6f1c0000-0000-0000-0000-000000000002")
FILES = {f"part_{n}.py": f"def price_{n}(items):\n    return sum(items) * {n}\n" for n in range(300)}
"""Two requests: 256 texts are the most of one."""
TINY = "openai/text-embedding-3-small@4"


class Provider:
    """Speaks OpenAI's wire. Each text's vector has its number in this provider's life."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.answers: Callable[[list[dict[str, Any]]], Any] = lambda rows: rows
        """What becomes of the rows of an answer."""
        self.before: Callable[[int], Awaitable[web.Response | None]] | None = None
        """Is told how many requests came before."""
        self.url = ""

    async def embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if self.before and (answer := await self.before(len(self.bodies) - 1)) is not None:
            return answer
        self.texts += body["input"]
        rows = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(body["input"])]
        usage = {"prompt_tokens": len(body["input"]), "total_tokens": len(body["input"])}
        answer = {"model": body["model"], "data": self.answers(rows), "usage": usage}
        return web.Response(text=json.dumps(answer), content_type="application/json")


def vector_of(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode())), 1.0, -2.0]


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/embeddings", made.embed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


@pytest.fixture
def opened(provider: Provider, tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[EmbeddingWorld]]:
    @asynccontextmanager
    async def world() -> AsyncIterator[EmbeddingWorld]:
        async with embedding_world(tmp_path, TINY, provider.url) as made:
            yield made

    return world


async def charged(world: EmbeddingWorld) -> list[tuple[str, str, int]]:
    return [(row["user"], row["outcome"], int(row["charged_ucredits"])) for row in await world.usage()]


def with_first(vector: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: [{**rows[0], "embedding": vector}, *rows[1:]]


def longer(rows: list[dict[str, Any]]) -> Any:
    return [{**row, "embedding": [*row["embedding"], 1.0]} for row in rows]


SPOILED: Mapping[str, Callable[[list[dict[str, Any]]], Any]] = {
    "fewer": lambda rows: rows[:-1],
    "more": lambda rows: [*rows, {**rows[0], "index": len(rows)}],
    "none": lambda rows: [],
    "no list": lambda rows: {"a": 1},
    "of another length": longer,
    "one of another length": with_first([1.0]),
    "not numbers": with_first([math.nan, 1.0, 1.0, 1.0]),
    "infinite": with_first([math.inf, 1.0, 1.0, 1.0]),
    "texts": with_first(["1", "2", "3", "4"]),
    "of one text twice": lambda rows: [{**row, "index": 0} for row in rows],
    "of no text": lambda rows: [{**row, "index": row["index"] + 1} for row in rows],
    "of some texts": lambda rows: [*rows[:-1], {"embedding": rows[-1]["embedding"]}],
}


async def test_answer__that_is_no_vector_a_text_is_not_used_and_not_charged(
    provider: Provider, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_embedder, "REST_S", 0.0)
    async with opened() as world:
        commit = await world.commit(FILES)
        for number, (kind, spoil) in enumerate(SPOILED.items()):
            provider.answers = spoil
            project = ProjectId(f"6f1c0000-0000-0000-0000-{number:012}")
            status = await world.update(project, commit)
            assert (status.commit, status.chunks, status.embedded) == (commit[0], 300, 0), kind
            assert "vector" in status.waits, kind
            assert len(provider.bodies) == number + 1, kind
        assert {(user, outcome, sum_) for user, outcome, sum_ in await charged(world)} == {(ANN, "provider_failed", 0)}
        assert (await world.store.books.balance(ANN)).held_ucredits == 0
        assert (await world.search(SHOP, "price_7")).hits[0].path == "part_7.py"


async def test_length__that_differs_is_told_with_what_to_do(provider: Provider, opened: Any) -> None:
    provider.answers = longer
    async with opened() as world:
        status = await world.update(SHOP, await world.commit(FILES))
        assert "vectors of 5 numbers, not of 4" in status.waits


async def test_request__asks_for_the_dimensions_of_its_name_and_texts_are_cut(provider: Provider, opened: Any) -> None:
    async with opened() as world:
        await world.update(SHOP, await world.commit({"long.txt": "word " * 300 + "\n"}))
    (body,) = provider.bodies
    assert (body["model"], body["dimensions"]) == ("text-embedding-3-small", 4)


async def test_vectors__that_come_in_another_order_are_those_of_their_texts(provider: Provider, opened: Any) -> None:
    provider.answers = lambda rows: rows[::-1]
    async with opened() as world:
        await world.update(SHOP, await world.commit(FILES))
        saved = await world.host.ask(index_entity(SHOP), FetchIndex(owner=ANN))
        tree = index_from_bytes(saved, world.embedders.default, world.embedders.named)
    assert tree.dense is not None
    for chunk, row in zip(tree.chunks, tree.dense.rows(tree.dense.ids), strict=False):
        expected = vector_of(chunk.embedded_text)
        mine = tree.dense.vectors[tree.dense.rows(tree.dense.ids) == row]
        assert mine.shape == (1, 4)
        assert math.hypot(*mine[0]) == pytest.approx(1, abs=1e-5)
        place = tree.files[chunk.path].ids[0]
        got = tree.dense.vectors[int(tree.dense.rows(tree.dense.ids.dtype.type(place)))]
        assert list(got) == pytest.approx([x / math.hypot(*expected) for x in expected], abs=1e-5)


@pytest.mark.parametrize("size", [1e-300, 1e300])
async def test_vectors__of_any_size_have_length_one(provider: Provider, opened: Any, size: float) -> None:
    provider.answers = lambda rows: [{**row, "embedding": [size, 0.0, -size, 0.0]} for row in rows]
    async with opened() as world:
        status = await world.update(SHOP, await world.commit(FILES))
        assert (status.waits, status.embedded) == ("", 300)


async def test_vector__without_a_direction_is_refused(provider: Provider, opened: Any) -> None:
    provider.answers = lambda rows: [{**row, "embedding": [0.0] * 4} for row in rows]
    async with opened() as world:
        assert "vector" in (await world.update(SHOP, await world.commit(FILES))).waits


async def test_limits__are_waited_for_and_one_call_is_one_row(tmp_path: Path) -> None:
    async with embedding_world(tmp_path) as world:
        await world.fault("status_429", count=2, retry_after_s=0.2)
        status = await world.update(SHOP, await world.commit(FILES))
        assert (status.waits, status.embedded) == ("", 300)
        assert [outcome for _, outcome, _ in await charged(world)] == ["ok", "ok"]
        assert len(world.served()) == 2


async def test_provider__that_dies_in_the_middle_is_paid_for_what_it_gave_and_not_for_that_again(
    provider: Provider, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_embedder, "REST_S", 1.0)

    async def dies(before: int) -> web.Response | None:
        return web.Response(status=500) if before else None

    async with opened() as world:
        provider.before = dies
        commit = await world.commit(FILES)
        status = await world.update(SHOP, commit)
        assert (status.commit, status.embedded) == (commit[0], 0)
        assert status.waits
        assert (await world.search(SHOP, "price_7")).hits[0].why.meaning == 0
        provider.before = None
        asked = len(provider.bodies)
        await world.update(SHOP, await world.commit({"rest.py": "def rest():\n    return 2\n"}))
        assert len(provider.bodies) == asked, "nobody waits again at once for what did not answer"
        await asyncio.sleep(1.0)
        status = await world.update(SHOP, await world.commit({"tax.py": "def tax():\n    return 2\n"}))
        assert status.waits == ""
        assert len(provider.texts) == len(set(provider.texts)) == 302
        assert sum(int(row["input_tokens"]) for row in await world.usage() if row["outcome"] == "ok") == 302


async def test_kill__between_two_requests_charges_none_of_them_again(provider: Provider, opened: Any) -> None:
    second, over = asyncio.Event(), asyncio.Event()

    async def hangs(before: int) -> web.Response | None:
        if before != 1:
            return None
        second.set()
        await over.wait()
        return web.Response(status=400, text="{}")

    async with opened() as world:
        provider.before = hangs
        commit = await world.commit(FILES)
        running = asyncio.create_task(world.update(SHOP, commit))
        await second.wait()
        await world.crash()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await world.status(SHOP)).commit == ""
        provider.before = None
        status = await world.update(SHOP, commit)
        assert (status.commit, status.waits, status.chunks) == (commit[0], "", 300)
        assert len(provider.texts) == len(set(provider.texts)) == 300
        over.set()


async def test_index__that_waits_is_kept_so_and_completed_when_it_is_asked_something(
    provider: Provider, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_entity, "COMPLETE_EVERY_S", 0.0)
    async with opened() as world:
        await world.give(ANN, 0)
        commit = await world.commit(FILES)
        await world.update(SHOP, commit)
        file = world.index_folder / f"{SHOP}.index"
        for _ in range(200):
            if file.exists():
                break
            await asyncio.sleep(0.02)
        await world.crash()
        status = await world.status(SHOP)
        assert (status.commit, bool(status.waits), provider.bodies) == (commit[0], True, [])
        await world.give(ANN, 10**8)
        for _ in range(200):
            found = await world.search(SHOP, "price_7")
            if not found.waits:
                break
            await asyncio.sleep(0.05)
        assert (found.waits, found.commit) == ("", commit[0])
    assert len(provider.texts) == len(set(provider.texts))


async def test_question__that_is_not_embedded_is_answered_by_words_and_the_next_does_not_wait(
    provider: Provider, opened: Any
) -> None:
    async def fails(before: int) -> web.Response | None:
        return web.Response(status=500)

    async with opened() as world:
        await world.update(SHOP, await world.commit(FILES))
        asked = len(provider.bodies)
        provider.before = fails
        assert (await world.search(SHOP, "price_7")).hits[0].path == "part_7.py"
        tried = len(provider.bodies)
        assert tried > asked
        assert (await world.search(SHOP, "price_8")).hits[0].path == "part_8.py"
        assert len(provider.bodies) == tried


async def test_question__is_embedded_once_and_kept_in_memory_alone(provider: Provider, opened: Any) -> None:
    async with opened() as world:
        await world.update(SHOP, await world.commit(FILES))
        for _ in range(2):
            await world.search(SHOP, "a question of mine")
        assert provider.texts.count("a question of mine") == 1
        await world.crash()
        await world.search(SHOP, "a question of mine")
        assert provider.texts.count("a question of mine") == 2


async def test_content__is_shared_by_the_projects_of_one_owner_and_by_nobody_else(
    provider: Provider, opened: Any
) -> None:
    async with opened() as world:
        commit = await world.commit(FILES)
        await world.update(SHOP, commit)
        await world.update(OTHER, commit)
        assert len(provider.texts) == 300
        await world.update(ProjectId("6f1c0000-0000-0000-0000-00000000000b"), commit, owner=BOB)
        assert len(provider.texts) == 600
        assert {user for user, _, _ in await charged(world)} == {ANN, BOB}


async def test_kept_vectors__that_do_not_answer_cost_money_and_stop_nothing(provider: Provider, opened: Any) -> None:
    async with opened() as world:
        world.vectors_answer = False
        status = await world.update(SHOP, await world.commit(FILES))
        assert (status.waits, status.embedded) == ("", 300)


async def test_local_model__embeds_nothing_again_for_a_second_project_of_its_owner(tmp_path: Path) -> None:
    counting = CountingEmbedder()
    async with embedding_world(tmp_path, "lexical", local=counting) as world:
        commit = await world.commit(FILES)
        await world.update(SHOP, commit)
        assert len(counting.asked) == 300
        await world.update(OTHER, commit)
        assert len(counting.asked) == 300
        await world.update(ProjectId("6f1c0000-0000-0000-0000-00000000000b"), commit, owner=BOB)
        assert len(counting.asked) == 600
        assert world.served() == {}


async def test_operator__pays_where_the_model_is_not_the_services_own(provider: Provider, tmp_path: Path) -> None:
    """An index that a job made with it goes on with it, and its owner never chose it."""
    async with embedding_world(tmp_path, "lexical", provider.url) as world:
        other = world.embedders.named(TINY)
        assert isinstance(other.name, str)
        world.embedder = TINY
        await world.crash()
        await world.update(SHOP, await world.commit(FILES))
        world.embedder = SMALL
        await asyncio.sleep(0.3)  # The index is saved.
        await world.crash()
        assert (await world.status(SHOP)).embedder == TINY
        await world.update(SHOP, await world.commit({"tax.py": "def tax():\n    return 2\n"}))
        payers: Sequence[str] = [user for user, _, _ in await charged(world)]
        assert sorted(payers) == [ANN, ANN, LOCAL_ADMIN]


needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
PAPER = "The lighthouse was painted green in 1931.\n"


@needs_sandbox
async def test_documents__are_paid_by_whoever_has_them_and_those_for_everybody_by_the_operator(
    provider: Provider, opened: Any
) -> None:
    async with opened() as world:
        assert (await world.upload("paper.txt", PAPER)).status == "indexed"
        assert (await world.upload("other.txt", "Everybody may read this.\n", EVERYBODY)).status == "indexed"
        found = await world.passages("lighthouse")
        assert (found.embedder, [hit.filename for hit in found.hits]) == (TINY, ["paper.txt"])
        rows = [(row["user"], row["project"], row["task_type"]) for row in await world.usage()]
        assert sorted(rows) == [(ANN, None, "code_embedding")] * 2 + [(LOCAL_ADMIN, None, "code_embedding")]


@needs_sandbox
async def test_documents__that_are_deleted_leave_no_vector_behind(provider: Provider, opened: Any) -> None:
    async with opened() as world:
        paper = await world.upload("paper.txt", PAPER)
        assert provider.texts == [PAPER.strip()]
        await world.ask(library_entity(ANN), DeleteDocument(owner=ANN, document=paper.id))
        await world.upload("paper.txt", PAPER)
        assert provider.texts == [PAPER.strip()] * 2


@needs_sandbox
async def test_documents__without_money_are_found_by_words_and_embedded_when_there_is_some(
    provider: Provider, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_entity, "COMPLETE_EVERY_S", 0.0)
    async with opened() as world:
        await world.give(ANN, 0)
        assert (await world.upload("paper.txt", PAPER)).status == "indexed"
        found = await world.passages("lighthouse")
        assert (found.embedder, [hit.filename for hit in found.hits]) == ("lexical", ["paper.txt"])
        await world.give(ANN, 10**8)
        for _ in range(200):
            found = await world.passages("lighthouse")
            if found.embedder == TINY:
                break
            await asyncio.sleep(0.05)
        assert found.embedder == TINY
