import json
import logging
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import (
    ConflictError,
    EntityFailedError,
    MasterbuilderError,
    MovedError,
    NoProviderError,
    NotEnoughCreditsError,
    OverloadedError,
    QuarantinedError,
    StoreUnavailableError,
    UnavailableError,
)
from runtime.ledger.port import TokenTerms
from runtime.project.messages import (
    Answer,
    Approve,
    Cancel,
    Change,
    Confirm,
    OpenProject,
    Pause,
    Reject,
    Resume,
    Retry,
    Rewind,
    Skip,
    Status,
)
from runtime.reports.port import Feedback
from runtime.tokens import token_hash
from serve_apps import admin_routes, delivery_routes
from serve_apps.api_routes import router

ERROR_FIELDS = {"type", "code", "message", "charged", "next", "request_id"}


def error_of(response):
    error = response.json()["error"]
    assert error.keys() == ERROR_FIELDS
    assert all(isinstance(text, str) for text in error.values())
    assert error["type"] == error["code"]
    assert error["next"]
    assert error["request_id"] == response.headers["x-request-id"]
    return error


# Health


async def test_live__answers_anybody(door):
    response = await door.get("/live", headers={"authorization": ""})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("found", "status", "word"),
    [
        ({"ledger": "ok", "provider": "openai"}, 200, "ok"),
        ({"ledger": "ok", "provider": "none"}, 200, "degraded"),
        ({"ledger": "The disk is full.", "provider": "unknown"}, 503, "degraded"),
    ],
)
async def test_health__says_what_is_wrong(door, system, found, status, word):
    system.found = found
    response = await door.get("/health", headers={"authorization": ""})
    assert response.status_code == status
    assert response.json().items() >= {"status": word, **found}.items()
    assert response.json()["version"]


async def test_health__is_503_when_nobody_answers(door, system):
    async def health():
        raise StoreUnavailableError("secret path")

    system.health = health
    response = await door.get("/health")
    assert response.status_code == 503
    assert "secret path" not in response.text


# Who may


@pytest.mark.parametrize(
    "header", ["", "ann-token", "Bearer", "Bearer ", "Bearer wrong", "Basic ann-token", "Bearer " + "x" * 5000]
)
async def test_every_route__without_a_good_token_is_401_in_the_common_shape(door, system, header):
    for method, path in _routes():
        response = await door.request(method, path, headers={"authorization": header})
        assert response.status_code == 401, path
        assert error_of(response)["code"] == "not_authenticated"
        assert response.headers["www-authenticate"] == "Bearer"


async def test_every_route__refuses_a_tasks_token(door, system):
    for method, path in _routes():
        response = await door.request(method, path, headers={"authorization": "Bearer task-token"})
        assert (response.status_code, error_of(response)["code"]) == (403, "forbidden"), path


async def test_every_project_route__hides_another_users_project_and_odd_ids_alike(door, system, names):
    bodies = {
        "answers": {"text": "x"},
        "confirm": {"accept": True},
        "feedback": {"score": 3},
        "change": {"text": "x"},
        "retry": {"task": "T-001"},
        "skip": {"task": "T-001"},
        "rewind": {"phase": 1},
    }
    told = set()
    for method, path in _routes():
        if "{project}" not in path:
            continue
        for project in (
            names.bobs,
            "33333333-3333-4333-8333-333333333333",
            "x",
            names.project.replace("-", ""),
            "%2e%2e",
        ):
            response = await door.request(
                method, path.replace("{project}", project), json=bodies.get(path.rsplit("/", 1)[1])
            )
            error = error_of(response)
            assert response.status_code == 404, (path, project)
            told.add(error["message"])
    assert len(told) == 1
    assert system.entities.told == []


async def test_an_admin__sees_no_other_users_project_either(door, names):
    response = await door.get(f"/api/v1/projects/{names.project}", headers={"authorization": "Bearer bob-token"})
    assert response.status_code == 404


# Errors


