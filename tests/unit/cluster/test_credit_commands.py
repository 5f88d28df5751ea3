"""Wallets by the command: what it sends, and what it shows."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_door import FakeDoor, Run

from cluster.credit_commands import credits
from cluster.terminal import CommandGroup

WALLET = {
    "user": "ann", "balance_credits": "98.50", "held_credits": "1.00", "free_credits": "97.50",
    "balance_ucredits": 98_500_000, "held_ucredits": 1_000_000,
}  # fmt: skip
OWN = {
    **WALLET, "spent_today_credits": "1.50", "cap_today_credits": "20.00", "left_today_credits": "18.50", "more": "",
    "notices": [{"kind": "low_balance", "text": "9.00 credits are left.", "at": "2026-11-21T12:00:00+00:00"}],
}  # fmt: skip
MOVE = {
    "id": "m", "type": "manual_adjustment", "amount_credits": "12.50", "amount_ucredits": 12_500_000, "cost_usd": None,
    "call": None, "project": None, "external_id": None, "text": "[red]gift\x1b[0m", "at": "2026-11-21T12:00:00+00:00",
}  # fmt: skip


@pytest.fixture
def run(door: FakeDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    group = CommandGroup(commands={"credits": credits})
    variables = {
        "DATA_DIR": str(tmp_path / "data"),
        "MASTERBUILDER_URL": door.url,
        "MASTERBUILDER_TOKEN": "mb-test",
        "COLUMNS": "250",
    }
    return lambda *arguments: CliRunner(env={**os.environ, **variables}).invoke(group, ["credits", *arguments])


@pytest.mark.parametrize("words", [(), ("show",)])
def test_show__tells_the_wallet_the_day_and_what_is_to_be_known(run: Run, door: FakeDoor, words: tuple[str]) -> None:
    door.says("GET /api/v1/credits", OWN)
    result = run(*words)
    assert result.exit_code == 0, result.output
    for text in ("98.50 credits, 1.00 of them held", "1.50 of 20.00", "9.00 credits are left."):
        assert text in result.output


@pytest.mark.parametrize(("word", "sent"), [("add", "5"), ("take", "-5")])
def test_add_and_take__send_the_amount_with_its_sign_and_a_key(run: Run, door: FakeDoor, word: str, sent: str) -> None:
    door.says("POST /api/v1/admin/credits", WALLET)
    result = run(word, "ann", "5", "--reason", "a gift", "--key", "k1")
    assert result.exit_code == 0, result.output
    assert door.asked[0][2] == {"user": "ann", "amount_credits": sent, "reason": "a gift"}
    assert "98.50 credits now" in result.output


def test_add__needs_a_reason(run: Run) -> None:
    assert run("add", "ann", "5").exit_code == 2


def test_statement__shows_what_others_wrote_as_plain_text(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/credits/ann/statement", {"user": "ann", "movements": [MOVE]})
    result = run("statement", "ann")
    assert result.exit_code == 0, result.output
    assert "[red]gift" in result.output
    assert "\x1b[0m" not in result.output


def test_refund_stopped_release__say_what_was_done(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/refunds", {"call": "c1", "refunded_credits": "1.50"})
    assert "1.50 credits of c1" in run("refund", "c1", "--reason", "empty").output
    taken = {"charge_id": "ch", "user": "ann", "stars": 500, "taken_credits": "900.00", "taken_days": 12.5}
    door.says("POST /api/v1/admin/payments/refunds", {**taken, "told": False})
    told = run("refund-stars", "ch", "--reason", "changed their mind").output
    assert told == "900.00 credits and 12.5 days of ann are taken back; 500 Stars go back to the payer.\n"
    door.says("GET /api/v1/admin/accounts/stopped", {"stopped": []})
    assert "No account" in run("stopped").output
    door.says("POST /api/v1/admin/accounts/ann/release", {"user": "ann", "released": True})
    assert "ann may spend again" in run("release", "ann").output
