"""The door to a project's index."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.errors import UnavailableError
from runtime.ids import BlobId, EntityId, index_entity
from runtime.index.filter import Filter
from runtime.index.hit import Hit, Place, Related, Why
from runtime.index.messages import Found, RelateSymbol, SearchIndex, UpdateIndex
from tests.unit.serve_apps.conftest import FakeSystem

HIT = Hit(
    path="shop/cart.py",
    start_line=3,
    end_line=9,
    symbol="Cart.price",
    kind="function",
    text="def price(self): ...",
    score=0.912345,
    why=Why(meaning=0.4, words=0.3123456, names=0.2),
    commit="c2",
)


@dataclass
class FakeIndex:
    """Stands at a commit; an update brings it to the one that it names."""

    commit: str = "c2"
    told: list[Any] = field(default_factory=list)
    raises: Exception | None = None
    waits: str = ""

    def ask(self, message: Any) -> Any:
        self.told.append(message)
        if self.raises:
            raise self.raises
        if isinstance(message, UpdateIndex):
            self.commit = message.commit
            return None
        if isinstance(message, RelateSymbol):
            place = Place(path="cart.py", start_line=1, end_line=2, symbol=message.symbol, kind="function")
            return Related(commit=self.commit, definitions=[place], callers=[], callees=[place])
        return Found(commit=self.commit, hits=[HIT] if self.commit else [], waits=self.waits)


@pytest.fixture
def index(system: FakeSystem, names: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    """Of Ann's project, which has commit c2."""
    fake = FakeIndex()
    views = system.entities.views
    views[names.project] = replace(views[names.project], bundle=BlobId("b" * 64), commit="c2")
    ask = system.entities.ask

    async def with_index(entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if entity == index_entity(names.project):
            return fake.ask(message)
        return await ask(entity, message, timeout_s=timeout_s)

    monkeypatch.setattr(system.entities, "ask", with_index)
    return fake


async def test_search__answers_the_hits_with_why_and_the_commit(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex
) -> None:
    answer = await door.post(f"/api/v1/projects/{names.project}/search", json={"query": " the price "})

    assert answer.status_code == 200
    assert answer.json() == {
        "commit": "c2",
        "by_words_because": None,
        "hits": [
            {
                "path": "shop/cart.py",
                "start_line": 3,
                "end_line": 9,
                "symbol": "Cart.price",
                "kind": "function",
                "language": "python",
                "score": 0.9123,
                "why": {"meaning": 0.4, "words": 0.3123, "names": 0.2},
                "text": "def price(self): ...",
            }
        ],
    }
    assert [message.query for message in index.told] == ["the price"]


async def test_related__answers_of_the_newest_commit(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex
) -> None:
    index.commit = "c1"
    answer = await door.get(f"/api/v1/projects/{names.project}/related", params={"symbol": "Cart.price"})

    place = {"path": "cart.py", "start_line": 1, "end_line": 2, "symbol": "Cart.price", "kind": "function"}
    assert answer.json() == {"commit": "c2", "definitions": [place], "callers": [], "callees": [place]}
    assert [type(message) for message in index.told] == [RelateSymbol, UpdateIndex, RelateSymbol]


@pytest.mark.parametrize("symbol", ["", "x" * 501])
async def test_related__refuses_what_is_no_symbol(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex, symbol: str
) -> None:
    answer = await door.get(f"/api/v1/projects/{names.project}/related", params={"symbol": symbol})
    assert (answer.status_code, index.told) == (400, [])
    assert "symbol" in answer.text


async def test_search__by_words_alone_says_why(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex
) -> None:
    index.waits = "Your credits are spent."
    answer = await door.post(f"/api/v1/projects/{names.project}/search", json={"query": "price"})
    assert answer.json()["by_words_because"] == "Your credits are spent."


async def test_search__hands_on_what_it_is_restricted_to(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex
) -> None:
    body = {"query": "x", "limit": 50, "path": "src/", "language": "python", "kind": "class", "threshold": 0.5}
    assert (await door.post(f"/api/v1/projects/{names.project}/search", json=body)).status_code == 200

    (told,) = index.told
    assert isinstance(told, SearchIndex)
    assert (told.limit, told.score_min) == (50, 0.5)
    assert told.wanted == Filter(path="src/", language="python", kind="class")


@pytest.mark.parametrize("stands_at", ["", "c1"])
async def test_search__of_an_index_that_is_behind_brings_it_to_main_first(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex, stands_at: str
) -> None:
    index.commit = stands_at
    answer = await door.post(f"/api/v1/projects/{names.project}/search", json={"query": "price"})

    assert (answer.json()["commit"], len(answer.json()["hits"])) == ("c2", 1)
    assert [type(message) for message in index.told] == [SearchIndex, UpdateIndex, SearchIndex]


async def test_search__of_a_project_without_a_commit_says_so(
    door: httpx.AsyncClient, names: SimpleNamespace, system: FakeSystem
) -> None:
    answer = await door.post(f"/api/v1/projects/{names.project}/search", json={"query": "price"})

    assert answer.status_code == 409
    assert "nothing to search" in answer.json()["error"]["message"]


async def test_search__of_anothers_project_is_as_of_none(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex
) -> None:
    bobs, none = [
        await door.post(f"/api/v1/projects/{project}/search", json={"query": "price"})
        for project in (names.bobs, "33333333-3333-4333-8333-333333333333")
    ]

    assert bobs.status_code == none.status_code == 404
    assert bobs.json()["error"]["message"] == none.json()["error"]["message"]
    assert index.told == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": "  "},
        {"query": "a\0b"},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": 51},
        {"query": "x", "limit": "5"},
        {"query": "x", "language": "klingon"},
        {"query": "x", "kind": "poem"},
        {"query": "x", "threshold": 2},
        {"query": "x", "path": "a" * 501},
        {"query": "x", "more": 1},
    ],
)
async def test_search__names_what_is_wrong(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex, body: dict[str, Any]
) -> None:
    answer = await door.post(f"/api/v1/projects/{names.project}/search", json=body)

    assert answer.status_code == 400
    assert index.told == []


async def test_search__of_an_index_that_does_not_answer_is_503(
    door: httpx.AsyncClient, names: SimpleNamespace, index: FakeIndex
) -> None:
    index.raises = UnavailableError("The index does not answer.", "Try again.")

    assert (await door.post(f"/api/v1/projects/{names.project}/search", json={"query": "x"})).status_code == 503
