"""spec/assistant.md §30, lines 92, 93, 95 and the reading half of 94 and 96: repositories of others, through the doors.

The forge is a local one that speaks git's and GitHub's own protocols.
"""

import asyncio
import io
import json
import os
import time
import zipfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from runtime.ids import UserId, repositories_entity
from runtime.index.embedder import Embedder, choose_embedder
from runtime.index.hit import IndexStatus
from runtime.index.messages import DescribeIndex
from runtime.index.rebuilding import Rebuilder, every_shard
from runtime.index.source import Reading
from runtime.privacy.export import export
from runtime.repositories import content as contents
from runtime.repositories import repositories as lists
from tests.acceptance.library import ADMIN, ANN, BOB, DEMO, Documents, documents
from tests.forge import Answer, StubForge, stub_forge

HELLO = "https://github.com/octocat/hello"
NAME = "octocat__hello"
FILES = {
    "shop/cart.py": "class Cart:\n    def total_price(self):\n        return sum(self.prices)\n",
    "shop/mail.py": "def send_receipt(address):\n    '''Mails the receipt of an order.'''\n    post(address)\n",
    "README.md": "# Hello\n\nA small shop.\n",
    ".github/workflows/ci.yml": "name: nightly checks\non: push\n",
    "logo.png": b"\x89PNG\r\n\x1a\n\0\0",
    "notes.txt": "Not of an indexed kind.\n",
}


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = Path(os.environ.get("MODEL_CACHE_DIR") or tmp_path_factory.mktemp("models"))
    return choose_embedder(folder)


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[StubForge]:
    with stub_forge(tmp_path / "forge") as made:
        made.commit("octocat/hello", FILES)
        yield made


@pytest.fixture
async def made(tmp_path: Path, embedder: Embedder, forge: StubForge) -> AsyncIterator[Documents]:
    addresses = {"github_url": forge.url, "github_api_url": forge.url}
    async with documents(tmp_path / "data", embedder, github_enabled=True, **addresses) as opened:
        yield opened


async def ask(made: Documents, user: UserId, what: str, **body: Any) -> dict[str, Any]:
    answer = await made.post(user, f"github/{what}", **body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def found(made: Documents, user: UserId, query: str, name: str = NAME, **more: Any) -> list[str]:
    answer = await ask(made, user, "search", repo_name=name, query=query, **more)
    return [hit["file_path"] for hit in answer["results"]]


def kept(made: Documents) -> list[str]:
    folder = made.settings.data_dir / "index"
    return sorted(os.listdir(folder)) if folder.exists() else []


async def items(made: Documents, user: UserId) -> list[dict[str, Any]]:
    return list((await made.get(user, "github/repositories")).json()["items"])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc",
        "/etc",
        "git@github.com:octocat/hello.git",
        "ssh://github.com/octocat/hello",
        "git://github.com/octocat/hello",
        "ext::sh -c id",
        "http://github.com/octocat/hello",
        "http://127.0.0.1:8000/octocat/hello",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/octocat/hello",
        "https://gitlab.com/octocat/hello",
        "https://github.com.example.org/octocat/hello",
        "https://github.com@127.0.0.1/octocat/hello",
        "https://github.com:443/octocat/hello",
        "https://user:secret@github.com/octocat/hello",
        "https://github.com/octocat/../hello",
        "https://github.com/octocat/hello/tree/main",
        "https://github.com/octocat/hello?x=1",
        "https://github.com/octocat",
        "https://github.com/--upload-pack=id/hello",
        "https://github.com/octocat/..",
        "https://github.com/octocat/he\nllo",
    ],
)
async def test_92__what_is_no_repository_of_github_is_refused(made: Documents, forge: StubForge, url: str) -> None:
    answer = await made.post(ANN, "github/clone", repo_url=url)

    assert answer.status_code == 400
    assert "https://github.com/<owner>/<name>" in answer.json()["error"]["next"]
    assert forge.requests == []
    assert await items(made, ANN) == []


