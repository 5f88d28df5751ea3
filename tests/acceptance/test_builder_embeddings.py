"""Lines 21, 26 and 27 of spec/builder.md §18 for embeddings, and what §9 and §10 say of them, with a paid index.

Everything is real but for the provider, which is the simulator, over HTTP; it counts what it serves.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.ids import ProjectId
from tests.contract.embedding_world import ANN, EmbeddingWorld, embedding_world

SHOP, OTHER = ProjectId("6f1c0000-0000-0000-0000-000000000001"), ProjectId("6f1c0000-0000-0000-0000-000000000002")
PUSD_PER_TOKEN = 20_000
"""Of text-embedding-3-small: 0.02 USD a million tokens."""
FILES = {
    f"part_{number}.py": f"def price_{number}(items):\n    return sum(items) * {number}\n" for number in range(300)
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EmbeddingWorld]:
    async with embedding_world(tmp_path) as opened:
        yield opened


async def test_21__every_embedding_call_is_one_row_of_usage_of_its_project(world: EmbeddingWorld) -> None:
    """Of an index, of a change of it, and of a question asked by a build, and by its owner."""
    await world.set_ceiling(SHOP, 10**8)
    await world.update(SHOP, await world.commit(FILES), under=SHOP)
    await world.update(SHOP, await world.commit({"tax.py": "def tax(total):\n    return total // 5\n"}), under=SHOP)
    await world.search(SHOP, "what the tax comes to")
    rows = {row["call"]: row for row in await world.usage()}
    served = world.served()
    assert len(rows) == len(served) == 4  # 300 texts are two requests; one for the change, one for the question.
    assert rows.keys() == served.keys()
    for call, row in rows.items():
        assert (row["user"], row["task_type"], row["provider"]) == (ANN, "code_embedding", "openai")
        assert (row["model"], row["outcome"], row["state"]) == ("text-embedding-3-small", "ok", "settled")
        assert (row["input_tokens"], row["output_tokens"]) == (served[call]["prompt_tokens"], 0)
        assert int(row["cost_pusd"]) == PUSD_PER_TOKEN * served[call]["prompt_tokens"]
    assert sorted(str(row["project"] or "") for row in rows.values()) == ["", SHOP, SHOP, SHOP]


async def test_26__a_model_without_a_price_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    async with embedding_world(tmp_path, "openai/text-embedding-of-nobody@64") as world:
        status = await world.update(SHOP, await world.commit(FILES))
        assert status.chunks == 300
        assert "has no price" in status.waits
        assert (world.served(), await world.usage()) == ({}, [])
        assert (await world.search(SHOP, "price_7")).hits[0].path == "part_7.py"


async def test_27__a_deduction_links_to_its_call_and_carries_its_cost(world: EmbeddingWorld) -> None:
    before = await world.store.books.balance(ANN)
    await world.update(SHOP, await world.commit({"cart.py": FILES["part_1.py"]}))
    (row,) = await world.usage()
    moves = [each for each in await world.store.books.statement(ANN, None, 10) if each.type == "usage_deduction"]
    assert [(each.call, each.cost_pusd) for each in moves] == [(row["call"], int(row["cost_pusd"]))]
    # 1 credit is 0.01 USD, marked up by half; cost in picodollars, credits in millionths.
    assert -moves[0].amount_ucredits * 10_000 == pytest.approx(int(row["cost_pusd"]) * 1.5, abs=10_000)
    after = await world.store.books.balance(ANN)
    assert after.balance_ucredits == before.balance_ucredits + moves[0].amount_ucredits
    assert after.held_ucredits == 0


async def test_9_2__nothing_is_asked_that_does_not_fit_and_nothing_stops_for_it(world: EmbeddingWorld) -> None:
    """Source: spec/builder.md §9.2, Strengthening. A build goes on without vectors; they come when credits do."""
    await world.give(ANN, 0)
    commit = await world.commit(FILES)
    status = await world.update(SHOP, commit)
    assert (status.commit, status.chunks, world.served()) == (commit[0], 300, {})
    assert "credits" in status.waits
    found = await world.search(SHOP, "price_7")
    assert (found.hits[0].path, found.hits[0].why.meaning, found.waits) == ("part_7.py", 0.0, status.waits)
    await world.give(ANN, 10**8)
    status = await world.update(SHOP, await world.commit({"tax.py": "def tax(total):\n    return total // 5\n"}))
    assert (status.waits, status.chunks) == ("", 301)
    assert (await world.search(SHOP, "price_7")).hits[0].why.meaning > 0


async def test_embeddings__count_under_the_ceiling_of_their_build(world: EmbeddingWorld) -> None:
    await world.set_ceiling(SHOP, 1)
    commit = await world.commit(FILES)
    status = await world.update(SHOP, commit, under=SHOP)
    assert "ceiling" in status.waits
    assert world.served() == {}
    await world.set_ceiling(SHOP, 10**8)
    status = await world.update(SHOP, await world.commit({"tax.py": "def tax():\n    return 2\n"}), under=SHOP)
    assert status.waits == ""
    spent = await world.store.books.spent(SHOP)
    assert spent.total_cost_pusd == PUSD_PER_TOKEN * sum(each["prompt_tokens"] for each in world.served().values())


async def test_content__that_one_project_of_an_owner_has_embedded_costs_the_next_nothing(world: EmbeddingWorld) -> None:
    commit = await world.commit(FILES)
    await world.update(SHOP, commit)
    served = world.served()
    status = await world.update(OTHER, commit)
    assert (status.chunks, status.waits) == (300, "")
    assert world.served() == served