async def test_unknown_address_and_wrong_method__have_the_common_shape(door):
    assert (await door.get("/nothing/here")).status_code == 404
    assert error_of(await door.get("/nothing/here"))["code"] == "not_found"
    wrong = await door.delete("/api/v1/projects/x/receipt")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotEnoughCreditsError("Too little.", "Ask."), 402),
        (ConflictError("One at a time.", "Wait."), 409),
        (NoProviderError("None.", "export OPENAI_API_KEY=..."), 503),
        (UnavailableError("Moving.", "Try again."), 503),
    ],
)
async def test_what_the_session_refuses__reaches_the_user_as_it_was_said(door, system, error, status):
    system.entities.raises = [error]
    response = await door.post("/api/v1/projects", json={"brief": "An app."})
    assert response.status_code == status
    told = error_of(response)
    assert (told["message"], told["charged"], told["next"]) == (str(error), error.charged, error.next_step)
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (OverloadedError("Too many wait.", retry_after_s=2.2), "3"),
        (OverloadedError("Too many wait.", retry_after_s=0.01), "1"),
        (MovedError("It lives elsewhere now.", "Try again."), "1"),
        (EntityFailedError("It failed.", "Try again."), "5"),
    ],
)
async def test_what_is_worth_trying_again__says_when(door, system, error, seconds):
    system.entities.raises = [error]
    response = await door.post("/api/v1/projects", json={"brief": "An app."})
    assert (response.status_code, error_of(response)["code"]) == (503, error.code)
    assert response.headers["retry-after"] == seconds


async def test_quarantine__is_told_and_nobody_is_invited_to_try_again(door, system):
    system.entities.raises = [QuarantinedError("project:x is set aside.", "An operator lifts it.")]
    response = await door.post("/api/v1/projects", json={"brief": "An app."})
    assert (response.status_code, error_of(response)["code"]) == (503, "quarantined")
    assert "retry-after" not in response.headers
    assert response.headers["x-should-retry"] == "false"


async def test_unforeseen_error__leaks_nothing_to_the_user_or_the_log(door, system, caplog):
    system.entities.raises = [RuntimeError("sk-secret and what the user wrote")]
    with caplog.at_level(logging.INFO, logger="masterbuilder.http"):
        response = await door.post("/api/v1/projects", json={"brief": "An app of mine."})
    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "masterbuilder.http"]
    assert [line["event"] for line in lines] == ["unforeseen", "request"]
    assert lines[0]["error"] == "RuntimeError"
    assert any("conftest.py" in frame for frame in lines[0]["frames"])
    for secret in ("sk-secret", "what the user wrote", "An app of mine", "ann-token"):
        assert secret not in response.text
        assert secret not in caplog.text


async def test_log__names_the_route_and_not_the_project(door, names, caplog):
    with caplog.at_level(logging.INFO, logger="masterbuilder.http"):
        response = await door.get(f"/api/v1/projects/{names.project}")
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "masterbuilder.http"]
    assert line["route"] == "/api/v1/projects/{project}"
    assert (line["status"], line["request_id"]) == (200, response.headers["x-request-id"])


