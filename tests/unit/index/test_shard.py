"""A project's index: what is found, what is computed, what is kept."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import StoreUnavailableError
from runtime.index.embedder import Embedder, NoEmbedder
from runtime.index.filter import Filter
from runtime.index.hit import Place, Related
from runtime.index.saved import MAGIC
from runtime.index.shard import HITS_MAX, IndexShard
from runtime.index.source import Files, Reading
from runtime.store.seal import Seal

SEAL = Seal(bytes(range(32)))


FILES = {
    "shop/cart.py": b"class Cart:\n    def add(self, item):\n        self.items.append(item)\n\n"
    b"    def total_price(self):\n        return sum(self.items)\n",
    "shop/login.py": b"def check_password(user, password):\n    return hashed(password) == user.password\n",
    "tests/test_cart.py": b"def test_total_price():\n    assert Cart().total_price() == 0\n",
    "README.md": b"# Install\nRun pip.\n",
}


class CountingEmbedder:
    """Vectors from the hash of a text; remembers what it was asked."""

    name = "counting"
    dimension = 8

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += texts
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.int32).astype(np.float32) for text in texts]
        vectors = np.array(rows, np.float32).reshape(-1, self.dimension)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class BrokenEmbedder(CountingEmbedder):
    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise StoreUnavailableError("no model")


@pytest.fixture(params=[NoEmbedder, CountingEmbedder])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    made: Embedder = request.param()
    return made


def filled(embedder: Embedder) -> IndexShard:
    shard = IndexShard(embedder)
    shard.update(Files("c1", FILES))
    return shard


@pytest.mark.parametrize(
    ("query", "path", "symbol"),
    [
        ("check_password", "shop/login.py", "check_password"),
        ("total price", "shop/cart.py", "Cart.total_price"),
        ("checkPassword", "shop/login.py", "check_password"),
        ("install", "README.md", "Install"),
    ],
)
def test_search__finds_a_symbol_by_its_name(query: str, path: str, symbol: str) -> None:
    best = filled(NoEmbedder()).search(query, 3)[0]

    assert (best.path, best.symbol, best.commit) == (path, symbol, "c1")


def test_search__gives_lines_and_text_of_the_file(embedder: Embedder) -> None:
    hits = filled(embedder).search("total_price", 10)

    hit = next(hit for hit in hits if hit.symbol == "Cart.total_price")
    assert (hit.start_line, hit.end_line) == (5, 6)
    assert hit.text == "    def total_price(self):\n        return sum(self.items)"


def test_search__puts_tests_behind_unless_they_are_asked_for() -> None:
    shard = filled(NoEmbedder())

    assert shard.search("total_price", 1)[0].path == "shop/cart.py"
    assert shard.search("tests of total_price", 1)[0].path == "tests/test_cart.py"


def test_search__lowers_the_score_of_a_test_by_a_quarter_unless_tests_are_asked_for() -> None:
    shard = IndexShard(NoEmbedder())
    shard.update(Files("c1", {"tests/a.py": b"def total(): pass\n"}))

    assert shard.search("total", 1)[0].score == pytest.approx(0.75)
    assert shard.search("tests total", 1)[0].score == pytest.approx(1.0)


def test_search__scores_fall_and_are_at_most_one(embedder: Embedder) -> None:
    scores = [hit.score for hit in filled(embedder).search("add item to cart", 10)]

    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


def test_search__uses_the_vectors() -> None:
    # given a query that shares no word with the code, and the vector of one chunk
    embedder = CountingEmbedder()
    shard = filled(embedder)
    wanted = next(text for text in embedder.asked if text.startswith("shop/login.py"))

    embedder.embed = lambda texts: CountingEmbedder().embed([wanted])  # type: ignore[method-assign]

    assert shard.search("zzz", 1)[0].path == "shop/login.py"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(path="shop"), {"shop/cart.py"}),
        (Filter(path="./shop/cart.py"), {"shop/cart.py"}),
        (Filter(path="*.py"), {"shop/cart.py", "tests/test_cart.py"}),
        (Filter(path="sho"), set()),
        (Filter(language="markdown"), set()),
        (Filter(language="python", path="tests/"), {"tests/test_cart.py"}),
        (Filter(kind="class"), {"shop/cart.py"}),
        (Filter(kind="function", path="tests"), {"tests/test_cart.py"}),
    ],
)
def test_search__finds_only_what_is_wanted(embedder: Embedder, wanted: Filter, found: set[str]) -> None:
    hits = filled(embedder).search("the total price of a cart", 50, wanted)

    assert {hit.path for hit in hits if hit.why.words} == found
    assert all(wanted.allows(hit.path) and wanted.kind in ("", hit.kind) for hit in hits)


@pytest.mark.parametrize(("query", "limit"), [("", 5), ("  \n", 5), ("cart", 0), ("cart", -1), ("!!!", 5)])
def test_search__of_nothing_finds_nothing(query: str, limit: int) -> None:
    assert filled(NoEmbedder()).search(query, limit) == []


@pytest.mark.parametrize("content", [b"def cart(): pass\n", b"def cart(): pass\n\n\ndef cart(): pass\n"])
def test_search__finds_what_matches_even_where_every_chunk_does(embedder: Embedder, content: bytes) -> None:
    shard = IndexShard(embedder)
    status = shard.update(Files("c1", {"a.py": content}))

    assert len(shard.search("cart", 5)) == status.chunks


def test_search__of_an_index_that_was_never_updated_finds_nothing(embedder: Embedder) -> None:
    shard = IndexShard(embedder)

    assert shard.search("cart", 5) == []
    assert (shard.status.commit, shard.status.chunks) == ("", 0)


@pytest.mark.parametrize("query", ["\ud800 cart", "x" * 1_000_000, "\0cart", "'; DROP TABLE", "(" * 9999, "💥 cart"])
def test_search__survives_hostile_queries(embedder: Embedder, query: str) -> None:
    assert len(filled(embedder).search(query, 10**9)) <= HITS_MAX


def test_results__are_the_same_every_time(embedder: Embedder) -> None:
    # given the same tree read in another order
    backwards = IndexShard(embedder)
    backwards.update(Files("c1", dict(reversed(FILES.items()))))

    for query in ("cart", "password of a user", "test"):
        assert filled(embedder).search(query, 10) == backwards.search(query, 10)


def test_update__a_deleted_file_is_found_no_longer(embedder: Embedder) -> None:
    shard = filled(embedder)

    shard.update(Files("c2", {path: content for path, content in FILES.items() if path != "shop/login.py"}))

    assert "shop/login.py" not in {hit.path for hit in shard.search("check_password", 50)}
    assert {hit.commit for hit in shard.search("cart", 50)} == {"c2"}


def test_update__embeds_only_changed_chunks() -> None:
    embedder = CountingEmbedder()
    shard = IndexShard(embedder)

    assert shard.update(Files("c1", FILES)).embedded == shard.status.chunks == len(embedder.asked)
    assert shard.update(Files("c2", FILES)).embedded == 0
    edited = {**FILES, "shop/cart.py": FILES["shop/cart.py"].replace(b"sum(self.items)", b"sum(self.items) * 2")}
    embedder.asked.clear()
    assert shard.update(Files("c3", edited)).embedded == 1
    assert embedder.asked[0].startswith("shop/cart.py\nCart.total_price\n")


def test_update__moved_lines_are_found_at_their_new_place_without_a_new_vector() -> None:
    embedder = CountingEmbedder()
    shard = filled(embedder)

    status = shard.update(Files("c2", {**FILES, "shop/login.py": b"\n\n\n" + FILES["shop/login.py"]}))

    assert status.embedded == 0
    assert shard.search("check_password", 1)[0].start_line == 4


class Watched(Files):
    def __init__(self, commit: str, files: dict[str, bytes]) -> None:
        super().__init__(commit, files)
        self.read_paths: list[str] = []

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        self.read_paths += paths
        return super().read([path for path in paths if path != "vanished.py"])


def test_update__reads_only_what_changed_and_leaves_out_what_vanished_meanwhile() -> None:
    shard = filled(NoEmbedder())
    source = Watched("c2", {**FILES, "README.md": b"# New\nA text.\n", "vanished.py": b"x = 1\n"})

    shard.update(source)

    assert sorted(source.read_paths) == ["README.md", "vanished.py"]
    assert "vanished.py" not in {hit.path for hit in shard.search("vanished", 9)}


def test_update__to_an_empty_tree_and_back(embedder: Embedder) -> None:
    shard = filled(embedder)

    assert shard.update(Files("empty", {})).chunks == 0
    assert shard.search("cart", 5) == []
    assert shard.update(Files("c1", FILES)).chunks == filled(embedder).status.chunks


def test_update__that_fails_changes_nothing() -> None:
    embedder = CountingEmbedder()
    shard = filled(embedder)
    before = shard.search("cart", 10)
    embedder.embed = BrokenEmbedder().embed  # type: ignore[method-assign]

    with pytest.raises(StoreUnavailableError):
        shard.update(Files("c2", {"new.py": b"x = 1\n"}))

    del embedder.embed
    assert shard.status.commit == "c1"
    assert shard.search("cart", 10) == before


def test_equal_chunks__share_one_vector_and_are_both_found() -> None:
    embedder = CountingEmbedder()
    shard = IndexShard(embedder)
    twice = b"def same():\n    return 1\n\n\ndef same():\n    return 1\n"

    status = shard.update(Files("c1", {"a.py": twice}))

    assert (status.chunks, status.embedded) == (2, 1)
    assert {hit.start_line for hit in shard.search("same", 5)} == {1, 5}


def test_skipped__says_what_is_not_searchable_and_why(embedder: Embedder) -> None:
    shard = IndexShard(embedder)

    shard.update(Files("c1", {"logo.png": b"\x89PNG\0\0", "long.txt": b"a\n" * 100_000, "ok.py": b"x = 1\n"}))

    assert shard.skipped == {"logo.png": "binary", "long.txt": "only its first 1000 chunks"}


def test_skipped__a_full_index_takes_a_file_in_again_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.index.tree.CHUNKS_MAX", 2)
    shard = IndexShard(NoEmbedder())
    shard.update(Files("c1", dict.fromkeys(("a.py", "b.py", "c.py"), b"def f(): pass\n")))
    assert shard.skipped == {"c.py": "the index is full"}

    shard.update(Files("c2", dict.fromkeys(("b.py", "c.py"), b"def f(): pass\n")))

    assert shard.skipped == {}
    assert {hit.path for hit in shard.search("f", 5)} == {"b.py", "c.py"}


def test_save_and_load__give_the_same_answers_and_reuse_the_vectors(tmp_path: Path, embedder: Embedder) -> None:
    shard = filled(embedder)
    shard.save(tmp_path / "project.index", SEAL)

    loaded = IndexShard(embedder)
    status = loaded.load(tmp_path / "project.index", SEAL)

    assert (status.commit, status.chunks, status.embedded) == ("c1", shard.status.chunks, 0)
    for query in ("cart", "check_password", "test"):
        assert loaded.search(query, 10) == shard.search(query, 10)
    assert loaded.update(Files("c2", FILES)).embedded == 0


def test_save__leaves_one_private_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "project.index"
    filled(NoEmbedder()).save(target, SEAL)
    filled(NoEmbedder()).save(target, SEAL)

    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o600


def test_load__removes_what_a_process_that_died_left_and_nothing_that_may_be_written_now(tmp_path: Path) -> None:
    for name, age_s in (("a.index.01.tmp", 700), ("a.index.02.tmp", 5), ("ab.index.03.tmp", 700)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)

    IndexShard(NoEmbedder()).load(tmp_path / "a.index", SEAL)

    assert sorted(os.listdir(tmp_path)) == ["a.index.02.tmp", "ab.index.03.tmp"]


def test_save__to_where_it_cannot_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailableError):
        filled(NoEmbedder()).save(tmp_path / "file" / "project.index", SEAL)


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: b"",
        lambda saved: saved[: len(saved) // 2],
        lambda saved: saved[:-1] + bytes([saved[-1] ^ 1]),
        lambda saved: saved[:40] + bytes([saved[40] ^ 1]) + saved[41:],
        lambda saved: b"\x80\x04N." + saved,
        lambda saved: b"PK\x03\x04" * 100,
        lambda saved: MAGIC + hashlib.sha256(b"foreign").digest() + b"foreign",
    ],
)
def test_load__of_a_damaged_or_foreign_file_gives_an_empty_index_to_rebuild(
    tmp_path: Path, embedder: Embedder, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "project.index"
    filled(embedder).save(path, SEAL)
    path.write_bytes(damage(path.read_bytes()))

    shard = IndexShard(embedder)

    assert shard.load(path, SEAL).commit == ""
    assert shard.search("cart", 5) == []
    assert shard.update(Files("c1", FILES)) == filled(embedder).status


def test_load__of_a_file_that_is_not_there_gives_an_empty_index(tmp_path: Path) -> None:
    assert IndexShard(NoEmbedder()).load(tmp_path / "none", SEAL).commit == ""


@pytest.mark.parametrize("name", ["lexical", "another-of-that-dimension"])
def test_load__of_another_embedders_index_gives_an_empty_index(name: str) -> None:
    other = NoEmbedder() if name == "lexical" else CountingEmbedder()
    other.name = name

    assert IndexShard(CountingEmbedder()).loads(filled(other).dumps()).commit == ""


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_loads__never_raises_whatever_follows_a_good_checksum(content: bytes) -> None:
    signed = MAGIC + hashlib.sha256(content).digest() + content

    assert IndexShard(NoEmbedder()).loads(signed).commit == ""


def test_related__tells_of_the_newest_tree() -> None:
    shard = IndexShard(NoEmbedder())
    assert shard.related("tax") == Related(commit="", definitions=[], callers=[], callees=[])
    for number, caller in enumerate(("total", "bill")):
        code = f"def tax(): ...\n\n\ndef {caller}():\n    return tax()\n".encode()
        shard.update(Files(f"c{number}", {"cart.py": code}))
        tax, calling = (
            Place(path="cart.py", start_line=first, end_line=last, symbol=symbol, kind="function")
            for first, last, symbol in ((1, 1, "tax"), (4, 5, caller))
        )
        for _ in range(2):
            assert shard.related("tax") == Related(
                commit=f"c{number}", definitions=[tax], callers=[calling], callees=[]
            )
            assert shard.related(caller) == Related(
                commit=f"c{number}", definitions=[calling], callers=[], callees=[tax]
            )


def test_search__beside_a_running_update_sees_one_whole_tree() -> None:
    # given an embedder that waits in the middle of the second update
    entered, go_on = threading.Event(), threading.Event()

    class Waiting(CountingEmbedder):
        def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            if any("brand_new" in text and "\n" in text for text in texts):
                entered.set()
                assert go_on.wait(30)
            return super().embed(texts)

    shard = filled(Waiting())
    update = threading.Thread(target=shard.update, args=(Files("c2", {"new.py": b"def brand_new(): pass\n"}),))
    update.start()
    assert entered.wait(30)

    # when searched meanwhile
    during = shard.search("cart", 50)
    go_on.set()
    update.join(30)

    # then everything found is of the old tree, and afterwards of the new
    assert {hit.commit for hit in during} == {"c1"}
    assert {(hit.commit, hit.path) for hit in shard.search("brand_new", 50)} == {("c2", "new.py")}


def test_search__from_many_threads_during_many_updates_never_mixes_trees() -> None:
    # given two trees that share no path
    trees = [("even", {"even.py": b"def cart_even(): pass\n" * 9}), ("odd", {"odd.py": b"def cart_odd(): pass\n" * 9})]
    shard = IndexShard(CountingEmbedder())
    shard.update(Files(*trees[0]))
    seen: list[tuple[str, str]] = []
    stop = threading.Event()

    def searching() -> None:
        while not stop.is_set():
            seen.extend((hit.commit, hit.path) for hit in shard.search("cart", 20))

    searchers = [threading.Thread(target=searching) for _ in range(3)]
    for thread in searchers:
        thread.start()
    for number in range(40):
        shard.update(Files(*trees[number % 2]))
    stop.set()
    for thread in searchers:
        thread.join(30)

    assert set(seen) <= {("even", "even.py"), ("odd", "odd.py")}
    assert seen


@pytest.mark.parametrize(
    "content",
    [b"x" * 1_000_000, b"(" * 250_000, b"\xff\xfe" * 1000, b"", b"\n" * 100_000, b"def f(:\n" * 5000, b"\0"],
)
@pytest.mark.parametrize("path", ["a.py", "a.md", "../../etc/passwd", "a\nb.py", ""])
def test_update__survives_hostile_files(path: str, content: bytes) -> None:
    shard = IndexShard(NoEmbedder())

    assert shard.update(Files("c1", {path: content})).commit == "c1"
    shard.search("f", 5)