async def test_92__a_forge_that_leads_elsewhere_is_not_followed(made: Documents, forge: StubForge) -> None:
    git = "/octocat/hello.git/info/refs"
    forge.answers[git] = Answer(302, {"location": f"{forge.url}/octocat/other.git/info/refs?service=git-upload-pack"})
    by_git = await made.post(ANN, "github/clone", repo_url=HELLO)
    forge.answers = {"/repos/octocat/hello": Answer(301, {"location": "http://169.254.169.254/latest"})}
    by_api = await made.post(ANN, "github/clone", repo_url=HELLO)

    assert (by_git.status_code, by_api.status_code) == (502, 502)
    assert not any("other" in request for request in forge.requests)
    assert await items(made, ANN) == []


async def test_93__a_repository_over_500_mb_is_refused_before_the_download(made: Documents, forge: StubForge) -> None:
    forge.sizes_kb["octocat/hello"] = 500_001
    answer = await made.post(ANN, "github/clone", repo_url=HELLO)

    assert answer.status_code == 400
    assert "500 MB" in answer.json()["error"]["message"]
    assert forge.requests == ["GET /repos/octocat/hello"]

    forge.sizes_kb["octocat/hello"] = 500_000
    assert (await ask(made, ANN, "clone", repo_url=HELLO))["status"] == "cloned"


async def test_94__clone_index_and_search_work_in_sequence(made: Documents, forge: StubForge) -> None:
    cloned = await ask(made, ANN, "clone", repo_url=f"{HELLO}.git")
    early = await made.post(ANN, "github/search", repo_name=NAME, query="price")
    indexed = await ask(made, ANN, "index", repo_name=NAME)
    answer = await ask(made, ANN, "search", repo_name=NAME, query="total price of the cart", top_k=2)

    assert cloned["repo_name"] == NAME
    assert (cloned["repo_path"], cloned["status"], cloned["branch"]) == (f"repos/{NAME}", "cloned", "main")
    assert early.status_code == 409
    assert (indexed["files_indexed"], indexed["left_out_count"]) == (4, 0)
    assert indexed["chunks_created"] >= 4
    assert answer["commit"] == cloned["commit"] == forge.put("octocat/hello", "rev-parse", "main")
    best = answer["results"][0]
    assert (best["file_path"], best["file_ext"], best["start_line"]) == ("shop/cart.py", ".py", best["start_line"])
    assert "total_price" in best["content"]
    assert best["symbol"].startswith("Cart")
    assert best["commit"] == cloned["commit"]
    assert best["similarity_score"] == pytest.approx(sum(best["why"].values()), abs=1e-3)
    assert len(answer["results"]) == 2
    assert (await found(made, ANN, "nightly checks"))[0] == ".github/workflows/ci.yml"


async def test_95__indexing_twice_leaves_one_index(made: Documents, forge: StubForge) -> None:
    await ask(made, ANN, "clone", repo_url=HELLO)
    first = await ask(made, ANN, "index", repo_name=NAME)
    again = await ask(made, ANN, "index", repo_name=NAME)
    before = await found(made, ANN, "send the receipt")
    same = await ask(made, ANN, "clone", repo_url="https://github.com/OctoCat/Hello/")

    commit = forge.commit(
        "octocat/hello", {"shop/mail.py": None, "shop/tax.py": "def value_added_tax(price):\n    return price / 5\n"}
    )
    updated = await ask(made, ANN, "clone", repo_url=HELLO)
    (between,) = await items(made, ANN)
    third = await ask(made, ANN, "index", repo_name=NAME)

    assert {key: first[key] for key in ("rag_item_id", "files_indexed", "chunks_created")} == {
        key: again[key] for key in ("rag_item_id", "files_indexed", "chunks_created")
    }
    assert (same["status"], same["commit"], forge.downloads) == ("updated", first["commit"], 2)
    assert (updated["status"], updated["commit"], between["status"]) == ("updated", commit, "outdated")
    assert third["rag_item_id"] == first["rag_item_id"]
    assert len(before) == len(set(before)), "no file is found twice"
    assert "shop/mail.py" in before
    assert "shop/mail.py" not in await found(made, ANN, "send the receipt", top_k=50)
    assert (await found(made, ANN, "tax"))[0] == "shop/tax.py"
    assert [item["status"] for item in await items(made, ANN)] == ["indexed"]
    await made.until(lambda: len(kept(made)) == 2)
    assert [name.rpartition(".")[2] for name in kept(made)] == ["copy", "index"]