async def test_request_id__of_the_caller_is_kept_if_it_is_harmless(door):
    assert (await door.get("/live", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for odd in ("x" * 65, "a b", "<script>", ""):
        assert (await door.get("/live", headers={"x-request-id": odd})).headers["x-request-id"] != odd


def test_every_error_of_ours__has_an_answer():
    from serve_apps.answers import error_body, status_of

    def kinds(kind):
        return [kind, *(each for child in kind.__subclasses__() for each in kinds(child))]

    for kind in kinds(MasterbuilderError):
        error = kind("What happened.", "What to do.")
        assert 400 <= status_of(error) <= 503
        assert error_body(error, "r")["error"]["message"] == "What happened. What to do."


# Wallet and projects


async def test_me__shows_the_wallet_in_credits_and_microcredits(door):
    assert (await door.get("/api/v1/me")).json() == {
        "user": "ann",
        "is_admin": False,
        "role": "FULL_ACCESS",
        "email": "ann@example.org",
        "subscription_tier": None,
        "expires_at": None,
        "registered_at": "2026-11-21T12:00:00+00:00",
        "purge_after_days": 30,
        "balance_credits": "100.00",
        "held_credits": "1.50",
        "free_credits": "98.50",
        "balance_ucredits": 100_000_000,
        "held_ucredits": 1_500_000,
    }


async def test_open__takes_json_and_answers_with_the_project(door, system, names):
    body = {"brief": " An app. ", "answers": {"features": "sums"}, "max_credits": 50, "confirm": True}
    response = await door.post("/api/v1/projects", json=body, headers={"idempotency-key": "k-1"})
    assert (response.status_code, response.json()["id"]) == (202, names.project)
    ((entity, message),) = system.entities.told
    assert entity == "user:ann"
    assert message == OpenProject(
        key="http/open/k-1",
        brief="An app.",
        answers={"features": "sums"},
        max_ucredits=50_000_000,
        confirmed=True,
    )


async def test_open__takes_yaml_of_any_or_no_content_type(door, system):
    text = "brief: |\n  An app.\n  Two lines.\nanswers:\n  budget: small\nmax_credits: '12.5'\n"
    for kind in ("application/yaml", "text/plain", "application/x-www-form-urlencoded"):
        assert (await door.post("/api/v1/projects", content=text, headers={"content-type": kind})).status_code == 202
    message = system.entities.told[-1][1]
    assert message.brief == "An app.\nTwo lines."
    assert (message.max_ucredits, message.confirmed) == (12_500_000, False)


async def test_open__without_a_key_is_a_new_request_each_time(door, system):
    for _ in range(2):
        await door.post("/api/v1/projects", json={"brief": "An app."})
    one, two = (message.key for _, message in system.entities.told)
    assert one != two


async def test_project__is_shown_in_full(door, names):
    shown = (await door.get(f"/api/v1/projects/{names.project}")).json()
    assert shown == {
        "id": names.project,
        "title": "Ünï `app`",
        "status": "implementing",
        "question": None,
        "scope": None,
        "quote_credits": "12.34",
        "ceiling_credits": None,
        "spent_credits": "0.07",
        "spent_ucredits": 67_500,
        "spent_usd": "0.000450",
        "spent_pusd": 450_000_000,
        "tasks": [
            {"id": "T-001", "title": "a", "phase": "1", "state": "done", "attempts": 1, "reason": ""},
            {"id": "T-002", "title": "a", "phase": "1", "state": "open", "attempts": 1, "reason": ""},
        ],
        "tasks_done": 1,
        "tasks_total": 2,
        "current_todo_markdown": None,
        "codebase_index_status": "not_indexed",
        "known_gaps": [],
        "phase": 0,
        "phases": [],
        "asks": None,
        "possible": [],
        "changes": [],
        "gaps": [],
        "activity": [],
        "failure_reason": None,
        "package": None,
        "repository_url": None,
        "created_at": "2026-11-21T12:00:00+00:00",
        "updated_at": "2026-11-21T12:00:00+00:00",
        "completed_at": None,
        "ended_at": None,
        "purge_at": None,
        "last_seq": 3,
    }
    assert (await door.get("/api/v1/projects")).json() == {"projects": [shown]}


async def test_feedback__of_a_delivered_project_is_kept(door, system, names):
    system.reports = Judgements()
    url = f"/api/v1/projects/{names.project}/feedback"
    early = await door.post(url, json={"score": 5})
    assert (early.status_code, early.json()["error"]["code"]) == (409, "conflict")
    completed = replace(system.entities.views[names.project], status=Status.COMPLETED)
    system.entities.views[names.project] = completed
    assert (await door.post(url, json={"score": 4, "text": " neat "})).json() == {
        "project": names.project,
        "score": 4,
        "text": "neat",
    }
    for body in ({}, {"score": 0}, {"score": 6}, {"score": 4.5}, {"score": True}, {"score": 4, "text": "x" * 4_001}):
        assert (await door.post(url, json=body)).status_code == 400
    assert (await door.post(f"/api/v1/projects/{names.bobs}/feedback", json={"score": 1})).status_code == 404
    (said,) = system.reports.said
    assert (said.project, said.user, said.score, said.text) == (names.project, "ann", 4, "neat")


class Judgements:
    def __init__(self) -> None:
        self.said: list[Feedback] = []

    async def rate(self, feedback: Feedback) -> None:
        self.said.append(feedback)


async def test_list__shows_a_project_in_quarantine_with_what_it_cost(door, system, names):
    system.entities.quarantined.add(f"project:{names.project}")
    (row,) = (await door.get("/api/v1/projects")).json()["projects"]
    assert (row["id"], row["status"], row["title"]) == (names.project, "quarantined", "x")
    assert (row["spent_ucredits"], row["spent_usd"]) == (67_500, "0.000450")
    assert "set aside" in row["failure_reason"]


async def test_messages__reach_the_project_under_the_requests_key(door, system, names):
    base = f"/api/v1/projects/{names.project}"
    key = {"idempotency-key": "finished"}
    for action, body in (
        ("answers", {"text": "blue"}),
        ("confirm", {"accept": False, "change": "cheaper"}),
        ("cancel", None),
        ("resume", {"max_credits": "20"}),
        ("resume", None),
        ("pause", None),
        ("change", {"text": "rounder"}),
        ("retry", {"task": "T-004"}),
        ("skip", {"task": "T-004", "reason": "late", "with_dependents": True}),
        ("approve", {"about": "plan/1"}),
        ("reject", {"text": "smaller"}),
        ("rewind", {"phase": 2}),
    ):
        response = await door.post(f"{base}/{action}", json=body, headers=key)
        assert (response.status_code, response.json()["id"]) == (200, names.project)
    assert [message for _, message in system.entities.told] == [
        Answer(key="http/answer/finished", text="blue"),
        Confirm(key="http/confirm/finished", accept=False, change="cheaper"),
        Cancel(key="http/cancel/finished"),
        Resume(key="http/resume/finished", ceiling_ucredits=20_000_000),
        Resume(key="http/resume/finished", ceiling_ucredits=None),
        Pause(key="http/pause/finished"),
        Change(key="http/change/finished", text="rounder"),
        Retry(key="http/retry/finished", task="T-004"),
        Skip(key="http/skip/finished", task="T-004", reason="late", with_dependents=True),
        Approve(key="http/approve/finished", about="plan/1"),
        Reject(key="http/reject/finished", text="smaller"),
        Rewind(key="http/rewind/finished", phase=2),
    ]
    assert {entity for entity, _ in system.entities.told} == {f"project:{names.project}"}


# What is refused


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "brief"),
        ({"brief": "   "}, "brief"),
        ({"brief": 5}, "brief"),
        ({"brief": "a\0b"}, "NUL"),
        ({"brief": "x", "surprise": 1}, "surprise"),
        ({"brief": "x", "answers": {"colour": "red"}}, "'audience', 'platforms', 'features'"),
        ({"brief": "x", "answers": {"budget": ""}}, "answers.budget"),
        ({"brief": "x", "answers": ["budget"]}, "answers"),
        ({"brief": "x", "max_credits": 0}, "max_credits: must be more than 0"),
        ({"brief": "x", "max_credits": -1}, "max_credits"),
        ({"brief": "x", "max_credits": "many"}, "max_credits"),
        ({"brief": "x", "max_credits": True}, "max_credits"),
        ({"brief": "x", "max_credits": "NaN"}, "max_credits"),
        ({"brief": "x", "max_credits": "1e999999999"}, "max_credits"),
        ({"brief": "x", "max_credits": 0.0000001}, "max_credits"),
        ({"brief": "x", "confirm": "yes"}, "confirm"),
    ],
)
async def test_open__of_what_does_not_fit_is_400_and_names_it(door, system, body, named):
    response = await door.post("/api/v1/projects", json=body)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "bad_input")
    assert named in error["message"]
    assert system.entities.told == []


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("content", "kind", "named"),
    [
        (b"brief: [unclosed", "application/yaml", "line"),
        (b"brief: x\n\tanswers: y", "application/yaml", "line 2"),
        (b'{"brief": "x",}', "application/json", "line 1"),
        (b"\xff\xfe\x00", "application/yaml", "UTF-8"),
        (b"- a\n- b\n", "application/yaml", "object"),
        (b"just words", "text/plain", "object"),
        (b"brief: !!python/object/apply:os.system ['id']", "application/yaml", "YAML"),
        (BOMB.encode(), "application/yaml", "alias"),
        (b"&a [*a]", "application/yaml", "alias"),
        (b"[" * 100_000, "application/yaml", "nest"),
        (b"[" * 100_000, "application/json", "nested"),
        (b'{"brief":' * 100_000, "application/json", "nested"),
        (b"brief: 2020-13-45", "application/yaml", "malformed"),
        (b"max_credits: " + b"9" * 5000, "application/yaml", "malformed"),
        (b'{"brief": "\\ud800"}', "application/json", "brief"),
        (b"1: 2", "application/yaml", "object"),
        (b"", "application/json", "brief"),
        (b"a: 1\n---\nb: 2\n", "application/yaml", "YAML"),
    ],
)
async def test_open__of_what_cannot_be_read_is_400_and_says_where(door, system, content, kind, named):
    response = await door.post("/api/v1/projects", content=content, headers={"content-type": kind})
    assert response.status_code == 400
    assert named in error_of(response)["message"]
    assert len(response.content) < 3000
    assert system.entities.told == []


