"""People as the running service has them: its own secrets, its doors, its command, and a kill -9 in between."""

import json

import httpx

from runtime.config import Secrets
from tests.e2e.live import Live

JWT_SECRET = "6b1f0c93a7d84e52b8c1f09e7d64a2b8355c0e9a"


def test_start_with_a_placeholder__fails_with_a_clear_text(live: Live) -> None:
    for name, text in (("JWT_SECRET_KEY", "CHANGE_ME"), ("ADMIN_USER_IDS", "me"), ("BOT_SERVICE_TOKEN", "short")):
        started = live.run("up", **{name: text})
        assert started.returncode == 2, started.stderr
        assert name in started.stderr
        assert "Traceback" not in started.stderr


def test_person__is_registered_let_in_counted_and_known_after_a_kill(live: Live) -> None:
    started = live.run("up", JWT_SECRET_KEY=JWT_SECRET, DEMO_UNLOCK_CODE="tell-no-one", FULL_TELEGRAM_IDS="88")
    assert started.returncode == 0, started.stderr
    secrets = Secrets.load(live.folder / "data", {})
    assert secrets.jwt_secret == JWT_SECRET

    def post(path: str, token: str, **body: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.post(f"{live.url}/api/v1/auth/{path}", json=body, headers=headers, timeout=60.0)

    def me(token: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.get(f"{live.url}/api/v1/auth/me", headers=headers, timeout=60.0)

    assert post("register", "wrong", telegram_id=77).status_code == 401
    person = post("register", secrets.bot_service_token, telegram_id=77, first_name="Ann").json()
    assert (person["role"], person["authorized"], person["is_new"]) == ("DEMO", False, True)
    assert post("register", secrets.bot_service_token, telegram_id=88).json()["role"] == "FULL_ACCESS"
    for _ in range(5):
        assert post("unlock", person["token"], unlock_code="wrong").status_code == 401
    live.kill_everything()
    started = live.run("up")
    assert started.returncode == 0, started.stderr
    blocked = post("unlock", person["token"], unlock_code="tell-no-one")
    assert (blocked.status_code, int(blocked.headers["retry-after"]) > 600) == (429, True)
    again = post("register", secrets.bot_service_token, telegram_id=77, first_name="Ann").json()
    assert (again["user_id"], again["is_new"]) == (person["user_id"], False)
    assert me(person["token"]).json()["first_name"] == "Ann"

    code = live.run("invite", "create", "--role", "FULL_ACCESS").stdout.strip()
    assert post("invite", person["token"], invite_code=code).json()["role"] == "FULL_ACCESS"
    listed = json.loads(live.run("users", "list", "--json").stdout)["users"]
    assert {each["telegram_id"] for each in listed} == {None, 77, 88}
    assert live.run("ban", "77").returncode == 0
    assert me(person["token"]).status_code == 403
    assert live.run("unban", "77").returncode == 0
    answers = [me(person["token"]).status_code for _ in range(120)]
    assert (answers[0], answers.count(429) > 0) == (200, True)
    audit = json.loads(live.run("audit", "--json").stdout)["audit"]
    assert {"ban", "unban", "invite", "invite_used", "unlock_failed"} <= {each["action"] for each in audit}