async def test_96__links_and_paths_out_of_the_tree_are_not_read(made: Documents, forge: StubForge) -> None:
    forge.commit("octocat/hello", {"passwords.py": "->/etc/passwd", "shadow": "->/etc"})
    indexed = await ask(made, ANN, "sync", repo_url=HELLO)
    hits = (await ask(made, ANN, "search", repo_name=NAME, query="root passwords shadow", top_k=50))["results"]

    assert (indexed["files_indexed"], indexed["left_out_count"]) == (4, 0)
    assert {hit["file_path"] for hit in hits} <= FILES.keys()
    assert not any("root:" in hit["content"] for hit in hits)
    for name in ("../octocat__hello", "/etc", "..", "octocat__hello/../../x"):
        assert (await made.post(ANN, "github/search", repo_name=name, query="x")).status_code == 404
        assert (await made.post(ANN, "github/index", repo_name=name)).status_code == 404


async def test_96__nobody_learns_of_anothers_repository(made: Documents) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)

    for what, body in (("index", {}), ("search", {"query": "cart"})):
        foreign = await made.post(BOB, f"github/{what}", repo_name=NAME, **body)
        unknown = await made.post(BOB, f"github/{what}", repo_name="octocat__none", **body)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json()["error"]["message"] == unknown.json()["error"]["message"]
    assert await items(made, BOB) == []
    assert (await made.delete_at(BOB, f"github/repositories/{NAME}")).status_code == 404
    assert (await found(made, ANN, "cart"))[0] == "shop/cart.py"


async def test_demo__may_do_none_of_it_and_an_admin_all(made: Documents) -> None:
    for what in ("clone", "sync"):
        assert (await made.post(DEMO, f"github/{what}", repo_url=HELLO)).status_code == 403
    for what in ("index", "search"):
        assert (await made.post(DEMO, f"github/{what}", repo_name=NAME, query="x")).status_code == 403
    refused = await made.get(DEMO, "github/repositories")
    assert refused.status_code == 403
    assert "/subscribe" in refused.text
    assert (await made.delete_at(DEMO, f"github/repositories/{NAME}")).status_code == 403
    assert (await ask(made, ADMIN, "sync", repo_url=HELLO))["files_indexed"] == 4


async def test_doors__are_not_there_while_github_mode_is_off(tmp_path: Path, embedder: Embedder) -> None:
    async with documents(tmp_path, embedder) as made:
        answers = [await made.post(ANN, f"github/{what}") for what in ("clone", "index", "search", "sync")]
        answers += [await made.get(ANN, "github/repositories")]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert "GITHUB_ENABLED" in answers[0].text


async def test_deleting__removes_copy_and_index_and_makes_room(made: Documents, forge: StubForge) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    await made.until(lambda: len(kept(made)) == 2)

    assert (await made.delete_at(ANN, f"github/repositories/{NAME}")).json()["success"] is True
    assert (await made.delete_at(ANN, f"github/repositories/{NAME}")).status_code == 404
    assert (await made.post(ANN, "github/search", repo_name=NAME, query="cart")).status_code == 404
    await made.until(lambda: kept(made) == [])

    await made.restart()
    assert await items(made, ANN) == []
    assert (await ask(made, ANN, "sync", repo_url=HELLO))["status"] == "cloned"