async def test_open__of_too_much_is_413_and_says_the_bound(door, system):
    long = await door.post("/api/v1/projects", json={"brief": "ü" * 1001})
    assert long.status_code == 413
    assert "2002 bytes; at most 2000" in error_of(long)["message"]
    assert (await door.post("/api/v1/projects", json={"brief": "ü" * 1000})).status_code == 202
    huge = await door.post("/api/v1/projects", content=b"x" * (1 << 20) + b"x")
    assert huge.status_code == 413
    assert str(1 << 20) in error_of(huge)["message"]


async def test_body__of_unknown_length_is_bounded_too(door):
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 1 << 16
            yield b"x" * (1 << 16)

    assert (await door.post("/api/v1/projects", content=endless())).status_code == 413
    assert read < 2 << 20


@pytest.mark.parametrize("key", ["", " ", "x" * 201, "a b"])
async def test_idempotency_key__that_is_unusable_is_refused(door, key):
    response = await door.post("/api/v1/projects", json={"brief": "x"}, headers={"idempotency-key": key})
    assert response.status_code == 400
    assert "Idempotency-Key" in error_of(response)["message"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), json_type=st.booleans())
async def test_open__of_any_bytes_is_answered_in_shape(door, content, json_type):
    kind = "application/json" if json_type else "application/yaml"
    response = await door.post("/api/v1/projects", content=content, headers={"content-type": kind})
    assert response.status_code in (202, 400)
    if response.status_code == 400:
        error_of(response)


