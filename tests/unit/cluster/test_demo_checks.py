"""What the demo holds against its own result."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from cluster.demo_checks import check_books, check_package
from cluster.demo_folder import DemoFolder
from cluster.wire import Receipt
from runtime.errors import BadInputError, ConflictError
from runtime.project.schemas import Commands

COMMANDS = Commands(install="", build="", test="python3 -m unittest {tests}", run="true")
TEST = "import unittest\nclass T(unittest.TestCase):\n" + "".join(
    f"    def test_{number}(self): self.assertTrue(True)\n" for number in range(21)
)


def row(call: str, **changes: object) -> dict[str, object]:
    """100 + 10 tokens of gpt-4o-mini: 100 x 150,000 + 10 x 600,000 pUSD."""
    return {
        "call": call,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "state": "settled",
        "input_tokens": 100,
        "output_tokens": 10,
        "cost_pusd": 21_000_000,
        "credits_ucredits": 3_150,
        "outcome": "ok",
        **changes,
    }


def receipt(*charged: dict[str, object], losses: tuple[dict[str, object], ...] = (), **changes: object) -> Receipt:
    total = sum(int(str(line["cost_pusd"])) for line in charged)
    body = {"project": "p1", "charged": charged, "losses": losses, "pending": (), "total_cost_pusd": total}
    amounts = {"total_credits": "0.01", "total_ucredits": 6_300, "refunded_ucredits": 0}
    return Receipt.model_validate({**body, **amounts, **changes})


def served(folder: Path, *calls: str, prompt_tokens: int = 100) -> Path:
    path = folder / "usage.jsonl"
    lines = [{"call_id": call, "prompt_tokens": prompt_tokens, "completion_tokens": 10} for call in calls]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_books__that_agree_call_by_call_pass(tmp_path: Path) -> None:
    usage = served(tmp_path, "a", "b", "lost")
    told = list(check_books(receipt(row("a"), row("b"), losses=(row("lost"),)), 6_300, usage))
    assert "3 calls" in told[1]
    assert "63000000 pUSD" in told[1]


def test_interrupted_call__is_a_loss_with_room_for_what_was_served(tmp_path: Path) -> None:
    lost = row("b", outcome="interrupted_unknown", credits_ucredits=0, input_tokens=100, output_tokens=4096)
    told = list(check_books(receipt(row("a"), losses=(lost,)), 6_300, served(tmp_path, "a", "b")))
    assert "1 calls" in told[1]
    assert "interrupted" in told[2]
    too_small = {**lost, "input_tokens": 99}
    with pytest.raises(ConflictError, match="more was served"):
        list(check_books(receipt(row("a"), losses=(too_small,)), 6_300, served(tmp_path, "a", "b")))


def test_estimated_loss__is_at_most_what_was_served(tmp_path: Path) -> None:
    guessed = row("b", outcome="interrupted_estimated", credits_ucredits=0, output_tokens=4)
    told = list(check_books(receipt(row("a"), losses=(guessed,)), 6_300, served(tmp_path, "a", "b")))
    assert "1 calls" in told[1]
    too_large = {**guessed, "output_tokens": 11}
    with pytest.raises(ConflictError, match="less was served"):
        list(check_books(receipt(row("a"), losses=(too_large,)), 6_300, served(tmp_path, "a", "b")))


@pytest.mark.parametrize(
    ("given", "paid", "calls", "words"),
    [
        (receipt(row("a"), row("b")), 6_301, ("a", "b"), "the wallet paid 6301"),
        (receipt(row("a")), 6_300, ("a", "b"), "Served but not on the receipt"),
        (receipt(row("a"), row("b")), 6_300, ("a",), "not served"),
        (receipt(row("a", input_tokens=99)), 6_300, ("a",), "99 \\+ 10 tokens"),
        (receipt(row("a", cost_pusd=21_000_001)), 6_300, ("a",), "the price list 21000000"),
        (receipt(row("a"), total_cost_pusd=1), 6_300, ("a",), "do not add up"),
        (receipt(row("a"), pending=[row("b")]), 6_300, ("a",), "pending"),
        (receipt(row("a")), 6_300, ("a", "a"), "200 \\+ 20 were served"),
    ],
)
def test_books__that_differ_are_refused(
    tmp_path: Path, given: Receipt, paid: int, calls: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConflictError, match=words):
        list(check_books(given, paid, served(tmp_path, *calls)))


def package(folder: Path, **changes: str) -> Path:
    files = {"TODO.md": "- [x] T-001 done\n", "tests/__init__.py": "", "tests/test_all.py": TEST, **changes}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(f"project/{path}", text)
    path = folder / "app.zip"
    path.write_bytes(buffer.getvalue())
    return path


async def test_package__whose_tests_pass_in_the_sandbox_passes(tmp_path: Path) -> None:
    told = await check_package(package(tmp_path), tmp_path / "scratch", COMMANDS)
    assert "21 tests pass" in told[1]


async def test_package__that_installs_something_is_only_unzipped(tmp_path: Path) -> None:
    commands = COMMANDS.model_copy(update={"install": "npm ci", "test": "false"})
    told = await check_package(package(tmp_path), tmp_path / "scratch", commands)
    assert "`npm ci`" in told[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TODO.md": "- [x] T-001\n- [ ] T-002\n"}, "TODO.md"),
        ({"tests/test_all.py": TEST.replace("True)", "False)", 1)}, "do not pass"),
        ({"tests/test_all.py": "import unittest\n"}, "do not pass"),
        ({"../outside.py": ""}, "outside its folder"),
    ],
)
async def test_package__that_does_not_work_is_refused(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConflictError, match=words):
        await check_package(package(tmp_path, **changes), tmp_path / "scratch", COMMANDS)


def test_demo_folder__is_wiped_only_if_it_is_one(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "demo")
    folder.wipe()
    folder.zip_file.touch()
    folder.wipe()
    assert not folder.zip_file.exists()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadInputError):
        DemoFolder(tmp_path).wipe()
    assert (tmp_path / "thesis.txt").exists()