async def test_repositories__of_the_same_name_do_not_collide(made: Documents, forge: StubForge) -> None:
    forge.commit("hubot/hello", {"robot.py": "def walk_forwards():\n    step()\n"})
    await ask(made, ANN, "sync", repo_url=HELLO)
    await ask(made, ANN, "sync", repo_url="https://github.com/hubot/hello")

    assert [item["repo_name"] for item in await items(made, ANN)] == ["hubot__hello", NAME]
    assert await found(made, ANN, "robot", name="hubot__hello") == ["robot.py"]
    assert "robot.py" not in await found(made, ANN, "robot walk", top_k=50)


async def test_what_was_lost__is_made_again(made: Documents, forge: StubForge) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    await made.until(lambda: len(kept(made)) == 2)
    before, downloads = await found(made, ANN, "cart"), forge.downloads
    await made.restart()
    (made.settings.data_dir / "index" / next(name for name in kept(made) if name.endswith(".index"))).unlink()
    await made.restart()

    assert await found(made, ANN, "cart") == before
    assert forge.downloads == downloads, "the copy was enough"

    for name in kept(made):
        (made.settings.data_dir / "index" / name).unlink()
    await made.restart()
    assert await found(made, ANN, "cart") == before
    assert forge.downloads == downloads + 1


async def test_a_person__takes_the_list_out_and_is_erased_with_all_of_it(made: Documents) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    await ask(made, BOB, "sync", repo_url=HELLO)
    await made.until(lambda: len(kept(made)) == 4)
    at = datetime(2026, 11, 29, tzinfo=UTC)
    pieces = [piece async for piece in export(ANN, made.store.books, made.store.journal, at)]
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        (told,) = json.loads(archive.read("repositories.json"))
    assert (told["name"], told["url"], told["status"]) == (NAME, HELLO, "indexed")

    await made.store.books.delete_person(ANN, 10**15)
    made.store.erasing.rest = timedelta(0)
    while not await made.store.erase_due():
        await made.host._look_after()

    assert len(kept(made)) == 2
    assert all(name.startswith("repository-bob-") for name in kept(made))
    assert (await made.store.journal.load(repositories_entity(ANN))).head is None
    assert (await found(made, BOB, "cart"))[0] == "shop/cart.py"


async def test_an_erasure__waits_for_what_is_still_being_written(made: Documents, forge: StubForge) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    forge.commit("octocat/hello", {"new.py": "y = 1\n"})
    forge.git_delay_s = 0.5
    asked = len(forge.requests)
    clone = asyncio.create_task(made.post(ANN, "github/clone", repo_url=HELLO))
    await made.until(lambda: any("info/refs" in request for request in forge.requests[asked:]))
    assert [item["status"] for item in await items(made, ANN)] == ["cloning"]

    await made.store.books.delete_person(ANN, 10**15)
    made.store.erasing.rest = timedelta(0)
    while not await made.store.erase_due():
        await made.host._look_after()

    assert (await clone).status_code == 200
    assert kept(made) == []


