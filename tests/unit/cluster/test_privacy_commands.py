"""One's own data by the command: what it sends, what it asks first, and what it writes."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_door import FakeDoor, Run

from cluster.privacy_commands import privacy
from cluster.terminal import CommandGroup

WALLET = {
    "user": "ann", "balance_credits": "98.50", "held_credits": "1.00", "free_credits": "97.50",
    "balance_ucredits": 98_500_001, "held_ucredits": 1_000_000,
}  # fmt: skip
ME = {**WALLET, "email": "ann@example.org"}
DELETED = {
    "user": "ann", "due_at": "2026-11-22T12:00:00+00:00", "forfeited_credits": "98.500001",
    "text": "98.500001 credits are forfeited.",
}  # fmt: skip


@pytest.fixture
def run(door: FakeDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    group = CommandGroup(commands={"privacy": privacy})
    variables = {"DATA_DIR": str(tmp_path / "data"), "MASTERBUILDER_URL": door.url, "MASTERBUILDER_TOKEN": "mb-test"}
    return lambda *arguments: CliRunner(env={**os.environ, **variables}).invoke(group, ["privacy", *arguments])


def a_zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("README.txt", "yours")
    return data.getvalue()


def test_export__writes_the_zip_for_its_owners_eyes_only(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    sent = a_zip()  # Once: a ZIP tells when it was made.
    door.routes["GET /api/v1/me/export"] = (200, {"Content-Type": "application/zip"}, sent)
    result = run("export", "--output", "mine.zip")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "mine.zip").read_bytes() == sent
    assert stat.S_IMODE((tmp_path / "mine.zip").stat().st_mode) == 0o600
    assert run("export", "--user", "bob", "-o", "bob.zip").exit_code == 0
    assert [query for _, query, *_ in door.asked] == ["", "user=bob"]


def test_export_that_fails_or_breaks_off__leaves_no_file(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    assert run("export", "-o", "mine.zip").exit_code == 3
    door.routes["GET /api/v1/me/export"] = (200, {"Content-Type": "application/zip"}, a_zip()[:40])
    assert run("export", "-o", "mine.zip").exit_code == 4
    door.routes["GET /api/v1/me/export"] = (200, {"Content-Length": "9999"}, a_zip())
    assert run("export", "-o", "mine.zip").exit_code == 4
    assert run("export", "-o", "nowhere/mine.zip").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_email__is_sent_as_it_is_and_told_back(run: Run, door: FakeDoor) -> None:
    door.says("PATCH /api/v1/me", ME)
    assert "ann@example.org" in run("email", "ann@example.org").output
    door.says("PATCH /api/v1/me", {**ME, "email": ""})
    assert "no address" in run("email", "").output
    assert [body for _, _, body, _ in door.asked] == [{"email": "ann@example.org"}, {"email": ""}]


def test_delete__agrees_to_the_very_credits_that_it_showed(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/credits", WALLET)
    door.says("DELETE /api/v1/me", DELETED, 202)
    result = run("delete", "--yes")
    assert result.exit_code == 0, result.output
    assert door.asked[-1][2] == {"confirm": True, "forfeit_credits": "98.500001"}
    assert "98.500001 credits are forfeited." in result.output


def test_delete_of_another__names_the_user(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/credits/telegram%3A7", {**WALLET, "user": "telegram:7", "balance_ucredits": 0})
    door.says("DELETE /api/v1/me", DELETED, 202)
    assert run("delete", "--user", "telegram:7", "--yes").exit_code == 0
    assert door.asked[-1][2] == {"confirm": True, "forfeit_credits": "0.000000", "user": "telegram:7"}


def test_delete_without_a_yes__tells_what_would_be_lost_and_sends_nothing(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/credits", WALLET)
    result = run("delete")
    assert result.exit_code == 2
    assert "98.50 credits" in result.output
    assert [route for route, *_ in door.asked] == ["GET /api/v1/credits"]
