"""Code searched by the command: a project's through the service, a folder's without it."""

import json
from pathlib import Path

import pytest
from fake_door import PROJECT as OPEN
from fake_door import FakeDoor, Run

from cluster.terminal import BAD_INPUT, OK

PROJECT = "11111111-1111-4111-8111-111111111111"
HIT = {
    "path": "shop/[bold]cart.py",
    "start_line": 3,
    "end_line": 4,
    "symbol": "Cart.price",
    "kind": "function",
    "language": "python",
    "score": 0.91,
    "why": {"meaning": 0.4, "words": 0.31, "names": 0.2},
    "text": "def price(self):\n    return 1",
}

RELATED = {
    "commit": "c2",
    "definitions": [{"path": "a.py", "start_line": 1, "end_line": 2, "symbol": "Cart.price", "kind": "function"}],
    "callers": [],
    "callees": [],
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.index.embedder.find_weights", lambda: None)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "cart.py").write_text("def total_price(cart):\n    return sum(cart)\n")
    (folder / "shop" / "login.py").write_text("def check_password(user):\n    return True\n")
    (folder / "logo.png").write_bytes(b"\x89PNG\0\0")
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "total.js").write_text("function total_price() { return 1 }\n")
    (folder / "link.py").symlink_to("/etc/passwd")
    return folder


def test_search__of_a_project_asks_the_service(door: FakeDoor, run: Run) -> None:
    door.says(f"POST /api/v1/projects/{PROJECT}/search", {"commit": "c2", "hits": [HIT]})

    done = run("search", PROJECT, "the price", "--limit", "3", "--language", "python", "--path", "shop")

    assert done.exit_code == OK
    assert "1. shop/[bold]cart.py:3-4 Cart.price" in done.output
    assert "0.91: meaning 0.40, words 0.31, names 0.20" in done.output
    assert "def price(self):" in done.output
    assert door.asked[0][2] == {
        "query": "the price", "limit": 3, "path": "shop", "language": "python", "kind": "", "threshold": 0.0,
    }  # fmt: skip


def test_search__of_the_last_project(door: FakeDoor, run: Run) -> None:
    door.says("GET /api/v1/projects", {"projects": [{**OPEN, "id": PROJECT}]})
    door.says(f"POST /api/v1/projects/{PROJECT}/search", {"commit": "c2", "hits": []})

    assert "Nothing was found." in run("search", "last", "x").output


def test_index_and_search__of_a_folder_need_no_service(run: Run, code: Path) -> None:
    made = run("index", str(code))
    found = run("search", str(code), "check password", "--json")

    assert made.exit_code == found.exit_code == OK
    assert "3 files, 2 chunks" in made.output
    assert "1 binary" in made.output
    assert "by words and names alone" in made.output
    hits = json.loads(found.output)["hits"]
    assert [(hit["path"], hit["symbol"]) for hit in hits] == [("shop/login.py", "check_password")]


def test_related__shows_who_calls_what(door: FakeDoor, run: Run, code: Path) -> None:
    (code / "shop" / "bill.py").write_text("def bill(cart):\n    return total_price(cart)\n")
    done = run("related", str(code), "total_price")
    assert done.exit_code == OK
    assert (
        done.output.lstrip()
        == "Defined\n  shop/cart.py:1-2 total_price\nCalled by\n  shop/bill.py:1-2 bill\nCalls: nothing\n"
    )

    unknown = run("related", str(code), "no_such")
    assert "Nothing of this name is defined here: no_such." in unknown.output

    door.says(f"GET /api/v1/projects/{PROJECT}/related", RELATED)
    assert json.loads(run("related", PROJECT, "Cart.price", "--json").output) == RELATED
    assert door.asked[0][:2] == (f"GET /api/v1/projects/{PROJECT}/related", "symbol=Cart.price")


def test_search__of_a_folder_sees_what_was_written_since(run: Run, code: Path) -> None:
    run("index", str(code))
    (code / "shop" / "cart.py").unlink()
    (code / "new.py").write_text("def total_price_with_tax(): ...\n")

    hits = json.loads(run("search", str(code), "total price", "--json").output)["hits"]

    assert [hit["path"] for hit in hits] == ["new.py"]


def test_index__keeps_no_word_of_the_code_readable(run: Run, code: Path, tmp_path: Path) -> None:
    run("index", str(code))

    (kept,) = (tmp_path / "data" / "index").iterdir()
    assert b"total_price" not in kept.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("arguments", [("index", "/does/not/exist"), ("search", "/does/not/exist", "x")])
def test_a_folder_that_is_not_there__is_named(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)

    assert done.exit_code == BAD_INPUT
    assert "/does/not/exist is not a folder" in done.output


def test_an_empty_question__is_refused(run: Run, code: Path) -> None:
    assert run("search", str(code), " ").exit_code == BAD_INPUT
