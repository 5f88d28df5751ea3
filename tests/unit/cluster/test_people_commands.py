"""Users, invites and the audit log by the command: what it sends, and what it shows."""

import json

import pytest
from fake_door import FakeDoor, Run

USER = {
    "user_id": "u-0123456789abcdef", "telegram_id": 77, "username": "ann", "first_name": "[red]Ann", "last_name": "",
    "role": "FULL_ACCESS", "authorized": True, "verified": False, "banned": False,
}  # fmt: skip
INVITE = {
    "invite_id": "0123456789ab", "role": "DEMO", "state": "open", "uses": 2, "uses_left": 1, "made_by": "local-admin",
    "made_at": "2026-11-21T12:00:00+00:00", "expires_at": None, "consumers": ["u-1"],
}  # fmt: skip


def test_users_list__names_everybody_as_they_call_themselves(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/users", {"users": [USER], "limit": 5, "offset": 2})
    result = run("users", "list", "--limit", "5", "--offset", "2", COLUMNS="200")
    assert result.exit_code == 0, result.output
    assert door.asked[0][1] == "limit=5&offset=2"
    for part in ("u-0123456789abcdef", "77", "[red]Ann (@ann)", "FULL_ACCESS", "authorized"):
        assert part in result.output


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (["users", "set", "77", "--role", "admin", "--authorized", "no"], {"role": "ADMIN", "authorized": False}),
        (["users", "set", "77", "--logout"], {"logout": True}),
        (["users", "set", "77", "--verified", "yes"], {"verified": True}),
        (["ban", "77"], {"banned": True}),
        (["unban", "77"], {"banned": False}),
    ],
)
def test_change__sends_only_what_was_said(run: Run, door: FakeDoor, said: list[str], sent: dict[str, object]) -> None:
    door.says("PATCH /api/v1/admin/users/77", USER)
    result = run(*said)
    assert result.exit_code == 0, result.output
    assert door.asked[0][2] == sent
    assert "u-0123456789abcdef is FULL_ACCESS. authorized" in result.output


def test_set__without_a_change_asks_nothing(run: Run, door: FakeDoor) -> None:
    assert run("users", "set", "77").exit_code == 2
    assert door.asked == []


def test_invite_create__prints_the_code_alone_on_stdout(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/invite", {"code": "s3cret", **INVITE}, 201)
    result = run("invite", "create", "--role", "full_access", "--uses", "2", "--expires", "2w")
    assert result.stdout == "s3cret\n"
    assert door.asked[0][2] == {"role": "FULL_ACCESS", "uses": 2, "expires_in_s": 14 * 86_400}


def test_invites__are_listed_and_revoked(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/invite", {"invites": [INVITE]})
    door.says("DELETE /api/v1/admin/invite/0123456789ab", {"invite_id": "0123456789ab", "revoked": True})
    assert "1 / 2" in run("invite", "list", "--all", COLUMNS="200").output
    assert door.asked[0][1] == "all=true"
    assert "is revoked" in run("invite", "revoke", "0123456789ab").output


def test_audit__tells_who_did_what(run: Run, door: FakeDoor) -> None:
    row = {
        "id": "a1", "actor": "local-admin", "action": "ban", "target": "u-1", "details": {"from": "DEMO"},
        "ip_address": "10.0.0.1", "at": "2026-11-21T12:00:00+00:00",
    }  # fmt: skip
    door.says("GET /api/v1/admin/audit", {"audit": [row], "limit": 100, "offset": 0})
    shown = run("audit", COLUMNS="200").output
    for part in ("2026-11-21 12:00", "local-admin", "ban", "u-1", "from: DEMO", "10.0.0.1"):
        assert part in shown
    assert json.loads(run("audit", "--json").output)["audit"][0]["action"] == "ban"