# Package and receipt


async def test_package__before_it_is_ready_is_409(door, names):
    response = await door.get(f"/api/v1/projects/{names.project}/package")
    assert (response.status_code, error_of(response)["code"]) == (409, "conflict")


async def test_package__is_the_zip_with_its_checksum_and_a_safe_name(door, system, names):
    ready = replace(system.entities.views[names.project], package=names.package_view)
    system.entities.views[names.project] = ready
    response = await door.get(f"/api/v1/projects/{names.project}/package")
    assert response.content == names.package
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["x-sha256"] == names.package_view.sha256
    assert response.headers["content-disposition"] == 'attachment; filename="n-app.zip"'
    shown = (await door.get(f"/api/v1/projects/{names.project}")).json()
    assert shown["package"]["url"] == f"/api/v1/projects/{names.project}/package"


async def test_receipt__comes_as_json_text_or_csv_with_the_same_figures(door, names):
    path = f"/api/v1/projects/{names.project}/receipt"
    as_json = (await door.get(path)).json()
    assert as_json["total_cost_usd"] == "0.000450"
    assert (as_json["total_credits"], as_json["total_ucredits"]) == ("0.07", 67_500)
    assert as_json["charged"][0]["call"] == "r/1"
    assert as_json["charged"][0]["at"] == "2026-11-21T12:00:00+00:00"
    assert as_json["losses"][0]["outcome"] == "provider_failed"
    as_text = await door.get(path, params={"format": "text"})
    assert as_text.headers["content-type"].startswith("text/plain")
    assert "Total: 0.07 credits for 0.000450 USD of model calls." in as_text.text
    as_csv = await door.get(path, params={"format": "csv"})
    header, charged, lost = as_csv.text.strip().splitlines()
    assert header.split(",") == ["list", *as_json["charged"][0]]
    assert charged.startswith("charged,r/1,")
    assert lost.startswith("losses,r/2,")
    assert (await door.get(path, params={"format": "pdf"})).status_code == 400


def _routes():
    """Every route that wants a token, with its method; ids are left for the test to fill in."""
    every = [*router.routes, *admin_routes.router.routes, *delivery_routes.router.routes]
    without = ("/live", "/health", "/api/v1/downloads")
    routes = [route for route in every if not route.path.startswith(without)]
    assert len(routes) == 26
    return [(method, route.path) for route in routes for method in route.methods]


async def test_token_with_terms__opens_no_build_that_would_spend_past_them(door, system) -> None:
    token = token_hash("ann-token")
    system.ledger.tokens[token] = replace(system.ledger.tokens[token], terms=TokenTerms(budget_ucredits=1))
    assert (await door.post("/api/v1/projects", json={"brief": "A list."})).status_code == 403
    assert (await door.get("/api/v1/me")).status_code == 403