async def test_an_index__that_takes_longer_than_one_question_is_waited_for(
    made: Documents, forge: StubForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = contents.RepositoryContent.read

    def slowly(content: contents.RepositoryContent, paths: Collection[str]) -> Mapping[str, Reading]:
        time.sleep(5.0 if paths else 0.0)
        return read(content, paths)

    monkeypatch.setattr(lists, "ASK_S", 2.0)
    monkeypatch.setattr(contents.RepositoryContent, "read", slowly)
    await ask(made, ANN, "clone", repo_url=HELLO)
    index = asyncio.create_task(ask(made, ANN, "index", repo_name=NAME))
    await asyncio.sleep(0.5)

    assert [item["status"] for item in await items(made, ANN)] == ["indexing"]
    assert (await index)["files_indexed"] == 4
    assert [item["status"] for item in await items(made, ANN)] == ["indexed"]


async def test_what_is_kept__is_unreadable_and_no_plain_copy_is_left(made: Documents) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    await made.until(lambda: len(kept(made)) == 2)

    stored = b"".join(path.read_bytes() for path in made.settings.data_dir.rglob("*") if path.is_file())

    assert b"octocat" not in stored
    assert b"total_price" not in stored
    assert os.listdir(made.settings.data_dir / "scratch") == []


async def test_clone__says_which_branch_there_is(made: Documents, forge: StubForge) -> None:
    forge.commit("octocat/old", {"a.py": "x = 1\n"}, branch="master")
    refused = await made.post(ANN, "github/clone", repo_url="https://github.com/octocat/old")
    assert refused.status_code == 400
    assert "no branch main" in refused.json()["error"]["message"]
    assert "master" in refused.json()["error"]["next"]
    assert await items(made, ANN) == []

    cloned = await ask(made, ANN, "clone", repo_url="https://github.com/octocat/old", branch="master")
    assert cloned["branch"] == "master"


@pytest.mark.parametrize("branch", ["--upload-pack=id", "a..b", "a b", "/a", "a/", "x.lock", "a\nb", ""])
async def test_branch__that_is_none_is_refused(made: Documents, forge: StubForge, branch: str) -> None:
    answer = await made.post(ANN, "github/clone", repo_url=HELLO, branch=branch)
    assert answer.status_code == 400
    assert forge.requests == []


async def test_limit_of_files__is_told_with_what_was_left_out(
    made: Documents, forge: StubForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "FILES_MAX", 3)
    forge.commit("octocat/hello", {"bad.py": b"\xff\0\xfe"})
    indexed = await ask(made, ANN, "sync", repo_url=HELLO)

    assert (indexed["files_indexed"], indexed["index_status"]) == (2, "indexed")
    assert {each["file_path"]: each["reason"] for each in indexed["left_out"]} == {
        "bad.py": "binary",
        "README.md": "beyond the first 3 files",
        ".github/workflows/ci.yml": "beyond the first 3 files",
    }
    assert indexed["left_out_count"] == (await items(made, ANN))[0]["left_out_count"] == 3


async def test_nothing_to_index__is_zeros_and_nothing_readable_is_failed(made: Documents, forge: StubForge) -> None:
    forge.commit("octocat/empty", {"notes.txt": "No code.\n"})
    forge.commit("octocat/binary", {"a.py": b"\xff\0\xfe", "b.js": b"\0\1\2"})
    empty = await ask(made, ANN, "sync", repo_url="https://github.com/octocat/empty")
    binary = await ask(made, ANN, "sync", repo_url="https://github.com/octocat/binary")

    assert (empty["files_indexed"], empty["chunks_created"], empty["index_status"]) == (0, 0, "indexed")
    assert (binary["files_indexed"], binary["chunks_created"], binary["index_status"]) == (0, 0, "failed")
    assert "None of its files" in binary["reason"]
    assert await found(made, ANN, "code", name="octocat__empty") == []

    forge.commit("octocat/binary", {"c.py": "x = 1\n"})
    assert (await ask(made, ANN, "sync", repo_url="https://github.com/octocat/binary"))["index_status"] == "indexed"


async def test_quota__of_bytes_and_of_repositories_is_told(
    made: Documents, forge: StubForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await ask(made, ANN, "clone", repo_url=HELLO))["commit"]
    forge.commit("octocat/second", {"a.py": "x = 1\n"})
    second = "https://github.com/octocat/second"
    monkeypatch.setattr(lists, "REPOSITORIES_MAX", 1)
    many = await made.post(ANN, "github/clone", repo_url=second)
    monkeypatch.setattr(lists, "REPOSITORIES_MAX", 50)
    monkeypatch.setattr(lists, "BYTES_MAX", 500)
    full = await made.post(ANN, "github/clone", repo_url=second)
    monkeypatch.setattr(lists, "BYTES_MAX", 2_000)
    large = await made.post(ANN, "github/clone", repo_url=second)

    assert (many.status_code, full.status_code, large.status_code) == (409, 409, 400)
    assert "1 are allowed" in many.json()["error"]["message"]
    assert "make room" in large.json()["error"]["next"]
    assert [item["commit"] for item in await items(made, ANN)] == [before]
    await made.until(lambda: len(kept(made)) == 1)
    monkeypatch.setattr(lists, "BYTES_MAX", 20_000)
    assert (await ask(made, BOB, "clone", repo_url=HELLO))["status"] == "cloned", "another's room is his own"


async def test_an_update_that_fails__leaves_what_there_was(made: Documents, forge: StubForge) -> None:
    first = await ask(made, ANN, "sync", repo_url=HELLO)
    forge.commit("octocat/hello", {"new.py": "y = 1\n"})
    forge.answers["/octocat/hello.git/git-upload-pack"] = Answer(500)

    assert (await made.post(ANN, "github/clone", repo_url=HELLO)).status_code == 502
    assert (await made.post(ANN, "github/clone", repo_url=HELLO, branch="none")).status_code == 502
    assert [item["commit"] for item in await items(made, ANN)] == [first["commit"]]
    assert (await found(made, ANN, "cart"))[0] == "shop/cart.py"


async def test_a_search__is_answered_while_a_clone_is_under_way(made: Documents, forge: StubForge) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    forge.commit("octocat/hello", {"new.py": "y = 1\n"})
    forge.git_delay_s = 1.0
    clone = asyncio.create_task(ask(made, ANN, "clone", repo_url=HELLO))
    await asyncio.sleep(0.3)

    assert (await found(made, ANN, "cart"))[0] == "shop/cart.py"
    assert not clone.done()
    assert (await clone)["status"] == "updated"


async def test_a_clone__that_a_crash_cut_off_leaves_nothing_and_can_be_made_again(
    made: Documents, forge: StubForge
) -> None:
    forge.git_delay_s = 30.0
    clone = asyncio.create_task(made.post(ANN, "github/clone", repo_url=HELLO))
    await made.until(lambda: any("info/refs" in request for request in forge.requests))
    assert [item["status"] for item in await items(made, ANN)] == ["cloning"]
    clone.cancel()
    await asyncio.gather(clone, return_exceptions=True)
    for resident in list(made.host._residents.values()):
        await resident.retire(0.0, save=False)
    forge.git_delay_s = 0.0

    await made.restart()

    assert await items(made, ANN) == []
    assert (await ask(made, ANN, "clone", repo_url=HELLO))["status"] == "cloned"
    await made.until(lambda: len(kept(made)) == 1)


async def test_a_job__that_makes_indexes_anew_makes_those_of_repositories_too(
    made: Documents, forge: StubForge
) -> None:
    await ask(made, ANN, "sync", repo_url=HELLO)
    await ask(made, BOB, "clone", repo_url=HELLO)
    before, downloads = await found(made, ANN, "cart"), forge.downloads
    (shard,) = await every_shard(made.store.journal)
    rebuilder = Rebuilder(made.store.books, cast("Any", made), made.embedder, "job")

    rebuilt = await rebuilder.rebuild(shard)
    status: IndexStatus = await made.ask(shard.index, DescribeIndex(owner=ANN))

    assert (shard.owner, rebuilt.outcome, status.generation) == (ANN, "done", "job")
    assert (await found(made, ANN, "cart"), forge.downloads) == (before, downloads)
    assert (made.settings.data_dir / "index" / shard.file).exists()
    await made.delete_at(ANN, f"github/repositories/{NAME}")
    assert (await rebuilder.rebuild(shard)).outcome == "skipped"
    await made.until(lambda: all("repository-bob" in name for name in kept(made)))
