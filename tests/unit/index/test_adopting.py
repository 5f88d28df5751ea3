"""A shard that takes another's state: wholly, with its embedder, and never backwards."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import BadInputError, ConflictError, StoreUnavailableError
from runtime.index.embedder import Embedder, NoEmbedder
from runtime.index.kept import KeptShard
from runtime.index.saved import SavedReadings, UnusableIndexError
from runtime.index.shard import IndexShard
from runtime.index.source import Files
from runtime.store.seal import Seal
from tests.unit.index.test_shard import FILES, CountingEmbedder

SEAL = Seal(bytes(32))
CHANGED = {**FILES, "shop/tax.py": b"def tax(total):\n    return total * 0.2\n"}


class Named:
    """A machine with `counting` and `lexical`."""

    def __init__(self) -> None:
        self.counting = CountingEmbedder()
        self.lexical = NoEmbedder()

    def __call__(self, name: str) -> Embedder:
        known: Mapping[str, Embedder] = {"counting": self.counting, "lexical": self.lexical}
        if name not in known:
            raise BadInputError(f"There is no embedder {name}.")
        return known[name]


def made(embedder: Embedder, commit: str = "c1", files: Mapping[str, bytes] = FILES, generation: str = "job") -> bytes:
    shard = IndexShard(embedder, generation=generation)
    shard.update(Files(commit, files))
    return shard.dumps()


@pytest.fixture
def named() -> Named:
    return Named()


@pytest.fixture
def shard(named: Named) -> IndexShard:
    """Lexical, at c1."""
    shard = IndexShard(named.lexical, named=named)
    shard.update(Files("c1", FILES))
    return shard


def test_adopted__its_embedder_answers_and_makes_later_updates(shard: IndexShard, named: Named) -> None:
    status = shard.adopt(made(CountingEmbedder()), "c1")
    assert (status.embedder, status.generation, status.commit) == ("counting", "job", "c1")

    shard.search("cart", 1)
    assert named.counting.asked == ["cart"]

    status = shard.update(Files("c2", CHANGED))
    assert (status.embedder, status.generation, status.embedded) == ("counting", "job", 1)


def test_adopted__a_question_that_was_asked_before_gets_a_vector_of_the_new_embedder(
    shard: IndexShard, named: Named
) -> None:
    assert shard.search("cart", 1)[0].why.meaning == 0
    shard.adopt(made(CountingEmbedder()), "c1")
    shard.search("cart", 1)
    shard.search("cart", 1)
    assert named.counting.asked == ["cart"]


def test_loaded__an_index_of_another_embedder_that_is_here_goes_on_with_it(named: Named) -> None:
    shard = IndexShard(named.lexical, named=named)
    assert shard.loads(made(CountingEmbedder())).embedder == "counting"
    assert shard.search("cart", 1)


def test_loaded__an_index_of_an_embedder_that_is_not_here_is_rebuilt_with_the_default(named: Named) -> None:
    other = CountingEmbedder()
    other.name = "gone"
    shard = IndexShard(named.lexical, named=named)
    status = shard.loads(made(other))
    assert (status.commit, status.embedder, status.generation) == ("", "lexical", "")


def test_old_files__without_a_generation_are_read(named: Named) -> None:
    plain = made(named.lexical, generation="")
    assert b"generation" not in plain
    assert IndexShard(named.lexical).loads(plain).commit == "c1"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda saved: b"",
        lambda saved: saved[:-1],
        lambda saved: saved[:200] + b"x" + saved[201:],
        lambda saved: b"masterbuilder-index-1\n" + saved[22:],
    ],
)
def test_adopt__of_a_damaged_or_foreign_index_is_refused_and_changes_nothing(shard: IndexShard, spoil: Any) -> None:
    before, state = shard.search("cart", 5), shard.state
    with pytest.raises(BadInputError):
        shard.adopt(spoil(made(CountingEmbedder())), "c1")
    assert shard.state is state
    assert shard.search("cart", 5) == before


def test_adopt__of_an_embedder_that_is_not_here_and_of_nothing_is_refused(shard: IndexShard) -> None:
    other = CountingEmbedder()
    other.name = "gone"
    with pytest.raises(BadInputError, match="gone"):
        shard.adopt(made(other), "c1")
    with pytest.raises(BadInputError, match="nothing"):
        shard.adopt(IndexShard(CountingEmbedder()).dumps(), "c1")
    assert shard.status.embedder == "lexical"


def test_adopt__where_the_index_moved_on_is_refused(shard: IndexShard) -> None:
    shard.update(Files("c2", CHANGED))
    with pytest.raises(ConflictError, match="c2"):
        shard.adopt(made(CountingEmbedder()), "")
    with pytest.raises(ConflictError, match="c2"):
        shard.adopt(made(CountingEmbedder(), "c3"), "c1")
    assert (shard.status.commit, shard.status.embedder) == ("c2", "lexical")


def test_adopt__of_a_newer_commit_in_place_of_the_one_that_was_seen(shard: IndexShard) -> None:
    newer = made(CountingEmbedder(), "c2", CHANGED)
    assert shard.adopt(newer, "c1").commit == "c2"
    assert shard.adopt(newer, "c1").commit == "c2", "a repeat"


def test_searches__from_many_threads_see_the_old_index_or_the_new(shard: IndexShard, named: Named) -> None:
    other = made(CountingEmbedder(), "c1", {"elsewhere.py": b"def cart():\n    return 1\n"})
    back = made(named.lexical, "c1", FILES)
    answers = [shard.search("cart", 20), [*_searched(named, other)]]
    seen: list[Any] = []
    stop = threading.Event()

    def searching() -> None:
        while not stop.is_set():
            seen.append(shard.search("cart", 20))

    searchers = [threading.Thread(target=searching) for _ in range(3)]
    for thread in searchers:
        thread.start()
    for number in range(60):
        shard.adopt((other, back)[number % 2], "c1")
    stop.set()
    for thread in searchers:
        thread.join(30)

    assert seen
    assert all(any(answer == possible for possible in answers) for answer in seen)


def _searched(named: Named, saved: bytes) -> Any:
    shard = IndexShard(named.lexical, named=named)
    shard.loads(saved)
    return shard.search("cart", 20)


async def test_kept__what_is_adopted_at_the_same_commit_is_in_the_file(tmp_path: Path, named: Named) -> None:
    kept = KeptShard(tmp_path / "p.index", SEAL, named.lexical, named)
    await kept.load()
    await asyncio.to_thread(kept.shard.update, Files("c1", FILES))
    kept.save_soon()
    await kept.saved()

    await kept.adopt(made(CountingEmbedder()), "c1")

    again = KeptShard(tmp_path / "p.index", SEAL, named.lexical, named)
    await again.load()
    assert (again.shard.status.embedder, again.shard.status.generation) == ("counting", "job")


async def test_kept__what_is_in_the_file_is_not_written_again(tmp_path: Path, named: Named) -> None:
    kept = KeptShard(tmp_path / "p.index", SEAL, named.lexical, named)
    await kept.adopt(made(CountingEmbedder()), "")
    written = (tmp_path / "p.index").stat().st_mtime_ns
    again = KeptShard(tmp_path / "p.index", SEAL, named.lexical, named)
    for each in (kept, again):
        await each.load()
        each.save_soon()
        await each.saved()
    assert (tmp_path / "p.index").stat().st_mtime_ns == written


async def test_kept__adopting_what_cannot_be_saved_is_searched_all_the_same(tmp_path: Path, named: Named) -> None:
    (tmp_path / "file").write_text("no folder")
    kept = KeptShard(tmp_path / "file" / "p.index", SEAL, named.lexical, named)
    assert (await kept.adopt(made(CountingEmbedder()), "")).commit == "c1"
    with pytest.raises(StoreUnavailableError):
        kept.shard.save(tmp_path / "file" / "p.index", SEAL)


def test_saved_readings__are_what_was_read_whatever_the_embedder(named: Named) -> None:
    other = CountingEmbedder()
    other.name = "gone"
    readings = SavedReadings(made(other))
    shard = IndexShard(named.lexical)
    assert shard.update(readings).commit == "c1"
    assert shard.chunk_counts == _filled(other).chunk_counts
    with pytest.raises(UnusableIndexError):
        SavedReadings(b"")


def _filled(embedder: Embedder) -> IndexShard:
    shard = IndexShard(embedder)
    shard.update(Files("c1", FILES))
    return shard
